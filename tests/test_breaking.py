"""What `/fault` and `opsbot try --fault` understand, and what they say when they do not."""

from typing import Any

import pytest

from bot import tryout
from bot.core.errors import Permanent
from bot.sandbox import breaking
from bot.sandbox.installation.faults import FAULTS


class Installation:
    """Remembers what it was told to break."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.told: list[str] = []
        self.said = said

    def inject(self, what: str) -> dict[str, Any]:
        self.told.append(what)
        return self.said


def test_every_fault_is_listed_and_can_be_said_as_it_is_listed() -> None:
    said = [each for faults in breaking.groups().values() for each, _ in faults]
    assert len(said) == len(FAULTS)
    assert [breaking.wrong(each) for each in said] == [""] * len(said)
    assert all(each in breaking.listing() for each in said)
    assert [item for group in breaking.menu() for item in group["items"]] == [f"/fault {each}" for each in said]


def test_a_fault_is_injected_and_told_in_a_sentence() -> None:
    machines = Installation({"fault": "has no RabbitMQ", "says": "RabbitMQ on the platform has stopped."})
    said = breaking.answer(" platform-1 has no RabbitMQ ", machines.inject)
    assert machines.told == ["platform-1 has no RabbitMQ"]
    assert said == (
        "Done: platform-1 has no RabbitMQ. RabbitMQ on the platform has stopped. "
        "opsbot was not told: it has to find out."
    )


def test_what_cannot_be_now_is_said() -> None:
    machines = Installation({"error": "nothing listens there any more"})
    said = breaking.answer("platform-1 has no RabbitMQ", machines.inject)
    assert said == "That cannot happen now: nothing listens there any more"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lost RabbitMQ", "Begin with a machine, one of worker-1, worker-2, worker-3, platform-1"),
        ("worker-2 lost rabitmq", "Did you mean `worker-2 lost RabbitMQ`"),
        ("worker-2 has no RabbitMQ", "`has no RabbitMQ` happens to a platform: platform-1."),
        ("worker-2 turned into a pumpkin at midnight", "There is no fault `turned into a pumpkin at midnight`."),
    ],
)
def test_what_is_no_fault_is_refused_with_what_there_is(text: str, said: str) -> None:
    machines = Installation({"says": "must not be asked"})
    assert said in breaking.answer(text, machines.inject)
    assert machines.told == []


def test_without_words_everything_is_listed() -> None:
    machines = Installation({"says": "must not be asked"})
    assert breaking.answer("", machines.inject) == breaking.listing()
    assert machines.told == []


def test_a_try_begins_with_what_was_asked_for() -> None:
    assert tryout.chosen(()) == (tryout.FAULT,)
    assert tryout.chosen(("nothing",)) == ()
    assert tryout.chosen(("worker-1 is stopped", tryout.OTHER)) == ("worker-1 is stopped", tryout.OTHER)


def test_a_try_refuses_a_fault_that_there_is_not_before_anything_starts() -> None:
    with pytest.raises(Permanent, match="Did you mean `worker-1 is stopped`"):
        tryout.run(tour=False, port=0, folder=None, speed=20.0, faults=("worker-1 is stoped",))
    with pytest.raises(Permanent, match="plays an incident of its own"):
        tryout.run(tour=True, port=0, folder=None, speed=20.0, faults=("worker-1 is stopped",))
