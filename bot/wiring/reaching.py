"""How installations are reached: machines, databases, brokers, and where their backups go."""

import shutil
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from bot.adapters import embedded
from bot.adapters.containers import Containers
from bot.adapters.database import Database, Dumps, DumpsInside, Location, Way
from bot.adapters.encryption_key import Keys
from bot.adapters.http import Exports, Http
from bot.adapters.origins import Origins
from bot.adapters.redis import CONTAINER, Redis, Server
from bot.adapters.rehearsal import Rehearsals
from bot.adapters.rehearsal import Server as Stage
from bot.adapters.router import Router
from bot.adapters.ssh import Host, Ssh
from bot.adapters.stream import OpenSsh, Programs
from bot.adapters.sudo import Rules
from bot.adapters.tcp import Tcp
from bot.core import keeping
from bot.core.aws import AwsCall
from bot.core.backup import Checking, Definitions, Dump, DumpInside, RedisCopy, Streams, Vault
from bot.core.command import Command
from bot.core.errors import OpsbotError, Permanent
from bot.core.ports import Asker
from bot.core.question import (
    BackupRecords,
    HttpGet,
    KeyFingerprint,
    RedisRead,
    StoredBackup,
    TcpProbe,
)
from bot.core.sql import Query
from bot.engine.records import Records
from bot.engine.shelter import Shelter
from bot.settings import DatabaseSettings, HostSettings, Settings
from bot.settings.sections import Backups
from bot.wiring.foundation import audit_key

if TYPE_CHECKING:
    from bot.adapters.aws import Aws
    from bot.adapters.redis.copies import Copies

REHEARSALS, STAGE = "rehearsals", Stage(embedded.start, embedded.remove, embedded.programs)  # of throw-away servers


def streams_of(settings: Settings, ssh: Ssh) -> Streams:
    """Everything that can be backed up, wherever it comes from."""
    machines = OpenSsh(hosts_of(settings))
    return Origins({Command: machines, **_services(settings, ssh, machines)})


def checks_of(settings: Settings, ssh: Ssh) -> Mapping[type, Checking]:
    """Who tells of each kind of source what lacks to take it."""
    return {Command: Rules(ssh), **_services(settings, ssh, OpenSsh(hosts_of(settings)))}


def _services(settings: Settings, ssh: Ssh, machines: OpenSsh) -> "dict[type, DumpsInside | Dumps | Exports | Copies]":
    """What is backed up otherwise than by a command on a machine."""
    services: dict[type, DumpsInside | Dumps | Exports | Copies] = {
        DumpInside: DumpsInside(machines),
        Dump: Dumps(locations_of(settings), ssh, Programs(), pg_dumps),
        Definitions: Exports(settings.broker_urls()),
    }
    if any(server.via != CONTAINER for server in redis_of(settings).values()):
        from bot.adapters.redis import copies  # its library is loaded only where redis is asked by it

        services[RedisCopy] = copies.Copies(redis_of(settings), ssh)
    return services


def pg_dumps() -> list[Path]:
    """Every pg_dump that may be on this host, the system's first: the wheel's speaks no TLS."""
    systems = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=_number_of, reverse=True)
    found = [Path(each) for each in (shutil.which("pg_dump"),) if each]
    with suppress(OpsbotError):  # the wheel is not installed
        return [*found, *systems, embedded.programs() / "pg_dump"]
    return [*found, *systems]


def _number_of(program: Path) -> float:
    try:
        return float(program.parts[-3])
    except ValueError:
        return 0


def rehearsals_of(settings: Settings, ssh: Ssh) -> Rehearsals:
    """The same streams; dumps are restored for a try on their way."""
    full = settings.backups is not None and settings.backups.proof.restore == "full"
    return Rehearsals(streams_of(settings, ssh), settings.state_dir / REHEARSALS, STAGE, full)


def vault_of(given: Backups, streams: Streams) -> Vault:
    """Its libraries are loaded where backups are configured: a `serve` without is smaller by five megabytes."""
    from bot.adapters.vault import ObjectVault, objects

    return ObjectVault(objects(given.store), given.recipients, streams)


def shelters_of(settings: Settings, ssh: Ssh, rehearsals: Rehearsals) -> dict[str, Shelter]:
    """What it takes to back each installation up; none when no backups are configured."""
    if (given := settings.backups) is None:
        return {}
    vault = vault_of(given, rehearsals)
    containers = Containers(ssh)
    databases = locations_of(settings)
    shelter = Shelter(
        vault,
        Keys(containers, Database(databases, ssh, containers), audit_key(settings)),
        rehearsals,
        keeping.Keep(given.keep.daily, given.keep.weekly, given.keep.monthly),
        given.overdue_after,
        given.proof.restore,
        given.proof.max_size,
        metadata.version("opsbot"),
    )
    return {site.name: shelter for site in settings.sites()}


def router_of(settings: Settings, ssh: Ssh, records: Records | None = None) -> Router:
    """Everything that can be asked and changed in the installations."""
    containers = Containers(ssh)
    database = Database(locations_of(settings), ssh, containers)
    others: dict[type, Asker] = {
        Query: database,
        RedisRead: Redis(redis_of(settings), ssh, containers),
        HttpGet: Http(settings.broker_urls(), ssh),
        TcpProbe: Tcp(ssh),
    }
    if records is not None:
        others |= dict.fromkeys((BackupRecords, KeyFingerprint, StoredBackup), records)
    calls = _aws(settings)
    return Router(ssh, others if calls is None else {**others, AwsCall: calls}, database, calls)


def _aws(settings: Settings) -> "Aws | None":
    """Its library is an extra that only those install who need it."""
    if not (given := settings.aws()):
        return None
    try:
        from bot.adapters.aws import Access, Aws
    except ImportError as missing:
        raise Permanent(
            f"`aws` is configured for {', '.join(given)}, but AWS' library is missing; pip install 'opsbot[aws]'"
        ) from missing
    return Aws({name: Access(each.region, each.write) for name, each in given.items()})


def locations_of(settings: Settings) -> dict[tuple[str, str], Location]:
    return {key: _location(each) for key, each in settings.databases().items()}


def redis_of(settings: Settings) -> dict[str, Server]:
    return {name: Server(each.via, each.url) for name, each in settings.redis_servers().items()}


def _location(given: DatabaseSettings) -> Location:
    return Location(Way(given.via), given.read_dsn, given.write_dsn, given.name, given.user)


def hosts_of(settings: Settings) -> dict[str, Host]:
    return {key: _host(each) for key, each in settings.ssh_hosts().items()}


def _host(each: HostSettings) -> Host:
    jump = _host(each.jump) if each.jump else None
    return Host(each.host, each.port, each.user, each.key_file, each.known_hosts, jump)
