"""One database of a real PostgreSQL, reached in every way: directly, through a tunnel, by psql in a container."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from threading import Event as Flag

import psycopg
import pytest

from bot.adapters.database import Database, Way
from bot.adapters.ssh import Ssh
from tests.adapters.database.world import HOSTILE, TABLES, WAYS, World
from tests.rigs import postgres
from tests.rigs.sshd import HostSpec, sshd
from tests.rigs.te_main import Container


@pytest.fixture(scope="session")
def world(postgres_server: postgres.Server) -> Iterator[World]:
    """The platform machine with its container, and the database, for the session."""
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for sql in (
            "CREATE ROLE travis LOGIN PASSWORD 'only-for-tests'",
            "CREATE DATABASE travis_production OWNER travis",
        ):
            connection.execute(sql)
    with tempfile.TemporaryDirectory(prefix="opsbot-docker-") as folder:
        container = Container(Path(folder), postgres_server.folder, postgres_server.port)
        programs = {"docker": container.program, "pg_dump": container.wrapped(postgres_server.programs / "pg_dump")}
        with sshd(HostSpec("platform-1", programs=programs, recorded=False)) as rig:
            ssh = Ssh({"prod/platform-1": rig.host("platform-1")})
            try:
                yield World(postgres_server, container, ssh, rig)
            finally:
                ssh.close()
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE travis_production WITH (FORCE)")
        connection.execute("DROP ROLE travis")


@pytest.fixture
def clean(world: World) -> Iterator[World]:
    """The same with its tables as they were."""
    with psycopg.connect(world.owner_dsn, autocommit=True) as connection:
        connection.execute(TABLES)
        connection.execute("INSERT INTO notes (id, text) VALUES (99, %s)", (HOSTILE,))
    yield world
    for program in ("psql", "pg_dump"):
        world.container.say(program, "")


@pytest.fixture(params=WAYS)
def database(request: pytest.FixtureRequest, clean: World) -> Database:
    """The database by one of the three ways."""
    return clean.by(Way(request.param))


@pytest.fixture
def abort() -> Flag:
    return Flag()
