"""Rounds: everything at once, as few turns as possible, and one machine's silence hides nothing about the others."""

from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Role, Site, Target
from bot.engine.policy import Policy, Rule
from bot.engine.rounds import Diagnoser, Found, Report
from tests.engine.machines import Machines

HALL, ATTIC = (Target(name, Role.WORKER, "home", name) for name in ("hall", "attic"))
GRID = Target("grid", Role.PLATFORM, "home", "grid")
SITE = Site("home", "example.com", "2.2", (GRID, HALL, ATTIC))


@fact
def heat(machine: Target) -> Fact[int]:
    return Fact(f"heat of {machine}", machine, sh("heat"), lambda said: int(said.out), sampled=True)


@fact
def power() -> Fact[str]:
    return Fact("power", Role.PLATFORM, sh("power"), lambda said: str(said.out))


@fact
def riddle(machine: Target) -> Fact[str]:
    def parse(said: Output) -> str:
        raise Unknown("nobody can read this")

    return Fact("riddle", machine, sh("riddle"), parse)


def cold(look: Look, machine: Target) -> Iterator[Finding]:
    if look(heat(machine)) < 10 and look(power()):
        fix = Fix("lamp.stoke", "Stoke", machine, (Change("stoke", sh("stoke")),), Risk.INTERRUPTS)
        yield Finding("lamp.cold", Severity.BROKEN, machine, f"{machine} is cold", fixes=(fix,))


def no_power(look: Look, machine: Target) -> Iterator[Finding]:
    if look(power()) == "off":
        yield Finding("grid.down", Severity.BROKEN, machine, "no power")


def puzzled(look: Look, machine: Target) -> Iterator[Finding]:
    look(riddle(machine))
    yield Finding("never", Severity.BROKEN, machine, "never")


def falling(look: Look, machine: Target) -> Iterator[Finding]:
    before = look.earlier(heat(machine), timedelta(minutes=5))
    now = look(heat(machine))
    if before is None:
        yield Finding("heat.unknown", Severity.INFO, machine, "not known yet")
    elif now < before:
        yield Finding("heat.falling", Severity.WARN, machine, f"from {before} to {now}")


COLD = Diagnosis("cold", "comfort", Role.WORKER, "Is it cold?", cold, unless=("grid.*",))
POWER = Diagnosis("power", "comfort", Role.PLATFORM, "Is there power?", no_power)
PUZZLED = Diagnosis("puzzled", "comfort", Role.WORKER, "?", puzzled)
FALLING = Diagnosis("falling", "comfort", Role.WORKER, "Does it fall?", falling)


@pytest.fixture
def machines() -> Machines:
    return Machines({"hall": {"heat": "5"}, "attic": {"heat": "20"}, "grid": {"power": "on"}})


def look(machines: Machines, *diagnoses: Diagnosis, earlier: Answer | None = None) -> Report:
    def before(target: Target, question: Question, span: timedelta) -> Answer | None:
        return earlier

    return Diagnoser(SITE, machines, before).look(diagnoses, SITE, Event())


def causes(report: Report) -> list[tuple[str, str, str]]:
    return [(found.finding.cause, found.finding.target.name, found.under) for found in report.findings]


def test_each_question_is_asked_once_however_many_want_it(machines: Machines) -> None:
    machines.answers["attic"]["heat"] = "5"
    assert causes(look(machines, COLD, POWER)) == [("lamp.cold", "hall", ""), ("lamp.cold", "attic", "")]
    assert sorted(machines.asked) == [("attic", "heat"), ("grid", "power"), ("hall", "heat")]


def test_a_consequence_is_shown_under_its_cause_without_a_fix(machines: Machines) -> None:
    machines.answers["grid"]["power"] = "off"
    report = look(machines, COLD, POWER)
    assert ("lamp.cold", "hall", "grid.down") in causes(report)
    assert [found.finding.cause for found in report.troubles()] == ["grid.down"]
    assert all(not found.finding.fixes for found in report.findings if found.under)


def test_a_silent_machine_is_one_finding_and_hides_nothing(machines: Machines) -> None:
    machines.away = {"attic"}
    report = look(machines, COLD, FALLING, POWER)
    assert ("lamp.cold", "hall", "") in causes(report)
    assert [each for each in causes(report) if each[1] == "attic"] == [("worker.unreachable", "attic", "")]


def test_what_opsbot_is_not_set_up_to_ask_is_not_known_and_no_fault(machines: Machines) -> None:
    machines.answers["hall"]["heat"] = Unanswered("there is no thermometer", "not-configured")
    report = look(machines, COLD)
    assert report.findings == ()
    assert report.unknown == ("hall: Is it cold?: not known, because there is no thermometer",)


def test_unknown_is_said_as_unknown(machines: Machines) -> None:
    machines.answers["hall"]["riddle"] = machines.answers["attic"]["riddle"] = "?"
    report = look(machines, PUZZLED)
    assert report.findings == ()
    assert report.unknown == ("hall: nobody can read this", "attic: nobody can read this")


def test_earlier_samples_are_compared_and_their_absence_is_said(machines: Machines) -> None:
    assert ("heat.unknown", "hall", "") in causes(look(machines, FALLING))
    report = look(machines, FALLING, earlier=Output(0, "12"))
    assert causes(report) == [("heat.falling", "hall", "")]
    assert sh("heat") in report.sampled


def test_an_earlier_sample_that_told_nothing_is_none(machines: Machines) -> None:
    report = look(machines, FALLING, earlier=Output(1, "", "the thermometer is not running"))
    assert {cause for cause, _, _ in causes(report)} == {"heat.unknown"}
    assert report.unknown == ()


def test_policy_takes_the_first_rule_that_matches() -> None:
    fix = Fix("worker.reboot", "Reboot", HALL, (), Risk.INTERRUPTS)
    rules = (
        Rule("elsewhere", 0, installation="other"),
        Rule("reboots", None, action="reboot"),
        Rule("all", 2, risk=Risk.INTERRUPTS),
    )
    assert Policy(rules).rule_for(fix).name == "reboots"
    assert Policy(rules[2:]).rule_for(fix).approvals == 2
    assert Policy().rule_for(fix).approvals == 1
    assert Policy().rule_for(Fix("x", "x", HALL, (), Risk.DESTROYS)).approvals is None
    assert "forbidden" in str(Policy(rules).rule_for(fix))


def test_causes_are_told_first_and_the_worst_of_them_above() -> None:
    on = Target("hall", Role.WORKER, "home")

    def found(cause: str, severity: Severity, under: str = "") -> Found:
        return Found(Finding(cause, severity, on, cause), "any", under)

    report = Report(
        (
            found("lamp.cold", Severity.BROKEN, under="grid.down"),
            found("lamp.old", Severity.WARN),
            found("grid.down", Severity.BROKEN),
            found("lamp.new", Severity.INFO),
        )
    )
    told = [each.finding.cause for each in report.causes_first()]
    assert told == ["grid.down", "lamp.old", "lamp.new", "lamp.cold"]
