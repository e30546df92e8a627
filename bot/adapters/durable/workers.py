"""The processes' side: claim tasks, carry each on a thread, keep their leases, hand them over.

Three threads besides those that carry: one claims (and listens, so that a spawn or a wake is served at once), one
extends the leases, one watches the clock: when a lease could not be extended for two thirds of its time, the work under
it is told to stop, whether or not the database ever answers.
"""

import logging
import os
import secrets
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.durable.claim import Claim
from bot.adapters.durable.database import Database
from bot.core.errors import LeaseLost, Temporary
from bot.core.ports import Suspended

log = logging.getLogger(__name__)

Carry = Callable[[Claim], None]
OnError = Callable[[Claim, Exception], timedelta | None]

POLL = 1.0  # seconds; only for what no notification and no deadline announces
GATHER = 0.02  # between two claims, each of which costs the database some milliseconds
SOONEST = 0.02  # when something is due that somebody else has locked
AWAY = timedelta(seconds=1)  # before a task is tried again that the database failed
NEARLY = 0.05  # seconds between two looks whether a change has ended
LONG = 10.0  # seconds, after which a task mostly waits for machines
MOST = 4  # times as many as there are threads may go on, when most of them are long
HOPELESS = timedelta(minutes=1)  # ... or that nobody knows how to end


