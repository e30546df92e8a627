"""One task that this process holds under a lease."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from bot.adapters.durable.database import Database, rows
from bot.core.errors import LeaseLost, Temporary
from bot.core.ports import Tx

LONGEST_COMMIT = 30.0  # seconds
_LOST = ("AB001", "AB002", "P0001")  # cancelled, failed (taken over), not running any more


class Abort(threading.Event):
    """Set by whoever tells the task to stop, and by itself once the lease may be lost.

    A process that was frozen wakes up with every thread at once: what it does next looks here first, and must not
    depend on another thread having been quicker.
    """

    def __init__(self, may_be_lost: Callable[[], bool]) -> None:
        super().__init__()
        self._may_be_lost = may_be_lost

    def is_set(self) -> bool:
        if not super().is_set() and self._may_be_lost():
            self.set()
        return super().is_set()


class Claim:
    """`bot.core.ports.Claim` on PostgreSQL; made by `Workers`, once per claim.

    Only one thread at a time is inside `commit()`. After the task slept, ended or was given back the claim is `over`:
    the same task may be claimed again at once, by anyone, so nothing may be written in its name any more.
    """

    def __init__(self, database: Database, row: DictRow, worker: str, lease: int, claimed: float) -> None:
        self.task = str(row["task_id"])
        self.name: str = row["name"]
        self.params: Mapping[str, Any] = row["params"]
        self.attempt: int = row["attempt"]
        self.abort: threading.Event = Abort(self._may_be_lost)
        self.lost: threading.Event = Abort(self._may_be_lost)
        self.run = str(row["run_id"])
        self.worker = worker
        self.over = False
        self.since = claimed  # monotonic; when it was claimed
        self.extended = claimed  # monotonic; when the newest extension was asked for
        self._database = database
        self._lease = lease
        self._seen: int = row["seen"]
        self._guard = threading.Lock()
        self._inside: int | None = None
        self._steps: dict[str, Any] | None = None
        self._fresh: dict[str, Any] = {}
        self._ends = False
        self._leave = threading.Lock()
        self._leaving = False
        self.is_changing = False

    def __str__(self) -> str:
        return f"{self.name} {self.task}"

    @contextmanager
    def commit(self) -> Iterator[Connection[DictRow]]:
        if self._inside == threading.get_ident():
            raise RuntimeError(f"{self}: a commit inside a commit would wait for itself")
        if not self._guard.acquire(timeout=LONGEST_COMMIT):
            raise Temporary(f"{self}: another commit does not end")
        try:
            self._inside = threading.get_ident()
            yield from self._transaction()
        finally:
            self._inside = None
            self._fresh, self._ends = {}, False
            self._guard.release()

    def _may_be_lost(self) -> bool:
        """Whether the newest extension is older than two thirds of the lease; until then nobody else can have it."""
        return time.monotonic() - self.extended > self._lease * 2 / 3

    def lose(self) -> None:
        """Another process has it, or may have: whatever is done on machines in its name ends."""
        self.lost.set()
        self.abort.set()

    def leave(self) -> None:
        """This process has to stop: at once, or as soon as the change under way has ended."""
        with self._leave:
            self._leaving = True
            if not self.is_changing:
                self.abort.set()

    @contextmanager
    def changing(self) -> Iterator[None]:
        with self._leave:
            self.is_changing = True
        try:
            yield
        finally:
            with self._leave:
                self.is_changing = False
                if self._leaving:
                    self.abort.set()

    def recorded(self, step: str) -> tuple[Any] | None:
        if step in self._fresh:
            return (self._fresh[step],)
        if self._steps is None:
            self._steps = self._load()
        return (self._steps[step],) if step in self._steps else None

    def record(self, tx: Tx, step: str, result: Any) -> None:
        rows(tx).execute(
            "SELECT absurd.set_task_checkpoint_state('opsbot', %s, %s, %s, %s)",
            [self.task, step, Jsonb(result), self.run],
        )
        self._fresh[step] = json.loads(json.dumps(result))  # as it will read after a takeover

    def sleep(self, tx: Tx, until: datetime | None) -> None:
        rows(tx).execute("SELECT opsbot.sleep(%s, %s, %s, %s)", [self.run, self.task, self._seen, until])
        self._ends = True

    def end(self, tx: Tx) -> None:
        rows(tx).execute("SELECT opsbot.complete(%s, %s, %s, %s)", [self.run, self.task, self.worker, self._lease])
        self._ends = True

    def complete(self) -> None:
        """The task has ended."""
        with self.commit() as connection:
            self.end(connection)

    def give_back(self, delay: timedelta = timedelta()) -> None:
        """Let any process go on with the task, now or after a delay."""
        with self.commit() as connection:
            connection.execute(
                "SELECT opsbot.give_back(%s, %s, %s, %s, clock_timestamp() + %s)",
                [self.run, self.task, self.worker, self._lease, delay],
            )
            self._ends = True

    def back_off(self, delay: timedelta) -> None:
        """Try again after a delay, or when somebody wakes the task."""
        with self.commit() as connection:
            row = connection.execute("SELECT clock_timestamp() + %s AS until", [delay]).fetchone()
            self.sleep(connection, row["until"] if row else None)

    def _transaction(self) -> Iterator[Connection[DictRow]]:
        self._still_ours()
        asked = time.monotonic()
        with self._database.connection() as connection:
            self._hold(connection)
            yield connection
        self.extended = asked
        self.over = self.over or self._ends
        if self._steps is not None:
            self._steps |= self._fresh

    def _hold(self, connection: Connection[DictRow]) -> None:
        """Lock and extend the lease. Without this, a stale worker's write is accepted while a peer takes over."""
        try:
            connection.execute("SELECT opsbot.hold(%s, %s, %s)", [self.run, self.worker, self._lease])
        except psycopg.Error as error:
            if error.sqlstate not in _LOST:
                raise
            self.over = True
            self.lose()
            raise LeaseLost(f"{self} is carried on by another process") from error

    def _still_ours(self) -> None:
        if self.over:
            raise LeaseLost(f"{self} is not held by this process any more")

    def _load(self) -> dict[str, Any]:
        with self._database.connection() as connection:
            found = connection.execute(
                "SELECT checkpoint_name, state FROM absurd.get_task_checkpoint_states('opsbot', %s, %s)",
                [self.task, self.run],
            )
            return {row["checkpoint_name"]: row["state"] for row in found}
