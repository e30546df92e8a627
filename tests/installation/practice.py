"""The simulated machines as opsbot's engine sees them, through the adapters that a real installation has: a look, an
earlier look, and a fix carried out step by step, without approvals and journals.

    practice.inject("platform-1 has no RabbitMQ"); practice.findings()
    practice.look(); practice.pass_time(900)     a sample for `look.earlier` of the next look
    practice.apply(finding.fixes[0])
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event as Flag
from urllib.parse import urlsplit

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location
from bot.adapters.encryption_key import Keys
from bot.adapters.http import AWAY, BROKER
from bot.adapters.redis import Redis, Server
from bot.adapters.router import Router
from bot.adapters.ssh.transport import judged
from bot.adapters.store.samples import SPEAKS_FOR
from bot.core import unit
from bot.core.command import Command
from bot.core.errors import Unknown
from bot.core.finding import Finding
from bot.core.fix import Change, Fix, Step, TakeBackup, Wait
from bot.core.handler import Diagnosis
from bot.core.look import CannotLook
from bot.core.ports import Asker, NotSent, Unreached
from bot.core.question import (
    Answer,
    BackupRecords,
    HttpGet,
    KeyFingerprint,
    Output,
    Question,
    Reached,
    RedisRead,
    Response,
    Rows,
    StoredBackup,
    TcpProbe,
    Unanswered,
)
from bot.core.sql import Parameter, Query, Statement
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from bot.sandbox.installation import SHAPES, Installation, Shape, management, settled
from bot.sandbox.installation.broker import PORT, TLS_PORT
from bot.sandbox.installation.faults import Fault, inject
from bot.sandbox.installation.installation import QUEUE
from tests.installation.console import Console, pass_time, standing_still

CATALOGUE = discover()
ROLES = {True: Role.WORKER, False: Role.PLATFORM}
MINUTE, HOUR = 60, 3600  # seconds
SETTLED = 150  # seconds after which a worker no longer counts as just started


class Machines:
    """What types into the machines; a machine that is down gives no answer."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.consoles = {name: Console(installation, name) for name in installation.machines}

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        pass_time(self.installation, 0)
        if not self.consoles[target.name].machine.up:
            return [Unanswered(f"{target} is down") for _ in questions]
        if self.consoles[target.name].machine.rekeyed:
            return [Unanswered(f"{target} shows another host key", "host-key-changed") for _ in questions]
        commands = [question for question in questions if isinstance(question, Command)]
        assert len(commands) == len(questions)
        answers = self.consoles[target.name].ask(*commands)
        return [judged(target, *each) for each in zip(commands, answers, strict=True)]

    def identity(self, target: Target) -> str:
        return target.address

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        machine = self.consoles[target.name].machine
        if not machine.up or machine.rekeyed:
            raise NotSent(f"{target} cannot be reached")
        return self.consoles[target.name].ask(command, seconds=int(within.total_seconds()))[0]

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        raise Unreached(f"nothing is forwarded through {target} here")

    def changes(self) -> list[str]:
        return [sent.text for console in self.consoles.values() for sent in console.received if sent.changed]

    def unknown(self) -> list[str]:
        return [text for machine in self.installation.machines.values() for text in machine.unknown]


@dataclass
class Web:
    """What opsbot itself reaches over the network: pages and ports of the platform."""

    installation: Installation

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [self._answer(question) for question in questions]

    def identity(self, target: Target) -> str:
        return target.address

    def _answer(self, question: Question) -> Answer | Unanswered:
        if isinstance(question, TcpProbe):
            return Reached("open" if self._listens(question.host, question.port) else "refused")
        assert isinstance(question, HttpGet)
        if question.url.startswith(BROKER):
            return self._broker(question.url.removeprefix(BROKER))
        url = urlsplit(question.url)
        if not self._listens(url.hostname or "", url.port or 443):
            return Unanswered(f"{question.url} refuses connections")
        return Response(*self.installation.app.page(url.path))

    def _broker(self, path: str) -> Answer | Unanswered:
        """Its management API lives in the broker, and in the container when that runs."""
        address = self.installation.platform.address
        if not (self._listens(address, PORT) or self._listens(address, TLS_PORT)):
            asked = f"GET {path.partition('?')[0]} of RabbitMQ's management API on {address}:15672"
            return Unanswered(f"{asked} was not answered: the connection is refused.", AWAY)
        return Response(*management.answer(self.installation.broker, path))

    def _listens(self, host: str, port: int) -> bool:
        platform = self.installation.platform
        return port in self.installation.listening(platform, self.installation.resolve(platform, host))


