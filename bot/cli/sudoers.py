"""The least that sudo has to allow opsbot's login, from the facts and fixes themselves.

Each fact is made with sample arguments, each fix from a sample worker, and what runs as root becomes a rule. Everything
that opsbot runs as root is bounded by `timeout` inside sudo, so a rule begins with it, and its seconds are exact. A
number that is not known beforehand (a process, a run) becomes one rule for each length: `*` would match spaces too,
and with them other options.
"""

import inspect
import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from bot.adapters import redis
from bot.adapters.database import Location, inside
from bot.adapters.ssh.host import Limits
from bot.core import docker as containers
from bot.core import dump, unit
from bot.core.backup import DumpInside
from bot.core.command import Command
from bot.core.fact import FACTS, Fact
from bot.core.fix import Change, Fix, Risk, Wait, differs
from bot.core.question import RedisRead
from bot.core.sql import Query, Statement
from bot.core.taking import CONFIGURATION
from bot.core.target import Role, Target
from bot.core.wire import bound
from bot.engine.discovery import discover
from handlers.toolbox import (
    backup,
    docker,
    edit,
    platform,
    pool,
    rabbitmq,
    recovery,
    replicated,
    run_directory,
    settings,
    sidekiq,
    sync,
    tls,
    worker,
)
from handlers.toolbox import broker as rabbit

TIMEOUT: Final = "/usr/bin/timeout"
UNIT_WITHIN: Final = timedelta(seconds=30)  # for systemd-run and what cleans up after it
MACHINE: Final = Target("worker-1", Role.WORKER, "sample", "10.0.0.11")
PLATFORM: Final = Target("platform-1", Role.PLATFORM, "sample", "10.0.0.10")
PID, RUN, CHANGE_NO, CONTAINER = 7_654_321, 8_765_432, 97, "c0ffee0ddba1"
LOGIN: Final = "sample-login"
DOCKER_API: Final = "1.97531"
LONGEST_LOGIN: Final = 39  # GitHub's own limit
COPY_SHAPE: Final = ".opsbot-" + "[0-9a-f]" * 8  # a copy is named by what was edited then
_COPY: Final = re.compile(r"\.opsbot-[0-9a-f]{8}$")
BEGAN: Final = datetime(2000, 1, 1, tzinfo=UTC)
_UNKNOWN: Final = {  # what stands for a value that is not known beforehand -> the shapes that it can have
    f"{BEGAN:%y%m%d%H%M%S}": ["[0-9]" * 12],
    str(RUN): ["[0-9]" * length for length in range(1, len(str(RUN)) + 1)],
    str(PID): ["[0-9]" * length for length in range(1, len(str(PID)) + 1)],
    f"-{CHANGE_NO}-": [f"-{'[0-9]' * length}-" for length in (1, 2)],
    CONTAINER: ["[0-9a-f]" * len(CONTAINER)],
    DOCKER_API: ["1.[0-9][0-9]"],
    LOGIN: ["[A-Za-z0-9_.-]" * length for length in range(1, LONGEST_LOGIN + 1)],
}


@dataclass(frozen=True)
class Broker:
    """How an installation's RabbitMQ is asked (`container`, `host` or `http`), for which vhost, in which folders its
    platforms keep their data, the name that builds know it by, and the queues of its workers.
    """

    via: str = "container"
    vhost: str = "travis"
    data_dirs: tuple[str, ...] = ("/var/travis",)
    domain: str = "travis.example.com"
    queues: tuple[str, ...] = ("builds.trusty",)
    databases: tuple[Location, ...] = (Location(),)  # those that psql in the container is asked for
    redis_in_container: bool = True
    backups: bool = False  # whether any are taken

    @property
    def in_container(self) -> bool:
        return self.via == "container"

    def commands(self, question: object) -> Iterator[Command]:
        """What a machine runs for a question, or for a statement."""
        if isinstance(question, Command):
            yield question
        elif isinstance(question, Query):
            yield from (inside.reading(each, question).inside(CONTAINER) for each in self.databases)
        elif isinstance(question, RedisRead) and self.redis_in_container:
            yield redis.program(question).inside(CONTAINER)


@dataclass(frozen=True)
class Rooted:
    """One command that runs as root on machines of a role, and after how many seconds it is ended."""

    role: Role
    command: Command
    seconds: int

    def rules(self) -> Iterator[str]:
        """As sudoers writes it; several when a number has no fixed length."""
        words = (*bound(self.command, self.seconds), *map(str, self.command.words))[1:]
        line = " ".join(_escaped(word) for word in words)
        unknown = [sample for sample in _UNKNOWN if sample in line]
        for shapes in itertools.product(*(_UNKNOWN[sample] for sample in unknown)):
            rule = line
            for sample, shape in zip(unknown, shapes, strict=True):
                rule = rule.replace(sample, shape)
            yield f"{TIMEOUT} {_COPY.sub(COPY_SHAPE, rule)}"


