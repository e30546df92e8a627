"""What the engine needs from the world, as Protocols; adapters implement them, tests ship fakes that remember."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from threading import Event as Flag
from typing import Any, Protocol, TypeVar

from bot.core.approval import Approval, Ask, Click
from bot.core.aws import AwsCall
from bot.core.command import Command
from bot.core.docker import Program
from bot.core.keeping import Backup, Piece, Proof
from bot.core.outcome import Outcome
from bot.core.people import Actor, Part, Person, Place
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.run import Order, Run
from bot.core.shown import Shown
from bot.core.sql import Statement
from bot.core.story import Event
from bot.core.target import Target

T = TypeVar("T")
Json = Any


# ---------------------------------------------------------------- machines


class NotSent(Exception):
    """It is certain that the change never reached the machine (no connection, refused before the first byte)."""


class Unreached(Exception):
    """A machine cannot be reached: why, as a sentence, and the cause id of the finding it becomes."""

    def __init__(self, why: str, cause: str = "unreachable") -> None:
        super().__init__(why)
        self.cause = cause


class NotLed(Exception):
    """A machine is reached, and gets no connection to an address behind it: why, as the end of a sentence."""


class Asker(Protocol):
    """Asks; never changes anything, so it may retry reaching."""

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        """One answer per question, in order, over one connection; never raises for a machine's sake."""
        ...

    def identity(self, target: Target) -> str:
        """Address and pinned host key as a plan shows them: `10.0.0.11:22 SHA256:…`."""
        ...


class Sender(Protocol):
    """Sends one change, once. Raises NotSent when it surely was not; an Output with exit None when nobody knows."""

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output: ...

    def execute(self, target: Target, statement: Statement | AwsCall, within: timedelta, abort: Flag) -> Output:
        """Exit 0 when it is committed, with the number of rows as text; 1 when it was rolled back, and why."""
        ...


class Machines(Asker, Protocol):
    """What reaches machines: asks them, sends them one change at a time, leads to what only they can reach."""

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output: ...

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        """A port on loopback that leads to host:port as the machine sees it.

        Raises on entering Unreached, of the machine, or NotLed, when the machine gets no connection to there.
        """
        ...


class Inside(Protocol):
    """Programs in the container of a platform machine that holds its services."""

    def ask(self, target: Target, programs: Sequence[Program], abort: Flag) -> Sequence[Output | Unanswered]:
        """One answer per program, in order; they only read."""
        ...

    def send(self, target: Target, program: Program, within: timedelta, abort: Flag) -> Output:
        """Run one that changes something, once; raises NotSent and returns exit None as `Sender.send` does."""
        ...


class Directory(Protocol):
    """Who people are, as the workspace says now (at most 60 s old). Raises Temporary when it cannot be asked: fail
    closed.
    """

    def person(self, actor: Actor) -> Person: ...

    def members(self, usergroup: str) -> tuple[str, ...]: ...


# ---------------------------------------------------------------- durable work


class Tx(Protocol):
    """An open database transaction; only adapters look inside."""


class Claim(Protocol):
    """One durable task that this process holds under a lease.

    `commit()` opens a transaction that first locks and extends the lease (raises LeaseLost when another process holds
    it), so that whatever is written inside happens only while the lease is ours. `abort` is set when the lease is lost
    or may be, when the run is cancelled, or when the process must stop: work on machines ends then. `lost` is set only
    when the lease is lost or may be: also what must still be done before a run ends, ends then.
    """

    task: str
    name: str
    params: Mapping[str, Json]
    attempt: int
    abort: Flag
    lost: Flag

    def commit(self) -> AbstractContextManager[Tx]: ...

    def changing(self) -> AbstractContextManager[None]:
        """Inside, a machine is being changed: a process that only has to stop sets `abort` when that has ended, or has
        taken too long.
        """
        ...

    def recorded(self, step: str) -> tuple[Json] | None:
        """The recorded result of a step as a tuple of one, None when it has not finished."""
        ...

    def record(self, tx: Tx, step: str, result: Json) -> None:
        """Keep a step's result, in the same transaction as whatever else it wrote."""
        ...

    def sleep(self, tx: Tx, until: datetime | None) -> None:
        """Give the lease back when this transaction commits; wake at `until`, or when `Durable.wake` is called.

        The caller raises Suspended right after the transaction.
        """
        ...

    def end(self, tx: Tx) -> None:
        """End the task when this transaction commits: what it wrote then stands once, whatever is killed when."""
        ...


