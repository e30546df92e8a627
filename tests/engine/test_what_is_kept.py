"""What the journal keeps holds no secret, nothing that cannot be stored, and no endless text."""

from collections.abc import Iterator

import pytest

from bot.core.finding import Finding, Severity
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.question import Output
from bot.core.target import Role, Target
from tests.engine.lamps import BO, Room, lamp, light, room, screw

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


def talkative(look: Look, machine: Target) -> Iterator[Finding]:
    said = look(lamp(machine))
    if said != "bright":
        yield Finding("lamp.odd", Severity.BROKEN, machine, f"it says {said}", said, fixes=(screw(machine),))


@pytest.fixture
def odd(database: str) -> Iterator[Room]:
    with room(database) as made:
        made.engine.catalogue.add(Diagnosis("talkative", "oddness", Role.WORKER, "Is it odd?", talkative), "e")
        made.set_to_work()
        yield made


def checkpoints(made: Room) -> str:
    with made.pool.connection() as connection:
        return str(connection.execute("SELECT state FROM absurd.c_opsbot").fetchall())


def test_no_secret_is_kept(odd: Room) -> None:
    light(odd, "hall", "dark open sesame")
    run = odd.order("oddness")
    odd.click(odd.asked(run), BO)
    odd.ended(run)
    assert "open sesame" not in checkpoints(odd)


def test_what_cannot_be_stored_does_not_fail_the_run(odd: Room) -> None:
    light(odd, "hall", "dark\0 and \ud800 odd")

    def lit(machine: str, command: str) -> Output:
        light(odd, machine, "bright")
        return Output(0)

    odd.machines.on_send = lit
    run = odd.order("oddness", targets=("hall",))
    odd.click(odd.asked(run), BO)
    assert odd.outcome(run) is not Outcome.FAILED


def test_evidence_is_capped(odd: Room) -> None:
    light(odd, "hall", "dark " + "very " * 100_000)
    run = odd.order("oddness")
    odd.asked(run)
    (finding,) = odd.story(run, "finding")
    assert len(finding.data["evidence"]) < 10_000
    assert len(finding.data["title"]) < 2_000
    assert len(checkpoints(odd)) < 100_000