def sudoers(users: Iterable[str], brokers: Iterable[Broker] = (Broker(),), folders: Iterable[Path] = ()) -> str:
    """A file for each role, one after the other, to be put on the machines as the comment above it says."""
    folders = tuple(folders)
    discover(folders)
    wanted, left_out = rooted(tuple(brokers))
    parts = [_part(tuple(users), role, [each for each in wanted if each.role is role]) for role in Role]
    notes = [f"# Not known beforehand, add its rule by hand: {name}\n" for name in left_out]
    notes += [f"# Fixes in {folder} have to be added by hand.\n" for folder in folders]
    return "\n".join((*parts, *notes))


def rooted(brokers: Iterable[Broker]) -> tuple[list[Rooted], list[str]]:
    """Everything that the known facts and fixes run as root, and the facts that could not be made from samples."""
    asked, left_out = list[Rooted](), list[str]()
    for broker in brokers:
        for name, make in sorted(FACTS.items()):
            if (arguments := _arguments(make, broker)) is None:
                left_out.append(name)
            else:
                asked += _questions(make, arguments, broker)
        asked += [*_services(broker), *_backups(broker)]
    fixes = (*_fixes(), *(fix for broker in brokers for fix in (*_fixes_by_name(broker), *_edits(broker))))
    changes = (each for fix in fixes for each in _changes(fix))
    return list(dict.fromkeys((*asked, *changes))), list(dict.fromkeys(left_out))


def _part(users: tuple[str, ...], role: Role, wanted: list[Rooted]) -> str:
    alias, rules = f"OPSBOT_{role.name}", sorted({rule for each in wanted for rule in each.rules()})
    return "".join(
        (
            f"# On {role.value} machines: /etc/sudoers.d/opsbot, owned by root, mode 0440; `visudo -c` checks it.\n",
            f"Cmnd_Alias {alias} = \\\n    ",
            ", \\\n    ".join(rules),
            f"\n{', '.join(users)} ALL=(root) NOPASSWD: {alias}\n",
        )
    )


def _questions(make: Any, arguments: Iterable[tuple[Any, ...]], broker: Broker) -> Iterator[Rooted]:
    for each in arguments:
        fact: Fact[Any] = make(*each)
        role = fact.on if isinstance(fact.on, Role) else fact.on.role
        for command in broker.commands(fact.question):
            yield from _as_root(role, command, timedelta(seconds=Limits().program))


def _services(broker: Broker) -> Iterator[Rooted]:
    """The container is looked for, and a statement is told to psql: which one, no rule can say."""
    if broker.databases or broker.redis_in_container:
        yield from _as_root(Role.PLATFORM, containers.LISTING, timedelta(seconds=Limits().program))
    within = Change("any", Statement("SELECT 1")).within
    for each in broker.databases:
        written = inside.writing(each, Statement("SELECT 1"), within).inside(CONTAINER)
        yield from _as_root(Role.PLATFORM, written, within + inside.GRACE)


def _backups(broker: Broker) -> Iterator[Rooted]:
    """What is streamed from a platform, only where backups are taken: it reads everything."""
    if not broker.backups:
        return
    sources = [backup.data_source(PLATFORM, folder, "", False) for folder in broker.data_dirs]
    sources += [backup.redis_source(PLATFORM, CONTAINER)] if broker.redis_in_container else []
    if broker.via != "http":
        sources += [backup.rabbitmq_source(PLATFORM, CONTAINER if broker.in_container else "")]
    for source in (*sources, *backup.settings_sources(PLATFORM)):
        yield from _as_root(Role.PLATFORM, source.origin, source.within)
    for each in broker.databases:  # counted or not: what differs is told to psql
        dumped = dump.inside(DumpInside(CONTAINER, each.name, each.user))
        yield from _as_root(Role.PLATFORM, dumped, backup.HOURS)
    read = containers.Program(("cat", CONFIGURATION)).inside(CONTAINER)
    yield from _as_root(Role.PLATFORM, read, timedelta(seconds=Limits().program))


def _arguments(make: Any, broker: Broker) -> Iterable[tuple[Any, ...]] | None:
    """Sample arguments for a fact, told by their names; None when one of them is not known here."""
    samples: dict[str, tuple[Any, ...]] = {
        "machine": (MACHINE,),
        "platform": (PLATFORM,),
        "folder": broker.data_dirs,
        "init": (worker.SYSTEMD, worker.UPSTART),
        "pid": (PID,),
        "boot": ("any",),
        "addresses": (MACHINE.address,),
        "container": (CONTAINER,),
        "inside": (CONTAINER,) if broker.in_container else (),
        "place": ({"host": rabbitmq.HOST, "http": rabbitmq.API}.get(broker.via, CONTAINER),),
        "vhost": (broker.vhost,),
        "domain": (broker.domain,),
        "queue": tuple(rabbit.DRAINS),
        "ids": ("1",),
        "number": ("1",),
        "seen": ("1@",),
        "version": (DOCKER_API,),
        "prefix": (sidekiq.PREFIX, ""),
        "process": ("any",),
        "name": ("any",),
        "login": (LOGIN,),
        "group": ("sg-01234567",),
        "source": (MACHINE.address,),
        "host": ("travis.example.com",),
        "page": ("https://travis.example.com/__build__/uptime",),
        "port": (5672,),
        "setting": (settings.QUEUE,),
        "value": ("any",),
        "cause": run_directory.CAUSES,
    }
    wanted = inspect.signature(make).parameters
    return itertools.product(*(samples[name] for name in wanted)) if set(wanted) <= set(samples) else None


def _fixes() -> Iterator[Fix]:
    """Every fix of a worker, for both init systems, and those of a platform."""
    orphans = (docker.removal((CONTAINER,) * count) for count in range(1, docker.BATCH + 1))
    yield Fix("worker.orphans", "Remove", MACHINE, tuple(Change("rm", each) for each in orphans), Risk.INTERRUPTS)
    yield from (replicated.restart(PLATFORM), platform.remove_empty_folder(PLATFORM))
    yield sync.release(PLATFORM, [sync.User(1, LOGIN, "")], "2.2")
    back = Wait(worker.boot_id(MACHINE), differs("any"), timedelta(minutes=1))
    for init in (worker.SYSTEMD, worker.UPSTART):
        on = recovery.Handle(MACHINE, init, PID, "any", "", back)
        yield from (*on.fixes(), recovery.drain(on), recovery.start(MACHINE, init, back))
        yield from replace(on, snap=init == worker.SYSTEMD).fixes()
        yield docker.start(MACHINE, init, worker.Service(True, False, PID, "active", None, True))


def _fixes_by_name(broker: Broker) -> Iterator[Fix]:
    """Fixes of the platform in which a container or the domain is named."""
    if broker.via != "http":
        yield rabbit.start_app(PLATFORM, CONTAINER if broker.in_container else "")
    if broker.in_container:
        at = rabbitmq.Broker(CONTAINER, broker.vhost)
        yield from (rabbit.start_service(PLATFORM, CONTAINER, name) for name in rabbit.SERVERS)
        yield from (rabbit.restart_drain(PLATFORM, at, queue) for queue in rabbit.DRAINS)
    yield from (tls.renew(PLATFORM, broker.domain, as_unit) for as_unit in (True, False))
    if broker.redis_in_container:
        yield from (sidekiq.clear_archive(PLATFORM, CONTAINER, prefix) for prefix in (sidekiq.PREFIX, ""))


def _edits(broker: Broker) -> Iterator[Fix]:
    """Each line of a worker's settings that may be edited, and what puts its run directory right."""
    steps = [
        *(step for cause in run_directory.CAUSES for step in run_directory.changes(MACHINE, cause)),
        *(step for each in edit.possible(broker.domain, broker.queues) for step in edit.steps_of(MACHINE, each)),
        *(
            step
            for each in pool.possible_api_lines(DOCKER_API)
            for step in pool.api_written(MACHINE, worker.SYSTEMD, each, DOCKER_API)
        ),
        *(recovery.restarted_anyhow(init) for init in (worker.SYSTEMD, worker.UPSTART)),
    ]
    yield Fix("worker.settings", "Edit a setting", MACHINE, tuple(steps), Risk.INTERRUPTS)


def _changes(fix: Fix) -> Iterator[Rooted]:
    for change in (*fix.changes(), *fix.ensure):
        if isinstance(change.command, Command):
            yield from (
                _unit(fix, change, change.command)
                if change.slow
                else _as_root(fix.target.role, change.command, change.within)
            )


def _unit(fix: Fix, change: Change, command: Command) -> Iterator[Rooted]:
    """A slow change: started, stopped and forgotten under its name."""
    name = unit.name(RUN, CHANGE_NO, BEGAN)
    for each in (unit.start(command, name, change.within), *unit.forget(name)):
        yield from _as_root(fix.target.role, each, UNIT_WITHIN)


def _as_root(role: Role, question: object, within: timedelta) -> Iterator[Rooted]:
    if isinstance(question, Command):
        seconds = max(1, round(within.total_seconds()))
        parts = (part for part in question.parts() if part.as_root and "" not in part.words)
        yield from (Rooted(role, part, seconds) for part in parts)  # no container, nothing to be run in it


def _escaped(word: str) -> str:
    """A word that matches itself alone. sudo compares the words joined by spaces; a tab cannot be written, so any one
    character may stand there.
    """
    doubled = word.replace("\\", "\\\\")  # sudoers takes one of two away, and the comparison of words another
    return re.sub(r"([\\*?\[\]!,:=#])", r"\\\1", doubled).replace("\t", "?")
