"""What `runs`, `show` and a typed decision say of a run."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bot.cli.screen import story
from bot.core.errors import Refused
from bot.core.finding import Finding, Severity
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.people import Actor
from bot.core.request import Ask, Request
from bot.core.target import Role, Target
from tests.engine.lamps import ANA, BO, GUS, TEAM, Room, lamp, light, room, screw, tap

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def made(database: str) -> Iterator[Room]:
    def look(look: Look, machine: Target) -> Iterator[Finding]:
        if look(lamp(machine)) == "dark":
            fix = replace(tap(machine), saves=screw(machine).saves)
            yield Finding("lamp.poor", Severity.BROKEN, machine, "poor", fixes=(fix,))

    with room(database) as made:
        made.engine.catalogue.add(Diagnosis("dim", "poor light", Role.WORKER, "Is it dim?", look), "e")
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
    assert said(made, Ask.RUNS).partition(" — ")[2].startswith("Cancelled by ")


def test_what_was_found_is_listed_with_its_outcome(made: Room) -> None:
    light(made, "attic", "no fuse")
    run = made.order(look_only=True)
    ended = made.ended(run)
    assert ended.summary == "Found: hall is dark; attic has no fuse."
    assert said(made, Ask.RUNS).endswith(f"— found, nothing changed: {ended.summary}")


def test_who_approves_from_a_terminal_sees_all_that_slack_shows(made: Room) -> None:
    run = made.order("poor light")
    whole = made.asked(run).ask.text
    (plan,) = made.story(run, "plan")
    terminal = "\n".join(story({"event": "plan", "run": run, **plan.data}))
    every = ("machine: home/hall 10.0.0.0:22 SHA256:hall", "save first: light of hall", "Tap: tap",
             "if it ends early: Let go: untap", "undo: untap it")  # fmt: skip
    for part in every:
        assert part in whole
        assert part in terminal


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


def helped(made: Room, who: Actor, word: str = "") -> str:
    return made.desk.now(Request(Ask.HELP, subject=word), who).text


def test_help_has_nothing_that_its_reader_may_not_do(made: Room) -> None:
    assert "`approve N" in helped(made, BO)
    assert "`approve N" not in helped(made, GUS), "no approver"
    assert "`cancel N`" in helped(made, GUS)
    anybody = helped(made, Actor(TEAM, "uid:1000", "cli"))
    assert "`diagnose …`" in anybody
    assert "`runs`" in anybody
    for order in ("`screw`", "`count`", "`cancel N`", "`approve N", "`done N`"):
        assert order not in anybody
    made.people.away = True
    assert "`approve N" in helped(made, BO), "nobody can say who approves, so the row decides"


def test_help_says_when_it_has_no_such_word(made: Room) -> None:
    said = helped(made, ANA, "zz`z")
    assert said.startswith("Nothing that you can ask is about `zzz`. There is:\n`diagnose …`")
    assert "Screw it in" not in said


def test_who_is_barred_cancels_nothing_from_a_terminal_either(made: Room) -> None:
    run = made.order()
    made.asked(run)
    made.people.guests.add("UGUS")
    with pytest.raises(Refused, match="Not allowed: guests may not use opsbot"):
        made.desk.now(Request(Ask.CANCEL, number=run), replace(GUS, via="cli"))
    assert made.run(run).cancelled_by is None
    with made.pool.connection() as connection:
        (row,) = connection.execute(
            'SELECT detail FROM opsbot.audit WHERE what = %s AND "user" = %s', ["refused", "UGUS"]
        )
    assert "guests may not use opsbot" in row["detail"]


def test_who_could_be_anybody_can_look_and_no_more(made: Room) -> None:
    anybody = Actor(TEAM, "uid:1000", "cli")
    restart = Request(Ask.CAN, "act", "screw", ("hall",), "home")
    said = made.desk.now(restart, anybody)
    assert (said.data["can"], said.text.startswith("No: no person stands behind it")) == (False, True)
    assert made.desk.now(Request(Ask.CAN, "diagnose", "darkness", (), "home"), anybody).data["can"] is True
    assert made.desk.now(restart, ANA).data["may_approve"] is True
