"""The platform's PostgreSQL, which is a real one: a Travis schema, a healthy seed, and the clock of the machines.

For faults and tests, times in seconds before now:

    installation.database.add_job("queued", queue="builds.trusty", ago=900)
    installation.database.run("UPDATE users SET is_syncing = true WHERE login = %s", "ada")
    installation.database.rewrite("UPDATE jobs SET updated_at = now() - interval '2 hours' WHERE id = %s", 3003)
    installation.database.running = False       # connections to it are refused
    installation.database.refuses = "sorry, too many clients already"   # it answers, and lets nobody in

`now()` in its sessions is the time on the simulated machines. Nothing is kept open between two calls, so that a server
that is stopped and started in between does no harm.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from bot.sandbox.installation.timeline import RealClock, Timeline

SCHEMA = Path(__file__).parent / "schema"
LOADING = 7_226_001  # the advisory lock under which a schema is loaded
NAME = "travis_production"
SESSION = "-c search_path=clock,pg_catalog,public -c timezone=UTC"
LOADS = "-c search_path=public -c timezone=UTC"
PAST = "SET LOCAL travis.past = on"
TABLES = (
    "users", "organizations", "memberships", "repositories", "requests", "builds", "jobs", "queueable_jobs",
)  # fmt: skip
LOGS = ("logs", "log_parts")
# The numbers of these tables begin anew, as after TRUNCATE ... RESTART IDENTITY.
FROM_ONE = """
SELECT setval(objid::regclass, 1, false) FROM pg_depend JOIN pg_sequence ON seqrelid = objid
 WHERE classid = 'pg_class'::regclass AND deptype = 'a' AND refobjid = ANY(%s::regclass[])