class Workers:
    """Carries tasks until told to stop.

    `carry(claim)` returns (the task has ended, now at the latest), raises Suspended after `claim.sleep`, LeaseLost, or
    an error; `on_error(claim, error)` then says how long to back off, or None: the task has ended. Trouble with the
    database itself is no error of the task. `woken(claim)` is called when a task is woken while it is carried here.
    """

    def __init__(
        self,
        database: Database,
        carry: Carry,
        on_error: OnError,
        *,
        lease: timedelta = timedelta(seconds=10),
        threads: int = 16,
        name: str = "",
        woken: Callable[[Claim], None] = lambda _: None,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._database = database
        self._carry = carry
        self._on_error = on_error
        self._woken = woken
        self._lease = max(1, round(lease.total_seconds()))
        self._threads = threads
        self._claims: set[Claim] = set()  # a task that slept may be here twice for a moment
        self._guard = threading.Condition()
        self._claiming = True
        self._draining = False
        self._stopping = threading.Event()
        self._hurried = threading.Event()
        self._poked, self._poker = socket.socketpair()  # ends a nap of the thread that claims
        self._poked.setblocking(False)
        self._poker.setblocking(False)
        self._own: list[threading.Thread] = []
        self._claimed = 0

    # ------------------------------------------------------------ from outside

    def start(self) -> None:
        for work in (self._claim_for_ever, self._beat_for_ever, self._watch):
            thread = threading.Thread(target=work, name=f"opsbot-{work.__name__.strip('_')}", daemon=True)
            self._own.append(thread)
            thread.start()

    @property
    def busy(self) -> int:
        """How many tasks this process carries now."""
        return len(self._claims)

    def drain(
        self,
        grace: timedelta = timedelta(seconds=20),
        patience: timedelta = timedelta(seconds=10),
        changes: timedelta = timedelta(),
    ) -> bool:
        """Claim nothing more; let what runs end within `grace`, then abort it, and after `patience` give back what
        still hangs. What is changing a machine at that moment gets `changes` to end it first: cut off, nobody would
        know what became of it. True when everything ended by itself.
        """
        self._claiming = False
        self._poke()
        for thread in self._own[:1]:  # it may be about to claim just now
            thread.join(self._lease)
        if self._wait_until_idle(grace):
            return True
        self._draining = True
        for claim in self._held():
            claim.leave()
        self._await_changes(changes)
        for claim in self._held():
            claim.abort.set()
        idle = self._wait_until_idle(patience)
        for claim in self._held():
            self._give_back(claim)
        return idle

    def hurry(self) -> None:
        """Wait for no change any more: a drain that goes on aborts them now."""
        self._hurried.set()

    def stop(
        self,
        grace: timedelta = timedelta(),
        patience: timedelta = timedelta(seconds=10),
        changes: timedelta = timedelta(),
    ) -> None:
        """Drain, then end the threads of this object."""
        self.drain(grace, patience, changes)
        self.abandon()
        for thread in self._own:
            thread.join(self._lease + 5)
        self._poked.close()
        self._poker.close()

    def abandon(self) -> None:
        """Claim and extend nothing more, and give nothing back: what a kill leaves behind."""
        self._claiming = False
        self._stopping.set()
        self._poke()

    # ------------------------------------------------------------ claiming

    def _claim_for_ever(self) -> None:
        wait = 0.1
        while self._claiming:
            try:
                with self._database.apart() as connection:
                    connection.execute("LISTEN opsbot_work")
                    wait = 0.1
                    self._serve(connection)
            except (Temporary, psycopg.Error) as error:
                log.warning("claiming waits for the database: %s", _said(error))
                self._stopping.wait(wait)
                wait = min(wait * 2, 2.0)

    def _serve(self, connection: Connection[DictRow]) -> None:
        while self._claiming:
            if (free := self._free()) > 0:
                self._claim(connection, free)
            row = connection.execute("SELECT opsbot.next_due() AS seconds").fetchone()
            due = row["seconds"] if row else None
            if self._free() <= 0 or due is None:
                due = POLL
            asked = time.monotonic()
            self._nap(connection, min(POLL, max(SOONEST, due)))
            self._stopping.wait(max(0.0, asked + GATHER - time.monotonic()))

    def _free(self) -> int:
        """How many may be claimed. A backup streams for hours, and a click has to be decided meanwhile: what is carried
        for long already does not count.
        """
        began, held = time.monotonic() - LONG, self._held()
        short = sum(claim.since > began for claim in held)
        return min(self._threads - short, self._threads * MOST - len(held))

    def _claim(self, connection: Connection[DictRow], many: int) -> None:
        self._claimed += 1
        worker = f"{self.name}:{self._claimed}"  # new each time, see the schema's `hold`
        asked = time.monotonic()
        found = connection.execute("SELECT * FROM opsbot.claim(%s, %s, %s)", [worker, self._lease, many]).fetchall()
        for row in found:
            claim = Claim(self._database, row, worker, self._lease, asked)
            with self._guard:
                self._claims.add(claim)
            threading.Thread(target=self._run, args=[claim], name=f"opsbot-{claim}", daemon=True).start()

    def _nap(self, connection: Connection[DictRow], seconds: float) -> None:
        """Until something was announced, a thread became free, or the time is over."""
        if not self._heard(connection):
            either = select.poll()  # not select(), which ends at 1,024 open files
            either.register(connection, select.POLLIN)
            either.register(self._poked, select.POLLIN)
            either.poll(seconds * 1000)
            self._heard(connection)
        with suppress(BlockingIOError):
            self._poked.recv(4096)

    def _heard(self, connection: Connection[DictRow]) -> bool:
        """Take in all that was announced, so that the next nap does not end at once."""
        tasks = {announced.payload for announced in connection.notifies(timeout=0)}
        for claim in self._held():
            if claim.task in tasks:
                threading.Thread(target=self._tell, args=[claim], name=f"opsbot-woken-{claim}", daemon=True).start()
        return bool(tasks)

    def _tell(self, claim: Claim) -> None:
        """Its task was woken while it runs: it may have been cancelled."""
        with suppress(LeaseLost, Temporary, psycopg.Error):
            self._woken(claim)

    # ------------------------------------------------------------ carrying

    def _run(self, claim: Claim) -> None:
        try:
            self._carry_on(claim)
        except (LeaseLost, Temporary, psycopg.Error) as error:
            # The lease ends by itself, and a peer goes on from the rows.
            log.warning("%s could not be handed on: %s", claim, _said(error))
        finally:
            with self._guard:
                crowded = len(self._claims) >= self._threads
                self._claims.discard(claim)
                self._guard.notify_all()
            if crowded:  # else whoever claims has asked for as many as there are
                self._poke()

    def _carry_on(self, claim: Claim) -> None:
        try:
            self._carry(claim)
        except Suspended:
            if not claim.over:
                log.error("%s was suspended, but does not sleep; it goes on in a moment", claim)
                claim.give_back(AWAY)
        except LeaseLost:
            self._give_back(claim)
        except Exception as error:
            self._after(claim, error)
        except BaseException as error:  # a signal of the engine's own that nobody took: no lease may wait for it
            self._after(claim, RuntimeError(f"{type(error).__name__} came through: {error}"))
        else:
            if not claim.over:
                claim.complete()

    def _after(self, claim: Claim, error: Exception) -> None:
        if claim.over or self._draining:
            return self._give_back(claim)
        if isinstance(error, Temporary) and isinstance(error.__cause__, psycopg.Error):
            log.warning("%s waits for the database: %s", claim, _said(error))
            return claim.back_off(AWAY)
        try:
            delay = self._on_error(claim, error)
        except (LeaseLost, Temporary, psycopg.Error):
            raise
        except Exception as worse:
            log.error("%s: what happens after an error failed itself", claim, exc_info=worse)
            delay = HOPELESS
        return claim.complete() if delay is None else claim.back_off(delay)

    def _give_back(self, claim: Claim) -> None:
        """At once when this process is leaving; it was told to stop, or lost the claim, for no fault of the task."""
        with suppress(LeaseLost, Temporary, psycopg.Error):
            claim.give_back(timedelta() if self._draining else AWAY)

    # ------------------------------------------------------------ keeping leases

    def _beat_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._database.apart() as connection:
                    connection.execute(f"SET statement_timeout = {self._lease * 1000 // 3}".encode())
                    self._keep_beating(connection)
            except (Temporary, psycopg.Error) as error:
                log.warning("leases cannot be extended: %s", _said(error))
                self._stopping.wait(min(0.5, self._lease / 10))

    def _keep_beating(self, connection: Connection[DictRow]) -> None:
        while not self._stopping.is_set():
            if held := self._held():
                self._beat(connection, held)
            self._stopping.wait(self._lease / 3)

    def _beat(self, connection: Connection[DictRow], held: Sequence[Claim]) -> None:
        asked = time.monotonic()
        parameters = [[claim.run for claim in held], [claim.worker for claim in held], self._lease]
        found = connection.execute("SELECT opsbot.beat(%s::uuid[], %s, %s)::text AS run", parameters)
        lost = {row["run"] for row in found}
        for claim in held:
            if claim.run in lost:
                claim.lose()
            else:
                claim.extended = max(claim.extended, asked)

    def _watch(self) -> None:
        while not self._stopping.wait(self._lease / 20):
            oldest = time.monotonic() - self._lease * 2 / 3
            for claim in self._held():
                if claim.extended < oldest and not claim.abort.is_set():
                    log.warning("%s stops: its lease could not be extended", claim)
                    claim.lose()

    # ------------------------------------------------------------ small things

    def _held(self) -> list[Claim]:
        with self._guard:
            return list(self._claims)

    def _wait_until_idle(self, within: timedelta) -> bool:
        with self._guard:
            return self._guard.wait_for(lambda: not self._claims, within.total_seconds())

    def _await_changes(self, within: timedelta) -> None:
        ends = time.monotonic() + within.total_seconds()
        while time.monotonic() < ends and any(claim.is_changing for claim in self._held()):
            if self._hurried.wait(NEARLY):
                return

    def _poke(self) -> None:
        with suppress(OSError):  # full: it is awake already; closed: it has ended
            self._poker.send(b".")


def clean_up(database: Database) -> int:
    """Forget tasks that ended long ago (absurd's policy: 30 days), a thousand at a time; returns how many.

    Beside 300,000 finished tasks a claim takes 1.1 times as long as in an empty table, but 30 times when the planner
    has no statistics.
    """
    with database.connection() as connection:
        connection.execute("ANALYZE absurd.t_opsbot, absurd.r_opsbot")
    total = 0
    while True:
        with database.connection() as connection:
            row = connection.execute("SELECT tasks_deleted, events_deleted FROM absurd.cleanup_all_queues('opsbot')")
            gone = row.fetchone() or {"tasks_deleted": 0, "events_deleted": 0}
        total += int(gone["tasks_deleted"])
        if max(gone.values()) < 1000:
            return total


def _said(error: Exception) -> str:
    """The first line only: details of database errors quote rows."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
