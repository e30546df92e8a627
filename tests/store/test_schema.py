"""The schema comes up to date by itself, once, whoever starts; and refusals are sentences."""

import threading

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from bot.adapters.store import Pool, migrate
from bot.adapters.store.schema import known
from bot.core.errors import OpsbotError, Permanent, Temporary
from tests.rigs import postgres

one_version = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def migrated(database: str) -> str:
    """A database of one's own, because its schema is played with."""
    migrate(database)
    return database


def execute(dsn: str, sql: bytes) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(sql)


def count(dsn: str, sql: bytes) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(sql).fetchone()
        return int(row[0]) if row else 0


def test_an_empty_database_becomes_ours(database: str) -> None:
    newest = known()[-1][0]
    assert [no for no, _ in known()] == list(range(1, newest + 1))
    assert migrate(database) == newest
    assert migrate(database) == newest, "a second time changes nothing"
    assert count(database, b"SELECT count(*) FROM opsbot.migrations") == newest
    assert count(database, b"SELECT count(*) FROM absurd.queues WHERE queue_name = 'opsbot'") == 1


def test_many_processes_may_start_at_once(database: str) -> None:
    said: list[object] = []

    def start() -> None:
        try:
            said.append(migrate(database))
        except (OpsbotError, psycopg.Error) as error:
            said.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert said == [known()[-1][0]] * 8


@one_version
def test_starting_does_not_wait_for_those_who_work(migrated: str) -> None:
    with psycopg.connect(migrated) as working:
        working.execute("SELECT opsbot.spawn('order', '{}', 'a key')")
        assert migrate(f"{migrated} options='-c lock_timeout=2000'") == known()[-1][0]


@one_version
def test_a_newer_schema_is_refused(migrated: str) -> None:
    execute(migrated, b"INSERT INTO opsbot.migrations VALUES (900, now())")
    with pytest.raises(Permanent, match=f"database schema is version 900, this opsbot knows {known()[-1][0]}:"):
        migrate(migrated)


@one_version
def test_a_newer_engine_is_refused(migrated: str) -> None:
    execute(
        migrated,
        b"CREATE OR REPLACE FUNCTION absurd.get_schema_version() RETURNS text LANGUAGE sql AS $$ SELECT '0.6.0' $$",
    )
    with pytest.raises(Permanent, match=r"absurd 0\.6\.0, this opsbot knows 0\.5"):
        migrate(migrated)


@one_version
def test_a_failed_migration_leaves_nothing(database: str) -> None:
    execute(database, b"CREATE SCHEMA opsbot; CREATE TABLE opsbot.decisions ()")  # in the way of number 2
    with pytest.raises(psycopg.errors.DuplicateTable):
        migrate(database)
    assert count(database, b"SELECT count(*) FROM pg_tables WHERE schemaname IN ('opsbot', 'absurd')") == 1


@one_version
def test_a_user_without_rights_is_told_what_to_grant(postgres_server: postgres.Server, database: str) -> None:
    execute(
        database, b"DO $$ BEGIN CREATE ROLE poor LOGIN PASSWORD 'poor'; EXCEPTION WHEN duplicate_object THEN END $$"
    )
    with pytest.raises(Permanent, match="Grant it CREATE on the database"):
        migrate(make_conninfo(database, user="poor"))


@one_version
@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"password": "wr0ng-s3cret"}, Permanent, "it refuses the user or the password"),
        ({"dbname": "nosuch"}, Permanent, "does not exist there"),
        ({"user": "nobody-known"}, Permanent, "it refuses the user or the password"),
        ({"host": "no-such-host.invalid"}, Permanent, "no such host is known"),
        ({"port": "1"}, Temporary, "nothing listens there"),
        ({"host": "/nonexistent"}, Temporary, "nothing listens there"),
    ],
    ids=str,
)
def test_being_refused_is_a_sentence(
    postgres_server: postgres.Server, change: dict[str, str], kind: type[OpsbotError], says: str
) -> None:
    dsn = make_conninfo(make_conninfo(postgres_server.tcp_dsn), **change)
    with pytest.raises(kind, match=says) as refused:
        migrate(dsn)
    assert type(refused.value) is kind
    where = f"{change.get('host', '127.0.0.1')}:{change.get('port', postgres_server.port)}"
    assert where in str(refused.value)
    assert change.get("dbname", "postgres") in str(refused.value)
    for secret in ("wr0ng-s3cret", postgres.PASSWORD):
        assert secret not in str(refused.value)


def test_a_url_that_cannot_be_read_is_refused_without_repeating_it() -> None:
    with pytest.raises(Permanent, match="URL cannot be read") as refused:
        migrate("postgresql://ops:s3cret@host:port:5432/x y")
    assert "s3cret" not in str(refused.value)


@one_version
def test_only_unicode_databases(postgres_server: postgres.Server) -> None:
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0")
    try:
        with pytest.raises(Permanent, match="not encoded in UTF8"):
            migrate(postgres_server.dsn_of("ascii"))
    finally:
        with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
            connection.execute("DROP DATABASE ascii WITH (FORCE)")


@one_version
def test_a_pool_goes_on_after_its_connections_were_cut(pool: Pool, migrated: str) -> None:
    with pool.connection() as connection:
        connection.execute("SELECT 1")
    execute(migrated, b"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'opsbot'")
    with pool.connection() as connection:
        assert connection.execute("SELECT 1 AS one").fetchone() == {"one": 1}


@one_version
def test_a_connection_cut_in_mid_transaction_is_temporary(pool: Pool) -> None:
    with pytest.raises(Temporary, match="does not answer"), pool.connection() as connection:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
