"""What `runs`, `show` and a typed decision say of a run."""

from collections.abc import Iterator

import pytest

from bot.core.errors import Refused
from bot.core.request import Ask, Request
from tests.engine.lamps import ANA, BO, Room, room

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def made(database: str) -> Iterator[Room]:
    with room(database) as made:
        made.set_to_work()
        yield made


def said(made: Room, ask: Ask, run: int | None = None) -> str:
    return made.desk.now(Request(ask, number=run), ANA).text


def test_a_run_that_waits_for_people_is_not_called_running(made: Room) -> None:
    run = made.order()
    made.asked(run)
    assert said(made, Ask.RUNS).endswith("— waiting for a decision")
    assert "— waiting for a decision\n" in said(made, Ask.SHOW, run)
    made.desk.file(Request(Ask.CANCEL, number=run), ANA, None, made.key())
    made.ended(run)
    assert "waiting for a decision" not in said(made, Ask.RUNS)


@pytest.mark.parametrize("ask", [Ask.APPROVE, Ask.DECLINE])
def test_deciding_about_a_run_that_never_was_says_so(made: Room, ask: Ask) -> None:
    with pytest.raises(Refused, match="There is no run 77"):
        made.desk.file(Request(ask, number=77, because="late"), BO, None, made.key())


def test_help_is_short_and_a_word_of_it_says_more(made: Room) -> None:
    short = said(made, Ask.HELP)
    assert "`diagnose …`, such as `diagnose darkness`: `darkness` (" in short
    assert "`screw`" in short
    assert "Screw it in" not in short
    assert len(short) < 1_500
    more = made.desk.now(Request(Ask.HELP, subject="screw"), ANA).text
    assert "`screw WORKER because TEXT`: Screw it in" in more
