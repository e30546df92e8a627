"""What a backup of a 2.x installation is made of: which commands on which machine, and what their exits mean.

Sources: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#backups and, for what is missing there
(`/etc/travis`, Replicated's settings), https://docs.travis-ci.com/user/enterprise/upgrading/
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from bot.core.backup import HAS_ZSTD, TAR_WARNINGS, Packed, Source
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
LIVE = (
    "the files of a running PostgreSQL are in it, which cannot be restored by themselves: restore the database from "
    "`backup databases`, or stop the app (`replicatedctl app stop`) before `backup data`"
)
Store = Callable[[Taking, Look], None]


def take(steps: BackupSteps, look: Look, what: str) -> str:
    """All of it, or one kind: one backup with a manifest at the end."""
    taking = steps.backup(what)
    for kind in KINDS if what == ALL else (what,):
        try:
            _STORES[kind](taking, look)
        except (Unknown, CannotLook) as why:
            taking.skip(kind, str(why))
    return taking.finish()


# ---------------------------------------------------------------- the kinds


def _data(taking: Taking, look: Look) -> None:
    """Every platform machine has its own folder; in high availability only its logs and certificates are there."""
    for machine in look.site.of(Role.PLATFORM):
        folder = platform.data_dir(look, machine)
        live = look(has_live_database(machine, folder))
        taking.store("data", data_source(machine, folder, look(packer(machine)), live))


def data_source(machine: Target, folder: str, packed: Packed, live: bool) -> Source:
    """`live` says that a database runs on these files: then every success has its warning."""
    warnings = ((0, LIVE), (1, f"{TAR_WARNINGS[0][1]}; {LIVE}")) if live else TAR_WARNINGS
    command = sh("tar", "-c", "-f", "-", "--numeric-owner", "-C", "/", *_relative(folder, CERTIFICATES)).sudo()
    return Source(f"data-{machine}", machine, command, HOURS, "tar", packed, () if live else (0,), warnings)


def _relative(*folders: str) -> tuple[str, ...]:
    return tuple(folder.lstrip("/") for folder in folders)


def _databases(taking: Taking, look: Look) -> None:
    """Both databases, the main one first; one dump where both are the same. Each is consistent by itself."""
    if (via := look.site.option("database.via", "container")) != "container":
        raise Unknown(f"dumps of a database that is reached {via} are not taken yet: back it up where it runs")
    machine = look.site.of(Role.PLATFORM)[0]
    container = look(platform.container_of(machine))
    for name, database, user in _dumped(look):
        taking.store("databases", dump_source(machine, container, name, database, user))


def dump_source(machine: Target, container: str, name: str, database: str, user: str) -> Source:
    words = ("pg_dump", "-h", "127.0.0.1", "-U", user, "-F", "c", "-d", database)
    return Source(f"database-{name}", machine, _inside(container, *words), HOURS, "pg_dump")


def _dumped(look: Look) -> Iterator[tuple[str, str, str]]:
    """Name, database and user of each; the vendor's where nothing else is configured."""
    main = (look.site.option("database.name", "travis_production"), look.site.option("database.user", "travis"))
    yield ("main", *main)
    if look.site.option("logs_database.via", "container") != "container":
        raise Unknown("the logs' database is outside of the container: back it up where it runs")
    logs = (look.site.option("logs_database.name", main[0]), look.site.option("logs_database.user", main[1]))
    if logs[0] != main[0]:
        yield ("logs", *logs)


def _key(taking: Taking, look: Look) -> None:
    taking.store_key(look.site.of(Role.PLATFORM)[0])


def _redis(taking: Taking, look: Look) -> None:
    """`redis-cli --rdb -` asks for a copy as a replica does: nothing is written on the machine."""
    if (via := look.site.option("redis.via", "container")) != "container":
        raise Unknown(f"copies of a redis that is reached {via} are not taken yet: back it up where it runs")
    machine = look.site.of(Role.PLATFORM)[0]
    taking.store("redis", redis_source(machine, look(platform.container_of(machine))))


def redis_source(machine: Target, container: str) -> Source:
    return Source("redis", machine, _inside(container, "redis-cli", "--rdb", "-"), MINUTES, "rdb")


def _rabbitmq(taking: Taking, look: Look) -> None:
    """Users, vhosts, queues and policies; messages are not in it, and need a stopped node."""
    via = look.site.option("rabbitmq.via", "container")
    if via == "http":
        raise Unknown("definitions of a RabbitMQ that is reached by http are not taken yet: export them where it runs")
    machine = look.site.of(Role.PLATFORM)[0]
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
    return sh("docker", "exec", container, *words).sudo()


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
    return Fact(f"Does a PostgreSQL run on files of {folder} on {platform}?", platform, question, _found)


def _found(said: Output) -> bool:
    if not said.ok and not said.out:
        raise Unknown(f"find does not tell whether a database runs there: {said.err.strip()[:200] or 'no words'}")
    return bool(said.out.strip())


# ---------------------------------------------------------------- what is known of backups


@dataclass(frozen=True)
class Known:
    """What opsbot knows of an installation's backups. `newest` is the number of the last complete one."""

    newest: int | None
    age: timedelta | None
    overdue_after: timedelta
    fingerprint: str

    @property
    def is_overdue(self) -> bool:
        return self.age is None or self.age > self.overdue_after


@fact
def records() -> Fact[Known | None]:
    """None where no backups are configured."""
    return Fact("When was the last backup taken?", Role.PLATFORM, BackupRecords(), _known)


def _known(said: Rows) -> Known | None:
    for row in said.rows:
        age = row["age"]
        newest = row["newest"]
        return Known(
            newest if isinstance(newest, int) else None,
            timedelta(seconds=age) if isinstance(age, int) else None,
            timedelta(seconds=int(str(row["overdue_after"]))),
            str(row["fingerprint"]),
        )
    return None


@fact
def fingerprint(machine: Target) -> Fact[str]:
    """A keyed fingerprint of the key that the platform has now; empty where no backups are configured."""
    return Fact(f"Which encryption key does {machine} use?", machine, KeyFingerprint(), _fingerprint)


def _fingerprint(said: Rows) -> str:
    return str(said.rows[0]["fingerprint"]) if said.rows else ""


def ago(span: timedelta | None) -> str:
    return readable(span) if span is not None else "not known"
