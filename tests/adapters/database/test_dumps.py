"""Dumps by every way: what comes is whole, and is what its snapshot held; nothing of it outlives whoever wanted it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Timer

import psycopg
import pyrage
import pytest
from psycopg.conninfo import make_conninfo

from bot.adapters import embedded
from bot.adapters.database import Dumps, DumpsInside, Location, Way
from bot.adapters.origins import Origins
from bot.adapters.rehearsal import Rehearsals, Server
from bot.adapters.stream import Limits, OpenSsh, Programs
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import BackupFailed, BackupStopped, Dump, DumpInside, Source, Streams, object_key
from bot.core.command import Command
from bot.core.taking import Rehearsed
from tests.adapters.database.world import PASSWORD, PLATFORM, WAYS, World
from tests.rigs import postgres
from tests.rigs.certificate import localhost
from tests.rigs.sshd import cmdline, wait_until

OURS = Server(embedded.start, embedded.remove, embedded.programs)
QUICK = Limits(connect=5, alive=(1, 2), late=3, grace=4)
IDENTITY = pyrage.x25519.Identity.generate()
KEY = object_key("prod", "set-1", "database-main", "pg_dump")
WRITE = "INSERT INTO notes (id, text) SELECT max(id) + 1, 'written meanwhile' FROM notes"


def streams(world: World, way: Way, dsn: str = "", programs: Sequence[Path] = ()) -> Origins:
    machines, dumps, inside = dumpers(world, way, dsn, programs)
    return Origins({Command: machines, DumpInside: inside, Dump: dumps})


def dumpers(world: World, way: Way, dsn: str = "", programs: Sequence[Path] = ()) -> tuple[OpenSsh, Dumps, DumpsInside]:
    machines = OpenSsh({"prod/platform-1": world.rig.host("platform-1")}, limits=QUICK)
    locations = {("prod", "main"): Location(way, dsn or world.dsn)}
    found = programs or (world.server.programs / "pg_dump",)
    return machines, Dumps(locations, world.ssh, Programs(QUICK), lambda: found), DumpsInside(machines)


def check(world: World, way: Way, programs: Sequence[Path] = (), user: str = "travis") -> None:
    """What `doctor` learns of a dump by this user, before there is one."""
    _, dumps, inside = dumpers(world, way, make_conninfo(world.dsn, user=user), programs)
    wanted = source(world, way)
    if isinstance(wanted.origin, DumpInside):
        inside.check(replace(wanted, origin=replace(wanted.origin, user=user)), Flag())
    else:
        dumps.check(wanted, Flag())


def source(world: World, way: Way) -> Source:
    inside = DumpInside(world.container.id, "travis_production", "travis")
    origin = inside if way is Way.CONTAINER else Dump("main")
    return Source("database-main", PLATFORM, origin, timedelta(seconds=60), "pg_dump")


def read_all(opened: Streams, wanted: Source, abort: Flag | None = None) -> tuple[bytes, dict[str, int]]:
    with opened.open(wanted, abort or Flag()) as stream:
        came = b"".join(iter(lambda: stream.read(1 << 16), b""))
        return came, dict(stream.rows)


def rehearsed(world: World, way: Way, folder: Path, programs: Sequence[Path] = ()) -> Rehearsed:
    """What a full restore of the passing dump says."""
    rehearsals = Rehearsals(streams(world, way, programs=programs), folder / "r", OURS, full=True)
    wanted = source(world, way)
    rehearsals.expect(wanted)
    read_all(rehearsals, wanted)
    result = rehearsals.result(wanted)
    assert result is not None
    assert list((folder / "r").iterdir()) == [], "the throw-away server is gone"
    return result


def hooked(world: World, way: Way, folder: Path, before: str) -> Sequence[Path]:
    """A pg_dump that runs this shell text before it dumps, wherever it runs."""
    text = f"case $1 in --version | -w) ;; *) {before} ;; esac"
    if way is Way.CONTAINER:
        world.container.say("pg_dump", text)
        return ()
    program = folder / "pg_dump"
    program.write_text(f'#!/bin/bash\n{text}\nexec {shlex.quote(str(world.server.programs / "pg_dump"))} "$@"\n')
    program.chmod(0o755)
    return (program,)


def does(world: World, sql: str) -> str:
    """As shell text: by somebody else, beside the dump."""
    dsn = make_conninfo(world.dsn, connect_timeout=5)
    return f"env -u PGOPTIONS psql -Xq {shlex.quote(dsn)} -c {shlex.quote(sql)} </dev/null"


def dumping(world: World) -> list[str]:
    """The pg_dumps and the psqls of this server that run anywhere on this host."""
    lines = (cmdline(int(each.name)) for each in Path("/proc").glob("[0-9]*"))
    return [line for line in lines if "travis_production" in line and ("pg_dump" in line or "psql" in line)]


@contextmanager
def locked(world: World) -> Iterator[None]:
    """Nobody can read the table, so a dump waits without writing a byte."""
    with psycopg.connect(world.owner_dsn) as connection:
        connection.execute("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def waits(world: World) -> Callable[[], bool]:
    asks = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = 'travis_production'"

    def waiting() -> bool:
        with psycopg.connect(world.server.dsn) as connection:
            return bool(connection.execute(asks).fetchall())

    return waiting


# ---------------------------------------------------------------- what comes


@pytest.mark.parametrize("way", WAYS)
def test_a_dump_restores_to_the_same_rows(clean: World, way: str, tmp_path: Path) -> None:
    """Into the store, out of it with the secret key, into an empty server."""
    store = objects((tmp_path / "store").as_uri())
    vault = ObjectVault(store, [str(IDENTITY.to_public())], streams(clean, Way(way)))
    stored = vault.put(source(clean, Way(way)).counted, KEY, lambda _: None, Flag())
    assert stored.rows == {"public.moments": 2, "public.notes": 6}
    plain = pyrage.decrypt(b"".join(vault.open(KEY)), [IDENTITY])
    with clean.server.database() as dsn:
        words = [str(clean.server.programs / "pg_restore"), "--no-owner", "--exit-on-error", "-d", dsn]
        subprocess.run(words, input=plain, check=True, timeout=60)
        for table in ("notes", "moments"):
            assert rows(dsn, table) == rows(clean.owner_dsn, table), table


def rows(dsn: str, table: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute(f"SELECT t::text FROM {table} t ORDER BY 1".encode())]


@pytest.mark.parametrize("way", WAYS)
def test_rows_are_only_counted_when_that_is_wanted(clean: World, way: str) -> None:
    came, counted = read_all(streams(clean, Way(way)), source(clean, Way(way)))
    assert came.startswith(b"PGDMP")
    assert counted == {}


@pytest.mark.parametrize("way", WAYS)
def test_what_is_written_meanwhile_does_not_confuse_the_comparison(clean: World, way: str, tmp_path: Path) -> None:
    programs = hooked(clean, Way(way), tmp_path, does(clean, WRITE))
    result = rehearsed(clean, Way(way), tmp_path, programs)
    assert result.passed, result.said
    assert result.said == "2 tables, 8 rows, equal to the source's snapshot"
    assert len(clean.states()) == 7, "the row was written between the counting and the dump"


@pytest.mark.parametrize("way", WAYS)
def test_a_row_that_the_dump_lacks_is_noticed(clean: World, way: str, tmp_path: Path) -> None:
    """Of a dump in another snapshot than the one that was counted."""
    forget = 'for word; do shift; case $word in --snapshot=*) ;; *) set -- "$@" "$word" ;; esac; done'
    before = f"{does(clean, 'DELETE FROM notes WHERE id = 3')}; {forget}"
    result = rehearsed(clean, Way(way), tmp_path, hooked(clean, Way(way), tmp_path, before))
    assert not result.passed
    assert "the source's snapshot had others: public.notes has 5 rows instead of 6" in result.said


@pytest.mark.parametrize("way", [Way.DIRECT, Way.CONTAINER])
def test_odd_names_and_kinds_of_tables_are_counted_as_they_are_restored(clean: World, way: Way, tmp_path: Path) -> None:
    with psycopg.connect(clean.owner_dsn, autocommit=True) as connection:
        for sql in (
            'CREATE SCHEMA "Odd schema"', 'CREATE TABLE "Odd schema"."a "" b\n\'c\' $opsbot$ :x %" AS SELECT 1 AS n',
            "CREATE TABLE parent (n int)", "CREATE TABLE child () INHERITS (parent)", "INSERT INTO child VALUES (1)",
            "CREATE TABLE parts (n int) PARTITION BY LIST (n)", "CREATE TABLE part PARTITION OF parts DEFAULT",
            "INSERT INTO parts VALUES (1), (2)", "CREATE VIEW seen AS TABLE notes",
            "CREATE MATERIALIZED VIEW kept AS TABLE notes", "CREATE UNLOGGED TABLE quick AS TABLE notes",
        ):  # fmt: skip
            connection.execute(sql.encode())
    try:
        result = rehearsed(clean, way, tmp_path)
        assert result.passed, result.said
        assert result.counts is not None
        assert result.counts["public.parent"] == 0
        assert result.counts["public.part"] == 2
    finally:
        with psycopg.connect(clean.owner_dsn, autocommit=True) as connection:
            connection.execute('DROP SCHEMA "Odd schema" CASCADE')
            connection.execute("DROP TABLE parent, child, parts, quick CASCADE")
            connection.execute("DROP MATERIALIZED VIEW kept")
            connection.execute("DROP VIEW seen")


# ---------------------------------------------------------------- what does not


@pytest.mark.parametrize("way", WAYS)
def test_an_older_pg_dump_is_refused_in_words(clean: World, way: str, tmp_path: Path) -> None:
    old = "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.5.25'\n"
    (tmp_path / "pg_dump").write_text(old)
    (tmp_path / "pg_dump").chmod(0o755)
    clean.container.say("pg_dump", "echo 'pg_dump (PostgreSQL) 9.5.25'; exit")
    with pytest.raises(BackupFailed) as failed:
        read_all(streams(clean, Way(way), programs=(tmp_path / "pg_dump",)), source(clean, Way(way)))
    with pytest.raises(BackupFailed) as foreseen:
        check(clean, Way(way), (tmp_path / "pg_dump",))
    assert str(foreseen.value) == str(failed.value), "before there is a backup, too"
    assert "database-main of platform-1 was not taken: " in str(failed.value)
    assert "9.5" in str(failed.value)
    assert f"the server is {clean.server.version}" in str(failed.value)


@pytest.fixture
def reader(clean: World) -> Iterator[psycopg.Connection]:
    """A user `reader` who may read nothing yet, and what its rights are given by."""
    with psycopg.connect(clean.server.dsn_of("travis_production"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute("CREATE SCHEMA apart CREATE TABLE apart.odd (id int); GRANT SELECT ON apart.odd TO reader")
        yield connection
        connection.execute("DROP SCHEMA apart CASCADE; DROP OWNED BY reader; DROP ROLE reader")


@pytest.mark.parametrize("way", WAYS)
def test_what_a_user_may_not_read_is_told_beforehand(clean: World, way: str, reader: psycopg.Connection) -> None:
    with pytest.raises(
        BackupFailed, match=r"may not read apart\.odd, public\.moments, public\.note_numbers and 1 more"
    ):
        check(clean, Way(way), user="reader")
    reader.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader")
    with pytest.raises(BackupFailed, match=r"may not read apart\.odd, public\.note_numbers\. `GRANT pg_read_all_data`"):
        check(clean, Way(way), user="reader")
    reader.execute("REVOKE SELECT ON ALL TABLES IN SCHEMA public FROM reader; GRANT pg_read_all_data TO reader")
    check(clean, Way(way), user="reader")


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_dumped_to_tell_whether_it_could_be(clean: World, way: str, tmp_path: Path) -> None:
    programs = hooked(clean, Way(way), tmp_path, f"touch {shlex.quote(str(tmp_path / 'dumped'))}")
    check(clean, Way(way), programs)
    assert not (tmp_path / "dumped").exists()
    wait_until(lambda: dumping(clean) == [], 10)


@pytest.mark.parametrize("way", WAYS)
def test_a_pg_dump_that_fails_is_quoted(clean: World, way: str, tmp_path: Path) -> None:
    before = "echo 'pg_dump: error: the disk is made of cheese' >&2; head -c 300000 /dev/zero; exit 1"
    programs = hooked(clean, Way(way), tmp_path, before)
    with pytest.raises(BackupFailed, match="the disk is made of cheese"):
        read_all(streams(clean, Way(way), programs=programs), source(clean, Way(way)))


def test_a_program_that_is_ended_in_the_container_is_no_end(clean: World) -> None:
    clean.container.say("pg_dump", "[ $1 = --version ] || { echo some; kill -9 $$; }")
    with pytest.raises(BackupFailed):
        read_all(streams(clean, Way.CONTAINER), source(clean, Way.CONTAINER))


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_a_wrong_password_is_not_told(clean: World, way: Way) -> None:
    dsn = make_conninfo(clean.dsn, password="hunter2-of-travis")
    with pytest.raises(BackupFailed) as failed:
        read_all(streams(clean, way, dsn), source(clean, way))
    assert "refuses the user or the password" in str(failed.value)
    assert "hunter2" not in repr(failed.value.__cause__) + str(failed.value)


def test_without_a_dsn_it_says_which_one(clean: World) -> None:
    for way in (Way.CONTAINER, Way.DIRECT):
        dumps = Dumps({("prod", "main"): Location(way)}, clean.ssh, Programs(), list)
        with pytest.raises(BackupFailed, match="no DSN of the main database of prod"):
            read_all(dumps, source(clean, Way.DIRECT))


def test_no_pg_dump_at_all(clean: World) -> None:
    with pytest.raises(BackupFailed, match=r"no pg_dump here may dump it \(there is none\)"):
        read_all(streams(clean, Way.DIRECT, programs=(Path("/nowhere/pg_dump"),)), source(clean, Way.DIRECT))


# ---------------------------------------------------------------- how it ends


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_dump_ends_everywhere(clean: World, way: str, counted: bool) -> None:
    clean.container.detach()
    wanted, abort = source(clean, Way(way)), Flag()
    with locked(clean):
        Timer(1.5, abort.set).start()
        with pytest.raises(BackupStopped):
            read_all(streams(clean, Way(way)), wanted.counted if counted else wanted, abort)
        wait_until(lambda: not dumping(clean), 10)
    assert sessions(clean) == 0


def sessions(world: World) -> int:
    with psycopg.connect(world.server.dsn) as connection:
        asks = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'travis' AND backend_type = 'client backend'"
        row = connection.execute(asks).fetchone()
    return int(row[0]) if row else 0


CHILD = """\
import sys
from threading import Event
from pathlib import Path
from bot.adapters.containers import Containers
from bot.adapters.database import Way
from bot.adapters.ssh import Ssh, Host
from tests.adapters.database import test_dumps as tests
class World:
    def __init__(self, host, port, user, key, known, container, dsn, programs):
        self.host = Host(host, int(port), user, Path(key), Path(known))
        self.ssh, self.dsn, self.rig = Ssh({"prod/platform-1": self.host}), dsn, self
        self.container = self.server = self
        self.id, self.programs = container, Path(programs)
