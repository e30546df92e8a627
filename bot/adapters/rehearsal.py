"""Restoring dumps for a try: the very bytes, into a server of opsbot's own, on their way to the store or back from it.

The server is private (a Unix socket in a folder of ours) and thrown away: at the end of the stream, and what a process
that was killed has left, at the next start. It stops by itself when its last user is gone.

A dump is a program: its functions run while indexes are made, its views when they are read. So a role that may do
nothing outside of its database restores it and reads it; once the first byte of it came, no superuser goes in there.
"""

import errno
import fcntl
import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from typing import IO, Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from bot.core import dump, refusal
from bot.core.backup import BackupStopped, Readable, Source, Stream, Streams
from bot.core.errors import OpsbotError, Permanent
from bot.core.fix import readable
from bot.core.sql import Query
from bot.core.taking import Rehearsed

PREFIX: Final = "rehearsal-"
LOCK: Final = "in-use"
# Seconds for pg_restore to take a piece, to end once all bytes are there, and for a question. Indexes are made last,
# then all rows are counted: each gets as long as the rows took to come, where that was longer.
PATIENCE: Final = 600.0
TICK: Final = 0.1  # seconds between looks at the abort flag
QUOTED: Final = 300
CHUNK: Final = 1 << 20
TRIES: Final = 10
ROLE: Final = "rehearsal"  # and the name of its database
POWERLESS: Final = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
# Only a superuser can install it, it reaches nothing outside, and many a database has it.
BEFOREHAND: Final = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"
# What belongs to the source's server and its people, or needs a superuser: comments of extensions in old dumps do.
LEFT_OUT: Final = (
    "--no-owner", "--no-privileges", "--no-policies", "--no-comments", "--no-security-labels", "--no-tablespaces",
    "--no-publications", "--no-subscriptions",
)  # fmt: skip
READ: Final = 1 << 20  # bytes of what pg_restore says
# In English, which `refusal` reads, and without the PG variables of opsbot's environment.
ENVIRONMENT: Final = {"PATH": os.defpath, "LC_ALL": "C"}


@dataclass(frozen=True)
class Server:
    """How to start a private server in a folder, to remove it, and where its programs are. The DSN that comes back is
    a superuser's; the same process may log in as any role that this one makes. Neither waits when the flag is set.
    """

    start: Callable[[Path, Flag], str]
    remove: Callable[[Path], None]
    programs: Callable[[], Path]


