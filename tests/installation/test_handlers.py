"""Every diagnosis, and every fix of every handler, against the simulated machines: what heals, what does not, and that
nothing unknown is asked and nothing reaches the host.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Event as Flag

import pytest

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location
from bot.adapters.redis import Redis, Server
from bot.adapters.router import Router
from bot.core import unit
from bot.core.command import Command
from bot.core.finding import Finding
from bot.core.fix import Change, Fix, Step, Wait
from bot.core.ports import Unreached
from bot.core.question import Answer, Output, Question, RedisRead, Unanswered
from bot.core.sql import Query, Statement
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from bot.sandbox.installation import FAULTS, Installation, settled
from bot.sandbox.installation.faults import inject
from tests.installation.console import Console, pass_time, standing_still
from tests.installation.tripwires import Tripwires

CATALOGUE = discover()
WORKERS = ("worker-1", "worker-3")  # systemd, upstart


class Machines:
    """An asker and sender that types into the machines; a machine that is down gives no answer.

    The database and redis are asked by the programs in the platform's container, as opsbot does by itself.
    """

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.consoles = {name: Console(installation, name) for name in installation.machines}
        containers = Containers(self)
        self.database = Database({("try", "main"): Location()}, self, containers)
        self.router = Router(self, {Query: self.database, RedisRead: Redis({"try": Server()}, self, containers)})

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        pass_time(self.installation, 0)
        if not self.consoles[target.name].machine.up:
            return [Unanswered(f"{target} is down") for _ in questions]
        commands = [question for question in questions if isinstance(question, Command)]
        if len(commands) < len(questions):
            return self.router.ask(target, questions, abort)
        return self.consoles[target.name].ask(*commands)

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        raise Unreached(f"no way leads through {target} to {host}:{port}")

    def identity(self, target: Target) -> str:
        return target.address

    def send(self, target: Target, command: Command, within: timedelta | int, abort: Flag | None = None) -> Output:
        seconds = within if isinstance(within, int) else int(within.total_seconds())
        return self.consoles[target.name].ask(command, seconds=seconds)[0]

    def changes(self) -> list[str]:
        return [sent.text for console in self.consoles.values() for sent in console.received if sent.changed]

    def unknown(self) -> list[str]:
        return [text for machine in self.installation.machines.values() for text in machine.unknown]


class Practice:
    """A look, and a fix carried out step by step as the engine would, without its approvals and journals.

    Every look leaves its samples, as the engine's do.
    """

    def __init__(self, dsn: str | None = None) -> None:
        self.installation = settled(standing_still(), dsn=dsn)
        self.samples: list[tuple[float, Target, str, Answer]] = []
        self.machines = Machines(self.installation)
        roles = {True: Role.WORKER, False: Role.PLATFORM}
        workers = self.installation.workers()
        targets = tuple(
            Target(machine.name, roles[machine in workers], "try", machine.address)
            for machine in self.installation.machines.values()
        )
        self.site = Site("try", "travis.example.com", "2.2", targets)
        self.diagnoser = Diagnoser(self.site, self.machines, self._earlier)

    def _earlier(self, target: Target, question: Question, span: timedelta) -> Answer | None:
        before = self.installation.timeline.now() - span.total_seconds()
        old = [said for at, of, asked, said in self.samples if (of, asked) == (target, str(question)) and at <= before]
        return old[-1] if old else None

    def look(self) -> Report:
        report = self.diagnoser.look(tuple(CATALOGUE.diagnoses.values()), self.site, Flag())
        now = self.installation.timeline.now()
        self.samples += [(now, of, str(asked), said) for of, asked, said in report.answers if asked in report.sampled]
        return report

    def findings(self) -> list[Finding]:
        return [found.finding for found in self.look().troubles()]

    def carry_out(self, steps: Sequence[Step]) -> bool:
        """Whether every step came to its end."""
        return all(self._wait(step) if isinstance(step, Wait) else self._change(step) for step in steps)

    def _change(self, change: Change) -> bool:
        if change.needed is not None and not self.diagnoser.answer(change.needed, Flag()):
            return True
        target = self._target
        if isinstance(change.command, Statement):
            return self.machines.database.execute(target, change.command, change.within, Flag()).ok
        if not change.slow:
            return self.machines.send(target, change.command, int(change.within.total_seconds())).ok
        name = f"opsbot-1-{len(self.machines.changes())}-261122"
        started = self.machines.send(target, unit.start(change.command, name, change.within), 30)
        again = self.machines.send(target, unit.start(change.command, name, change.within), 30)
        assert unit.taken(again)
        while (ended := self._unit(name)).state is unit.State.RUNNING:
            pass_time(self.installation, 1)
        for command in unit.forget(name):
            self.machines.send(target, command, 30)
        assert self._unit(name).state is unit.State.NEVER_STARTED
        return started.ok and ended.state is unit.State.DONE

    def _unit(self, name: str) -> unit.Ended:
        return unit.ended(self.machines.send(self._target, unit.asked(name), 30))

    def _wait(self, wait: Wait) -> bool:
        until = self.installation.timeline.now() + wait.within.total_seconds()
        while self.installation.timeline.now() < until:
            if self.installation.machine(self._target.name).up and wait.until.met_by(
                self.diagnoser.answer(wait.fact, Flag())
            ):
                return True
            pass_time(self.installation, 5)
        return False

    def apply(self, fix: Fix) -> bool:
        self._target = fix.target
        done = self.carry_out(fix.steps)
        if not done:
            self.carry_out(fix.ensure)
        pass_time(self.installation, 150)  # past the time in which a worker counts as just started
        return done


@pytest.fixture
def practice(travis_dsn: str) -> Practice:
    return Practice(travis_dsn)


def test_a_healthy_installation_is_silent(practice: Practice, tripwires: Tripwires) -> None:
    with tripwires.across():
        assert practice.findings() == []
    assert practice.machines.unknown() == tripwires.tripped == []
    assert practice.machines.changes() == []


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("fault", ["lost RabbitMQ", "lost RabbitMQ until it reboots", "is stopped"])
def test_a_broken_worker_is_found_and_only_that(practice: Practice, name: str, fault: str) -> None:
    inject(practice.installation, f"{name} {fault}")
    pass_time(practice.installation, 300)
    [finding] = practice.findings()
    assert finding.target.name == name
    assert finding.fixes
    assert practice.machines.changes() == []


@pytest.mark.parametrize("fault", ["has just started", "is behind NAT", "runs builds", "lost part of its pool"])
def test_what_is_not_lost_is_not_called_lost(practice: Practice, fault: str) -> None:
    inject(practice.installation, f"worker-1 {fault}")
    assert [finding.cause for finding in practice.findings()] == []


def test_a_worker_behind_nat_is_lost_when_its_own_socket_says_so(practice: Practice) -> None:
    inject(practice.installation, "worker-1 is behind NAT")
    inject(practice.installation, "worker-2 is behind NAT")
    inject(practice.installation, "worker-1 lost RabbitMQ")
    assert [(finding.cause, finding.target.name) for finding in practice.findings()] == [
        ("worker.amqp-lost", "worker-1")
    ]


# Which of the fixes that are offered, gentlest first, heals which fault.
HEALS = {
    "lost RabbitMQ": [True, True, True],
    "lost RabbitMQ until it reboots": [False, False, True],
    "is stopped": [True],
}
CASES = [(name, fault, no) for name in WORKERS for fault, heals in HEALS.items() for no in range(len(heals))]


@pytest.mark.parametrize(("name", "fault", "no"), CASES)
def test_each_fix_heals_what_it_should(
    practice: Practice, tripwires: Tripwires, name: str, fault: str, no: int
) -> None:
    with tripwires.across():
        inject(practice.installation, f"{name} {fault}")
        pass_time(practice.installation, 300)
        [finding] = practice.findings()
        fixes = finding.fixes
        assert len(fixes) == len(HEALS[fault])
        done = practice.apply(fixes[no])
        healed = not any(each.key == finding.key for each in practice.findings())
    assert done == HEALS[fault][no]
    # On 14.04 a worker that cannot connect ends and starts again: it looks freshly started, not lost.
    assert healed == done or (name, done) == ("worker-3", False)
    assert practice.machines.unknown() == tripwires.tripped == []


@pytest.mark.parametrize("name", WORKERS)
def test_a_drain_lets_the_builds_finish(practice: Practice, name: str) -> None:
    inject(practice.installation, f"{name} runs builds")
    inject(practice.installation, f"{name} lost RabbitMQ")
    [finding] = practice.findings()
    before = practice.installation.timeline.now()
    assert practice.apply(finding.fixes[0])
    assert practice.installation.timeline.now() - before > 100  # the builds take two minutes
    assert practice.findings() == []


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("action", [each.name for each in CATALOGUE.actions.values() if each.each is Role.WORKER])
def test_every_action_can_be_carried_out(practice: Practice, name: str, action: str) -> None:
    target = practice.site.find(name)
    assert target is not None
    if action == "start":
        inject(practice.installation, f"{name} is stopped")
    fix = practice.diagnoser.planned(lambda look: CATALOGUE.actions[action].plan(look, target), Flag())
    assert practice.apply(fix)
    assert practice.machines.changes()
    assert practice.machines.unknown() == []


PROVOKED: dict[str, set[str]] = {}  # diagnosis -> the faults that it found


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", WORKERS)
def test_whatever_is_broken_nothing_unknown_is_asked(
    practice: Practice, tripwires: Tripwires, name: str, fault: str
) -> None:
    with tripwires.across():
        inject(practice.installation, f"{name} {fault}")
        pass_time(practice.installation, 200)
        for _ in range(8):  # a worker that keeps ending looks different from second to second
            pass_time(practice.installation, 1)
            for found in practice.look().findings:
                PROVOKED.setdefault(found.by, set()).add(fault)
    assert practice.machines.unknown() == tripwires.tripped == []
    assert practice.machines.changes() == []


def test_every_diagnosis_finds_some_fault() -> None:
    """A handler for which there is no fault is not practised: add one to faults.py that makes it speak."""
    assert CATALOGUE.diagnoses.keys() - PROVOKED.keys() == set()
