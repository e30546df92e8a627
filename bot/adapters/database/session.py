"""One connection by psycopg: to the database itself, or to the near end of a tunnel to it."""

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from threading import Event as Flag
from threading import Thread
from typing import Any, Final

import psycopg
from psycopg import Connection, ProgrammingError

from bot.adapters.database import text, trouble
from bot.adapters.database.location import parts
from bot.core.ports import NotLed, NotSent
from bot.core.question import Output, Rows, Unanswered
from bot.core.sql import Query, Statement

LIVELY: Final[dict[str, Any]] = {  # a machine that vanished is noticed within about 15 s
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "application_name": "opsbot",
    "client_encoding": "utf8",
}
GRACE: Final = 5.0  # seconds beyond the server's own time limit, until the connection is cut
WATCHED_EVERY: Final = 0.05  # seconds
BEGIN: Final = "BEGIN {}; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; SET LOCAL TIME ZONE 'UTC'"


@dataclass(frozen=True)
class Session:
    """An open connection; `where` is how sentences call the database."""

    connection: Connection[Any]
    where: str

    def answer(self, query: Query, abort: Flag) -> Rows | Unanswered:
        """The rows, read in a transaction that cannot write."""
        try:
            with watched(self.connection, query.within, abort), self._transaction("READ ONLY", query.within):
                (said,) = self._execute(*text.wrapped(query.text, query.parameters)).fetchall()
            return text.rows_of(said[0])
        except text.NotOneStatement as why:
            return Unanswered(f"The query was not asked: {why}.", trouble.FAILED)
        except (psycopg.Error, ValueError) as error:
            return unanswered(self.where, error)

    def change(self, statement: Statement, within: timedelta, abort: Flag) -> Output:
        """Commit it once. Raises NotSent when it was not even tried; exit None when the COMMIT itself was lost."""
        try:
            sent = text.one_statement(statement.text, statement.parameters)
            with watched(self.connection, within, abort):
                self._begin("READ WRITE", within)
                changed = max(0, self._execute(*sent).rowcount)
        except text.NotOneStatement as why:
            raise NotSent(f"the statement was not sent: {why}") from why
        except psycopg.Error as error:  # without a COMMIT the server forgets it, whatever happens to the connection
            return Output(1, err=f"nothing was changed: {unanswered(self.where, error).why}")
        if (why_not := _why_not_commit(statement, changed, abort)) is not None:
            self._rollback()
            return Output(1, err=why_not)
        return self._commit(changed, within)

    def _commit(self, changed: int, within: timedelta) -> Output:
        try:
            with watched(self.connection, within, Flag()):
                self.connection.execute("COMMIT")
        except psycopg.Error as error:
            if _rolled_back(error):
                return Output(1, err=f"nothing was changed: {unanswered(self.where, error).why}")
            return Output(
                None, err=f"the connection was lost while it was committed: {unanswered(self.where, error).why}"
            )
        return Output(0, f"{changed} rows changed")

    @contextmanager
    def _transaction(self, mode: str, within: timedelta) -> Iterator[None]:
        self._begin(mode, within)
        try:
            yield
        finally:
            self._rollback()

    def _begin(self, mode: str, within: timedelta) -> None:
        sent = BEGIN.format(mode, milliseconds(within), text.LOCK_WITHIN)
        self.connection.execute(sent)

    def _rollback(self) -> None:
        with contextlib.suppress(psycopg.Error):  # it is rolled back all the same, when the connection ends
            self.connection.execute("ROLLBACK")

    def _execute(self, sql: str, parameters: Sequence[Any] | None) -> psycopg.Cursor[Any]:
        return self.connection.execute(sql, parameters)


@contextmanager
def connected(dsn: str, where: str, to: int | None = None) -> Iterator[Session]:
    """A session; `to` is the near port of a tunnel: the certificate is still that of the host in the DSN.

    Raises psycopg.Error when there is none.
    """
    known = parts(dsn)
    if not known:
        raise ProgrammingError("the DSN cannot be read; it looks like postgresql://user@host:5432/name")
    options = {name: value for name, value in LIVELY.items() if name not in known}
    if to is not None:
        options |= {"hostaddr": "127.0.0.1", "port": to}
    connection = psycopg.connect(dsn, **options, autocommit=True, prepare_threshold=None)
    try:
        yield Session(connection, where)
    finally:
        connection.close()


def unanswered(where: str, error: Exception) -> Unanswered:
    """What psycopg raised, or the machine of a tunnel, as a sentence."""
    if isinstance(error, NotLed):
        return Unanswered(f"The database {where} cannot be reached: {error}.", trouble.AWAY)
    if not isinstance(error, psycopg.Error):
        return Unanswered(f"The database {where} gave an answer that cannot be read.", trouble.FAILED)
    if error.sqlstate:
        said = error.diag.message_primary or str(error)
        return trouble.by_code(where, error.sqlstate, trouble.first_line(said))
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return trouble.by_words(where, str(error))
    return Unanswered(f"The database {where} was not asked: {trouble.first_line(str(error))}.", trouble.FAILED)


def milliseconds(within: timedelta) -> int:
    return max(1, round(within.total_seconds() * 1000))


def _why_not_commit(statement: Statement, changed: int, abort: Flag) -> str | None:
    if statement.rows is not None and changed != statement.rows:
        return wrong_count(changed, statement.rows)
    return "nothing was changed: the run was stopped before it was committed" if abort.is_set() else None


def wrong_count(changed: int, wanted: int) -> str:
    return f"nothing was changed: it would have changed {changed} rows and not {wanted}, so it was rolled back"


def _rolled_back(error: psycopg.Error) -> bool:
    """Did the server say that it did not commit? Its being shut down says nothing about that."""
    code = error.sqlstate or ""
    return bool(code) and not code.startswith(("08", "57P"))


@contextmanager
def watched(connection: Connection[Any], within: timedelta, abort: Flag) -> Iterator[None]:
    """End what runs on the connection when the run is stopped, or when the server keeps neither its word nor time."""
    done = Flag()
    late = time.monotonic() + within.total_seconds() + GRACE

    def watch() -> None:
        while not done.wait(WATCHED_EVERY):
            if abort.is_set() or time.monotonic() > late:
                _end(connection, done)
                return

    watcher = Thread(target=watch, name="database-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def _end(connection: Connection[Any], done: Flag) -> None:
    """Ask the server to stop it; cut the connection when that does not help."""
    with contextlib.suppress(psycopg.Error):
        connection.cancel_safe(timeout=2)
    if done.wait(2):
        return
    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)
