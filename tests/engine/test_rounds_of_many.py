"""Rounds over several platforms and many machines: who answers for a role, and what explains what."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from threading import Event

import pytest

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.handler import Action, Diagnosis
from bot.core.look import CannotLook, Look
from bot.core.plan import Plan, plan_from_json
from bot.core.question import Output
from bot.core.sql import Query, Statement
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser, Report
from bot.engine.words import plan_text
from tests.engine.machines import Machines

HALL, ATTIC = (Target(name, Role.WORKER, "home", name) for name in ("hall", "attic"))
ONE, TWO = (Target(name, Role.PLATFORM, "home", name) for name in ("one", "two"))
SITE = Site("home", "example.com", "2.2", (ONE, TWO, HALL, ATTIC))


@fact
def load() -> Fact[int]:
    return Fact("load", Role.PLATFORM, sh("load"), lambda said: int(said.out))


@fact
def queue() -> Fact[str]:
    return Fact("queue", Role.PLATFORM, sh("queue"), lambda said: str(said.out))


@fact
def state(machine: Target) -> Fact[str]:
    return Fact(f"state of {machine}", machine, sh("state"), lambda said: str(said.out.strip()))


def busy(look: Look, machine: Target) -> Iterator[Finding]:
    if look(queue()) == "long" and look(load()) > 3:
        yield Finding("grid.busy", Severity.WARN, machine, "busy")


def stopped(look: Look, machine: Target) -> Iterator[Finding]:
    if look(state(machine)) == "stopped":
        yield Finding("worker.stopped", Severity.BROKEN, machine, "stopped")


def lost(look: Look, machine: Target) -> Iterator[Finding]:
    if look(state(machine)) in ("stopped", "lost"):
        yield Finding("worker.lost", Severity.BROKEN, machine, "lost")


def twice(look: Look, machine: Target) -> Iterator[Finding]:
    if look(state(machine)) == "lost":
        yield Finding("net.name", Severity.BROKEN, machine, "no name")
        yield Finding("net.route", Severity.BROKEN, machine, "no route")


STOPPED = Diagnosis("stopped", "x", Role.WORKER, "Is it stopped?", stopped)
LOST = Diagnosis("lost", "x", Role.WORKER, "Is it lost?", lost, unless=("worker.stopped", "net.*"))
TWICE = Diagnosis("twice", "x", Role.WORKER, "Is the net well?", twice, unless=("net.*",))
BUSY = Diagnosis("busy", "x", Role.WORKER, "Is it busy?", busy)


def look(machines: Machines, *diagnoses: Diagnosis, at: Sequence[Target] = (HALL, ATTIC)) -> Report:
    return diagnoser(machines).look(diagnoses, at, Event())


def diagnoser(machines: Machines) -> Diagnoser:
    return Diagnoser(SITE, machines, lambda target, question, span: None)


def test_another_platform_answers_when_the_first_is_silent() -> None:
    machines = Machines({"two": {"queue": "long", "load": "5"}}, away={"one"})
    report = look(machines, BUSY, at=(HALL,))
    assert [found.finding.cause for found in report.findings] == ["grid.busy"]
    assert machines.asked.count(("one", "queue")) == 1
    assert ("one", "load") not in machines.asked  # it was silent a moment ago
    assert diagnoser(machines).answer(load(), Event()) == 5


def test_no_platform_at_all_is_said_of_the_first() -> None:
    report = look(Machines(away={"one", "two"}), BUSY, at=(HALL,))
    assert [found.finding.cause for found in report.findings] == ["platform.unreachable"]
    with pytest.raises(CannotLook):
        diagnoser(Machines(away={"one", "two"})).answer(load(), Event())


def test_one_worker_does_not_explain_another_away() -> None:
    report = look(Machines({"hall": {"state": "stopped"}, "attic": {"state": "lost"}}), STOPPED, LOST)
    own = [(found.finding.cause, found.finding.target.name) for found in report.troubles()]
    assert sorted(own) == [("worker.lost", "attic"), ("worker.stopped", "hall")]


def test_findings_of_one_diagnosis_do_not_explain_each_other_away() -> None:
    report = look(Machines({"hall": {"state": "lost"}}), TWICE, at=(HALL,))
    assert [found.finding.cause for found in report.troubles()] == ["net.name", "net.route"]


def test_a_consequence_of_a_consequence_stands_under_what_began_it_all() -> None:
    def late(look: Look, machine: Target) -> Iterator[Finding]:
        if look(state(machine)) == "stopped":
            yield Finding("jobs.late", Severity.BROKEN, machine, "late")

    last = Diagnosis("late", "x", Role.WORKER, "Are jobs late?", late, unless=("worker.lost",))
    report = look(Machines({"hall": {"state": "stopped"}}), last, LOST, STOPPED, at=(HALL,))
    assert {found.finding.cause: found.under for found in report.findings} == {
        "jobs.late": "worker.stopped",
        "worker.lost": "worker.stopped",
        "worker.stopped": "",
    }


def test_an_answer_that_cannot_be_read_is_unknown() -> None:
    machines = Machines({"one": {"load": "much"}})
    with pytest.raises(Unknown, match="load"):
        diagnoser(machines).answer(load(), Event())


def test_an_answer_that_was_cut_is_not_read_as_a_whole() -> None:
    machines = Machines({"one": {"queue": Output(0, "short", truncated=True)}})
    report = look(machines, BUSY, at=(HALL,))
    assert report.findings == ()
    assert "cut" in report.unknown[0]


def test_two_queries_with_other_parameters_are_two_questions() -> None:
    assert str(Query("SELECT 1 WHERE 1 = %s", (1,))) != str(Query("SELECT 1 WHERE 1 = %s", (2,)))


def test_a_statement_shows_what_it_is_bound_to() -> None:
    shown = str(Statement("UPDATE jobs SET state = %s WHERE id = ANY(%s)", ("created", (7, 8)), "main", rows=2))
    assert "created" in shown
    assert "7, 8" in shown
    assert "2 rows" in shown


def test_a_long_plan_is_shown_whole() -> None:
    steps = tuple(Change(f"step {no}", sh("step", str(no))) for no in range(60))
    text = plan_text(Plan((Fix("a.b", "Much", HALL, steps, Risk.NONE),)))
    assert all(f"step {no}: step {no} " in text for no in range(60))


def rest_of(machine: Target) -> Fix:
    return Fix("a.b", "Rest", machine, (Wait(load(), equals(0), timedelta(minutes=1)),), Risk.NONE)


def test_a_fix_asks_the_machine_that_was_asked_when_it_was_made() -> None:
    """When the first platform answers again, it is still the second one's container that is waited for."""

    def short(look: Look, machine: Target) -> Iterator[Finding]:
        look(load())
        yield Finding("grid.busy", Severity.WARN, machine, "busy", fixes=(rest_of(machine),))

    machines = Machines({"one": {"load": "9"}, "two": {"load": "5"}}, away={"one"})
    report = look(machines, Diagnosis("short", "x", Role.WORKER, "Is it busy?", short), at=(HALL,))
    machines.away = set()
    plan = plan_from_json(Plan(report.findings[0].finding.fixes).to_json(), SITE)
    (wait,) = plan.fixes[0].steps
    assert isinstance(wait, Wait)
    assert diagnoser(machines).answer(wait.fact, Event()) == 5


def test_an_action_asks_the_platform_that_it_is_for() -> None:
    def rest(look: Look, machine: Target) -> Fix:
        return replace(rest_of(machine), title=f"Rest at {look(load())}")

    machines = Machines({"one": {"load": "9"}, "two": {"load": "5"}})
    fix = diagnoser(machines).fix(Action("rest", Role.PLATFORM, "", Risk.NONE, rest, makes="a.b"), TWO, "", Event())
    assert fix.title == "Rest at 5"
    assert [step.fact.on for step in fix.steps if isinstance(step, Wait)] == [TWO]
    assert [asked for asked in machines.asked if asked[0] == "one"] == []
