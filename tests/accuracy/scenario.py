"""One scenario: faults on machines, what is found of them, what heals, and what was changed on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.target import Role
from bot.engine.rounds import Found, Report
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS, Fault
from tests.installation.practice import Practice

SETTLES = 200  # seconds after a fault until it shows
APART = 900  # seconds between two looks that are compared
MOST_LOOKS = 6  # a worker that keeps ending looks different from second to second
MOST_FIXES = 12
PLATFORM = "platform-1"


@dataclass(frozen=True)
class Injected:
    """A fault on a machine."""

    machine: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.machine} {self.fault.name}"

    @property
    def expected(self) -> str:
        return self.fault.cause or ""


class Verdict(Enum):
    """What became of an injected fault in the report."""

    NAMED = "named"
    UNDER = "shown under its cause"
    HIDDEN = "hidden by the other, and said to be not known"
    MISSED = "missed"


@dataclass
class Outcome:
    """What one scenario showed. `instead` is what was named where the right cause was not."""

    verdicts: dict[str, Verdict] = field(default_factory=dict)
    instead: dict[str, str] = field(default_factory=dict)
    alarms: list[str] = field(default_factory=list)
    unhealed: list[str] = field(default_factory=list)
    offered: int = 0
    meddled: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)


def singles(machines: Sequence[str]) -> list[tuple[Injected, ...]]:
    """Every fault with a cause, and every state that only looks wrong, on a machine of each generation."""
    return [(Injected(machine, fault),) for fault in FAULTS.values() for machine in _places(fault, machines)]


def _places(fault: Fault, machines: Sequence[str]) -> Sequence[str]:
    if fault.cause is None:
        return ()
    return machines if fault.role is Role.WORKER else (PLATFORM,)


def play(practice: Practice, injected: Sequence[Injected]) -> Outcome:
    """Inject, look, compare, repair, look again."""
    outcome = Outcome()
    for each in injected:
        practice.inject(str(each))
    report = _seen(practice, injected, outcome)
    _judge(report, injected, outcome)
    _repair(practice, report, outcome)
    outcome.strange += practice.machines.unknown()
    return outcome


def _seen(practice: Practice, injected: Sequence[Injected], outcome: Outcome) -> Report:
    """Looks as the engine takes them: a second one when the first could not tell, a few more for what flickers."""
    practice.pass_time(SETTLES)
    report = _look(practice, outcome)
    for no in range(MOST_LOOKS):
        if not _left(report, injected):
            break
        practice.pass_time(APART if no == 0 else 1)
        report = _look(practice, outcome)
    return report


def _look(practice: Practice, outcome: Outcome) -> Report:
    """A look changes nothing; the machines' own logs say so."""
    before = len(practice.machines.changes())
    report = practice.look()
    outcome.meddled += [f"a look: {text}" for text in practice.machines.changes()[before:]]
    return report


def _left(report: Report, injected: Sequence[Injected]) -> bool:
    """Whether something that was injected is not named yet."""
    causes = {found.finding.cause for found in report.findings}
    return any(each.expected and each.expected not in causes for each in injected)


def _judge(report: Report, injected: Sequence[Injected], outcome: Outcome) -> None:
    expected = {cause for each in injected for cause in (each.expected, *each.fault.also)}
    for each in injected:
        if each.expected != SUSPICIOUS:
            outcome.verdicts[str(each)] = _verdict(report, each, injected)
            if outcome.verdicts[str(each)] is Verdict.MISSED:
                outcome.instead[str(each)] = _and(found.finding.cause for found in report.troubles())
    outcome.alarms += [
        f"{found.finding.cause}: {found.finding}" for found in report.troubles() if _false(found, expected)
    ]


def _verdict(report: Report, wanted: Injected, injected: Sequence[Injected]) -> Verdict:
    mine = [found for found in report.findings if found.finding.cause == wanted.expected]
    if any(not found.under for found in mine):
        return Verdict.NAMED
    if mine:
        return Verdict.UNDER
    others = {each.expected for each in injected if each is not wanted}
    hidden = any(found.finding.cause in others for found in report.findings) and bool(report.unknown)
    return Verdict.HIDDEN if hidden else Verdict.MISSED


def _false(found: Found, expected: set[str]) -> bool:
    return found.finding.severity >= Severity.WARN and found.finding.cause not in expected


def _repair(practice: Practice, report: Report, outcome: Outcome) -> None:
    """Gentlest first, as the engine does; what has an automatic fix must end healed."""
    tried: set[str] = set()
    for _ in range(MOST_FIXES):
        left = (fix for finding in _own(report) for fix in finding.fixes if _name(fix) not in tried)
        if (fix := next(left, None)) is None:
            break
        outcome.offered += 1
        tried.add(_name(fix))
        _apply(practice, fix, outcome)
        report = _look(practice, outcome)
    outcome.unhealed += [f"{finding.key}: {finding.title}" for finding in _own(report) if finding.fixes]


def _own(report: Report) -> list[Finding]:
    return [found.finding for found in report.troubles()]


def _name(fix: Fix) -> str:
    return f"{fix.id}@{fix.target.key}@{','.join(fix.items)}"


def _apply(practice: Practice, fix: Fix, outcome: Outcome) -> None:
    """Only the machine that the fix names is changed."""
    before = {name: _changed(practice, name) for name in practice.machines.consoles}
    practice.apply(fix)
    for name, count in before.items():
        if name != fix.target.name and _changed(practice, name) != count:
            outcome.meddled.append(f"{fix}: {name} was changed")


def _changed(practice: Practice, name: str) -> int:
    return sum(sent.changed for sent in practice.machines.consoles[name].received)


def _and(words: object) -> str:
    return ", ".join(sorted(set(words))) or "nothing"  # type: ignore[call-overload]
