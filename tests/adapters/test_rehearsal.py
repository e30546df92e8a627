"""Dumps that real servers wrote, restored for a try while they pass: nothing of it stays, whatever happens."""

import io
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from bot.adapters import embedded
from bot.adapters.rehearsal import Rehearsals, Server, Stages, _Stage
from bot.core.backup import BackupFailed, BackupStopped, Source, Stream
from bot.core.command import sh
from bot.core.errors import Permanent
from bot.core.refusal import WITHHELD
from bot.core.sql import Query
from bot.core.taking import Rehearsed
from bot.core.target import Role, Target
from tests.rigs.sshd import cmdline, wait_until

SCHEMA = Path(__file__).parents[2] / "bot/sandbox/installation/schema"
PLATFORM = Target("platform-1", Role.PLATFORM, "prod")
DUMP = Source("database-main", PLATFORM, sh("pg_dump"), timedelta(minutes=5), "pg_dump")
OURS = Server(embedded.start, embedded.remove, embedded.programs)


class Bytes:
    """A `Stream` of bytes that are known; it can break off."""

    def __init__(self, data: bytes, breaks: bool) -> None:
        self.data, self.breaks = data, breaks
        self.warnings = ()
        self.rows = {}

    warnings: tuple[str, ...]
    rows: Mapping[str, int]

    def read(self, most: int) -> bytes:
        came, self.data = self.data[:most], self.data[most:]
        if not came and self.breaks:
            raise BackupFailed("The connection was lost.")
        return came


class Pipes:
    """`Streams` of one thing."""

    def __init__(self, data: bytes, breaks: bool = False) -> None:
        self.data, self.breaks = data, breaks

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator[Stream]:
        yield Bytes(self.data, self.breaks)


def dump(dsn: str) -> bytes:
    words = [str(embedded.programs() / "pg_dump"), "-F", "c", "-d", dsn]
    return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout


@pytest.fixture
def travis(database: str) -> str:
    """A database with Travis' own schema and a few rows."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute((SCHEMA / "travis-2.2.sql").read_bytes())
        connection.execute("INSERT INTO users (login, created_at, updated_at) SELECT n, now(), now() FROM "
                           "generate_series(1, 500) AS n")  # fmt: skip
    return database


def passed(rehearsals: Rehearsals, source: Source = DUMP, abort: Flag | None = None) -> bytes:
    came = b""
    with rehearsals.open(source, abort or Flag()) as stream:
        while chunk := stream.read(1 << 16):
            came += chunk
    return came


def test_the_structure_of_a_dump_is_restored(travis: str, tmp_path: Path) -> None:
    whole = dump(travis)
    rehearsals = Rehearsals(Pipes(whole), tmp_path / "r", OURS)
    rehearsals.expect(DUMP)
    assert passed(rehearsals) == whole
    result = rehearsals.result(DUMP)
    assert result is not None
    assert result.passed, result.said
    with psycopg.connect(travis) as connection:
        row = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert row is not None
    assert result.tables == row[0]
    assert rehearsals.result(DUMP) is None, "asked once"
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_a_full_restore_has_every_row(travis: str, tmp_path: Path) -> None:
    rehearsals = Rehearsals(Pipes(dump(travis)), tmp_path / "r", OURS, full=True)
    rehearsals.expect(DUMP)
    passed(rehearsals)
    result = rehearsals.result(DUMP)
    assert result is not None
    assert result.passed, result.said
    assert result.counts is not None
    assert result.counts["public.users"] == 500


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_a_dump_without_its_end_fails_the_full_restore(travis: str, tmp_path: Path, part: float) -> None:
    whole = dump(travis)
    rehearsals = Rehearsals(Pipes(whole[: int(len(whole) * part)]), tmp_path / "r", OURS, full=True)
    rehearsals.expect(DUMP)
    passed(rehearsals)
    result = rehearsals.result(DUMP)
    assert result is not None
    assert not result.passed
    assert "pg_restore of database-main of platform-1 ended with" in result.said


def test_what_is_no_dump_is_said(tmp_path: Path) -> None:
    rehearsals = Rehearsals(Pipes(b"no dump at all" * 100_000), tmp_path / "r", OURS)
    rehearsals.expect(DUMP)
    assert len(passed(rehearsals)) == 1_400_000, "the backup gets all of it all the same"
    result = rehearsals.result(DUMP)
    assert result is not None
    assert not result.passed


def test_a_stream_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    rehearsals = Rehearsals(Pipes(b"PGDMP", breaks=True), tmp_path / "r", OURS)
    rehearsals.expect(DUMP)
    with pytest.raises(BackupFailed):
        passed(rehearsals)
    assert rehearsals.result(DUMP) is None
    assert list((tmp_path / "r").iterdir()) == []


def test_only_what_is_expected_is_restored(tmp_path: Path) -> None:
    def never(folder: Path, abort: Flag) -> str:
        raise AssertionError("no server is needed")

    rehearsals = Rehearsals(Pipes(b"bytes"), tmp_path / "r", Server(never, embedded.remove, embedded.programs))
    assert passed(rehearsals) == b"bytes"
    assert rehearsals.result(DUMP) is None


def test_a_server_that_does_not_start_is_a_result(tmp_path: Path) -> None:
    def broken(folder: Path, abort: Flag) -> str:
        raise Permanent("there is no PostgreSQL here")

    rehearsals = Rehearsals(Pipes(b"bytes"), tmp_path / "r", Server(broken, embedded.remove, embedded.programs))
    rehearsals.expect(DUMP)
    assert passed(rehearsals) == b"bytes"
    result = rehearsals.result(DUMP)
    assert result is not None
    assert "could not be started: there is no PostgreSQL here" in result.said
    assert list((tmp_path / "r").iterdir()) == []


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "r" / "rehearsal-old"
    left.mkdir(parents=True)
    left.parent.chmod(0o711)
    left.chmod(0o711)
    embedded.start(left)
    Rehearsals(Pipes(b""), tmp_path / "r", OURS).sweep()
    assert list((tmp_path / "r").iterdir()) == []


def test_what_another_process_uses_stays(tmp_path: Path) -> None:
    rehearsals = Rehearsals(Pipes(b"PGDMP"), tmp_path / "r", OURS)
    rehearsals.expect(DUMP)
    with rehearsals.open(DUMP, Flag()):
        Rehearsals(Pipes(b""), tmp_path / "r", OURS).sweep()
        assert len(list((tmp_path / "r").iterdir())) == 1


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_what_was_restored_can_be_asked_until_it_is_thrown_away(travis: str, tmp_path: Path) -> None:
    stages = Stages(tmp_path / "r", OURS)
    with stages.restored("database-main", io.BytesIO(dump(travis))) as restored:
        assert restored.result.passed, restored.result.said
        assert restored.result.counts is not None
        assert restored.result.counts["public.users"] == 500
        assert restored.values(Query("SELECT login FROM users WHERE login = %s", ("7",))) == ["7"]
        assert restored.values(Query("SELECT nothing FROM nowhere")) == []
    assert list((tmp_path / "r").iterdir()) == []


def test_where_no_server_starts_nothing_is_said_of_the_dump(tmp_path: Path) -> None:
    def broken(folder: Path, abort: Flag) -> str:
        raise Permanent("there is no PostgreSQL here")

    stages = Stages(tmp_path / "r", Server(broken, embedded.remove, embedded.programs))
    with pytest.raises(Permanent, match="there is no PostgreSQL here"), stages.restored("x", io.BytesIO(b"PGDMP")):
        pass
    assert list((tmp_path / "r").iterdir()) == []


def test_a_folder_is_ones_own_and_goes(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "r", OURS)
    with stages.folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        Stages(tmp_path / "r", OURS).sweep()
        assert folder.exists()
    assert list((tmp_path / "r").iterdir()) == []


# ---------------------------------------------------------------- a dump is a program


@pytest.fixture
def mark() -> Iterator[Path]:
    """A file that is not there, where any user could make it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o777)
    yield folder / "mark"
    shutil.rmtree(folder)