"""
Row = dict[str, Any]
# Which times a job has that came as far as this; how long before the last of them each was.
TIMES: Mapping[str, tuple[str, ...]] = {
    "created": (),
    "queued": ("queued_at",),
    "received": ("queued_at", "received_at"),
    "started": ("queued_at", "received_at", "started_at"),
    "passed": ("queued_at", "received_at", "started_at", "finished_at"),
    "failed": ("queued_at", "received_at", "started_at", "finished_at"),
    "errored": ("queued_at", "received_at", "finished_at"),
    "canceled": ("queued_at", "canceled_at", "finished_at"),
}


class TravisDatabase:
    """A database of Travis' own; the schema is made when it is not there yet."""

    def __init__(self, dsn: str, version: str = "2.2", timeline: Timeline | None = None) -> None:
        self.dsn = dsn
        self.version = version
        self.timeline = timeline
        self.name = NAME
        self.running = True
        self.refuses = ""
        self.hears_github = True
        self._runs_by_itself = False
        self._shows: datetime | None = None
        with self._connect(LOADS) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [LOADING])
            if _lacks_schema(connection):
                for file in ("clock.sql", f"travis-{version}.sql"):
                    connection.execute((SCHEMA / file).read_bytes())
                _set_defaults(connection)
        self.tick()

    @property
    def has_logs(self) -> bool:
        """2.x keeps the logs in the main database, 3.x in one of their own."""
        return self.version.startswith("2.")

    def reset(self) -> None:
        """Empty every table and seed a healthy installation; what was stopped runs again."""
        self.running, self.refuses, self.hears_github = True, "", True
        self.tick()
        with self._connect() as connection:
            connection.execute(PAST)
            self._empty(connection)
            for file in ("healthy.sql", "healthy-logs.sql")[: 2 if self.has_logs else 1]:
                connection.execute((SCHEMA / file).read_bytes())

    def _empty(self, connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
        """Not by TRUNCATE: for a handful of rows it takes ten times as long, with new files for every table."""
        tables = TABLES + (LOGS if self.has_logs else ())
        for table in tables:
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        connection.execute(FROM_ONE, [list(tables)])

    def run(self, text: str, *parameters: object) -> list[Row]:
        """One statement as the product would run it: the trigger sets updated_at. Its rows, if it has any."""
        self.tick()
        with self._connect() as connection:
            return _rows(connection, text, parameters)

    def rewrite(self, text: str, *parameters: object) -> list[Row]:
        """One statement that writes a past: updated_at stays as it is written."""
        self.tick()
        with self._connect() as connection:
            connection.execute(PAST)
            return _rows(connection, text, parameters)

    def add_job(
        self, state: str = "queued", queue: str | None = "builds.trusty", ago: float = 600.0, **columns: object
    ) -> int:
        """A job, and the build it belongs to, that came into this state so many seconds ago; the job's id."""
        at = dict.fromkeys(("created_at", "updated_at", *TIMES[state]), ago)
        build = {"repository_id": 1, "number": "11", "state": state, "owner_id": 1, "owner_type": "Organization"}
        shared = {key: columns[key] for key in ("repository_id", "owner_id", "owner_type") if key in columns}
        of_build = {key: value for key, value in at.items() if key != "queued_at"}
        [made] = self._insert("builds", build | shared, of_build)
        job = build | {"source_id": made["id"], "source_type": "Build", "type": "Job::Test", "number": "11.1"}
        [made] = self._insert("jobs", job | {"queue": queue} | columns, at)
        return int(made["id"])

    def _insert(self, table: str, columns: Mapping[str, object], ago: Mapping[str, float]) -> list[Row]:
        ago = {key: value for key, value in ago.items() if key not in columns}
        times = [sql.SQL("now() - %s * interval '1 second'") for _ in ago]
        text = sql.SQL("INSERT INTO {} ({}) VALUES ({}) RETURNING id").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, (*columns, *ago))),
            sql.SQL(", ").join([*[sql.Placeholder()] * len(columns), *times]),
        )
        return self.rewrite(text.as_string(None), *columns.values(), *ago.values())

    def tick(self) -> None:
        """Let the database's clock show the machines' time; where their time runs by itself, so does the database's."""
        if self.timeline is None or self._runs_by_itself:
            return
        clock = self.timeline.clock
        speed = clock.speed if isinstance(clock, RealClock) else 0.0
        self._runs_by_itself = bool(speed)
        shows = self.timeline.date()
        if shows == self._shows:  # time stands still, and each look would open as many connections again
            return
        with self._connect() as connection:
            connection.execute("DELETE FROM clock.reading")
            connection.execute("INSERT INTO clock.reading VALUES (pg_catalog.now(), %s, %s)", [shows, speed])
        self._shows = shows

    def session(self, options: str = "") -> "AbstractContextManager[psycopg.Connection[tuple[Any, ...]]]":
        """A connection as `psql` has it: each statement by itself, and these PGOPTIONS."""
        self.tick()
        return psycopg.connect(self.dsn, autocommit=True, options=f"{SESSION} {options}".strip(), connect_timeout=5)

    def _connect(self, options: str = SESSION) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(self.dsn, options=options, connect_timeout=5)


def _lacks_schema(connection: "psycopg.Connection[tuple[Any, ...]]") -> bool:
    row = connection.execute("SELECT to_regclass('public.jobs') IS NULL OR to_regclass('clock.reading') IS NULL")
    found = row.fetchone()
    return found is None or bool(found[0])


def _set_defaults(connection: "psycopg.Connection[tuple[Any, ...]]") -> None:
    """For whoever connects past us, by a tunnel or directly."""
    name = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = clock, pg_catalog, public").format(name))
    connection.execute(sql.SQL("ALTER DATABASE {} SET timezone = 'UTC'").format(name))


def _rows(connection: "psycopg.Connection[tuple[Any, ...]]", text: str, parameters: tuple[object, ...]) -> list[Row]:
    with connection.cursor(row_factory=dict_row) as cursor:
        cursor.execute(text.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []
