import psycopg
import pytest

from bot.adapters.store.schema import known, versions
from tests.rigs import postgres

REQUEST = """
INSERT INTO opsbot.requests (key, kind, body, team, "user", via)
VALUES (gen_random_uuid(), 'ask', '{}', 'T1', 'UANA', 'slack') RETURNING id
"""


def test_each_database_is_new_and_empty(database: str, postgres_server: postgres.Server) -> None:
    with psycopg.connect(database) as connection:
        assert connection.info.server_version // 10_000 == int(postgres_server.version)
        connection.execute("CREATE TABLE left_behind ()")
    with postgres_server.database() as another, psycopg.connect(another) as connection:
        assert connection.execute("SELECT to_regclass('left_behind')").fetchone() == (None,)


def test_a_database_is_dropped_under_those_who_are_still_connected(postgres_server: postgres.Server) -> None:
    with postgres_server.database() as dsn:
        connection = psycopg.connect(dsn)
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


def test_a_migrated_database_is_as_good_as_new(postgres_server: postgres.Server) -> None:
    """Though it is the one of the test before, whose last words are not heard any more."""
    with postgres_server.migrated() as before:
        lingering = psycopg.connect(before)
        assert [_write(lingering) for _ in range(2)] == [1, 2]
        lingering.commit()
        lingering.execute("LOCK TABLE opsbot.requests")
    with postgres_server.migrated() as after, postgres_server.migrated() as another:
        assert after == before != another
        assert versions(after) == (known()[-1][0],) * 2
        with pytest.raises(psycopg.OperationalError):
            lingering.commit()
        with psycopg.connect(after) as connection:
            assert connection.execute("SELECT * FROM opsbot.requests").fetchall() == []
            assert _write(connection) == 1, "it counts from one again"
    lingering.close()


def _write(connection: "psycopg.Connection[tuple[int]]") -> int:
    row = connection.execute(REQUEST).fetchone()
    assert row is not None
    return row[0]


def test_loopback_asks_for_the_password(postgres_server: postgres.Server) -> None:
    with psycopg.connect(postgres_server.tcp_dsn) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.tcp_dsn, password="wrong")


@pytest.mark.parametrize("version", postgres.VERSIONS)
def test_a_crash_keeps_what_was_committed_and_the_address(version: str) -> None:
    with postgres.server(version) as server:
        connection = psycopg.connect(server.dsn, autocommit=True)
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        server.restart(immediate=True)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        connection.close()
        with psycopg.connect(server.dsn) as again:
            assert again.execute("SELECT number FROM kept").fetchone() == (1,)
    assert not server.folder.exists()
