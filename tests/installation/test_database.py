"""The platform's database and Redis: what lies in them, and what psql and redis-cli say of them."""

from collections.abc import Callable
from datetime import datetime, timedelta

import psycopg
import pytest

from bot.core.command import Command, sh
from bot.core.question import Output
from bot.sandbox.installation import Installation, settled
from bot.sandbox.installation.database import TravisDatabase
from tests.installation.console import Console, pass_time, standing_still

READING = "PGOPTIONS=-c default_transaction_read_only=on -c statement_timeout=10000"
PSQL = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", "travis", "-h", "127.0.0.1", "-d", "travis_production")
Ask = Callable[..., Output]


@pytest.fixture
def with_database(travis_dsn: str) -> Installation:
    """A healthy installation whose database is there."""
    return settled(standing_still(), dsn=travis_dsn)


@pytest.fixture
def database(with_database: Installation) -> TravisDatabase:
    assert with_database.database is not None
    return with_database.database


@pytest.fixture
def platform(with_database: Installation) -> Console:
    return Console(with_database, "platform-1")


def inside(*words: str, env: tuple[str, ...] = (), stdin: str = "") -> Command:
    given = [word for each in env for word in ("-e", each)]
    runs = sh("docker", "exec", *(["-i"] if stdin else []), *given, "sleepy_dewdney", *words).sudo()
    return sh("printf", "%s", stdin) | runs if stdin else runs


def sql(platform: Console, *texts: str, env: tuple[str, ...] = (), words: tuple[str, ...] = PSQL) -> Output:
    return platform.ask(inside(*words, *(word for text in texts for word in ("-c", text)), env=env))[0]


# ---------------------------------------------------------------- the database itself


