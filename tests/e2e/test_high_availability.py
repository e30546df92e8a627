"""A platform whose databases and redis stand outside of its container, from the configuration to the wire: they are led
to by the platform's sshd, which lets nobody through to anything else, and the logs have a database of their own.
"""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event

import psycopg
import pytest
import yaml

from bot.adapters.ssh import Ssh
from bot.core.backup import Dump, Source
from bot.core.errors import Permanent
from bot.core.question import Rows
from bot.core.sql import Query
from bot.core.target import Target
from bot.settings import Settings, load
from bot.wiring import CHECKS
from bot.wiring.reaching import hosts_of, router_of, streams_of
from tests.rigs import postgres, redis
from tests.rigs.sshd import HostSpec, Rig, sshd

NOWHERE = "postgresql://postgres:only-for-tests@127.0.0.1:1/travis_logs"
REDIS_PASSWORD = "redis-only-for-tests"


@dataclass(frozen=True)
class Elsewhere:
    """The servers, the platform that leads to them, and a folder for configurations."""

    main: str
    logs: str
    redis: str
    rig: Rig
    folder: Path

    def settings(self, logs: str = "") -> Settings:
        """As a team writes it down; the logs' DSN may be another."""
        host, rig = self.rig.hosts["platform-1"], self.rig
        installation = {
            "name": "prod",
            "version": "2.2",
            "domain": "travis.example.com",
            "ssh": {"user": "ops", "key_file": str(rig.key_file), "known_hosts": str(rig.known_hosts)},
            "platforms": [{"name": "platform-1", "host": host.host, "port": host.port}],
            "database": {"via": "tunnel", "read_dsn_env": "TRAVIS_READ_DSN"},
            "logs_database": {"via": "tunnel", "read_dsn_env": "TRAVIS_LOGS_READ_DSN"},
            "redis": {"via": "tunnel", "url_env": "TRAVIS_REDIS_URL"},
        }
        slack = {"team_id": "T0123ABCD", "app_id": "A0123ABCD", "connect": False}
        file = self.folder / "opsbot.yaml"
        file.write_text(yaml.safe_dump({"slack": slack, "installations": [installation]}))
        addresses = {"TRAVIS_READ_DSN": self.main, "TRAVIS_LOGS_READ_DSN": logs or self.logs}
        return load(file, {**addresses, "TRAVIS_REDIS_URL": self.redis})


@pytest.fixture
def elsewhere(running_servers: Callable[[str], postgres.Server], tmp_path: Path) -> Iterator[Elsewhere]:
    server = running_servers("18")
    with (
        database_with(server, "users") as main,
        database_with(server, "log_parts") as logs,
        redis.server(REDIS_PASSWORD) as cache,
        sshd(platform(server.port, cache.port)) as rig,
    ):
        yield Elsewhere(main, logs, cache.url, rig, tmp_path)


def platform(*ports: int) -> HostSpec:
    """A machine that leads to these ports of its own and to nothing else."""
    return HostSpec("platform-1", config=f"PermitOpen {' '.join(f'127.0.0.1:{port}' for port in ports)}\n")


@contextmanager
def database_with(server: postgres.Server, table: str) -> Iterator[str]:
    """The DSN, for TCP and with a password, of a database that has this table only."""
    with server.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE {table} (id integer)")
            name = connection.info.dbname
        yield f"postgresql://{postgres.USER}:{postgres.PASSWORD}@127.0.0.1:{server.port}/{name}"


def test_each_database_is_asked_through_the_platform(elsewhere: Elsewhere) -> None:
    settings = elsewhere.settings()
    assert CHECKS["their services"](settings) == "all answer: database, logs' database, redis"
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with closing(Ssh(hosts_of(settings))) as ssh:
        questions = [Query(tables), Query(tables, database="logs")]
        said = router_of(settings, ssh).ask(machine(settings), questions, Event())
    assert said == [Rows(({"tablename": "users"},)), Rows(({"tablename": "log_parts"},))]


def test_each_database_is_dumped_through_the_platform(elsewhere: Elsewhere) -> None:
    settings = elsewhere.settings()
    with closing(Ssh(hosts_of(settings))) as ssh:
        main, logs = (dumped(settings, ssh, name) for name in ("main", "logs"))
    assert main.startswith(b"PGDMP")
    assert logs.startswith(b"PGDMP")
    assert (b"users" in main, b"log_parts" in main) == (True, False)
    assert (b"users" in logs, b"log_parts" in logs) == (False, True)


def test_logs_that_cannot_be_reached_are_named_with_the_way_to_them(elsewhere: Elsewhere) -> None:
    with pytest.raises(Permanent) as away:
        CHECKS["their services"](elsewhere.settings(NOWHERE))
    said = str(away.value)
    assert said.startswith(
        "The database travis_logs on 127.0.0.1:1 through platform-1 cannot be reached: sshd forwards"
    )
    assert "only-for-tests" not in said
    assert "edis" not in said, "the others answer"


def test_a_platform_that_is_away_is_named_once(elsewhere: Elsewhere) -> None:
    settings = elsewhere.settings()
    elsewhere.rig.power_off("platform-1")
    with pytest.raises(Permanent) as away:
        CHECKS["their services"](settings)
    assert str(away.value).count("platform-1") == 1
    assert "database" not in str(away.value), "nobody knows whether they run"


def machine(settings: Settings) -> Target:
    (site,) = settings.sites()
    (found,) = site
    return found


def dumped(settings: Settings, ssh: Ssh, database: str) -> bytes:
    source = Source(f"database-{database}", machine(settings), Dump(database), timedelta(minutes=1), "pg_dump")
    with streams_of(settings, ssh).open(source, Event()) as stream:
        return b"".join(iter(lambda: stream.read(65536), b""))
