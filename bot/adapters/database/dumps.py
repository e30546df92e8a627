"""Dumps of databases that opsbot's own host reaches, directly or through a tunnel: a pg_dump here, and beside it a
session that holds the snapshot for as long as it takes.
"""

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from bot.adapters.database.database import Locations
from bot.adapters.database.location import Location, Way, address, parts
from bot.adapters.database.session import LIVELY, Session, connected, unanswered, watched
from bot.core import dump as counting
from bot.core.backup import BackupFailed, BackupStopped, Dump, Local, Source, Stream, Streams
from bot.core.ports import Machines, NotLed, Unreached

COUNT_WITHIN: Final = timedelta(hours=2)  # for all tables of a database
CHECK_WITHIN: Final = timedelta(seconds=20)
ASK_WITHIN: Final = 20  # seconds for a program to say its version
PASSWORD: Final = "password"
# What a session of ours says of itself, which pg_dump says itself or better, and what says where, which is known now.
_OTHERS: Final = ("client_encoding", "fallback_application_name", "host", "hostaddr", "port")
_WEAK: Final = ("", "disable", "allow", "prefer")  # TLS perhaps: what the session had, the dump shall have
_NO_TLS: Final = "SSL support is not compiled in"
_INSTALL: Final = "Install a newer one where opsbot runs (Debian, Ubuntu: postgresql-client)."


@dataclass(frozen=True)
class Program:
    """A pg_dump of this host; `speaks_tls` is not every one's art: PostgreSQL's wheel is built without."""

    path: Path
    version: tuple[int, ...]
    speaks_tls: bool

    def __str__(self) -> str:
        return f"{self.path} is {counting.written(self.version)}{'' if self.speaks_tls else ' and speaks no TLS'}"


class Dumps:
    """The `Streams` of `Dump`s; `programs` are the pg_dumps of this host, the favourite first, run by `local`."""

    def __init__(
        self, locations: Locations, machines: Machines, local: Streams, programs: Callable[[], Sequence[Path]]
    ) -> None:
        self._locations = locations
        self._machines = machines
        self._local = local
        self._programs = programs

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["CountedStream"]:
        """The session stays until the dump is done, so that its snapshot does."""
        dump = source.origin
        assert isinstance(dump, Dump)
        location = self._location(source, dump)
        with ExitStack() as held:
            session = self._session(held, source, location)
            program = self._program(source, session)
            rows, snapshot = _counted(source, session, abort) if dump.counted else ({}, "")
            local = _local(source, program, session, location.read_dsn, snapshot)
            stream = held.enter_context(self._local.open(replace(source, origin=local), abort))
            yield CountedStream(stream, rows)

    def check(self, source: Source, abort: Flag) -> None:
        """Raises BackupFailed where no dump would come: the way to it, pg_dump here, and the rights of its user."""
        dump = source.origin
        assert isinstance(dump, Dump)
        location = self._location(source, dump)
        with ExitStack() as held:
            session = self._session(held, source, location)
            _local(source, self._program(source, session), session, location.read_dsn, "")
            counting.refuse_unreadable(str(source), _unreadable(source, session, abort))

    def _location(self, source: Source, dump: Dump) -> Location:
        site = source.target.installation
        found = self._locations.get((site, dump.database))
        if found is None or found.way is Way.CONTAINER or not found.read_dsn:
            raise BackupFailed(
                f"{source} was not taken: opsbot has no DSN of the {dump.database} database of {site}. Put one that may"
                " read all of it into the variable that `read_dsn_env` names."
            )
        return found

    def _session(self, held: ExitStack, source: Source, location: Location) -> Session:
        dsn, where = location.read_dsn, location.shown(location.read_dsn, source.target)
        try:
            if location.way is Way.DIRECT:
                return held.enter_context(connected(dsn, where))
            port = held.enter_context(self._machines.forward(source.target, *address(dsn)))
            return held.enter_context(connected(dsn, where, port))
        except Unreached as why:
            raise BackupFailed(f"{source} was not taken: {why}") from why
        except (NotLed, psycopg.Error) as error:
            raise _failed(source, where, error) from None  # its text may quote the DSN

    def _program(self, source: Source, session: Session) -> Program:
        """The first that is new enough, and speaks TLS where the session does."""
        server = counting.server_version(session.connection.info.server_version)
        tls = session.connection.pgconn.ssl_in_use
        known = [each for path in self._programs() if (each := _known(path)) is not None]
        for each in known:
            if each.version >= server and (each.speaks_tls or not tls):
                return each
        there = "; ".join(map(str, known)) or "there is none"
        raise BackupFailed(
            f"{source} was not taken: the server is {counting.written(server)}{', reached by TLS' if tls else ''}, and"
            f" no pg_dump here may dump it ({there}). {_INSTALL}"
        )


