"""A worker's settings and its run directory on the simulated machines: each fault is named, only that, and healed by
what is offered; what only looks odd is not called broken; no password leaves a machine.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from threading import Event as Flag

import pytest

from bot.core.command import Command
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Step, Wait
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from bot.sandbox.installation import settled
from bot.sandbox.installation.faults import FAULTS, SUSPICIOUS, inject
from bot.sandbox.installation.installation import DOMAIN, QUEUE
from bot.sandbox.installation.worker import SETTINGS
from tests.installation.console import Console, pass_time, standing_still
from tests.installation.tripwires import Tripwires

OURS = (
    "worker password refused",
    "worker has the wrong host",
    "worker gets no build scripts",
    "worker runs with old settings",
    "worker settings have no effect",
    "worker settings cannot be read",
    "worker listens on another queue",
    "worker has no run directory",
)
NEAR = ("worker keeps ending", "worker lost rabbitmq", "worker stopped")
DIAGNOSES = tuple(discover().diagnoses[name] for name in (*OURS, *NEAR))
WORKERS = ("worker-1", "worker-3")  # systemd, upstart
BY_MACHINE = {  # fault -> the cause that has to be named, and the setting of that machine
    "has the wrong password": "worker.amqp-auth",
    "looks for the old host": "worker.host-mismatch",
    "gets build scripts from elsewhere": "worker.host-mismatch",
    "has no build endpoint": "worker.build-api",
    "was not restarted after an edit": "worker.config-stale",
    "was given a hook and not restarted": "worker.config-stale",
    "has its settings overridden": "worker.config-overridden",
    "was installed twice": "worker.config-overridden",
    "has a space in its settings": "worker.config-unparsable",
    "listens on another queue": "worker.queue-mismatch",
    "has no run directory": "worker.run-dir-missing",
    "has a run directory of root": "worker.run-dir-owner",
    "has a run directory too many": "worker.run-path-is-directory",
}
SYSTEMD_ONLY = {"worker.run-dir-missing", "worker.run-path-is-directory"}  # 14.04: healthy, and left to a person
BY_PERSON = {"worker.amqp-auth", "worker.config-unparsable"}
ODD = tuple(
    name for name, fault in FAULTS.items() if fault.cause == SUSPICIOUS and "worker_settings" in fault.apply.__module__
)
CASES = [
    (name, fault)
    for name in WORKERS
    for fault, cause in BY_MACHINE.items()
    if name == "worker-1" or cause not in SYSTEMD_ONLY
]


class Settings:
    """The simulated machines without servers or a database, and only what concerns settings; each worker's queue is
    configured.
    """

    def __init__(self) -> None:
        self.installation = settled(standing_still())
        self.consoles = {name: Console(self.installation, name) for name in self.installation.machines}
        workers = {machine.name for machine in self.installation.workers()}
        machines = tuple(
            Target(each.name, Role.WORKER if each.name in workers else Role.PLATFORM, "try", each.address)
            for each in self.installation.machines.values()
        )
        options = tuple((f"queue.{name}", QUEUE) for name in sorted(workers))
        self.diagnoser = Diagnoser(Site("try", DOMAIN, "2.2", machines, options), self, lambda *_: None)
        self.answers: list[Answer] = []

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        commands = [question for question in questions if isinstance(question, Command)]
        assert len(commands) == len(questions)
        answers = self.consoles[target.name].ask(*commands)
        self.answers += answers
        return answers

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        raise AssertionError(f"nothing here needs a way through {target} to {host}:{port}")

    def identity(self, target: Target) -> str:
        return target.address

    def look(self) -> Report:
        return self.diagnoser.look(DIAGNOSES, self.diagnoser.site, Flag())

    def findings(self) -> list[Finding]:
        return [found.finding for found in self.look().troubles()]

    def changes(self) -> list[str]:
        return [sent.text for console in self.consoles.values() for sent in console.received if sent.changed]

    def unknown(self) -> list[str]:
        return [text for machine in self.installation.machines.values() for text in machine.unknown]

    def apply(self, fix: Fix) -> bool:
        """Whether every step came to its end."""
        done = all(self._step(fix.target, step) for step in fix.steps)
        pass_time(self.installation, 200)
        return done

    def _step(self, target: Target, step: Step) -> bool:
        if isinstance(step, Wait):
            return self._wait(step)
        assert isinstance(step, Change), f"{step}: needs an engine, or a person"
        return self._change(target, step)

    def _change(self, target: Target, change: Change) -> bool:
        assert isinstance(change.command, Command)
        if change.needed is not None and not self.diagnoser.answer(change.needed, Flag()):
            return True
        return self.consoles[target.name].ask(change.command, seconds=int(change.within.total_seconds()))[0].ok

    def _wait(self, wait: Wait) -> bool:
        until = self.installation.timeline.now() + wait.within.total_seconds()
        while self.installation.timeline.now() < until:
            if wait.until.met_by(self.diagnoser.answer(wait.fact, Flag())):
                return True
            pass_time(self.installation, 5)
        return False


@pytest.fixture
def practice() -> Settings:
    return Settings()


def broken(practice: Settings, name: str, fault: str) -> Finding:
    """The one trouble that is found, however long it is looked at."""
    inject(practice.installation, f"{name} {fault}")
    pass_time(practice.installation, 200)
    seen: set[str] = set()
    for _ in range(7):
        pass_time(practice.installation, 1)
        [finding] = practice.findings()
        seen.add(finding.key)
    assert len(seen) == 1
    return finding


def test_a_healthy_installation_is_silent(practice: Settings) -> None:
    report = practice.look()
    assert (report.findings, report.unknown) == ((), ())


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_the_cause_is_named_and_nothing_else(practice: Settings, tripwires: Tripwires, name: str, fault: str) -> None:
    with tripwires.across():
        finding = broken(practice, name, fault)
    assert (finding.cause, finding.target.name) == (BY_MACHINE[fault], name)
    assert bool(finding.fixes) != (finding.cause in BY_PERSON)
    assert bool(finding.person) == (finding.cause in BY_PERSON)
    assert practice.unknown() == tripwires.tripped == []
    assert practice.changes() == []


HEALED = [
    (name, fault, no)
    for name, fault in CASES
    for no in range(2 if BY_MACHINE[fault] == "worker.config-stale" else 1)
    if BY_MACHINE[fault] not in BY_PERSON
]


@pytest.mark.parametrize(("name", "fault", "no"), HEALED)
def test_what_is_offered_heals_it(practice: Settings, tripwires: Tripwires, name: str, fault: str, no: int) -> None:
    with tripwires.across():
        fix = broken(practice, name, fault).fixes[no]
        assert practice.apply(fix)
        assert practice.findings() == []
    assert practice.unknown() == tripwires.tripped == []


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("fault", ODD)
def test_what_only_looks_odd_raises_no_alarm(practice: Settings, name: str, fault: str) -> None:
    inject(practice.installation, f"{name} {fault}")
    pass_time(practice.installation, 300)
    report = practice.look()
    assert [found.finding.cause for found in report.findings] == []
    assert practice.unknown() == []


def test_there_is_something_odd_to_try() -> None:
    assert len(ODD) >= 5


@pytest.mark.parametrize("fault", ["looks for the old host", "listens on another queue"])
@pytest.mark.parametrize("name", WORKERS)
def test_an_edit_leaves_a_copy_that_only_root_reads(practice: Settings, name: str, fault: str) -> None:
    before = {path: practice.installation.machine(name).read(path) for path in SETTINGS}
    finding = broken(practice, name, fault)
    wrong = {path: practice.installation.machine(name).read(path) for path in SETTINGS}
    practice.apply(finding.fixes[0])
    machine = practice.installation.machine(name)
    [copy] = [path for path in machine.files if ".opsbot-" in path]
    assert machine.files[copy].mode == 0o600
    assert machine.read(copy) == wrong[copy.partition(".opsbot-")[0]]
    assert copy in finding.fixes[0].undo
    healed = machine.read(copy.partition(".opsbot-")[0])
    assert healed is not None
    assert f"travis:{practice.installation.password}@" in (healed + (before[SETTINGS[2]] or ""))


@pytest.mark.parametrize(("name", "fault"), CASES)
def test_no_password_leaves_a_machine(practice: Settings, name: str, fault: str) -> None:
    finding = broken(practice, name, fault)
    spoken = [f"{said.out}{said.err}" for said in practice.answers if isinstance(said, Output)]
    spoken += [
        str(finding),
        finding.evidence,
        finding.person,
        *(str(step) for fix in finding.fixes for step in fix.steps),
    ]
    assert not [text for text in spoken if practice.installation.password in text or "0ld-pa55word" in text]


def test_a_run_directory_that_went_while_it_works_is_a_warning(practice: Settings) -> None:
    for path in ("/var/tmp/travis-run.d/travis-worker", "/var/tmp/travis-run.d"):
        del practice.installation.machine("worker-1").files[path]
    [finding] = practice.findings()
    assert (finding.cause, finding.severity) == ("worker.run-dir-missing", Severity.WARN)
    assert practice.apply(finding.fixes[0])
    assert practice.findings() == []
