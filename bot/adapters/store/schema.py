"""Our tables and the durable engine's, brought up to date.

Numbered files in migrations/ are applied in one transaction under an advisory lock, so any number of processes may
start at once, and a half-applied schema cannot exist. A schema newer than this code is refused.
"""

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import absurdctl
import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store.pool import connect, describe, trouble
from bot.core.errors import Permanent

ABSURD = (0, 5)  # the versions whose functions ours were written for
QUEUE = "opsbot"
_LOCK = 0x6F707362  # "opsb"
_FOLDER = Path(__file__).with_name("migrations")


def migrate(dsn: str) -> int:
    """Bring the database up to date; returns the version of its schema. Raises Permanent or Temporary."""
    try:
        with connect(dsn) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
            _check_encoding(connection)
            _install_absurd(connection)
            return _apply(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        raise Permanent(
            f"The database {describe(dsn)} does not let this user create opsbot's schemas: "
            f"{error.diag.message_primary}. Grant it CREATE on the database, or make it the owner."
        ) from error
    except psycopg.OperationalError as error:
        raise trouble(dsn, error) from error


def versions(dsn: str) -> tuple[int, int]:
    """The version of the database's schema, 0 where there is none, and the newest that this code knows."""
    with connect(dsn) as connection:
        there = connection.execute("SELECT to_regclass('opsbot.migrations') IS NOT NULL AS there").fetchone()
        if not (there and there["there"]):
            return 0, known()[-1][0]
        row = connection.execute("SELECT coalesce(max(no), 0) AS version FROM opsbot.migrations").fetchone()
    return (row["version"] if row else 0), known()[-1][0]


@cache
def known() -> Sequence[tuple[int, str]]:
    """The migrations of this code: number and SQL, in order."""
    files = sorted(_FOLDER.glob("[0-9]*.sql"))
    return [(int(file.name.split("_")[0]), file.read_text()) for file in files]


def _check_encoding(connection: Connection[DictRow]) -> None:
    row = connection.execute("SELECT getdatabaseencoding() = 'UTF8' AS fits").fetchone()
    if not (row and row["fits"]):
        raise Permanent("The database is not encoded in UTF8, which opsbot needs: CREATE DATABASE … ENCODING 'UTF8'")


def _apply(connection: Connection[DictRow]) -> int:
    connection.execute("CREATE SCHEMA IF NOT EXISTS opsbot")
    connection.execute("CREATE TABLE IF NOT EXISTS opsbot.migrations (no integer PRIMARY KEY, at timestamptz NOT NULL)")
    row = connection.execute("SELECT coalesce(max(no), 0) AS version FROM opsbot.migrations").fetchone()
    version = row["version"] if row else 0
    newest = known()[-1][0]
    if version > newest:
        raise Permanent(f"The database schema is version {version}, this opsbot knows {newest}: run a newer opsbot")
    for no, sql in known():
        if no > version:
            connection.execute(sql.encode())
            connection.execute("INSERT INTO opsbot.migrations VALUES (%s, clock_timestamp())", [no])
    return newest


def _install_absurd(connection: Connection[DictRow]) -> None:
    if not _has_absurd(connection):
        connection.execute(absurdctl.BUNDLED_SCHEMA_SQL.encode())
    version = _upgrade_absurd(connection)
    if version[:2] != ABSURD:
        raise Permanent(
            f"The database has absurd {_dotted(version)}, this opsbot knows {_dotted(ABSURD)}: run a newer opsbot"
        )
    if not _has_queue(connection):
        connection.execute("SELECT absurd.create_queue(%s)", [QUEUE])


def _has_absurd(connection: Connection[DictRow]) -> bool:
    row = connection.execute("SELECT to_regprocedure('absurd.get_schema_version()') IS NOT NULL AS there").fetchone()
    return bool(row and row["there"])


def _has_queue(connection: Connection[DictRow]) -> bool:
    """Creating it again would change nothing, but locks its tables, and what other processes write meanwhile fails."""
    return connection.execute("SELECT FROM absurd.queues WHERE queue_name = %s", [QUEUE]).fetchone() is not None


def _absurd_version(connection: Connection[DictRow]) -> tuple[int, ...]:
    row = connection.execute("SELECT absurd.get_schema_version() AS version").fetchone()
    return tuple(int(part) for part in re.findall(r"\d+", row["version"] if row else ""))


def _upgrade_absurd(connection: Connection[DictRow]) -> tuple[int, ...]:
    """Step by step with the bundled files, `0.4.0-0.5.0.sql` and so on; returns the version that it ends at."""
    steps = {file.split("-")[0]: sql for file, sql in absurdctl.BUNDLED_MIGRATIONS.items()}
    version = _absurd_version(connection)
    while sql := steps.pop(_dotted(version), None):
        connection.execute(sql.encode())
        version = _absurd_version(connection)
    return version


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
