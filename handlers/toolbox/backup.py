"""What a backup of a 2.x installation is made of: what comes from where, and what the exits of commands mean.

Sources: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#backups and, for what is missing there
(`/etc/travis`, Replicated's settings), https://docs.travis-ci.com/user/enterprise/upgrading/
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from bot.core import vendor
from bot.core.backup import (
    HAS_ZSTD,
    LIVE,
    TAR_WARNINGS,
    Definitions,
    Dump,
    DumpInside,
    Packed,
    RedisCopy,
    Source,
)
from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import readable
from bot.core.handler import BackupSteps
from bot.core.keeping import ALL, KINDS
from bot.core.look import CannotLook, Look
from bot.core.question import BackupRecords, KeyFingerprint, Output, Rows
from bot.core.taking import Taking
from bot.core.target import Role, Target
from handlers.toolbox import platform

HOURS = timedelta(hours=12)  # a command that still writes then will not end
MINUTES = timedelta(minutes=30)
CERTIFICATES = "/etc/travis"
Store = Callable[[Taking, Look], None]


def take(steps: BackupSteps, look: Look, what: str) -> str:
    """All of it, or one kind: one backup with a manifest at the end."""
    taking = steps.backup(what)
    gather(taking, look, what)
    return taking.finish()


def gather(taking: Taking, look: Look, what: str) -> None:
    """Everything that belongs to it, one after the other."""
    for kind in KINDS if what == ALL else (what,):
        try:
            _STORES[kind](taking, look)
        except (Unknown, CannotLook) as why:
            taking.skip(kind, str(why))


# ---------------------------------------------------------------- the kinds


def _data(taking: Taking, look: Look) -> None:
    """Every platform machine has its own folder; in high availability only its logs and certificates are there. One
    that does not answer leaves the others alone.
    """
    for machine in look.site.of(Role.PLATFORM):
        try:
            folder = platform.data_dir(look, machine)
            live = look(has_live_database(machine, folder))
            taking.store("data", data_source(machine, folder, look(packer(machine)), live))
        except (Unknown, CannotLook) as why:
            taking.skip("data", str(why))


def data_source(machine: Target, folder: str, packed: Packed, live: bool) -> Source:
    """`live` says that a database runs on these files: then every success has its warning."""
    warnings = ((0, LIVE), (1, f"{TAR_WARNINGS[0][1]}; {LIVE}")) if live else TAR_WARNINGS
    command = sh("tar", "-c", "-f", "-", "--numeric-owner", "-C", "/", *_relative(folder, CERTIFICATES)).sudo()
    return Source(f"data-{machine}", machine, command, HOURS, "tar", packed, () if live else (0,), warnings)


def _relative(*folders: str) -> tuple[str, ...]:
    return tuple(folder.lstrip("/") for folder in folders)


def _databases(taking: Taking, look: Look) -> None:
    """Both databases, the main one first; one dump where both are the same. Each is consistent by itself."""
    for name in ("main", "logs") if _logs_are_apart(look) else ("main",):
        taking.store("databases", _dump(look, name))


def _logs_are_apart(look: Look) -> bool:
    """Only a configured database can be another one; in the same container it has another name, too."""
    if look.site.option("logs_database.apart", "no") != "yes":
        return False
    ways = {look.site.option(f"{section}.via", "container") for section in vendor.SECTIONS.values()}
    names = {look.site.option(f"{section}.name", vendor.DATABASE) for section in vendor.SECTIONS.values()}
    return ways != {"container"} or len(names) > 1


def _dump(look: Look, name: str) -> Source:
    section = vendor.SECTIONS[name]
    if (via := look.site.option(f"{section}.via", "container")) != "container":
        return Source(f"database-{name}", _way_to(look, via), Dump(name), HOURS, "pg_dump")
    machine = look.site.of(Role.PLATFORM)[0]
    database = look.site.option(f"{section}.name", vendor.DATABASE)
    user = look.site.option(f"{section}.user", vendor.USER)
    return dump_source(machine, look(platform.container_of(machine)), name, database, user)


def dump_source(machine: Target, container: str, name: str, database: str, user: str) -> Source:
    """Of a database in the platform's container."""
    return Source(f"database-{name}", machine, DumpInside(container, database, user), HOURS, "pg_dump")


def _way_to(look: Look, via: str) -> Target:
    """The platform machine that leads to what stands elsewhere: a tunnel goes by any of them, so by the first that
    answers.
    """
    first, *more = look.site.of(Role.PLATFORM)
    *others, last = (first, *more) if via == "tunnel" else (first,)
    return next((each for each in others if _answers(look, each)), last)


def _answers(look: Look, machine: Target) -> bool:
    try:
        look(packer(machine))
    except CannotLook:
        return False
    return True


def _key(taking: Taking, look: Look) -> None:
    taking.store_key(look.site.of(Role.PLATFORM)[0])


def _redis(taking: Taking, look: Look) -> None:
    """A copy is asked for as a replica does: nothing is written on the machine."""
    machine = look.site.of(Role.PLATFORM)[0]
    if (via := look.site.option("redis.via", "container")) == "container":
        taking.store("redis", redis_source(machine, look(platform.container_of(machine))))
    else:
        taking.store("redis", Source("redis", _way_to(look, via), RedisCopy(), MINUTES, "rdb"))


def redis_source(machine: Target, container: str) -> Source:
    """Of the redis in the platform's container."""
    return Source("redis", machine, _inside(container, "redis-cli", "--rdb", "-"), MINUTES, "rdb")


def _rabbitmq(taking: Taking, look: Look) -> None:
    """Users, vhosts, queues and policies; messages are not in it, and need a stopped node."""
    machine, via = look.site.of(Role.PLATFORM)[0], look.site.option("rabbitmq.via", "container")
    if via == "http":
        taking.store("rabbitmq", Source("rabbitmq", machine, Definitions(), MINUTES, "json"))
    else:
        container = "" if via == "host" else look(platform.container_of(machine))
        taking.store("rabbitmq", rabbitmq_source(machine, container))


def rabbitmq_source(machine: Target, container: str) -> Source:
    """On the host itself where there is no container."""
    words = ("rabbitmqctl", "--quiet", "export_definitions", "-")
    command = _inside(container, *words) if container else sh(*words).sudo()
    return Source("rabbitmq", machine, command, MINUTES, "json")


def _settings(taking: Taking, look: Look) -> None:
    """What was typed into Replicated's settings page, passwords too."""
    for machine in look.site.of(Role.PLATFORM):
        for source in settings_sources(machine):
            taking.store("settings", source)


def settings_sources(machine: Target) -> Iterator[Source]:
    for name, words in SETTINGS.items():
        yield Source(f"{name}-{machine}", machine, sh("replicatedctl", *words).sudo(), MINUTES, "json")


SETTINGS: Mapping[str, tuple[str, ...]] = {
    "app-config": ("app-config", "export", "--hidden", "-o", "json"),
    "params": ("params", "export", "-o", "json"),
}
_STORES: Mapping[str, Store] = {
    "data": _data,
    "databases": _databases,
    "key": _key,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
    "settings": _settings,
}


def _inside(container: str, *words: str) -> Command:
    """With a bound of its own: docker lets it run on when its client is ended."""
    seconds = str(round(MINUTES.total_seconds()))
    return sh("docker", "exec", container, "timeout", "-k", "2", seconds, *words).sudo()


# ---------------------------------------------------------------- what is asked first


@fact
def packer(machine: Target) -> Fact[Packed]:
    """How this machine can pack: zstd where it is installed, ten times faster than gzip."""
    return Fact(f"Is zstd installed on {machine}?", machine, HAS_ZSTD, _packer)


def _packer(said: Output) -> Packed:
    return "zstd" if said.ok else "gzip"


@fact
def has_live_database(platform: Target, folder: str) -> Fact[bool]:
    """Whether a PostgreSQL runs on files below the folder; its pid file is there while it does."""
    question = sh("find", folder, "-maxdepth", "5", "-name", "postmaster.pid").sudo()

    def found(said: Output) -> bool:
        if not said.ok and not said.out:
            why = said.err.strip()[:200] or "no words"
            raise Unknown(f"find cannot look into {folder} on {platform} ({why}); is `data_dir` of that machine right?")
        return bool(said.out.strip())

    return Fact(f"Does a PostgreSQL run on files of {folder} on {platform}?", platform, question, found)


# ---------------------------------------------------------------- what is known of backups


@dataclass(frozen=True)
class Known:
    """What opsbot knows of an installation's backups. `newest` is the number of the last complete one, `key_backup`
    that of the last with an encryption key, whose fingerprint this is. `key_opens_nothing`: it was tried on values of
    the database. `key_before` is the newest backup with another key, which did open one.
    """

    newest: int | None
    age: timedelta | None
    overdue_after: timedelta
    fingerprint: str
    key_backup: int | None
    key_opens_nothing: bool
    key_before: int | None

    @property
    def is_overdue(self) -> bool:
        """One from far in the future counts as none: a clock is, or was, wrong."""
        return self.age is None or abs(self.age) > self.overdue_after


@fact
def records() -> Fact[Known | None]:
    """None where no backups are configured."""
    return Fact("When was the last backup taken?", Role.PLATFORM, BackupRecords(), _known)


def _known(said: Rows) -> Known | None:
    for row in said.rows:
        age = _number(row, "age")
        return Known(
            _number(row, "newest"),
            timedelta(seconds=age) if age is not None else None,
            timedelta(seconds=int(str(row["overdue_after"]))),
            str(row["fingerprint"]),
            _number(row, "key_backup"),
            row["key_opens"] == "no",
            _number(row, "key_before"),
        )
    return None


def _number(row: Mapping[str, object], name: str) -> int | None:
    said = row[name]
    return said if isinstance(said, int) else None


@fact
def fingerprint(machine: Target) -> Fact[str]:
    """A keyed fingerprint of the key that the platform has now; empty where no backups are configured."""
    return Fact(f"Which encryption key does {machine} use?", machine, KeyFingerprint(), _fingerprint)


def _fingerprint(said: Rows) -> str:
    return str(said.rows[0]["fingerprint"]) if said.rows else ""


def ago(span: timedelta | None) -> str:
    return readable(span) if span is not None else "not known"
