"""The outbox as the sender sees it: one letter at a time, in order within its channel.

A thread that takes letters has a connection of its own. It serves a channel under a session lock, which ends with the
connection, so a process that is killed frees its channels at once. One thread at a time listens for new letters, and
calls another when it has found one: a letter that woke them all would be looked for by each.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store import letters, values
from bot.adapters.store.approvals import Approvals
from bot.adapters.store.pool import Pool
from bot.adapters.store.queries import Queries
from bot.adapters.store.runs import Runs
from bot.adapters.store.story import Story
from bot.core.errors import Temporary
from bot.core.outbox import Letter

SQL = Queries("outbox")
SERVED = 0.2  # seconds until a look again at what is due, and which somebody else serves just now
_SPACE = 0x6F7073  # "ops": the first half of a channel's lock


@dataclass(frozen=True)
class Taken(Letter):
    """A letter with the version of the row it was rendered from."""

    version: int = 1


class Outbox:
    """`bot.core.outbox.Outbox` on PostgreSQL. `close()` ends the connections of all threads."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._mine = threading.local()
        self._guard = threading.Lock()
        self._all: list[Connection[DictRow]] = []
        self._listening = threading.Lock()
        self._listener: Connection[DictRow] | None = None
        self._called = threading.Condition()

    @contextmanager
    def take(self) -> Iterator[Letter | None]:
        connection, letter = self._first()
        if letter:
            self._call_another()
        try:
            yield letter
        finally:
            if letter:
                self._leave(connection, letter.channel)

    def sent(self, letter: Letter, ts: str | None) -> None:
        version = letter.version if isinstance(letter, Taken) else 1
        with self._pool.connection() as connection:
            if ts and letter.message is None:
                _keep_post(connection, letter, ts)  # first: whoever tells a story locks the run, then its letter
            connection.execute(SQL["sent"], {"letter": letter.id, "version": version})

    def later(self, letter: Letter, seconds: float, why: str, tried: bool = True) -> None:
        with self._pool.connection() as connection:
            connection.execute(SQL["later"], {"letter": letter.id, "why": values.text(why), "tried": int(tried)})
            connection.execute(SQL["delay"], {"channel": letter.channel, "seconds": seconds})

    def dead(self, letter: Letter, why: str, word: str = "") -> None:
        with self._pool.connection() as connection:
            connection.execute(SQL["dead"], {"letter": letter.id, "why": values.text(why)})
            if word and letter.run:
                letters.unheard(connection, letter.run, word)

    def wait(self, seconds: float) -> None:
        try:
            due = values.only(self._connection().execute(SQL["next_due"]).fetchone())["seconds"]
            self._rest(seconds if due is None else min(seconds, due + 0.01 if due > 0 else SERVED))
        except (Temporary, psycopg.Error):
            self._drop()
            threading.Event().wait(min(seconds, 1.0))

    def dead_letters(self, limit: int = 20) -> list[DictRow]:
        """What could never be sent: id, channel, kind, run_id, why, newest first."""
        with self._pool.connection() as connection:
            return connection.execute(SQL["dead_letters"], {"limit": limit}).fetchall()

    def close(self) -> None:
        with self._guard:
            for connection in self._all:
                with suppress(psycopg.Error):
                    connection.close()
            self._all.clear()

    def _rest(self, seconds: float) -> None:
        if not self._listening.acquire(blocking=False):
            with self._called:
                self._called.wait(seconds)
            return
        try:
            self._listen(seconds)
        finally:
            self._listening.release()

    def _listen(self, seconds: float) -> None:
        if self._listener is None or self._listener.closed:
            self._listener = self._listening_connection()
            return  # what came before it is looked for
        for _ in self._listener.notifies(timeout=seconds, stop_after=1):
            return

    def _listening_connection(self) -> Connection[DictRow]:
        connection = self._opened()
        try:
            connection.execute("LISTEN opsbot_outbox")
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _call_another(self) -> None:
        with self._called:
            self._called.notify()

    def _first(self) -> tuple[Connection[DictRow], Letter | None]:
        """The letter to send now; its channel is ours until `_leave`."""
        try:
            connection = self._connection()
            for row in connection.execute(SQL["due_channels"]).fetchall():
                if letter := self._serve(connection, row["channel"]):
                    return connection, letter
        except psycopg.Error as error:
            self._drop()
            raise Temporary("The database does not answer, so nothing can be said for the moment.") from error
        return connection, None

    def _serve(self, connection: Connection[DictRow], channel: str) -> Letter | None:
        served = connection.execute(SQL["serve"], {"space": _SPACE, "channel": channel}).fetchone()
        if not (served and served["mine"]):
            return None
        letter = _next(connection, channel)
        if letter is None:  # another process was faster
            self._leave(connection, channel)
        return letter

    def _leave(self, connection: Connection[DictRow], channel: str) -> None:
        try:
            connection.execute(SQL["leave"], {"space": _SPACE, "channel": channel})
        except psycopg.Error:
            self._drop()

    def _connection(self) -> Connection[DictRow]:
        connection: Connection[DictRow] | None = getattr(self._mine, "connection", None)
        if connection is None or connection.closed:
            connection = self._mine.connection = self._opened()
        return connection

    def _opened(self) -> Connection[DictRow]:
        connection = self._pool.apart()
        with self._guard:
            self._all = [one for one in self._all if not one.closed] + [connection]
        return connection

    def _drop(self) -> None:
        connection: Connection[DictRow] | None = getattr(self._mine, "connection", None)
        if connection is not None:
            with suppress(psycopg.Error):
                connection.close()
            self._mine.connection = None


def _keep_post(connection: Connection[DictRow], letter: Letter, ts: str) -> None:
    if letter.kind == "status" and letter.run:
        connection.execute(SQL["thread"], {"run": letter.run.id, "channel": letter.channel, "ts": ts})
        _post(connection, letter, letter.run.id, ts)
    if letter.kind == "approval" and letter.approval:
        _post(connection, letter, letter.approval.id, ts)


def _post(connection: Connection[DictRow], letter: Letter, ref: int, ts: str) -> None:
    connection.execute(SQL["posted"], {"kind": letter.kind, "ref": ref, "channel": letter.channel, "ts": ts})


def _next(connection: Connection[DictRow], channel: str) -> Letter | None:
    """The oldest letter of the channel with what it points at, all of one moment."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        row = connection.execute(SQL["next"], {"channel": channel}).fetchone()
        return _letter(connection, row) if row else None


def _letter(connection: Connection[DictRow], row: DictRow) -> Letter:
    run = Runs().run(connection, row["run_id"]) if row["run_id"] else None
    story = Story().story(connection, row["run_id"]) if row["kind"] == "status" else ()
    approval = Approvals().approval(connection, row["approval_id"]) if row["approval_id"] else None
    edited = row["post_ts"] if row["post_channel"] == row["channel"] else None
    if approval and approval.message and approval.place and approval.place.channel == row["channel"]:
        edited = approval.message if row["kind"] == "approval" else edited  # the copy that people answered
    return Taken(
        id=row["id"],
        kind=row["kind"],
        channel=row["channel"],
        thread=row["run_thread"] if run and row["kind"] not in ("private", "pointer") else row["thread"],
        message=edited,
        user=row["user"],
        body=row["body"],
        run=run,
        story=story,
        approval=approval,
        tries=row["tries"],
        version=row["version"],
    )