@pytest.fixture
def owned(database: str) -> Iterator[psycopg.Connection]:
    """A session of a database's owner, who is no superuser."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE ROLE app NOSUPERUSER")
        connection.execute(f"ALTER DATABASE {connection.info.dbname} OWNER TO app")
        connection.execute("GRANT ALL ON SCHEMA public TO app")
        connection.execute("SET ROLE app")
        connection.execute("CREATE TABLE users (id int, name text)")
        connection.execute("INSERT INTO users VALUES (1, 'a')")
        yield connection
        connection.execute("RESET ROLE")
        connection.execute("REASSIGN OWNED BY app TO postgres")
        connection.execute("DROP OWNED BY app")
        connection.execute("DROP ROLE app")


def dump_of(connection: psycopg.Connection) -> bytes:
    info = connection.info
    return dump(make_conninfo(host=info.host, port=info.port, user=info.user, dbname=info.dbname))


def touching(name: str, mark: Path, when: str = "true") -> str:
    """A function of that name, which runs a program on its server's host; one that is immutable itself may not."""
    program = f"COPY (SELECT 1) TO PROGRAM $$touch {mark}$$"
    return (
        "CREATE OR REPLACE FUNCTION public.touch() RETURNS void LANGUAGE plpgsql AS $f$ BEGIN"
        f" EXECUTE $e${program}$e$; END $f$;"
        f" CREATE OR REPLACE FUNCTION public.{name}() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN"
        f" IF {when} THEN PERFORM public.touch(); END IF; RETURN true; END $f$"
    )


SUPERUSER = "current_setting('is_superuser') = 'on'"


def restored_of(data: bytes, folder: Path, full: bool = False) -> Rehearsed:
    rehearsals = Rehearsals(Pipes(data), folder / "r", OURS, full)
    rehearsals.expect(DUMP)
    passed(rehearsals)
    result = rehearsals.result(DUMP)
    assert result is not None
    return result


@pytest.mark.parametrize("full", [False, True], ids=["structure", "full"])
def test_what_a_dump_would_run_as_a_superuser_is_not_run(
    owned: psycopg.Connection, mark: Path, tmp_path: Path, full: bool
) -> None:
    owned.execute(touching("sly", mark, SUPERUSER))
    owned.execute("CREATE INDEX i ON users (name) WHERE public.sly()")
    result = restored_of(dump_of(owned), tmp_path, full)
    assert result.passed, result.said
    assert not mark.exists()


def test_what_a_dump_insists_on_running_is_refused(owned: psycopg.Connection, mark: Path, tmp_path: Path) -> None:
    owned.execute(touching("forward", mark, "false"))
    owned.execute("CREATE INDEX i ON users (name) WHERE public.forward()")
    owned.execute(touching("forward", mark))
    result = restored_of(dump_of(owned), tmp_path)
    assert not result.passed
    assert "ended with 1" in result.said
    assert not mark.exists()


def test_what_was_restored_is_read_without_power(owned: psycopg.Connection, mark: Path, tmp_path: Path) -> None:
    owned.execute(touching("sly", mark, SUPERUSER))
    owned.execute("CREATE VIEW logins AS SELECT name FROM users WHERE public.sly()")
    with Stages(tmp_path / "r", OURS).restored("main", io.BytesIO(dump_of(owned))) as restored:
        assert restored.result.passed, restored.result.said
        assert restored.values(Query("SELECT name FROM logins")) == ["a"]
        assert restored.values(Query("SELECT current_setting('is_superuser')")) == ["off"]
        others = "SELECT rolname FROM pg_roles WHERE pg_has_role(oid, 'MEMBER') AND rolname <> session_user"
        assert restored.values(Query(others)) == ["pg_database_owner"]
    assert not mark.exists()


