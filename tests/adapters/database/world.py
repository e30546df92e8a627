"""The database of these tests, and the ways to it."""

from dataclasses import dataclass
from datetime import timedelta
from threading import Event as Flag
from typing import Any, LiteralString

import psycopg
from psycopg.conninfo import make_conninfo

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location, Way
from bot.adapters.ssh import Ssh
from bot.core.question import Answer, Output, Unanswered
from bot.core.sql import Parameter, Query, Statement
from bot.core.target import Role, Target
from tests.rigs import postgres
from tests.rigs.sshd import Rig
from tests.rigs.te_main import Container

WAYS = [way.value for way in Way]
PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
PASSWORD = "only-for-tests"
SECOND = timedelta(seconds=1)
HOSTILE = """'; DROP TABLE notes; -- " \\' \\ $$ %s %% :x \\! id\n\t{}'"""
TABLES = """
SET client_min_messages = warning;
DROP TABLE IF EXISTS notes, moments;
CREATE TABLE notes (id integer PRIMARY KEY, text text, state text NOT NULL DEFAULT 'new');
INSERT INTO notes (id, text) SELECT n, 'note ' || n FROM generate_series(1, 5) n;
CREATE SEQUENCE IF NOT EXISTS note_numbers;
CREATE TABLE moments (
    id integer, local timestamp, zoned timestamptz, day date, span interval, flag boolean, share numeric,
    real_share float8,
    ids integer[], settings json, preferences jsonb, raw bytea, address inet, big bigint
);
INSERT INTO moments VALUES
    (1, '2026-01-02 03:04:05.678', '2026-01-02 03:04:05+02', '2026-01-02', '90 minutes', true, 12345678901234.5678, 0.1,
     '{1,2,NULL}', '{"a":\n [1, 2]}', '{"b": {"c": "Ü"}}', '\\x00ff', '10.0.0.11', 9007199254740993),
    (2, 'infinity', '-infinity', NULL, NULL, NULL, 'NaN', 'Infinity', '{}', 'null', '"text"', NULL, NULL, NULL);
"""


@dataclass
class World:
    server: postgres.Server
    container: Container
    ssh: Ssh
    rig: Rig

    @property
    def dsn(self) -> str:
        return make_conninfo(
            host="127.0.0.1", port=self.server.port, user="travis", password=PASSWORD, dbname="travis_production"
        )

    @property
    def owner_dsn(self) -> str:
        return make_conninfo(self.server.dsn_of("travis_production"), user="travis")

    def by(self, way: Way, read_dsn: str | None = None) -> Database:
        dsn = self.dsn if read_dsn is None else read_dsn
        location = Location(way) if way is Way.CONTAINER else Location(way, dsn, dsn)
        return Database({("prod", "main"): location, ("prod", "logs"): location}, self.ssh, Containers(self.ssh))

    def states(self) -> dict[int, str]:
        with psycopg.connect(self.owner_dsn) as connection:
            return dict(connection.execute("SELECT id, state FROM notes").fetchall())


def ask(database: Database, text: str, *parameters: Parameter, **more: Any) -> Answer | Unanswered:
    (answer,) = database.ask(PLATFORM, [Query(text, parameters, **more)], Flag())
    return answer


def change(database: Database, text: str, *parameters: Parameter, rows: int | None = None) -> Output:
    within = timedelta(seconds=5)
    return database.execute(PLATFORM, Statement(text, parameters, rows=rows), within, Flag())


def kill(world: World, which: LiteralString) -> None:
    """End what the installation's user does on the server and looks like this."""
    with psycopg.connect(world.server.dsn) as connection:
        active = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'travis' AND state = 'active'"
        assert connection.execute(f"{active} AND ({which})").fetchall()
