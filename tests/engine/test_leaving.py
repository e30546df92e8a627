"""A process that is told to stop: it ends the change under way, and leaves everything else to another one."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from bot.core.outcome import Outcome
from bot.core.question import Output
from tests.engine.lamps import BO, Room, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def slow(database: str) -> Iterator[tuple[Room, list[bool]]]:
    """A room in which a tap takes a second, unless it is cut off; and whether it was."""
    cut: list[bool] = []
    with room(database) as made:

        def tapped(machine: str, command: str) -> Output:
            if command != "tap":
                return Output(0)
            cut.append(made.machines.abort.wait(1))
            light(made, machine, "bright")
            return Output(None if cut[-1] else 0)

        made.machines.on_send = tapped
        made.set_to_work()
        yield made, cut


def begun(made: Room) -> int:
    run = made.order()
    made.click(made.asked(run), BO)
    until(lambda: "tap" in made.sent(), 15, "the change is under way")
    return run


def test_a_change_under_way_is_ended_first_and_becomes_no_doubt(slow: tuple[Room, list[bool]]) -> None:
    made, cut = slow
    run = begun(made)
    made.workers.pop().stop(changes=timedelta(seconds=30))
    assert cut == [False]
    assert [event.data["result"] for event in made.story(run, "change")] == ["sent", "done"]
    assert made.run(run).outcome is None, "the rest is another one's"
    made.set_to_work()
    assert made.outcome(run) is Outcome.FIXED
    assert made.sent() == ["tap"]


def test_one_that_takes_too_long_is_cut_off_and_is_a_doubt(slow: tuple[Room, list[bool]]) -> None:
    made, cut = slow
    run = begun(made)
    made.workers.pop().stop(changes=timedelta(seconds=0.2))
    assert cut == [True]
    made.set_to_work()
    assert "Did this happen?" in made.doubt(run).ask.title
    assert made.sent() == ["tap"]