def test_what_a_superuser_made_there_is_restored_all_the_same(travis: str, tmp_path: Path) -> None:
    with psycopg.connect(travis, autocommit=True) as connection:
        for name in ("citext", "hstore", "pg_trgm", "pg_stat_statements"):
            connection.execute(f"CREATE EXTENSION {name}")
        connection.execute("DROP EXTENSION plpgsql CASCADE")
        connection.execute("CREATE EXTENSION plpgsql")  # so it is dumped with its comment, as before PostgreSQL 11
        connection.execute("COMMENT ON EXTENSION plpgsql IS 'PL/pgSQL procedural language'")
        connection.execute("COMMENT ON SCHEMA public IS 'what everybody has'")
        connection.execute("CREATE TABLE words (word citext, more hstore)")
        connection.execute("CREATE INDEX ON words USING gin ((word::text) gin_trgm_ops)")
        connection.execute("INSERT INTO words VALUES ('a', 'b=>c')")
        connection.execute("CREATE POLICY mine ON words USING (false)")
        connection.execute("ALTER TABLE words ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    with Stages(tmp_path / "r", OURS).restored("main", io.BytesIO(dump(travis))) as restored:
        assert restored.result.passed, restored.result.said
        assert restored.result.counts is not None
        assert restored.result.counts["public.words"] == 1


# ---------------------------------------------------------------- what is said of it

SECRET = "hunter2"
LINES = f"one\n{SECRET}\npg_restore: error: {SECRET}\nDETAIL: {SECRET}"


# Two equal rows under a unique index, as after a C library that sorts in another order.
EQUAL = """
    CREATE UNIQUE INDEX u ON users (name) WHERE false; SET allow_system_table_mods = on;
    UPDATE pg_index SET indpred = NULL WHERE indexrelid = 'u'::regclass"""
# A rule that became stricter after its rows.
STRICTER = """
    CREATE FUNCTION short(text) RETURNS boolean IMMUTABLE RETURN true;
    ALTER TABLE users ADD CONSTRAINT short CHECK (short(name));
    CREATE OR REPLACE FUNCTION short(text) RETURNS boolean IMMUTABLE RETURN length($1) < 9"""
# A function that says what it was given.
TALKS = """
    CREATE FUNCTION talks(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    IF current_user = 'rehearsal' THEN RAISE EXCEPTION 'not %', $1; END IF; RETURN $1; END $$;
    CREATE INDEX i ON users (talks(name))"""


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        (EQUAL, 'could not execute query: could not create unique index "u"'),
        (STRICTER, 'COPY failed for table "users": new row for relation "users" violates check constraint "short"'),
        (TALKS, f"could not execute query: {WITHHELD}"),
    ],
    ids=["equal", "stricter", "talks"],
)
def test_a_row_that_is_refused_is_not_quoted(database: str, tmp_path: Path, spoilt: str, said: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE users (name text)")
        connection.execute("INSERT INTO users SELECT %s FROM generate_series(1, 2)", [LINES])
        connection.execute(spoilt.encode())
    result = restored_of(dump(database), tmp_path, full=True)
    assert not result.passed
    assert result.said == f"pg_restore of database-main of platform-1 ended with 1: {said}"


# ---------------------------------------------------------------- how long it may take

DEAF = "exec sleep 600"
ENDLESS = "cat > /dev/null; exec sleep 600"


def instead(folder: Path, script: str) -> Server:
    """A real server, and that script for its pg_restore; `folder/pid` has its number."""
    program = folder / "pg_restore"
    program.write_text(f"#!/bin/sh\necho $$ > {folder}/pid\n{script}\n")
    program.chmod(0o755)
    return Server(embedded.start, embedded.remove, lambda: folder)


def is_gone(folder: Path) -> bool:
    return not Path("/proc", (folder / "pid").read_text().strip()).exists()


class When(Flag):
    """Set as soon as something is true when it is looked at, which is `since` then; nobody who waits for it hears of
    that: so is the vault's."""

    def __init__(self, true: Callable[[], bool]) -> None:
        super().__init__()
        self.true, self.since = true, 0.0

    def is_set(self) -> bool:
        if not self.since and self.true():
            self.since = time.monotonic()
        return bool(self.since)


def is_running(folder: Path, seconds: float = 1) -> When:
    """Set when the script has run that long."""
    pid = folder / "pid"
    return When(lambda: pid.exists() and time.time() > pid.stat().st_mtime + seconds)


@pytest.mark.parametrize("script", [DEAF, ENDLESS], ids=["deaf", "endless"])
def test_who_stops_a_backup_does_not_wait_for_its_restore(tmp_path: Path, script: str) -> None:
    rehearsals = Rehearsals(Pipes(b"x" * (1 << 20)), tmp_path / "r", instead(tmp_path, script))
    rehearsals.expect(DUMP)
    abort = is_running(tmp_path)
    with pytest.raises(BackupStopped, match="was stopped while it was restored"):
        passed(rehearsals, abort=abort)
    assert time.monotonic() - abort.since < 4
    assert rehearsals.result(DUMP) is None
    assert is_gone(tmp_path)
    assert list((tmp_path / "r").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (DEAF, "main was not restored: pg_restore took nothing more within 1 s"),
        (ENDLESS, "pg_restore of main did not end within 1 s"),
    ],
    ids=["deaf", "endless"],
)
def test_a_restore_that_takes_too_long_is_none(tmp_path: Path, script: str, said: str) -> None:
    dump = io.BytesIO(b"x" * (4 << 20))
    with Stages(tmp_path / "r", instead(tmp_path, script)).restored("main", dump, within=1) as restored:
        assert not restored.result.passed
        assert restored.result.said == said
        assert dump.read() == b"", "the rest is read all the same"
    assert is_gone(tmp_path)


