"""Queries: the same rows by every way, nothing written, and why there is no answer as a sentence."""

import threading
import time
from threading import Event as Flag

import psycopg
import pytest

from bot.adapters.database import Database, Way
from bot.core.question import Rows, Unanswered
from bot.core.sql import Query
from tests.adapters.database.world import HOSTILE, PASSWORD, PLATFORM, SECOND, World, ask, kill


def test_every_way_gives_the_same_rows(clean: World) -> None:
    questions = [
        Query("SELECT * FROM moments ORDER BY id"),
        Query("SELECT id, text FROM notes WHERE id = ANY(%s) ORDER BY id;", ((1, 3, 99),)),
        Query("SELECT count(*), now() > %s AS later, 'Ü' AS umlaut FROM notes -- of all", ("2026-01-01",)),
        Query("SELECT text LIKE 'note%' AS is_note, 7 % 4 AS rest FROM notes ORDER BY id"),
        Query("WITH old AS (SELECT id FROM notes) SELECT * FROM old WHERE false"),
    ]
    direct, tunnel, container = (clean.by(way).ask(PLATFORM, questions, Flag()) for way in Way)
    assert direct == tunnel == container
    moments, notes, counted, _, nothing = direct
    assert isinstance(moments, Rows)
    assert isinstance(counted, Rows)
    first = moments.rows[0]
    assert first["local"] == "2026-01-02T03:04:05.678"
    assert first["zoned"] == "2026-01-02T01:04:05+00:00", "in UTC"
    assert (first["ids"], first["settings"], first["preferences"]) == ("[1,2,null]", '{"a":[1,2]}', '{"b":{"c":"Ü"}}')
    assert (first["big"], first["raw"], first["flag"]) == (9007199254740993, "\\x00ff", True)
    assert notes == Rows(({"id": 1, "text": "note 1"}, {"id": 3, "text": "note 3"}, {"id": 99, "text": HOSTILE}))
    assert counted.rows == ({"count": 6, "later": True, "umlaut": "Ü"},)
    assert nothing == Rows()


@pytest.mark.parametrize(
    "text",
    [
        "DELETE FROM notes",
        "UPDATE notes SET state = 'gone' RETURNING id",
        "WITH gone AS (DELETE FROM notes RETURNING id) SELECT * FROM gone",
        "SELECT id FROM notes FOR UPDATE",
        "SELECT nextval('note_numbers')",
        "SELECT 1; DELETE FROM notes",
        "SELECT 1) u LIMIT 1) q; COMMIT; DELETE FROM notes; SELECT ((1",
        "SELECT 1) u LIMIT 1) q; SET default_transaction_read_only = off; COMMIT; DELETE FROM notes; SELECT ((1",
        "SELECT set_config('transaction_read_only', 'off', false), nextval('note_numbers')",
    ],
)
def test_a_query_cannot_write(database: Database, clean: World, text: str) -> None:
    answer = ask(database, text)
    assert isinstance(answer, Unanswered), answer
    assert answer.cause in ("sql", "database-refused"), answer
    assert len(clean.states()) == 6
    assert set(clean.states().values()) == {"new"}


def test_what_does_not_fit_is_said(database: Database) -> None:
    for text, said in (
        ("SELECT nosuch FROM notes", 'column "nosuch" does not exist'),
        ("SELECT * FROM log_parts", 'relation "log_parts" does not exist'),
        ("SELEC 1", "syntax error"),
    ):
        answer = ask(database, text)
        assert isinstance(answer, Unanswered)
        assert answer.cause == "sql"
        assert said in answer.why
    no_fit = ask(database, "SELECT %s, %s", 1)
    assert isinstance(no_fit, Unanswered)
    assert no_fit.cause == "sql"
    zero = ask(database, "SELECT %s", "a\0b")
    assert isinstance(zero, Unanswered)
    assert zero.cause == "sql"


def test_the_query_after_a_wrong_one_is_answered(database: Database) -> None:
    queries = [Query("SELECT nosuch FROM notes"), Query("SELECT 1 AS one"), Query("SELECT 2 AS two", database="logs")]
    wrong, one, two = database.ask(PLATFORM, queries, Flag())
    assert isinstance(wrong, Unanswered)
    assert (one, two) == (Rows(({"one": 1},)), Rows(({"two": 2},)))


def test_a_slow_query_is_ended(database: Database) -> None:
    started = time.monotonic()
    answer = ask(database, "SELECT pg_sleep(60)", within=SECOND)
    assert isinstance(answer, Unanswered)
    assert (answer.cause, "not done in time" in answer.why) == ("sql", True)
    assert time.monotonic() - started < 15