def test_both_versions_load_twice_and_differ_as_the_vendor_says(travis_dsn: str) -> None:
    with psycopg.connect(travis_dsn, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS travis_3")
        connection.execute("CREATE DATABASE travis_3")
    newer = psycopg.conninfo.make_conninfo(travis_dsn, dbname="travis_3")
    for dsn, version in ((travis_dsn, "2.2"), (newer, "3.0"), (travis_dsn, "2.2"), (newer, "3.0")):
        made = TravisDatabase(dsn, version)
        made.reset()
        has = {row["column_name"] for row in made.run(f"{COLUMNS} 'jobs'")}
        assert ("config" in has, "log" in has, "restarted_at" in has) == (version == "2.2", *[version == "3.0"] * 2)
        assert bool(made.run(f"{COLUMNS} 'logs'")) == (version == "2.2")


COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_name ="


def test_github_is_heard_as_long_as_it_reaches_the_platform(
    with_database: Installation, database: TravisDatabase
) -> None:
    def silent() -> bool:
        [row] = database.run(
            "SELECT now() AT TIME ZONE 'utc' - max(created_at) > interval '1 hour' AS is FROM requests"
        )
        return bool(row["is"])

    pass_time(with_database, 6 * 3600)
    assert not silent()
    database.hears_github = False
    pass_time(with_database, 6 * 3600)
    assert silent()


def test_a_healthy_installation_has_a_past_and_nothing_that_waits(database: TravisDatabase) -> None:
    states = {row["state"]: row["count"] for row in database.run("SELECT state, count(*) FROM jobs GROUP BY 1")}
    assert states.keys() == {"passed", "failed"}
    [row] = database.run("SELECT count(*) FROM users WHERE is_syncing")
    assert row["count"] == 0
    assert database.run("SELECT * FROM queueable_jobs") == []


def test_its_clock_is_that_of_the_machines(with_database: Installation, database: TravisDatabase) -> None:
    def now() -> datetime:
        said: datetime = database.run("SELECT now() AS now")[0]["now"]
        return said

    before = now()
    assert before == with_database.timeline.date()
    pass_time(with_database, 3600)
    assert now() - before == timedelta(hours=1)


def test_updated_at_is_the_triggers_unless_a_past_is_written(database: TravisDatabase) -> None:
    number = database.add_job("queued", ago=7200)
    age = "SELECT extract(epoch FROM now() - updated_at)::int AS age FROM jobs WHERE id = %s"
    assert database.run(age, number) == [{"age": 7200}]
    database.run("UPDATE jobs SET queue = 'builds.focal' WHERE id = %s", number)
    assert database.run(age, number) == [{"age": 0}]
    database.rewrite("UPDATE jobs SET updated_at = now() - interval '1 hour' WHERE id = %s", number)
    assert database.run(age, number) == [{"age": 3600}]


@pytest.mark.parametrize(
    ("state", "times"),
    [("created", set()), ("queued", {"queued_at"}), ("started", {"queued_at", "received_at", "started_at"})],
)
def test_a_job_has_the_times_of_its_state(database: TravisDatabase, state: str, times: set[str]) -> None:
    number = database.add_job(state, queue=None, repository_id=2)
    [job] = database.run("SELECT * FROM jobs WHERE id = %s", number)
    assert {name for name in ("queued_at", "received_at", "started_at", "finished_at") if job[name]} == times
    [build] = database.run("SELECT * FROM builds WHERE id = %s", job["source_id"])
    assert (build["state"], build["repository_id"], job["queue"]) == (state, 2, None)


# ---------------------------------------------------------------- psql


def test_it_prints_bare_rows(platform: Console) -> None:
    said = sql(platform, "SELECT 1, NULL, 'a|b', true, ARRAY[1, 2]", "SELECT 2")
    assert (said.exit, said.out) == (0, "1||a|b|t|{1,2}\n2\n")
    assert sql(platform, "SELECT 1; SELECT 2").out == "2\n"  # psql before 15 shows the last result of a string
    bare = tuple(word for word in PSQL if word != "-XAtq")
    assert sql(platform, "SELECT 1 AS n", words=(*bare, "-XA")).out == "n\n1\n(1 row)\n"


def test_only_what_writes_is_a_change(platform: Console) -> None:
    writing = "UPDATE users SET is_syncing = true WHERE id = 1"
    for text, env, changes in (
        ("SELECT 'delete from jobs' -- update", (), False),
        ("SELECT id FROM jobs FOR UPDATE", (), False),
        (writing, (), True),
        (f"DO $x$ BEGIN {writing}; END $x$", (), True),
        (writing, (READING,), False),
    ):
        said = sql(platform, text, env=env)
        assert platform.received[-1].changed == changes, text
    assert said == Output(1, err="ERROR:  cannot execute UPDATE in a read-only transaction\n")


def test_an_error_is_libpqs_and_ends_it(platform: Console) -> None:
    wrong = 'ERROR:  relation "nix" does not exist\nLINE 1: SELECT * FROM nix\n                      ^\n'
    assert sql(platform, "SELECT * FROM nix", "SELECT 1") == Output(1, err=wrong)
    verbose = sql(platform, "SELECT * FROM nix", words=(*PSQL, "-v", "VERBOSITY=verbose"))
    assert verbose.err.startswith("ERROR:  42P01: relation")
    late = sql(platform, "SELECT pg_sleep(5)", env=("PGOPTIONS=-c statement_timeout=30",))
    assert late.err == "ERROR:  canceling statement due to statement timeout\n"


def test_it_reads_its_input(platform: Console) -> None:
    [said] = platform.ask(inside(*PSQL, "-v", "name=o'x", stdin="SELECT ';' || :'name';\nSELECT 2;\n"))
    assert (said.exit, said.out) == (0, ";o'x\n2\n")
    [failed] = platform.ask(inside(*PSQL, stdin="SELECT nix;\nSELECT 2;\n"))
    assert (failed.exit, failed.out) == (3, "")
    assert failed.err.startswith("ERROR:  column")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-d", "nix"), 'psql: FATAL:  database "nix" does not exist\n'),
        (("-U", "nix"), 'psql: FATAL:  role "nix" does not exist\n'),
        (("-p", "5433"), "psql: could not connect to server: Connection refused\n"),
    ],
)
def test_who_is_not_let_in_hears_why(platform: Console, words: tuple[str, ...], said: str) -> None:
    answer = sql(platform, "SELECT 1", words=(*PSQL, *words))
    assert answer.exit == 2
    assert answer.err.startswith(said)