class Stages:
    """Private folders to try things in, and PostgreSQL servers in them; nothing of them stays."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._folder = folder
        self._server = server

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder that only we can enter, removed at the end. Raises Permanent when none can be made."""
        try:
            folder, lock = self._claim()
        except OSError as error:
            raise Permanent(f"No folder could be made in {self._folder}: {error.strerror}. Make room there.") from error
        with lock:
            try:
                yield folder
            finally:
                self._remove(folder)

    @contextmanager
    def restored(self, what: str, plain: Readable, within: float = PATIENCE) -> Iterator["Restored"]:
        """The whole dump in a server that lives as long as the context, which ends badly when there is no server."""
        stage = self.stage(what, full=True, within=within)
        try:
            if stage.problem:
                raise Permanent(f"{what} cannot be restored here: {stage.problem}.")
            while came := plain.read(CHUNK):
                stage.feed(came)
            yield Restored(stage.end({}), stage.dsn, within)
        finally:
            stage.close()

    def sweep(self) -> None:
        """Remove what a killed process has left; what another one uses at this moment is locked."""
        for left in self._folder.glob(f"{PREFIX}*"):
            with suppress(OSError), (left / LOCK).open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._remove(left)

    def stage(self, what: str, full: bool, within: float = PATIENCE, abort: Flag | None = None) -> "_Stage":
        """A stage that could not be set up says so in the end, and leaves the backup alone."""
        try:
            folder, lock = self._claim()
            folder.chmod(0o711)  # as root, the server runs as somebody else, who must get to its own folder
        except OSError as error:
            return _Stage(what, problem=f"no folder could be made for it: {error.strerror}")
        stage = _Stage(what, remove=lambda: self._remove(folder), lock=lock, within=within, abort=abort or Flag())
        try:
            self._begin(stage, folder, full)
        except BaseException:  # somebody wants no more of it
            stage.close()
            raise
        return stage

    def _begin(self, stage: "_Stage", folder: Path, full: bool) -> None:
        try:
            stage.begin(self._server.start(folder, stage.abort), self._server.programs() / "pg_restore", full)
        except (OpsbotError, OSError, psycopg.Error) as why:
            stage.heed()
            stage.problem = f"the throw-away PostgreSQL could not be started: {why}"

    def _claim(self) -> tuple[Path, IO[bytes]]:
        """A new folder, and the lock that keeps it from being swept; a sweep may have been faster than the lock."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        for _ in range(TRIES):
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._folder))
            with suppress(FileNotFoundError):
                lock = (folder / LOCK).open("ab")
                fcntl.flock(lock, fcntl.LOCK_EX)
                if (folder / LOCK).exists():
                    return folder, lock
                lock.close()
        raise OSError(errno.EBUSY, "others sweep there all the time")

    def _remove(self, folder: Path) -> None:
        with suppress(OpsbotError, OSError):
            self._server.remove(folder)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Restored:
    """What came out of a dump, and the server that has it."""

    result: Rehearsed
    dsn: str
    within: float = PATIENCE

    def values(self, query: Query) -> list[str]:
        """The first column of what the query finds; nothing where its tables are not there, or never answer."""
        until = time.monotonic() + self.within
        try:
            with _connected(self.dsn, lambda: time.monotonic() > until) as connection:
                return [str(row[0]) for row in connection.execute(query.text.encode(), query.parameters)]
        except psycopg.Error:
            return []


class Rehearsals:
    """A `Rehearsal`, and the `Streams` that feed it: sources that are expected are restored on their way. With `full`
    all rows are, and they are compared with those that were counted in the snapshot that was dumped.
    """

    def __init__(self, streams: Streams, folder: Path, server: Server, full: bool = False) -> None:
        self._streams = streams
        self._stages = Stages(folder, server)
        self._full = full
        self._guard = threading.Lock()
        self._expected: set[tuple[str, str]] = set()
        self._results: dict[tuple[str, str], Rehearsed] = {}

    def expect(self, source: Source) -> None:
        with self._guard:
            self._expected.add(_key(source))
            self._results.pop(_key(source), None)

    def result(self, source: Source) -> Rehearsed | None:
        with self._guard:
            return self._results.pop(_key(source), None)

    def sweep(self) -> None:
        self._stages.sweep()

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator[Stream]:
        with self._guard:
            wanted = _key(source) in self._expected
            self._expected.discard(_key(source))
        with self._streams.open(source.counted if wanted and self._full else source, abort) as stream:
            if not wanted:
                yield stream
                return
            stage = self._stages.stage(str(source), self._full, abort=abort)
            try:
                yield _Teed(stream, stage.feed)
                rehearsed = stage.end(stream.rows)
                with self._guard:
                    self._results[_key(source)] = rehearsed
            finally:
                stage.close()


@dataclass
class _Teed:
    """A stream whose bytes go to a second place as well."""

    stream: Stream
    feed: Callable[[bytes], None]

    def read(self, most: int) -> bytes:
        came = self.stream.read(most)
        self.feed(came)
        return came

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.stream.warnings

    @property
    def rows(self) -> Mapping[str, int]:
        return self.stream.rows


@dataclass
class _Stage:
    """One pg_restore on a server of its own; whatever goes wrong here is a result, never an error of the backup.
    Who sets `abort` is not waited for: BackupStopped is raised.
    """

    what: str
    remove: Callable[[], None] = lambda: None
    problem: str = ""
    dsn: str = ""
    full: bool = False
    process: subprocess.Popen[bytes] | None = None
    said: IO[bytes] | None = None
    broken: bool = False
    lock: IO[bytes] | None = None
    within: float = PATIENCE
    abort: Flag = field(default_factory=Flag)  # looked at, never waited on: it may be two flags in one
    began: float = field(default_factory=time.monotonic)  # when its pg_restore was started

    def begin(self, dsn: str, program: Path, full: bool) -> None:
        _make_database(dsn, self.abort.is_set)
        self.dsn, self.full = make_conninfo(dsn, dbname=ROLE, user=ROLE), full
        words = [str(program), *LEFT_OUT, "-d", self.dsn]
        words += [] if full else ["--schema-only"]
        self.said = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the stage)
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.said, start_new_session=True,
            env=ENVIRONMENT,
        )  # fmt: skip
        self.began = time.monotonic()

    def feed(self, came: bytes) -> None:
        """Written through; a pg_restore that has ended already, or takes nothing any more, gets no more."""
        if self.process is None or self.process.stdin is None or self.broken or self.problem:
            return
        try:
            self._pour(came, self.process.stdin.fileno())
        except OSError:
            self.broken = True

    def _pour(self, came: bytes, pipe: int) -> None:
        os.set_blocking(pipe, False)
        ready = select.poll()
        ready.register(pipe, select.POLLOUT)
        rest, late = memoryview(came), self._late()
        while rest:
            self.heed()
            if ready.poll(TICK * 1000):
                with suppress(BlockingIOError):
                    rest = rest[os.write(pipe, rest) :]
            elif late():
                self.problem = f"pg_restore took nothing more within {self._patience}"
                return

    def end(self, snapshot: Mapping[str, int]) -> Rehearsed:
        """How it went; `snapshot` has the rows that there should be, where they were counted."""
        if self.problem or self.process is None or self.process.stdin is None:
            return Rehearsed(False, f"{self.what} was not restored: {self.problem or 'nothing ran'}")
        with suppress(OSError):
            self.process.stdin.close()
        self.within = max(self.within, time.monotonic() - self.began)
        status = self._status(self.process)
        if status is None:
            return Rehearsed(False, f"pg_restore of {self.what} did not end within {self._patience}")
        if status:
            return Rehearsed(False, f"pg_restore of {self.what} ended with {status}: {self._last_words()}")
        return self._judged(snapshot)

    def _status(self, process: subprocess.Popen[bytes]) -> int | None:
        """How it ended; None when it does not."""
        late = self._late()
        while not late():
            self.heed()
            with suppress(subprocess.TimeoutExpired):
                return process.wait(TICK)
        return None

    def heed(self) -> None:
        if self.abort.is_set():
            raise BackupStopped(f"{self.what} was stopped while it was restored for a try; it does not count.")

    def _late(self) -> Callable[[], bool]:
        """Whether our patience, which begins now, is over."""
        until = time.monotonic() + self.within
        return lambda: time.monotonic() > until

    @property
    def _patience(self) -> str:
        return readable(timedelta(seconds=self.within))

    def _judged(self, snapshot: Mapping[str, int]) -> Rehearsed:
        late = self._late()
        try:
            with _connected(self.dsn, lambda: self.abort.is_set() or late()) as connection:
                tables = len(connection.execute(dump.TABLES.encode()).fetchall())
                counts = _rows(connection) if self.full else None
        except psycopg.Error as error:
            self.heed()
            if late():
                return Rehearsed(False, f"what was restored of {self.what} was not counted within {self._patience}")
            return Rehearsed(False, f"what was restored of {self.what} cannot be read: {_words(error)}")
        if not tables:
            return Rehearsed(False, f"{self.what} was restored, and there is not one table in it")
        if counts is None:
            said = f"{tables} tables were restored into an empty server, their structure without rows"
            return Rehearsed(True, said, tables)
        return _compared(counts, snapshot)

    def _last_words(self) -> str:
        if self.said is None:
            return "no words"
        self.said.seek(0)
        text = self.said.read(READ).decode(errors="replace")
        return refusal.said_by_restore(text)[:QUOTED] or "no words"

    def close(self) -> None:
        if self.process is not None:
            if self.process.stdin is not None:
                with suppress(OSError):
                    self.process.stdin.close()
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        if self.said is not None:
            self.said.close()
        self.remove()
        if self.lock is not None:
            self.lock.close()


def _make_database(dsn: str, over: Callable[[], bool]) -> None:
    """Empty, and owned by a role that is nobody elsewhere: trusted extensions install for a database's owner."""
    with _connected(dsn, over) as connection:
        connection.autocommit = True
        connection.execute(f"CREATE ROLE {ROLE} {POWERLESS}")
        connection.execute(f"CREATE DATABASE {ROLE} OWNER {ROLE} TEMPLATE template0 ENCODING 'UTF8'")
    with _connected(make_conninfo(dsn, dbname=ROLE), over) as connection, suppress(psycopg.Error):
        connection.autocommit = True
        connection.execute(BEFOREHAND)


