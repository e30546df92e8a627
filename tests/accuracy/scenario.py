"""One scenario: faults on machines, what is found of them, what heals, and what was changed on the way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cache
from typing import Final

import yaml

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.target import Role
from bot.engine.rounds import Report
from bot.sandbox.installation import FAULTS, Shape
from bot.sandbox.installation.faults import SUSPICIOUS, CannotBe, Fault, NoSuchFault
from bot.sandbox.installation.worker import UNIT
from tests.handlers.test_cases import CASES
from tests.installation.practice import OWN, Practice

SHAPES: Final = (
    Shape("platform-1", "127.0.0.21", worker=False, release="16.04"),
    Shape("worker-1", "127.0.0.22"),
    Shape("worker-2", "127.0.0.23", release="16.04"),
    Shape("worker-3", "127.0.0.24", systemd=False, release="14.04"),
    Shape("worker-4", "127.0.0.25", snap=True),
)
GENERATIONS: Final = {shape.name: "snap" if shape.snap else shape.release for shape in SHAPES}
SETTLES = 200  # seconds after a fault until it shows
BETWEEN = 660  # seconds between two faults: what the first one restarts is back by then, or has been given up
APART = 900  # seconds between two looks that are compared
MOST_LOOKS = 6  # a worker that keeps ending looks different from second to second
MOST_FIXES = 12
PLATFORM = "platform-1"
EVERY: Final = FAULTS | {name.lower(): each.fault for name, each in OWN.items()}


@dataclass(frozen=True)
class Injected:
    """A fault on a machine."""

    machine: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.machine} {self.fault.name}"

    @property
    def expected(self) -> str:
        harmless = GENERATIONS[self.machine] in self.fault.harmless_on
        return SUSPICIOUS if harmless else self.fault.cause or ""

    @property
    def on_worker(self) -> bool:
        return self.fault.role is Role.WORKER

    @property
    def everywhere(self) -> bool:
        """What is wrong with the platform may show on any machine."""
        return not self.on_worker

    def shows_as(self, finding: Finding) -> bool:
        """Is this finding what the fault must be called?"""
        return finding.cause == self.expected and (self.everywhere or finding.target.name == self.machine)

    def accounts_for(self, finding: Finding) -> bool:
        """Its cause, or one that comes with it, where it may show."""
        near = self.everywhere or finding.target.name == self.machine
        with_it = (*self.fault.also, *(("worker.ended",) if self.everywhere and _ends_snaps(self.fault.name) else ()))
        return near and finding.cause in (self.expected, *with_it)


class Verdict(Enum):
    """What became of an injected fault in the report."""

    NAMED = "named"
    UNDER = "shown under its cause"
    REVEALED = "hidden by the other, said to be not known, and named once that was mended"
    HIDDEN = "hidden by the other, said to be not known, and not named afterwards either"
    MISSED = "missed"

    @property
    def right(self) -> bool:
        return self not in (Verdict.HIDDEN, Verdict.MISSED)


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
    """Every fault with a cause, and every state that only looks wrong, on a machine of each generation that can have
    it: a snap has no docker.
    """
    every = [(Injected(machine, fault),) for fault in EVERY.values() for machine in _places(fault, machines)]
    return [each for each in every if can_be(each)]


def _places(fault: Fault, machines: Sequence[str]) -> Sequence[str]:
    if fault.cause is None:
        return ()
    return machines if fault.role is Role.WORKER else (PLATFORM,)


def play(practice: Practice, injected: Sequence[Injected]) -> Outcome:
    """Inject, look, compare, repair, look again."""
    outcome = Outcome()
    _inject(practice, injected)
    report = _seen(practice, injected, outcome)
    judge(report, injected, outcome)
    _repair(practice, report, injected, outcome)
    outcome.strange += practice.machines.unknown()
    for each in injected:
        if outcome.verdicts.get(str(each)) is Verdict.HIDDEN:
            _look_without_the_other(practice, each, injected, outcome)
    return outcome


def _look_without_the_other(practice: Practice, hidden: Injected, injected: Sequence[Injected], out: Outcome) -> None:
    """The look after the other fault was mended: by its fix, or by a person, who leaves the hidden one as it was."""
    others = [each for each in injected if each is not hidden]
    report = _seen(practice, [hidden], out)
    if any(each.shows_as(found.finding) for each in others for found in report.findings):
        practice = practice.anew()
        practice.inject(str(hidden))
        report = _seen(practice, [hidden], out)
    _reveal(report, [hidden], out)
    if out.verdicts[str(hidden)] is Verdict.HIDDEN:
        out.instead[str(hidden)] = _and(found.finding.cause for found in report.troubles())


def _reveal(report: Report, injected: Sequence[Injected], outcome: Outcome) -> None:
    """What was hidden at first and is named now, by itself or under what comes with it."""
    for each in injected:
        if outcome.verdicts.get(str(each)) is Verdict.HIDDEN:
            found = _verdict(report, each, [each])
            outcome.verdicts[str(each)] = Verdict.REVEALED if found.right else Verdict.HIDDEN


def _inject(practice: Practice, injected: Sequence[Injected]) -> None:
    for no, each in enumerate(_in_order(injected)):
        if no:
            practice.pass_time(BETWEEN)
        practice.inject(str(each))


def _in_order(injected: Sequence[Injected]) -> list[Injected]:
    """What restarts something comes first, or it would heal what only a process has in its memory."""
    return sorted(injected, key=lambda each: not _restarts(each.fault.name))


def can_be(injected: Sequence[Injected]) -> bool:
    """Can these faults be there together? A worker that never connects has no connection to lose, and a snap no docker.

    Tried without a database: a fault that needs one can be, for no other fault takes it away.
    """
    practice = Practice(None, SHAPES)
    for each in _in_order(injected):
        try:
            practice.inject(str(each))
        except CannotBe:
            return False
        except NoSuchFault:
            continue
        practice.pass_time(BETWEEN)
    return True


@cache
def _restarts(name: str) -> bool:
    """Does the fault start the app or a worker anew? Tried on an installation without a database."""
    practice, fault = Practice(None, SHAPES), EVERY[name.lower()]
    before = _starts(practice)
    try:
        practice.inject(f"{'worker-1' if fault.role is Role.WORKER else PLATFORM} {name}")
    except NoSuchFault:  # what is wrong in a database alone restarts nothing
        return False
    practice.pass_time(SETTLES)
    return _starts(practice) != before


@cache
def _ends_snaps(name: str) -> bool:
    """Does what befalls the platform cut its workers off? Those that are snaps stay ended then, when it is over too."""
    practice = Practice(None, SHAPES)
    try:
        practice.inject(f"{PLATFORM} {name}")
    except NoSuchFault:
        return False
    practice.pass_time(SETTLES)
    workers = practice.installation.workers()
    return any(each.snap and each.units[UNIT].active != "active" for each in workers)


def _starts(practice: Practice) -> tuple[object, ...]:
    workers = practice.installation.workers()
    return (practice.installation.app.since, *(each.units[UNIT].started for each in workers))


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
    named = [found.finding for found in report.findings]
    return any(each.expected and not any(map(each.shows_as, named)) for each in injected)


def judge(report: Report, injected: Sequence[Injected], outcome: Outcome) -> None:
    """Every fault gets its verdict; what nobody put there is a false alarm."""
    for each in injected:
        if each.expected != SUSPICIOUS:
            outcome.verdicts[str(each)] = _verdict(report, each, injected)
            if outcome.verdicts[str(each)] is Verdict.MISSED:
                outcome.instead[str(each)] = _and(found.finding.cause for found in report.troubles())
    outcome.alarms += [
        f"{found.finding.cause}: {found.finding}"
        for found in report.troubles()
        if not any(each.accounts_for(found.finding) for each in injected)
    ]
    standing = {found.finding.cause for found in report.findings if not found.under}
    lost = [found for found in report.findings if found.under and found.under not in standing]
    outcome.alarms += [f"{found.finding.cause} and {found.under} explain each other away" for found in lost]


def _verdict(report: Report, wanted: Injected, injected: Sequence[Injected]) -> Verdict:
    """A consequence counts when it stands under something that was put there, too."""
    mine = [found for found in report.findings if wanted.shows_as(found.finding)]
    others = [each for each in injected if each is not wanted]
    there = {cause for each in injected for cause in (each.expected, *each.fault.also)}
    if any(not found.under for found in mine):
        return Verdict.NAMED
    if any(found.under in there for found in mine):
        return Verdict.UNDER
    named = any(each.accounts_for(found.finding) for each in others for found in report.findings)
    return Verdict.HIDDEN if named and _unsure(report, wanted) else Verdict.MISSED


def _unsure(report: Report, wanted: Injected) -> bool:
    """Did a diagnosis that can name this cause say that it could not tell, and of this very machine?"""
    able = _namers().get(wanted.expected, ())
    return any(name in able and (wanted.everywhere or target.name == wanted.machine) for name, target in report.unsure)


@cache
def _namers() -> dict[str, set[str]]:
    """For each cause the diagnoses that name it in their cases."""
    able: dict[str, set[str]] = {}
    for case in (yaml.safe_load(path.read_text()) for path in CASES):
        names = [case["diagnosis"]] if isinstance(case["diagnosis"], str) else case["diagnosis"]
        for found in case.get("finds") or () if len(names) == 1 else ():
            able.setdefault(found["cause"], set()).update(names)
    return able


def _repair(practice: Practice, report: Report, injected: Sequence[Injected], outcome: Outcome) -> None:
    """Gentlest first, as the engine does; what had an automatic fix must end healed."""
    tried: set[str] = set()
    promised: dict[str, str] = {}
    for _ in range(MOST_FIXES):
        promised |= {finding.key: finding.title for finding in _own(report) if finding.fixes}
        left = (fix for finding in _own(report) for fix in finding.fixes if _name(fix) not in tried)
        if (fix := next(left, None)) is None:
            break
        outcome.offered += 1
        tried.add(_name(fix))
        _apply(practice, fix, outcome)
        report = _look(practice, outcome)
        _reveal(report, injected, outcome)
    still = {found.finding.key for found in report.findings if found.finding.severity >= Severity.WARN}
    outcome.unhealed += [f"{key}: {title}" for key, title in promised.items() if key in still]


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


def _and(words: Iterable[str]) -> str:
    return ", ".join(sorted(set(words))) or "nothing"