def test_a_locked_table_is_not_waited_for(database: Database, clean: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.database.text.LOCK_WITHIN", 300)
    with psycopg.connect(clean.owner_dsn) as connection:
        connection.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
        answer = ask(database, "SELECT * FROM notes")
    assert isinstance(answer, Unanswered)
    assert "something else holds a lock" in answer.why
    assert answer.cause == "sql"


def test_too_many_rows_are_cut_and_said_so(database: Database) -> None:
    answer = ask(database, "SELECT n FROM generate_series(1, 10001) n")
    assert isinstance(answer, Rows)
    assert answer.truncated
    assert (len(answer.rows), answer.rows[-1]) == (10_000, {"n": 10_000})
    assert ask(database, "SELECT repeat('ü', 2000000) AS text") == Rows(truncated=True)
    whole = ask(database, "SELECT n FROM generate_series(1, 10000) n")
    assert isinstance(whole, Rows)
    assert not whole.truncated


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_a_stopped_run_stops_its_query(clean: World, way: Way, abort: Flag) -> None:
    threading.Timer(0.5, abort.set).start()
    started = time.monotonic()
    (answer,) = clean.by(way).ask(PLATFORM, [Query("SELECT pg_sleep(30)", within=SECOND * 30)], abort)
    assert isinstance(answer, Unanswered)
    assert time.monotonic() - started < 10
    with psycopg.connect(clean.server.dsn) as connection:
        running = connection.execute("SELECT query FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)%' AND pid <> "
                                     "pg_backend_pid() AND state = 'active'").fetchall()  # fmt: skip
    assert running == [], "the server was told"


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_a_query_whose_connection_is_lost_is_asked_again(clean: World, way: Way) -> None:
    killer = threading.Timer(0.4, kill, [clean, "query LIKE '%pg_sleep(1)%'"])
    killer.start()
    queries = [Query("SELECT 1 AS one"), Query("SELECT pg_sleep(1)::text AS slept"), Query("SELECT 2 AS two")]
    answers = clean.by(way).ask(PLATFORM, queries, Flag())
    killer.join()
    assert answers == [Rows(({"one": 1},)), Rows(({"slept": ""},)), Rows(({"two": 2},))]


def test_a_server_that_dies_in_the_middle_is_a_finding(clean: World) -> None:
    for way in Way:
        killer = threading.Timer(0.4, clean.server.stop, kwargs={"immediate": True})
        killer.start()
        try:
            answer = ask(clean.by(way), "SELECT pg_sleep(8)")
            killer.join()
        finally:
            clean.server.start()
        assert isinstance(answer, Unanswered)
        assert answer.cause == "database-unreachable", answer


def test_nobody_listens(clean: World) -> None:
    """Behind a tunnel the loopback is the platform's, and the platform is who gets no connection."""
    nowhere = f"postgresql://travis:{PASSWORD}@127.0.0.1:1/travis_production"
    for way, said in (
        (Way.DIRECT, "travis_production on 127.0.0.1:1 cannot be reached: nothing listens there."),
        (
            Way.TUNNEL,
            "travis_production on 127.0.0.1:1 through platform-1 cannot be reached: nothing takes connections there",
        ),
    ):
        answer = ask(clean.by(way, nowhere), "SELECT 1")
        assert isinstance(answer, Unanswered)
        assert answer.cause == "database-unreachable"
        assert PASSWORD not in answer.why
        assert said in answer.why


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_a_refused_login_is_no_trouble_of_the_database(clean: World, way: Way) -> None:
    for dsn in (
        clean.dsn.replace(PASSWORD, "quite-another"),
        clean.dsn.replace("travis_production", "nosuch"),
        f"postgresql://travis:quite-another@127.0.0.1:{clean.server.port}/travis_production?sslmode=require",
    ):
        answer = ask(clean.by(way, dsn), "SELECT 1")
        assert isinstance(answer, Unanswered)
        assert answer.cause == "database-refused", answer
        assert "quite-another" not in answer.why


def test_what_psql_says_when_it_cannot_connect(clean: World) -> None:
    """As psql 9.6, 14 and 15 word it."""
    database = clean.by(Way.CONTAINER)
    for said, cause in (
        ("psql: could not connect to server: Connection refused\\n\\tIs the server running", "database-unreachable"),
        (
            'psql: error: connection to server at "127.0.0.1", port 5432 failed: Connection refused',
            "database-unreachable",
        ),
        ("psql: FATAL:  the database system is starting up", "database-unreachable"),
        ('psql: FATAL:  password authentication failed for user "travis"', "database-refused"),
        ("psql: fe_sendauth: no password supplied", "database-refused"),
        ("server closed the connection unexpectedly", "database-unreachable"),
    ):
        clean.container.say("psql", f"printf '%b\\n' '{said}' >&2; exit 2")
        answer = ask(database, "SELECT 1")
        assert isinstance(answer, Unanswered)
        assert answer.cause == cause, answer
    clean.container.say("psql", "echo 'executable file not found in $PATH' >&2; exit 126")
    answer = ask(database, "SELECT 1")
    assert isinstance(answer, Unanswered)
    assert (answer.cause, "psql did not run" in answer.why) == ("database-refused", True)


def test_a_container_that_was_replaced_is_found_anew(clean: World) -> None:
    database = clean.by(Way.CONTAINER)
    assert ask(database, "SELECT 1 AS one") == Rows(({"one": 1},))
    clean.container.replace()
    assert ask(database, "SELECT 1 AS one") == Rows(({"one": 1},))
    clean.container.remove()
    answer = ask(database, "SELECT 1")
    assert isinstance(answer, Unanswered)
    assert (answer.cause, "0 running containers" in answer.why) == ("container", True)
    clean.container.replace()
    assert ask(database, "SELECT 1 AS one") == Rows(({"one": 1},))


def test_an_installation_without_a_database_is_not_broken(clean: World) -> None:
    answer = ask(clean.by(Way.DIRECT, ""), "SELECT 1")
    assert answer == Unanswered("opsbot is not set up to ask the main database of prod", "not-configured")