@contextmanager
def _connected(dsn: str, over: Callable[[], bool]) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection that is cut as soon as `over` says so: what is asked here is foreign, and may never answer."""
    done = Flag()

    def watch(wire: socket.socket) -> None:
        while not done.wait(TICK):
            if over():
                with suppress(OSError):  # it has ended already
                    wire.shutdown(socket.SHUT_RDWR)
                return

    with psycopg.connect(dsn) as connection, socket.socket(fileno=os.dup(connection.fileno())) as wire:
        watcher = threading.Thread(target=watch, args=(wire,), name="rehearsal-watch", daemon=True)
        watcher.start()
        try:
            yield connection
        finally:
            done.set()
            watcher.join()


def _rows(connection: psycopg.Connection[tuple[object, ...]]) -> dict[str, int]:
    connection.execute(dump.COUNT.encode())
    row = connection.execute(dump.COUNTED.encode()).fetchone()
    return dump.rows_of(str(row[0])) if row else {}


def _words(error: psycopg.Error) -> str:
    """Without what it may quote of a row; one that no server sent tells of the connection."""
    if error.sqlstate is None:
        return str(error).partition("\n")[0]
    return f"{refusal.said_by_server(error.diag.message_primary or '')} ({error.sqlstate})"


def _compared(counts: Mapping[str, int], snapshot: Mapping[str, int]) -> Rehearsed:
    """Whether it is all that was in the snapshot; a dump of which nothing was counted has only its own numbers."""
    restored = f"{len(counts)} tables, {sum(counts.values())} rows"
    if not snapshot:
        return Rehearsed(True, f"{restored} were restored into an empty server", len(counts), counts)
    if different := dump.differences(snapshot, counts):
        said = f"{restored} were restored, and the source's snapshot had others: {dump.named(different)}"
        return Rehearsed(False, said, len(counts), counts)
    return Rehearsed(True, f"{restored}, equal to the source's snapshot", len(counts), counts)


def _key(source: Source) -> tuple[str, str]:
    return source.target.key, source.name


__all__ = ["Rehearsals", "Restored", "Server", "Stages"]
