"""An installation that is given another name while a run of it is open: the run waits for it, or is cancelled."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.outcome import Outcome
from bot.core.question import Output
from bot.engine import astray
from tests.engine.lamps import ANA, BO, Room, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def asked(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Room, int]]:
    """A run that waits for an approval, and nobody at work: `serve` is being started again."""
    monkeypatch.setattr(astray, "LOOKED_FOR_EVERY", timedelta(seconds=0.2))
    with room(database) as made:
        made.set_to_work()
        run = made.order()
        made.asked(run)
        made.workers.pop().stop()
        yield made, run


def renamed(made: Room) -> None:
    made.set_to_work(replace(made.engine, diagnosers={"house": made.engine.diagnosers["home"]}))


def cancel(made: Room, run: int) -> None:
    with made.durable.transaction() as tx:
        assert made.store.cancel(tx, run, ANA)
        made.durable.wake(tx, made.run(run).task)


def awaited(made: Room, run: int) -> str:
    """What the run says that it waits for, after the first look."""
    return str(until(lambda: [each.data["for"] for each in made.story(run, "waiting")][1:], 15, "it waits")[0])


def test_it_says_which_installation_and_what_to_do(asked: tuple[Room, int]) -> None:
    made, run = asked
    renamed(made)
    made.click(made.asked(run), BO)
    assert awaited(made, run) == (
        f"installation home, which the configuration no longer has: put the name back, or `cancel {run}`"
    )
    assert not [each for each in made.story(run, "note") if "failed" in each.data["text"]]
    assert made.sent() == []


def test_with_the_name_back_it_goes_on(asked: tuple[Room, int]) -> None:
    made, run = asked
    renamed(made)
    made.click(made.asked(run), BO)
    awaited(made, run)
    made.workers.pop().stop()

    def tapped(machine: str, command: str) -> Output:
        light(made, machine, "bright")
        return Output(0)

    made.machines.on_send = tapped
    made.set_to_work()
    assert made.outcome(run) is Outcome.FIXED
    assert made.sent() == ["tap"]


def test_cancelled_it_ends_and_nothing_was_changed(asked: tuple[Room, int]) -> None:
    made, run = asked
    renamed(made)
    made.click(made.asked(run), BO)
    awaited(made, run)
    cancel(made, run)
    ended = made.ended(run)
    assert (ended.outcome, ended.summary) == (Outcome.CANCELLED, "Cancelled. Nothing was changed.")


def test_cancelled_after_a_change_it_denies_nothing(asked: tuple[Room, int]) -> None:
    made, run = asked
    made.set_to_work()
    made.click(made.asked(run), BO)
    made.plan_no(run, 2)  # the first did not help
    made.workers.pop().stop()
    renamed(made)
    cancel(made, run)
    ended = made.ended(run)
    assert ended.outcome is Outcome.CANCELLED
    assert ended.summary == (
        "Cancelled. The configuration no longer has the installation home, so nothing was looked at again or put back; "
        "what was sent before: hall: Tap (done) and hall: Let go (done)."
    )
    assert made.open_ask(run) is None


def test_cancelled_with_a_change_of_which_nobody_knows_it_is_in_doubt(asked: tuple[Room, int]) -> None:
    made, run = asked
    made.machines.on_send = lambda machine, command: Output(None)  # the connection broke
    made.set_to_work()
    made.click(made.asked(run), BO)
    made.doubt(run)
    made.workers.pop().stop()
    renamed(made)
    cancel(made, run)
    ended = made.ended(run)
    assert ended.outcome is Outcome.IN_DOUBT
    assert "what was sent before: hall: Tap (in doubt)" in ended.summary