class Records:
    """opsbot's own records: everything was backed up a minute ago, with the key that the platform had at the start."""

    def __init__(self, keys: Keys, platform: Target) -> None:
        self.keys = keys
        self.age = MINUTE
        self.backed_up = keys.read(platform, Flag()).fingerprint

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [self._answer(target, question, abort) for question in questions]

    def _answer(self, target: Target, question: Question, abort: Flag) -> Answer | Unanswered:
        if isinstance(question, BackupRecords):
            backups: dict[str, Parameter] = {"newest": 1, "age": self.age, "overdue_after": 26 * HOUR}
            key: dict[str, Parameter] = {"fingerprint": self.backed_up, "key_backup": 1, "key_opens": "yes"}
            return Rows((backups | key | {"key_before": None},))
        try:
            return Rows(({"fingerprint": self.keys.read(target, abort).fingerprint},))
        except Unknown as why:
            return Unanswered(str(why), "container")

    def identity(self, target: Target) -> str:
        return target.address


@dataclass(frozen=True)
class Own:
    """What can be wrong with opsbot's own records: no state of any machine, and so no fault of the installation."""

    fault: Fault
    change: Callable[[Records], None]


def _own(name: str, says: str, cause: str, change: Callable[[Records], None]) -> Own:
    return Own(Fault(name, says, lambda _installation, _machine: None, Role.PLATFORM, cause), change)


def _no_key(records: Records) -> None:
    records.backed_up = ""


def _week_old(records: Records) -> None:
    records.age = 7 * 24 * HOUR


OWN = {
    each.fault.name: each
    for each in (
        _own("has no copy of its key", "No backup of the encryption key was ever taken.", "key.missing", _no_key),
        _own("was backed up a week ago", "No complete backup has come since.", "backup.overdue", _week_old),
    )
}


@dataclass
class Samples:
    """The answers of earlier looks, for `look.earlier`; kept as the store keeps them, for the sampled facts only."""

    installation: Installation
    kept: list[tuple[float, Target, Question, Answer]] = field(default_factory=list)

    def keep(self, report: Report) -> None:
        now = self.installation.timeline.now()
        self.kept += [(now, *each) for each in report.answers if each[1] in report.sampled]

    def __call__(self, target: Target, question: Question, at_least: timedelta) -> Answer | None:
        """The newest answer that is old enough."""
        now = self.installation.timeline.now()
        ages = [(now - at, said) for at, whom, asked, said in self.kept if (whom, asked) == (target, question)]
        old = [each for each in ages if timedelta() <= timedelta(seconds=each[0]) - at_least <= SPEAKS_FOR]
        return min(old, key=lambda each: each[0])[1] if old else None