def test_a_database_that_is_down_or_full_of_clients(platform: Console, database: TravisDatabase) -> None:
    database.refuses = "sorry, too many clients already"
    assert sql(platform, "SELECT 1") == Output(2, err="psql: FATAL:  sorry, too many clients already\n")
    database.running = False
    assert "Connection refused" in sql(platform, "SELECT 1").err
    database.reset()
    assert sql(platform, "SELECT 1").out == "1\n"


def test_without_a_database_nobody_is_let_in(healthy: Installation) -> None:
    assert "Connection refused" in sql(Console(healthy, "platform-1"), "SELECT 1").err


# ---------------------------------------------------------------- Redis


def redis(platform: Console, *words: str) -> Output:
    return platform.ask(inside("redis-cli", *words))[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("PING", "PONG\n"),
        ("llen sidekiq:queue:sync", "3\n"),
        ("ZCARD sidekiq:retry", "0\n"),
        ("GET nix", "\n"),
        ("SMEMBERS nix", "\n"),
        ("TYPE sidekiq:queues", "set\n"),
        ("LLEN sidekiq:queues", "WRONGTYPE Operation against a key holding the wrong kind of value\n\n"),
        ("LLEN", "ERR wrong number of arguments for 'llen' command\n\n"),
        ("CONFIG GET maxmemory-policy", "maxmemory-policy\nnoeviction\n"),
    ],
)
def test_it_answers_a_line_per_element(with_database: Installation, platform: Console, words: str, said: str) -> None:
    with_database.redis.push("sync", 3, ago=900)
    assert redis(platform, *words.split()) == Output(0, said)
    assert platform.ask(inside("redis-cli", stdin=f"{words}\n"))[0] == Output(0, said)


def test_words_on_its_input_may_be_quoted(with_database: Installation, platform: Console) -> None:
    with_database.redis.strings["two words"] = "both"
    assert platform.ask(inside("redis-cli", stdin='GET "two\\x20words"\n'))[0].out == "both\n"


def test_sorted_sets_are_read_by_rank_and_by_score(with_database: Installation, platform: Console) -> None:
    with_database.redis.zsets["sidekiq:retry"] = {"b": 2.0, "a": 1.0, "c": 2.0}
    assert redis(platform, "ZRANGE", "sidekiq:retry", "0", "-1").out == "a\nb\nc\n"
    assert redis(platform, "ZRANGE", "sidekiq:retry", "-1", "-1", "WITHSCORES").out == "c\n2\n"
    assert redis(platform, "ZCOUNT", "sidekiq:retry", "-inf", "1.5").out == "1\n"


def test_only_a_writing_command_is_a_change(platform: Console) -> None:
    redis(platform, "SMEMBERS", "sidekiq:queues")
    redis(platform, "DEL", "sidekiq:queues")
    assert [sent.changed for sent in platform.received] == [False, True]
    assert redis(platform, "EXISTS", "sidekiq:queues").out == "0\n"


def test_a_redis_that_is_away_or_loading(with_database: Installation, platform: Console) -> None:
    with_database.redis.refuses = "LOADING Redis is loading the dataset in memory"
    assert redis(platform, "PING").out.startswith("LOADING ")
    with_database.redis.running = False
    refused = "Could not connect to Redis at 127.0.0.1:6379: Connection refused\n"
    assert redis(platform, "PING") == Output(1, err=refused)
