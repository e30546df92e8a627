"""A fix that writes to the database: committed, rolled back, or in doubt as any other change."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from bot.core.approval import Verdict
from bot.core.fix import Change, Fix, Risk
from bot.core.outcome import Outcome
from bot.core.question import Output
from bot.core.sql import Statement
from bot.core.target import Target
from tests.engine import lamps
from tests.engine.lamps import BO, CY, Room, light, room

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
SWITCH = Statement("UPDATE lamps SET lit = %s WHERE name = %s", (True, "hall"), rows=1)


def switch(machine: Target) -> Fix:
    change = Change("Switch it on in the database", SWITCH, within=timedelta(seconds=5))
    return Fix("lamp.switch", "Switch the lamp on", machine, (change,), Risk.DATA)


@pytest.fixture
def wired(database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    """A room whose gentlest fix is a row in a database; the other one is to screw the bulb in."""
    monkeypatch.setattr(lamps, "tap", switch)
    with room(database) as made:
        made.set_to_work()
        yield made


def says(made: Room, ended: Output, *, lit: bool) -> None:
    def written(machine: str, _command: str) -> Output:
        if lit:
            light(made, machine, "bright")
        return ended

    made.machines.on_send = written


def changes(made: Room, run: int) -> list[tuple[str, str]]:
    return [(event.data["result"], event.data["said"]) for event in made.story(run, "change")]


def test_the_rows_that_changed_are_told(wired: Room) -> None:
    says(wired, Output(0, "1 rows changed"), lit=True)
    run = wired.order()
    ask = wired.asked(run)
    assert str(SWITCH) in ask.ask.text
    assert wired.machines.sent == []
    wired.click(ask, BO)
    assert wired.outcome(run) is Outcome.FIXED
    assert changes(wired, run) == [("sent", ""), ("done", "1 rows changed")]
    assert wired.machines.sent == [("hall", str(SWITCH))]


def test_what_was_rolled_back_has_failed_and_the_next_fix_is_offered(wired: Room) -> None:
    says(wired, Output(1, err="nothing was changed: it would have changed 7 rows and not 1"), lit=False)
    run = wired.order()
    wired.click(wired.asked(run), BO)
    following = wired.plan_no(run, 2)
    assert "Screw the bulb in" in following.ask.text
    wired.click(following, BO, Verdict.DECLINE, "not tonight")
    wired.outcome(run)
    assert changes(wired, run)[1] == ("failed", "nothing was changed: it would have changed 7 rows and not 1")
    assert wired.machines.sent == [("hall", str(SWITCH))]


def test_a_commit_that_was_lost_is_asked_of_a_person_and_not_sent_again(wired: Room) -> None:
    says(wired, Output(None, err="the connection was lost in its commit"), lit=True)
    run = wired.order()
    wired.click(wired.asked(run), BO)
    wired.click(wired.doubt(run), CY, Verdict.DONE)
    assert wired.outcome(run) is Outcome.FIXED
    assert wired.machines.sent == [("hall", str(SWITCH))]