@dataclass(frozen=True)
class CountedStream:
    """A stream with the rows that were counted beside it."""

    stream: Stream
    rows: Mapping[str, int] = field(default_factory=dict)

    def read(self, most: int) -> bytes:
        return self.stream.read(most)

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.stream.warnings


def _counted(source: Source, session: Session, abort: Flag) -> tuple[Mapping[str, int], str]:
    """The rows of each table, and the snapshot that they were counted in, which lives as long as the session."""
    connection = session.connection
    within = min(COUNT_WITHIN, source.within)
    try:
        with watched(connection, within, abort):
            connection.execute(counting.BEGIN)
            connection.execute(counting.PATIENT)
            connection.execute(counting.COUNT)
            said = _one(connection, counting.COUNTED)
            return counting.rows_of(str(said)), str(_one(connection, "SELECT pg_export_snapshot()"))
    except psycopg.Error as error:
        if abort.is_set():
            raise BackupStopped(f"{source} was stopped while its rows were counted; nothing of it was kept.") from error
        raise _failed(source, session.where, error) from None


def _unreadable(source: Source, session: Session, abort: Flag) -> list[str]:
    try:
        with watched(session.connection, CHECK_WITHIN, abort):
            return [str(name) for (name,) in session.connection.execute(counting.UNREADABLE.encode())]
    except psycopg.Error as error:
        raise _failed(source, session.where, error) from None


def _one(connection: "psycopg.Connection[Any]", text: str) -> object:
    row = connection.execute(text.encode()).fetchone()
    return row[0] if row else ""


def _failed(source: Source, where: str, error: Exception) -> BackupFailed:
    return BackupFailed(f"{source} was not taken: {unanswered(where, error).why}")


# ---------------------------------------------------------------- pg_dump


def _known(path: Path) -> Program | None:
    """What it says of itself; None when it does not run."""
    said = _said(path, "--version")
    version = counting.client_version(said)
    if not version:
        return None
    tried = _said(path, "-w", "-d", "host=/nowhere sslmode=require")  # fails before it looks for the host, or there
    return Program(path, version, _NO_TLS not in tried)


def _said(path: Path, *words: str) -> str:
    try:
        ran = subprocess.run(
            [path, *words], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=ASK_WITHIN,
            env={"PATH": os.defpath, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (ran.stdout + ran.stderr).decode(errors="replace")


def _local(source: Source, program: Program, session: Session, dsn: str, snapshot: str) -> Local:
    """What runs: the password in its environment, which only opsbot's own user can read."""
    said = parts(dsn)
    if hidden := _secret(said) - {PASSWORD}:
        raise BackupFailed(
            f"{source} was not taken: {', '.join(sorted(hidden))} of its DSN would be a word of pg_dump that `ps`"
            " shows. Use a key without one, or a password."
        )
    words = [str(program.path), "-F", "c", "-w", "-d", _reach(said, session)]
    words += [f"--snapshot={snapshot}"] if snapshot else []
    known = {name: value for name, value in os.environ.items() if name.startswith("PG")}  # as the session has it
    known.pop("PGCLIENTENCODING", None)
    return Local(tuple(words), known | ({"PGPASSWORD": said[PASSWORD]} if PASSWORD in said else {}))


def _reach(said: Mapping[str, str], session: Session) -> str:
    """The very server that the session is with, as safely."""
    info = session.connection.info
    known = {name: value for name, value in {**LIVELY, **said}.items() if name not in (*_OTHERS, PASSWORD)}
    kept = {**known, "host": info.host, "port": info.port}
    if info.hostaddr and not info.host.startswith("/"):
        kept["hostaddr"] = info.hostaddr
    if session.connection.pgconn.ssl_in_use and said.get("sslmode", os.environ.get("PGSSLMODE", "")) in _WEAK:
        kept["sslmode"] = "require"
    return make_conninfo("", **kept)


def _secret(said: Mapping[str, str]) -> set[str]:
    """The names of what libpq itself would not show."""
    hidden = {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    return {name for name in said if name in hidden}
