"""A few scenarios of `make accuracy`, and what its judge makes of reports that are wrong."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest

from bot.core.finding import Finding, Severity
from bot.core.target import Role, Target
from bot.engine.rounds import Found, Report
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS
from tests.accuracy.__main__ import WORKERS, Scenario, judged, pairs
from tests.accuracy.mistake import the_last_consumer_is_overlooked
from tests.accuracy.scenario import (
    EVERY,
    PLATFORM,
    SHAPES,
    Injected,
    Outcome,
    Verdict,
    _reveal,
    can_be,
    judge,
    play,
    singles,
)
from tests.installation.practice import Practice
from tests.rigs import postgres

LOST = "lost part of its pool"


def injected(text: str) -> Injected:
    machine, _, words = text.partition(" ")
    return Injected(machine, EVERY[words.lower()])


@pytest.fixture(scope="module")
def dsn(running_servers: Callable[[str], postgres.Server]) -> Iterator[str]:
    with running_servers("18").database() as dsn:
        yield dsn


def played(dsn: str, *texts: str) -> tuple[dict[str, Verdict], Outcome]:
    outcome = play(Practice(dsn, SHAPES), [injected(text) for text in texts])
    return outcome.verdicts, outcome


# ---------------------------------------------------------------- scenarios


@pytest.mark.parametrize(
    "text",
    [
        "worker-1 lost RabbitMQ",
        "worker-2 listens on another queue",
        "worker-3 has a run directory of root",
        "worker-4 was cut off by RabbitMQ",
    ],
)
def test_a_fault_is_named_and_healed_on_each_generation(dsn: str, text: str) -> None:
    verdicts, outcome = played(dsn, text)
    assert verdicts == {text: Verdict.NAMED}
    assert outcome.offered > 0
    assert outcome.alarms == outcome.unhealed == outcome.meddled == outcome.strange == []


@pytest.mark.parametrize("text", ["platform-1 has no copy of its key", "platform-1 was backed up a week ago"])
def test_what_is_wrong_with_the_records_is_named_and_left_to_a_person(dsn: str, text: str) -> None:
    verdicts, outcome = played(dsn, text)
    assert verdicts == {text: Verdict.NAMED}
    assert (outcome.alarms, outcome.offered, outcome.meddled) == ([], 0, [])


def test_one_fault_of_the_platform_is_said_once(dsn: str) -> None:
    """All workers see it, and what they see stands under it; what one worker alone sees is its own."""
    verdicts, outcome = played(dsn, "platform-1 makes no build scripts")
    assert verdicts == {"platform-1 makes no build scripts": Verdict.NAMED}
    assert outcome.alarms == []
    practice = Practice(dsn, SHAPES)
    practice.inject("platform-1 makes no build scripts")
    practice.pass_time(200)
    assert [str(finding) for finding in practice.findings()] == [
        "builds end in an error: platform-1 makes no scripts for them"
    ]


@pytest.mark.parametrize("text", ["worker-1 runs builds", "worker-3 has no run directory", "worker-4 has just started"])
def test_what_only_looks_wrong_raises_no_alarm(dsn: str, text: str) -> None:
    verdicts, outcome = played(dsn, text)
    assert verdicts == {}
    assert (outcome.alarms, outcome.offered) == ([], 0)


def test_a_restart_of_the_platform_is_no_alarm_and_leaves_a_snap_to_be_started(dsn: str) -> None:
    """All workers lose RabbitMQ for a minute and end; the others are started again by their machines."""
    verdicts, outcome = played(dsn, "platform-1 was restarted")
    assert verdicts == {}
    assert (outcome.alarms, outcome.offered, outcome.unhealed) == ([], 1, [])


def test_two_faults_are_told_apart(dsn: str) -> None:
    """What restarts the worker comes first, however they are said: else it would heal the other one."""
    shrunk, overridden = f"worker-1 {LOST}", "worker-1 was installed twice"
    verdicts, outcome = played(dsn, shrunk, overridden)
    assert verdicts == {shrunk: Verdict.NAMED, overridden: Verdict.NAMED}
    assert outcome.alarms == outcome.unhealed == []


def test_what_another_fault_hides_is_named_once_that_is_mended(dsn: str) -> None:
    """Without its container nobody can read which key the platform has; the fix brings it back."""
    key, away = "platform-1 has another encryption key", "platform-1 lost its container"
    verdicts, _ = played(dsn, away, key)
    assert verdicts == {away: Verdict.NAMED, key: Verdict.REVEALED}


def test_a_consequence_stands_under_its_cause(dsn: str) -> None:
    verdicts, outcome = played(dsn, "platform-1 has an expired license", "worker-1 is refused by RabbitMQ's port")
    assert verdicts["platform-1 has an expired license"] is Verdict.NAMED
    assert verdicts["worker-1 is refused by RabbitMQ's port"] is not Verdict.MISSED
    assert outcome.alarms == []


@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_a_mistake_in_a_parser_turns_a_verdict_red(dsn: str, wrong: bool) -> None:
    """A healthy worker seems to lack a consumer as soon as the last row is not read."""
    with the_last_consumer_is_overlooked() if wrong else nullcontext():
        _, outcome = played(dsn, "worker-1 is behind NAT")
    assert bool(outcome.alarms) is wrong


# ---------------------------------------------------------------- the judge


def report(*causes: str, under: str = "", unsure: tuple[tuple[str, str], ...] = ()) -> Report:
    findings = (Finding(cause, Severity.BROKEN, _target(on), "it is so") for cause, on in _split(causes))
    found = tuple(Found(finding, "x", under) for finding in findings)
    return Report(findings=found, unsure=tuple((name, _target(on)) for name, on in unsure))


def _split(causes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for each in causes:
        cause, _, machine = each.partition(" on ")
        yield cause, machine


def _target(name: str) -> Target:
    return Target(name, Role.PLATFORM if name == PLATFORM else Role.WORKER, "try", "127.0.0.1")


def verdict(seen: Report, *texts: str) -> tuple[Verdict, list[str]]:
    outcome = Outcome()
    judge(seen, [injected(text) for text in texts], outcome)
    return outcome.verdicts[texts[0]], outcome.alarms


STOPPED = "worker-1 is stopped"
DOWN = "platform-1 has no RabbitMQ"
ON = "worker.stopped on worker-1"


def test_the_right_cause_on_the_right_machine_is_named() -> None:
    assert verdict(report(ON), STOPPED) == (Verdict.NAMED, [])


def test_the_right_cause_on_another_machine_is_missed_and_an_alarm() -> None:
    found, alarms = verdict(report("worker.stopped on worker-2"), STOPPED)
    assert (found, len(alarms)) == (Verdict.MISSED, 1)


def test_nothing_said_is_a_cause_missed() -> None:
    assert verdict(report(), STOPPED)[0] is Verdict.MISSED


def test_a_cause_under_something_that_is_not_there_is_missed() -> None:
    assert verdict(report(ON, under="broker.down"), STOPPED, DOWN)[0] is Verdict.UNDER
    assert verdict(report(ON, under="net.dns"), STOPPED, DOWN)[0] is Verdict.MISSED


@pytest.mark.parametrize(
    ("seen", "right"),
    [
        (report("broker.down on platform-1", unsure=(("worker stopped", "worker-1"),)), True),
        (report("broker.down on platform-1", unsure=(("worker stopped", "worker-2"),)), False),  # another machine
        (report("broker.down on platform-1", unsure=(("network name", "worker-1"),)), False),  # another question
        (report("broker.down on platform-1"), False),  # nothing is said to be unknown
        (report(unsure=(("worker stopped", "worker-1"),)), False),  # what hides it is not named
    ],
)
def test_hidden_counts_only_where_both_are_said(seen: Report, right: bool) -> None:
    assert (verdict(seen, STOPPED, DOWN)[0] is Verdict.HIDDEN) is right


def revealed(seen: Report, *texts: str) -> Verdict:
    outcome = Outcome(verdicts={texts[0]: Verdict.HIDDEN})
    _reveal(seen, [injected(text) for text in texts], outcome)
    return outcome.verdicts[texts[0]]


def test_what_is_hidden_is_right_only_when_a_later_look_names_it() -> None:
    assert not Verdict.HIDDEN.right
    assert revealed(report(ON), STOPPED) is Verdict.REVEALED
    assert revealed(report(), STOPPED) is Verdict.HIDDEN
    assert revealed(report("worker.stopped on worker-2"), STOPPED) is Verdict.HIDDEN
    assert revealed(report(ON, under="broker.down"), STOPPED) is Verdict.HIDDEN


def test_the_gate_counts_what_stays_hidden_as_wrong() -> None:
    scenario: Scenario = (injected(STOPPED),)
    played = [(scenario, Outcome(verdicts={STOPPED: verdict})) for verdict in (Verdict.REVEALED, Verdict.HIDDEN)]
    [right] = [figure for figure in judged(played) if figure.name == "right cause"]
    assert (right.value, right.held) == ("50 %", False)


# ---------------------------------------------------------------- what is played


def test_enough_is_played() -> None:
    scenarios = list(singles(WORKERS))
    odd = {each.fault.name for [each] in scenarios if each.expected == SUSPICIOUS}
    assert len(odd) >= 15
    assert {each.machine for [each] in scenarios} == {PLATFORM, *WORKERS}
    wanted = {fault.cause for fault in FAULTS.values() if fault.cause} | {"key.missing", "backup.overdue"}
    assert wanted == {each.expected for [each] in scenarios if each.expected}


def test_pairs_are_drawn_the_same_way_and_can_be_there_together() -> None:
    drawn = [tuple(map(str, pair)) for pair in pairs(20, 1)]
    assert drawn == [tuple(map(str, pair)) for pair in pairs(20, 1)] != [tuple(map(str, pair)) for pair in pairs(20, 2)]
    assert not can_be([injected("worker-1 has the wrong password"), injected(f"worker-1 {LOST}")])
    in_the_database = injected("platform-1 lost the messages of queued jobs")
    assert can_be([in_the_database, injected("worker-1 docker hangs")])
    assert not can_be([in_the_database, injected("worker-4 docker hangs")])