way, counted, *given = sys.argv[1:]
world = World(*given)
world.rig = type("Rig", (), {"host": lambda self, name: world.host})()
wanted = tests.source(world, Way(way))
tests.read_all(tests.streams(world, Way(way)), wanted.counted if counted else wanted, Event())
"""


@pytest.mark.parametrize("counted", ["", "counted"])
@pytest.mark.parametrize("way", WAYS)
def test_a_killed_opsbot_leaves_no_dump(clean: World, way: str, counted: str) -> None:
    """It waits for a lock, so no broken pipe ends it; docker's daemon hides that from it anyhow."""
    clean.container.detach()
    host = clean.rig.host("platform-1")
    given = (host.host, host.port, host.user, host.key_file, host.known_hosts, clean.container.id, clean.dsn,
             clean.server.programs)  # fmt: skip
    with locked(clean):
        words = [sys.executable, "-c", CHILD, way, counted, *map(str, given)]
        child = subprocess.Popen(words, cwd=Path(__file__).parents[3], env={**os.environ, "PYTHONPATH": "."})
        try:
            wait_until(waits(clean), 60)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
        wait_until(lambda: not [line for line in dumping(clean) if "tests.adapters" not in line], 10)
        assert [line for line in dumping(clean) if PASSWORD in line] == []


