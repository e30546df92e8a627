"""Statements: committed once, or not at all, or nobody knows."""

import re
import threading
import time
from datetime import timedelta
from threading import Event as Flag

import psycopg
import pytest

from bot.adapters.database import Database, Way
from bot.core.ports import NotSent
from bot.core.question import Output
from bot.core.sql import Statement
from tests.adapters.database.world import HOSTILE, PLATFORM, SECOND, World, change, kill

REQUEUE = "UPDATE notes SET state = %s WHERE id = ANY(%s)"


def test_a_statement_is_committed_and_counted(database: Database, clean: World) -> None:
    assert change(database, REQUEUE, "errored", (1, 2, 77), rows=2) == Output(0, "2 rows changed")
    assert clean.states() == {1: "errored", 2: "errored", 3: "new", 4: "new", 5: "new", 99: "new"}
    assert change(database, "DELETE FROM notes WHERE state = 'nosuch'") == Output(0, "0 rows changed")
    assert change(database, "INSERT INTO notes VALUES (7, %s, 'new') RETURNING id;", HOSTILE, rows=1).ok
    assert change(database, "UPDATE notes SET state = 'hostile' WHERE text = %s", HOSTILE, rows=2).ok
    assert {no for no, state in clean.states().items() if state == "hostile"} == {7, 99}


@pytest.mark.parametrize("rows", [1, 3, 0])
def test_another_number_of_rows_is_rolled_back(database: Database, clean: World, rows: int) -> None:
    ended = change(database, REQUEUE, "errored", (1, 2), rows=rows)
    why = f"nothing was changed: it would have changed 2 rows and not {rows}, so it was rolled back"
    assert ended == Output(1, err=why)
    assert set(clean.states().values()) == {"new"}


def test_what_the_database_refuses_is_said(database: Database, clean: World) -> None:
    for text, said in (
        ("UPDATE notes SET nosuch = 1", 'column "nosuch"'),
        ("INSERT INTO notes VALUES (1, 'again')", "duplicate key"),
        ("UPDATE notes SET state = NULL", "null value"),
    ):
        ended = change(database, text)
        assert ended.exit == 1
        assert said in ended.err
        assert "nothing was changed" in ended.err
    assert set(clean.states().values()) == {"new"}


def test_a_constraint_that_is_checked_in_the_commit(database: Database, clean: World) -> None:
    with psycopg.connect(clean.owner_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE notes ADD UNIQUE (text) DEFERRABLE INITIALLY DEFERRED")
    ended = change(database, "UPDATE notes SET text = 'same'")
    assert ended.exit == 1
    assert "nothing was changed" in ended.err


def test_two_statements_are_not_sent(database: Database, clean: World) -> None:
    with pytest.raises(NotSent, match="semicolon"):
        change(database, "UPDATE notes SET state = 'a'; UPDATE notes SET state = 'b'")
    assert set(clean.states().values()) == {"new"}


def test_a_locked_row_is_not_waited_for(database: Database, clean: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.database.text.LOCK_WITHIN", 300)
    with psycopg.connect(clean.owner_dsn) as connection:
        connection.execute("SELECT * FROM notes WHERE id = 1 FOR UPDATE")
        ended = change(database, REQUEUE, "errored", (1,), rows=1)
    assert ended.exit == 1
    assert "something else holds a lock" in ended.err
    assert clean.states()[1] == "new"


def test_a_slow_statement_is_rolled_back(database: Database, clean: World) -> None:
    slow = Statement("UPDATE notes SET state = 'slow' WHERE pg_sleep(20) IS NOT NULL")
    ended = database.execute(PLATFORM, slow, SECOND, Flag())
    assert ended.exit == 1
    assert "not done in time" in ended.err
    assert set(clean.states().values()) == {"new"}


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_a_stopped_run_changes_nothing(clean: World, way: Way, abort: Flag) -> None:
    threading.Timer(0.5, abort.set).start()
    slow = Statement("UPDATE notes SET state = 'slow' WHERE pg_sleep(2) IS NOT NULL")
    ended = clean.by(way).execute(PLATFORM, slow, timedelta(seconds=30), abort)
    assert ended.exit == 1
    assert set(clean.states().values()) == {"new"}
    with pytest.raises(NotSent, match="stopped"):
        clean.by(way).execute(PLATFORM, slow, timedelta(seconds=30), abort)


def test_nothing_is_sent_to_a_database_that_is_away(clean: World) -> None:
    for way in (Way.DIRECT, Way.TUNNEL):
        nowhere = clean.by(way, "postgresql://travis:only-for-tests@127.0.0.1:1/travis_production")
        with pytest.raises(NotSent, match=r"on 127\.0\.0\.1:1.* cannot be reached") as error:
            change(nowhere, REQUEUE, "errored", (1,))
        assert "only-for-tests" not in str(error.value)
        with pytest.raises(NotSent, match="not set up to write"):
            change(clean.by(way, ""), REQUEUE, "errored", (1,))
    database = clean.by(Way.CONTAINER)
    clean.container.say("psql", "echo 'psql: could not connect to server: Connection refused' >&2; exit 2")
    with pytest.raises(NotSent, match="nothing listens there"):
        change(database, REQUEUE, "errored", (1,))
    clean.container.remove()
    with pytest.raises(NotSent, match="0 running containers"):
        change(database, REQUEUE, "errored", (1,))
    clean.container.replace()


def test_a_server_that_dies_before_the_commit_has_forgotten_it(clean: World) -> None:
    """Its backend ends in mid-statement; what was not committed is not there."""
    for way in Way:
        killer = threading.Timer(0.7, kill_backends, [clean])
        killer.start()
        ended = change(clean.by(way), "UPDATE notes SET state = 'slow' WHERE pg_sleep(3) IS NOT NULL")
        killer.join()
        assert ended.exit == (None if way is Way.CONTAINER else 1), f"psql does not say when it was lost: {ended}"
        assert set(clean.states().values()) == {"new"}


def kill_backends(world: World) -> None:
    kill(world, "query LIKE '%pg_sleep(3)%'")


@pytest.mark.parametrize("way", list(Way))
def test_a_commit_whose_answer_is_lost_is_in_doubt(clean: World, way: Way) -> None:
    """The commit waits in a deferred trigger; then its connection is cut."""
    with psycopg.connect(clean.owner_dsn, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(1.5), ''pg_sleep(3)''; RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER dawdles AFTER UPDATE ON notes DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION dawdle()"
        )
    killer = threading.Timer(0.7, kill_committing, [clean])
    killer.start()
    ended = change(clean.by(way), REQUEUE, "errored", (1,), rows=1)
    killer.join()
    assert ended.exit is None, ended
    assert re.search("lost|ended the connection|terminating", ended.err), ended


def kill_committing(world: World) -> None:
    kill(world, "query = 'COMMIT' OR query LIKE 'DO %'")


def test_a_container_that_hangs_is_in_doubt(clean: World) -> None:
    database = clean.by(Way.CONTAINER)
    clean.container.say("psql", "sleep 60")
    started = time.monotonic()
    ended = database.execute(PLATFORM, Statement(REQUEUE, ("errored", (1,))), SECOND, Flag())
    assert ended.exit is None
    assert time.monotonic() - started < 20
