"""One change, sent at most once: the intent, the result, and what happens when nobody knows whether it was sent."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from threading import Event as Flag
from typing import Any

from bot.core import unit
from bot.core.approval import Ask, Kind, Verdict
from bot.core.command import Command
from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.fix import Change, Fix
from bot.core.look import CannotLook
from bot.core.ports import ChangeRow, NotSent, Sender, Tx
from bot.core.question import Output
from bot.engine.journal import Journal
from bot.engine.rounds import Diagnoser

LONGEST_LOCK_WAIT = timedelta(hours=1)
DOUBT_OPEN_FOR = timedelta(hours=24)
UNIT_LOOKS = 5  # quick looks at a unit before the run sleeps: a restart is often over within a second
UNIT_LOOK_EVERY = 0.2  # seconds
UNIT_GRACE = timedelta(seconds=30)  # beyond its own bound, until a unit that says nothing is in doubt
MOST_ASKS = 9  # of one doubt; the question's number has one digit for it
UNSENT = ("not needed", "not sent")  # results of changes that surely never left
MOST_SAID = 2000  # characters of a program's words that the story keeps
Json = dict[str, Any]


class InDoubt(Exception):
    """A change may or may not have happened, and nobody has said so in time, or a person said to leave it so."""

    def __init__(self, does: str, leave: bool = False) -> None:
        super().__init__(does)
        self.leave = leave


class StepFailed(Exception):
    """A step did not do what it should; the text says what was seen."""


@dataclass(frozen=True)
class Pace:
    """How often a settling machine is asked, and how long a lock is waited for."""

    poll: timedelta = timedelta(seconds=2)
    lock_wait: timedelta = LONGEST_LOCK_WAIT


@dataclass(frozen=True)
class Changing:
    """The changes of one fix; `key` is its place in the journal. Every change has a number of its own in the run."""

    journal: Journal
    sender: Sender
    diagnoser: Diagnoser
    pace: Pace
    key: str
    fix: Fix

    def answer(self, fact: Fact[Any]) -> Any:
        try:
            return self.diagnoser.answer(fact, self.journal.stop)
        finally:
            self.journal.heed_stop()

    def deadline(self, what: str, span: timedelta) -> datetime:
        """Fixed once, so that a crash does not give the machine more time."""
        stored = self.journal.write(f"{self.key}.{what}.until", lambda _: (self.journal.clock.now() + span).isoformat())
        return datetime.fromisoformat(stored)

    def make(self, no: int, change: Change) -> None:
        """Send it unless it was sent before; raises StepFailed when it certainly did not work, InDoubt when nobody
        knows.
        """
        result = self._known_result(no)
        if result is None:
            result = self._doubt(no, change) if self.row(no) else self._send(no, 1, change)
        while result["state"] == "in doubt":
            result = self._doubt(no, change)
        if result["state"] in ("failed", "not sent"):
            raise StepFailed(f"{change.does}: {result['state']}: {result.get('said', '')}".rstrip(": "))

    def row(self, no: int) -> Any:
        with self.journal.claim.commit() as tx:
            return self.journal.store.change(tx, self.journal.run.id, no)

    def _known_result(self, no: int) -> Mapping[str, Any] | None:
        row = self.row(no)
        return None if row is None else row.result

    def _send(self, no: int, ask: int, change: Change) -> Mapping[str, Any]:
        if change.needed is not None and not self._needed(change.needed):
            return self._conclude(no, ask, change, {"state": "not needed", "said": f"no longer true: {change.needed}"})
        with self.journal.claim.changing():
            self.journal.heed_stop()  # the last moment to leave: from here on the process waits for its result
            if not self._intend(no, ask, change):
                return {"state": "in doubt"}
            result = self._sent(no, ask, change)
            return result if result["state"] == "in doubt" else self._conclude(no, ask, change, result)

    def _needed(self, fact: Fact[bool]) -> bool:
        try:
            return bool(self.answer(fact))
        except (CannotLook, Unknown) as why:
            raise StepFailed(f"could not look just before the change, so nothing was sent: {why}") from why

    def _intend(self, no: int, ask: int, change: Change) -> bool:
        """The intent row and the lease, in one transaction: from its commit until a result stands, the change is in
        doubt.
        """
        with self.journal.claim.commit() as tx:
            shown = self.journal.redactor.show(change.command)
            fresh = self.journal.store.intend(tx, self.journal.run.id, no, ask, self.journal.claim.attempt, shown)
            if fresh:
                self._tell_change(tx, change, "sent", "")
        return fresh

    def _sent(self, no: int, ask: int, change: Change) -> Mapping[str, Any]:
        stop = self.journal.stop
        try:
            if not isinstance(change.command, Command):
                ended = self.sender.execute(self.fix.target, change.command, change.within, stop)
                return _executed(ended)
            if change.slow:
                return self._sent_as_unit(no, ask, change, stop)
            output = self.sender.send(self.fix.target, change.command, change.within, stop)
            return _result_of(change, output, stop.is_set())
        except NotSent as why:
            return {"state": "not sent", "said": str(why)}

    def _sent_as_unit(self, no: int, ask: int, change: Change, stop: Flag) -> Mapping[str, Any]:
        """A named unit refuses a second start, outlives the connection, and says itself how it ended."""
        assert isinstance(change.command, Command)
        start = unit.start(change.command, self._unit(no), change.within)
        started = self.sender.send(self.fix.target, start, timedelta(seconds=30), stop)
        if started.exit is None:
            return {"state": "in doubt"}
        if not started.ok and not unit.taken(started):
            return {"state": "failed", "said": _said(started)}
        self.journal.write(self._begun(no, ask), lambda _: True)
        return {"state": "in doubt"}  # how it ended is asked, not told

    def _begun(self, no: int, ask: int) -> str:
        """The step that says: this unit was surely there. One that is gone later was not merely never started."""
        return f"change.{no}.begun.{ask}"

    def _unit(self, no: int) -> str:
        return unit.name(self.journal.run.id, no, self.journal.run.created)

    def _unit_result(self, no: int, ask: int, change: Change) -> Mapping[str, Any] | None:
        """How the unit ended; the run sleeps until it has. None when the machine cannot say in time, or no more."""
        deadline = self.deadline(f"unit.{no}.{ask}", change.within + UNIT_GRACE)
        seen: Mapping[str, Any] | None = None
        for _ in range(UNIT_LOOKS):
            seen = self._unit_seen(no)
            if seen is None or seen["state"] != unit.State.RUNNING.value:
                break
            self.journal.stop.wait(UNIT_LOOK_EVERY)
        if seen is not None and seen["state"] != unit.State.RUNNING.value:
            lost = seen["state"] == unit.State.NEVER_STARTED.value and self.journal.recorded(self._begun(no, ask))
            return None if lost else seen
        if self.journal.clock.now() < deadline:
            self.journal.pause(self.pace.poll)
        return None

    def _unit_seen(self, no: int) -> Mapping[str, Any] | None:
        (answer,) = self.diagnoser.asker.ask(self.fix.target, [unit.asked(self._unit(no))], self.journal.stop)
        self.journal.heed_stop()
        try:
            ended = unit.ended(answer) if isinstance(answer, Output) else None
        except Unknown:
            return None
        return None if ended is None else {"state": ended.state.value, "said": f"{ended.result}, exit {ended.exit}"}

    def stop_unit(self, no: int, change: Change) -> None:
        """End what runs on the machine under our name, and write down how it ended, where the machine says so."""
        row = self.row(no) if change.slow else None
        if row is not None and row.result is None and (ended := self.steady()._stopped(no)) is not None:
            self._conclude(no, row.ask_no, change, ended)

    def _stopped(self, no: int) -> Mapping[str, Any] | None:
        """How a unit ended, by itself or because it is stopped now; None when nobody can tell."""
        seen = self._unit_seen(no)
        if seen is not None and seen["state"] == unit.State.NEVER_STARTED.value:
            return {"state": "not sent", "said": "it never started"}
        if seen is not None and seen["state"] != unit.State.RUNNING.value:
            return seen
        try:
            stop, lost = unit.stop(self._unit(no)), self.journal.claim.lost
            stopped = self.sender.send(self.fix.target, stop, timedelta(seconds=30), lost)
        except NotSent:
            return None
        return {"state": "failed", "said": "stopped, because the run has to end"} if stopped.ok else None

    def steady(self) -> "Changing":
        """The same, for what has to be done before a run ends: no cancel stops it."""
        return replace(self, journal=replace(self.journal, heed_cancel=False))

    def _conclude(self, no: int, ask: int, change: Change, result: Mapping[str, Any]) -> Mapping[str, Any]:
        with self.journal.claim.commit() as tx:
            if result["state"] == "not needed":
                shown = self.journal.redactor.show(change.command)
                self.journal.store.intend(tx, self.journal.run.id, no, ask, self.journal.claim.attempt, shown)
            self.journal.store.settle(tx, self.journal.run.id, no, ask, self.journal.shown(result))
            asked = self.journal.store.approval_of(tx, self.journal.run.id, question(no, ask))
            if asked is not None and asked.state == "open":
                self.journal.store.withdraw(tx, asked.id, Verdict.CANCEL.value)
            self._tell_change(tx, change, result["state"], result.get("said", ""))
            self.journal.store.audit(tx, "change", None, self.journal.shown(self._audited(no, change, result)))
        if change.slow and result["state"] not in UNSENT:
            self._clean_unit(no)
        return result

    def _clean_unit(self, no: int) -> None:
        """Take the finished unit away; what is left when this fails is only a name."""
        with suppress(NotSent):
            for command in unit.forget(self._unit(no)):
                self.sender.send(self.fix.target, command, timedelta(seconds=30), self.journal.claim.lost)

    def _audited(self, no: int, change: Change, result: Mapping[str, Any]) -> Json:
        where = {"run": self.journal.run.id, "change": no, "target": self.fix.target.key}
        return {**where, "command": str(change.command), "result": result["state"]}

    def _tell_change(self, tx: Tx, change: Change, result: str, said: str) -> None:
        self.journal.tell(
            tx,
            "change",
            fix=self.fix.title,
            target=self.fix.target.name,
            does=change.does,
            command=str(change.command),
            result=result,
            said=said[:MOST_SAID],
        )

    # ------------------------------------------------------------ doubt

    def _doubt(self, no: int, change: Change) -> Mapping[str, Any]:
        """A change without a result: let the machine say, else a person. Never sent again by itself."""
        self.journal.heed_stop()
        row = self.row(no)
        if row is None:
            return self._send(no, 1, change)
        if row.result is not None:
            return dict(row.result)
        seen = self._probe(no, row.ask_no, change)
        if seen is not None and seen["state"] != unit.State.NEVER_STARTED.value:
            return self._conclude(no, row.ask_no, change, seen)
        if row.ask_no > MOST_ASKS:
            raise InDoubt(change.does)
        if seen is not None:
            return self._send(no, row.ask_no + 1, change)  # under the same unit name: a late first start is refused
        answer = self._ask_person(no, row.ask_no, change)
        if answer["verdict"] == Verdict.DONE.value:
            return self._conclude(no, row.ask_no, change, {"state": "done", "said": f"said by <@{answer['by']}>"})
        if answer["verdict"] == Verdict.AGAIN.value:
            return self._send(no, row.ask_no + 1, change)
        raise InDoubt(change.does, leave=answer["verdict"] == Verdict.STOP.value)

    def _probe(self, no: int, ask: int, change: Change) -> Mapping[str, Any] | None:
        """What the machine itself knows of the change: its unit, or that the change is no longer needed."""
        if change.slow and (seen := self._unit_result(no, ask, change)) is not None:
            return seen
        if change.needed is None:
            return None
        try:
            still = self.answer(change.needed)
        except (CannotLook, Unknown):
            return None
        return None if still else {"state": "done", "said": f"seen on the machine: no longer true: {change.needed}"}

    def _ask_person(self, no: int, ask: int, change: Change) -> Json:
        step = f"change.{no}.doubt.{ask}"
        number = question(no, ask)

        def put(tx: Tx) -> Any:
            journal = self.journal
            self._tell_change(tx, change, "in doubt", "")
            until = journal.clock.now() + DOUBT_OPEN_FOR
            title = f"Did this happen? {self.fix.target}: {change.does}"
            text = journal.redactor.show(
                f"{change.command}\n\nopsbot was interrupted after it may have been sent, and the machine cannot tell. "
                f"Done: it happened, go on. Again: it did not, send it once more. Stop: leave everything as it is."
            )
            asked = Ask(journal.run.id, number, Kind.DOUBT, "", 1, until, journal.redactor.show(title), text)
            journal.store.put(tx, asked, journal.run.order.actor)
            return until.isoformat()

        until = datetime.fromisoformat(self.journal.write(f"{step}.put", put))
        return dict(self.journal.wait(step, lambda tx: answered(self.journal, tx, number, until), until))


def answered(journal: Journal, tx: Tx, no: int, until: datetime) -> Json | None:
    """The verdict on a stored question, None while it is open; closes it as expired when its time is over."""
    approval = journal.store.approval_of(tx, journal.run.id, no)
    if approval is not None and approval.state == "open" and journal.clock.now() >= until:
        approval = journal.store.expire(tx, approval.id) or journal.store.approval_of(tx, journal.run.id, no)
    if approval is None or approval.state == "open":
        return None
    by = approval.decided_by[-1].user if approval.decided_by else ""
    return {"verdict": approval.state, "by": by, "reason": journal.show(approval.reason), "approval": approval.id}


def may_be_sent(row: ChangeRow) -> bool:
    return row.ask_no > 1 or row.result is None or row.result["state"] not in UNSENT


def question(no: int, ask: int) -> int:
    """The number of a question about one step of a run; plans have the small numbers."""
    return no * 10 + ask


def _result_of(change: Change, output: Output, stopped: bool) -> Mapping[str, Any]:
    if output.exit is None:
        hung_up = {"state": "done", "said": "the machine hung up, as expected"}
        return hung_up if change.breaks_connection and not stopped else {"state": "in doubt"}
    return {"state": "done" if output.ok else "failed", "said": _said(output)}


def _executed(ended: Output) -> Mapping[str, Any]:
    """A statement has no exit status of its own: it is committed, rolled back, or nobody knows."""
    if ended.exit is None:
        return {"state": "in doubt"}
    return {"state": "done" if ended.ok else "failed", "said": " ".join(f"{ended.out} {ended.err}".split())}


def _said(output: Output) -> str:
    words = " ".join(f"{output.out} {output.err}".split())
    return f"exit {output.exit}: {words}" if words else f"exit {output.exit}"