class Suspended(BaseException):
    """The task sleeps durably; no thread is held. Not an error: it passes through everything."""


class Durable(Protocol):
    """Durable tasks: what was spawned is carried to its end by whichever process is alive."""

    def transaction(self) -> AbstractContextManager[Tx]: ...

    def spawn(self, tx: Tx, name: str, params: Mapping[str, Json], key: str) -> str | None:
        """A new task's id; None when one with this idempotency key exists already. Wakes a worker on commit."""
        ...

    def wake(self, tx: Tx, task: str) -> None:
        """Wake a sleeping task on commit. Carries nothing: rows are the only truth. Never lost, whenever it comes."""
        ...


# ---------------------------------------------------------------- our tables


class ChangeRow(Protocol):
    """One row of `changes`: `result` is None while nobody knows how it ended."""

    attempt: int
    ask_no: int
    result: Mapping[str, Json] | None


class Store(Protocol):
    """opsbot's own tables. Everything takes the transaction it belongs to; rules that no bug may break live in the
    schema.
    """

    # requests and runs
    def accept(self, tx: Tx, key: str, kind: str, body: Mapping[str, Json], actor: Actor) -> int | None:
        """A durable request with its unique delivery key (trigger_id, event_id); None when it came before."""
        ...

    def request(self, tx: Tx, request: int) -> Mapping[str, Json]: ...

    def start(self, tx: Tx, order: Order) -> int: ...

    def attach(self, tx: Tx, run: int, task: str) -> None: ...

    def run(self, tx: Tx, run: int) -> Run | None: ...

    def runs(self, tx: Tx, limit: int, open_only: bool = False) -> Sequence[Run]: ...

    def set_state(self, tx: Tx, run: int, state: str) -> None: ...

    def finish(self, tx: Tx, run: int, outcome: Outcome, summary: Shown) -> None: ...

    def cancel(self, tx: Tx, run: int, actor: Actor) -> bool:
        """Ask a run to stop; False when it has ended already. The caller wakes its task."""
        ...

    def count_try(self, tx: Tx, run: int) -> int:
        """One more unexpected error in this run; takeovers do not count."""
        ...

    def count_request_try(self, tx: Tx, request: int) -> int:
        """One more unexpected error in a request that is no run (yet)."""
        ...

    # story, evidence, outbox
    def tell(self, tx: Tx, run: int, kind: str, data: Mapping[str, Json]) -> int:
        """Append to the run's story; listeners (command line, status message) are notified on commit."""
        ...

    def story(self, tx: Tx, run: int, after: int = 0) -> Sequence[Event]: ...

    def keep_evidence(self, tx: Tx, run: int, target: str, asks: str, text: Shown) -> None: ...

    def evidence(self, tx: Tx, run: int) -> Sequence[tuple[str, str, str]]: ...

    def reply(self, tx: Tx, actor: Actor, place: Place | None, text: Shown) -> None:
        """A private sentence to one person (ephemeral in the channel or thread where they acted)."""
        ...

    def post(self, tx: Tx, place: Place, body: Mapping[str, Json]) -> None:
        """A note for everybody there, of no run; `body` as a letter has it."""
        ...

    # findings and plans
    def keep_findings(self, tx: Tx, run: int, look: int, findings: Sequence[Mapping[str, Json]]) -> None: ...

    def keep_plan(self, tx: Tx, run: int, no: int, digest: str, plan: Mapping[str, Json]) -> None: ...

    def plan(self, tx: Tx, run: int, no: int) -> Mapping[str, Json]: ...

    # approvals and doubts
    def put(self, tx: Tx, ask: Ask, requester: Actor) -> Approval:
        """Store a question; its message goes out through the outbox. The same run and no again gives the same row."""
        ...

    def approval(self, tx: Tx, approval: int) -> Approval | None: ...

    def approval_of(self, tx: Tx, run: int, no: int) -> Approval | None: ...

    def decide(self, tx: Tx, click: Click, members: Sequence[str]) -> Approval | None:
        """The one UPDATE that decides: open, in time, digest and nonce and message right, not the requester, not
        twice         the same person. None when it did not apply. `members` is what was seen of the approvers, kept
        with the         decision.
        """
        ...

    def expire(self, tx: Tx, approval: int) -> Approval | None:
        """Close it as expired, by the same kind of UPDATE, when its time is over and nobody has decided."""
        ...

    def withdraw(self, tx: Tx, approval: int, verdict: str) -> None: ...

    def open_asks(self, tx: Tx, run: int) -> Sequence[int]:
        """The ids of the run's questions that nobody has answered."""
        ...

    def add_party(self, tx: Tx, run: int, who: Actor) -> bool:
        """Keep who really typed something as another person in this run; False when that is kept already."""
        ...

    def parts(self, tx: Tx, run: int, who: Actor) -> frozenset[Part]:
        """What this person did in the run, under their own name or, as TYPED, under another's."""
        ...

    # changes
    def intend(self, tx: Tx, run: int, change: int, ask: int, attempt: int, shown: Shown) -> bool:
        """Write the intent of a change; False when one stands there already: then it is in doubt, or has a result."""
        ...

    def change(self, tx: Tx, run: int, change: int) -> ChangeRow | None:
        """The newest row of that change (highest ask)."""
        ...

    def settle(self, tx: Tx, run: int, change: int, ask: int, result: Mapping[str, Json]) -> None:
        """Record how a change ended; a result that stands is never overwritten."""
        ...

    # locks
    def lock(self, tx: Tx, run: int, keys: Sequence[str]) -> int | None:
        """Take all of these for the run, or none: None when taken, else the run that holds one of them."""
        ...

    def unlock(self, tx: Tx, run: int) -> Sequence[str]:
        """Free the run's locks; returns the tasks of runs that wait for one, to be woken."""
        ...

    # samples
    def sample(self, tx: Tx, target: str, question: str, answer: Mapping[str, Json]) -> None: ...

    def earlier(self, tx: Tx, target: str, question: str, before: datetime) -> Mapping[str, Json] | None: ...

    # backups
    def begin_backup(self, tx: Tx, site: str, what: str, run: int, folder: str) -> int:
        """A new backup of this run, or the one that it has begun already; `folder` is its name in the store."""
        ...

    def add_piece(self, tx: Tx, backup: int, piece: Piece) -> int: ...

    def prove(self, tx: Tx, piece: int, by: Proof, passed: bool, said: Shown) -> None: ...

    def seal_backup(self, tx: Tx, backup: int, manifest: str) -> None:
        """It is complete: the manifest (its key) is written."""
        ...

    def backups(self, tx: Tx, site: str = "", limit: int = 50, gone: bool = False) -> Sequence[Backup]:
        """The newest first, of one site or of all; with `gone` also those that were given up."""
        ...

    def half_gone(self, tx: Tx, site: str) -> Sequence[Backup]:
        """Given up, the oldest first, and something of them may be in the store yet."""
        ...

    def backup(self, tx: Tx, backup: int) -> Backup | None: ...

    def last_backup(self, tx: Tx, site: str) -> Backup | None:
        """The newest complete one of everything; where there never was one, the newest complete one of anything."""
        ...

    def last_piece(self, tx: Tx, site: str, kind: str, name: str) -> Piece | None:
        """The newest of its kind and name in a complete backup, for sizes and times."""
        ...

    def give_up_backup(self, tx: Tx, backup: int) -> None:
        """Mark it before the store forgets it; raises Refused for what must be kept."""
        ...

    def give_up_piece(self, tx: Tx, piece: int) -> str | None:
        """The key that the store may forget now; raises Refused for the last copy of an encryption key."""
        ...

    def living_keys(self, tx: Tx) -> frozenset[str]:
        """Every key of the store that a row still stands for, those of backups that are being taken too."""
        ...

    def raise_alarm(self, tx: Tx, site: str, cause: str) -> bool:
        """True when it was not raised already."""
        ...

    def end_alarm(self, tx: Tx, site: str, cause: str) -> bool:
        """True when it had been raised."""
        ...

    # audit
    def audit(self, tx: Tx, what: str, who: Actor | None, detail: Mapping[str, Json]) -> None:
        """Append to the chained audit trail. Takes the last lock of the transaction, so call it last."""
        ...


class Clock(Protocol):
    """Wall clock for rows, so that tests can turn it."""

    def now(self) -> datetime: ...