@pytest.mark.parametrize("way", [Way.DIRECT, Way.TUNNEL])
def test_no_process_shows_the_password(clean: World, way: Way) -> None:
    abort, seen = Flag(), list[str]()

    def look() -> None:
        seen.extend(cmdline(int(each.name)) for each in Path("/proc").glob("[0-9]*"))
        abort.set()

    with locked(clean):
        Timer(1.5, look).start()
        with pytest.raises(BackupStopped):
            read_all(streams(clean, way), source(clean, way), abort)
    assert any("pg_dump" in line and "travis_production" in line for line in seen)
    assert not [line for line in seen if PASSWORD in line and "pg_dump" in line]


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize("postgres_server", ["15"], indirect=True)
def test_a_session_in_tls_is_dumped_in_tls(clean: World, tmp_path: Path) -> None:
    """The wheel's pg_dump speaks none, and would send everything in the clear where the DSN only prefers it."""
    certificate, key = localhost(tmp_path)
    server = clean.server
    for name, file in (("server.crt", certificate), ("server.key", key)):
        own = server.folder / "data" / name
        shutil.copy(file, own)
        shutil.chown(own, (server.folder / "data").stat().st_uid)
        own.chmod(0o600)
    reload(server, ssl="on")
    try:
        system, wheel = server.programs / "pg_dump", embedded.programs() / "pg_dump"
        came, _ = read_all(streams(clean, Way.DIRECT, programs=(wheel, system)), source(clean, Way.DIRECT))
        assert came.startswith(b"PGDMP")
        with pytest.raises(BackupFailed, match=r"reached by TLS, and no pg_dump .*is 18 and speaks no TLS"):
            read_all(streams(clean, Way.DIRECT, programs=(wheel,)), source(clean, Way.DIRECT))
        plain = make_conninfo(clean.dsn, sslmode="disable")
        came, _ = read_all(streams(clean, Way.DIRECT, plain, (wheel,)), source(clean, Way.DIRECT))
        assert came.startswith(b"PGDMP")
    finally:
        reload(server, ssl="off")


def reload(server: postgres.Server, **settings: str) -> None:
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
    wait_until(lambda: _shows(server, settings), 10)


def _shows(server: postgres.Server, settings: dict[str, str]) -> bool:
    with psycopg.connect(server.dsn) as connection:
        asked = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in settings}
    return all(row is not None and row[0] == settings[name] for name, row in asked.items())
