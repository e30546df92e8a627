"""The last word of a run is true: what was sent is said, whatever came of it."""

from collections.abc import Iterator

import pytest

from bot.core.outcome import Outcome
from bot.core.question import Output
from tests.engine.lamps import ANA, BO, Room, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def stubborn(database: str) -> Iterator[Room]:
    """A room where nothing helps, and somebody is at work."""
    with room(database) as made:
        made.set_to_work()
        yield made


def test_unfixed_names_what_was_tried(stubborn: Room) -> None:
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    stubborn.click(stubborn.plan_no(run, 2), BO)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.UNFIXED
    assert "Nothing was changed" not in ended.summary
    assert "Tap the lamp" in ended.summary
    assert "Screw the bulb in" in ended.summary


def test_cancelled_after_a_change_does_not_deny_it(stubborn: Room) -> None:
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    stubborn.plan_no(run, 2)
    with stubborn.durable.transaction() as tx:
        assert stubborn.store.cancel(tx, run, ANA)
        stubborn.durable.wake(tx, stubborn.run(run).task)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.CANCELLED
    assert "Nothing was changed" not in ended.summary
    assert "Tap the lamp" in ended.summary


def test_what_heals_after_the_wait_was_over_is_fixed(stubborn: Room) -> None:
    def late(machine: str, command: str) -> Output:
        if command == "untap":  # only now it lights up
            light(stubborn, machine, "bright")
        return Output(0)

    stubborn.machines.on_send = late
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.FIXED
    assert "Tap the lamp" in ended.summary


def test_a_machine_that_does_not_come_back_is_not_only_unseen(stubborn: Room) -> None:
    def gone(machine: str, command: str) -> Output:
        stubborn.machines.away = {machine}
        return Output(0)

    stubborn.machines.on_send = gone
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.UNFIXED
    assert "Tap the lamp" in ended.summary
    assert "does not answer" in ended.summary


def test_what_certainly_was_not_sent_needs_no_tidying_up(stubborn: Room) -> None:
    send = stubborn.machines.send

    def refuse(*given: object, **more: object) -> Output:
        stubborn.machines.send = send  # type: ignore[method-assign]
        stubborn.machines.away = {"hall"}
        try:
            return send(*given, **more)  # type: ignore[arg-type]
        finally:
            stubborn.machines.away = set()

    stubborn.machines.send = refuse  # type: ignore[method-assign]
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    until(lambda: stubborn.open_ask(run) and stubborn.plan_no(run, 2), 15, "it is proposed again")
    assert stubborn.sent() == []