def test_who_was_given_rows_for_long_may_take_as_long_to_end(tmp_path: Path) -> None:
    """Indexes are made last."""
    with slow_to_end(0.5) as process:
        stage = _Stage("main", process=process, within=0.2, began=time.monotonic() - 60, dsn=f"host={tmp_path}")
        assert "cannot be read" in stage.end({}).said, "it has ended, only there is no server to ask"
    with slow_to_end(5) as process:
        assert "did not end within" in _Stage("main", process=process, within=0.2).end({}).said


@contextmanager
def slow_to_end(seconds: float) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(("sleep", str(seconds)), stdin=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def test_what_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    with Stages(tmp_path / "r", instead(tmp_path, "cat > /dev/null")).restored("main", io.BytesIO(), 1) as restored:
        began = time.monotonic()
        assert restored.values(Query("SELECT pg_sleep(60)")) == []
        assert time.monotonic() - began < 10


# ---------------------------------------------------------------- whoever cancels does not wait for the server


def below(folder: Path) -> list[str]:
    """What runs for the folder, whoever runs it; a watcher ends by itself."""
    lines = (cmdline(int(each.name)) for each in Path("/proc").glob("[0-9]*"))
    return [line for line in lines if str(folder) in line]


def stopped_within(seconds: float, folder: Path, abort: When, server: Server = OURS) -> None:
    rehearsals = Rehearsals(Pipes(b"x" * (1 << 20)), folder / "r", server)
    rehearsals.expect(DUMP)
    with pytest.raises(BackupStopped, match="was stopped while it was restored"):
        passed(rehearsals, abort=abort)
    assert time.monotonic() - abort.since < seconds
    assert rehearsals.result(DUMP) is None
    assert list((folder / "r").iterdir()) == []
    wait_until(lambda: below(folder / "r") == [], 5)


def test_a_server_that_is_being_made_is_given_up(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a slow disk: initdb waits for a child that does the work."""
    slow = mark.with_name("initdb")
    slow.write_text(f"#!/bin/bash\ntouch {mark}\n(exec -a {tmp_path}/r/child sleep 60) &\nwait\n")
    mark.parent.chmod(0o1777)
    slow.chmod(0o755)
    monkeypatch.setattr(embedded.cluster, "program", lambda place, name: str(slow))
    stopped_within(2, tmp_path, When(mark.exists))


def test_a_server_that_is_starting_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(embedded.cluster.SETTINGS, "pre_auth_delay", "30")
    starting = When(lambda: any((tmp_path / "r").glob("*/postgres/data/postmaster.pid")))
    stopped_within(4, tmp_path, starting)  # the connection that is being tried has 2 s


def test_a_server_that_hangs_is_removed(tmp_path: Path) -> None:
    def remove(folder: Path) -> None:
        os.kill(int((folder / "postgres/data/postmaster.pid").read_text().split()[0]), signal.SIGSTOP)
        embedded.remove(folder)

    deaf = replace(instead(tmp_path, DEAF), remove=remove)
    stopped_within(3, tmp_path, is_running(tmp_path, 0), deaf)
    assert is_gone(tmp_path)