class Practice:
    """An installation with a database of its own, and what looks at it and repairs it."""

    def __init__(self, dsn: str | None = None, shapes: tuple[Shape, ...] = SHAPES, broker: str = "container") -> None:
        self.installation = settled(standing_still(), shapes, dsn=dsn)
        self.machines = Machines(self.installation)
        workers = self.installation.workers()
        targets = tuple(
            Target(machine.name, ROLES[machine in workers], "try", machine.address)
            for machine in self.installation.machines.values()
        )
        queues = tuple((f"queue.{machine.name}", QUEUE) for machine in workers)
        self.site = Site("try", "travis.example.com", "2.2", targets, (*queues, ("rabbitmq.via", broker)))
        self.samples = Samples(self.installation)
        containers, web = Containers(self.machines), Web(self.installation)
        database = Database({("try", "main"): Location()}, self.machines, containers)
        redis = Redis({"try": Server()}, self.machines, containers)
        others: dict[type, Asker] = {Query: database, RedisRead: redis, HttpGet: web, TcpProbe: web}
        self.records = Records(Keys(containers, database, b"salt"), targets[0])
        others |= dict.fromkeys((BackupRecords, KeyFingerprint, StoredBackup), self.records)
        self.router = Router(self.machines, others, database)
        self.diagnoser = Diagnoser(self.site, self.router, self.samples)
        self._target = targets[0]
        self.dsn, self.shapes = dsn, shapes

    def anew(self) -> "Practice":
        """A healthy one of the same shape, in the place of this one."""
        return Practice(self.dsn, self.shapes)

    def inject(self, text: str) -> Fault:
        if (own := OWN.get(text.partition(" ")[2])) is None:
            return inject(self.installation, text)
        own.change(self.records)
        return own.fault

    def pass_time(self, seconds: float) -> None:
        pass_time(self.installation, seconds)

    def look(self) -> Report:
        return self.look_with(tuple(CATALOGUE.diagnoses.values()))

    def look_with(self, diagnoses: Sequence[Diagnosis]) -> Report:
        report = self.diagnoser.look(diagnoses, self.site, Flag())
        self.samples.keep(report)
        return report

    def findings(self) -> list[Finding]:
        return [found.finding for found in self.look().troubles()]

    def order(self, action: str, machine: str, argument: str = "") -> Fix:
        """What somebody orders by name; raises Refused as it would be refused."""
        target = self.site.find(machine)
        assert target is not None
        return self.diagnoser.fix(CATALOGUE.actions[action], target, argument, Flag())

    def carry_out(self, steps: Sequence[Step]) -> bool:
        """Whether every step came to its end."""
        return all(map(self._step, steps))

    def _step(self, step: Step) -> bool:
        if isinstance(step, Wait):
            return self._wait(step)
        if isinstance(step, TakeBackup):
            return True  # the engine's own work
        assert isinstance(step, Change), f"{step}: needs a person"
        return self._change(step)

    def _change(self, change: Change) -> bool:
        if change.needed is not None and not self.diagnoser.answer(change.needed, Flag()):
            return True
        target = self._target
        if isinstance(change.command, Statement):
            return self.router.execute(target, change.command, change.within, Flag()).ok
        assert isinstance(change.command, Command)
        if not change.slow:
            return self.machines.send(target, change.command, change.within, Flag()).ok
        return self._as_a_unit(change.command, change.within)

    def _as_a_unit(self, command: Command, within: timedelta) -> bool:
        name = f"opsbot-1-{len(self.machines.changes())}-261122"
        started = self._send(unit.start(command, name, within))
        again = self._send(unit.start(command, name, within))
        assert unit.taken(again)
        while (ended := self._unit(name)).state is unit.State.RUNNING:
            self.pass_time(1)
        for each in unit.forget(name):
            self._send(each)
        assert self._unit(name).state is unit.State.NEVER_STARTED
        return started.ok and ended.state is unit.State.DONE

    def _send(self, command: Command) -> Output:
        return self.machines.send(self._target, command, timedelta(seconds=30), Flag())

    def _unit(self, name: str) -> unit.Ended:
        return unit.ended(self._send(unit.asked(name)))

    def _wait(self, wait: Wait) -> bool:
        until = self.installation.timeline.now() + wait.within.total_seconds()
        while self.installation.timeline.now() < until:
            if self.installation.machine(self._target.name).up and self._is_met(wait):
                return True
            self.pass_time(5)
        return False

    def _is_met(self, wait: Wait) -> bool:
        """What cannot be asked just now is asked again, as the engine does."""
        try:
            return wait.until.met_by(self.diagnoser.answer(wait.fact, Flag()))
        except (CannotLook, Unknown):
            return False

    def apply(self, fix: Fix) -> bool:
        self._target = fix.target
        done = self.carry_out(fix.steps)
        if not done:
            self.carry_out(fix.ensure)
        self.pass_time(SETTLED)
        return done
