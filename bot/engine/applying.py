"""Applying one fix: take the locks, look again, send each change at most once, settle, prove it by the same
diagnosis.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from threading import Event as Flag
from typing import Any

from bot.core import unit
from bot.core.approval import Ask, Kind, Verdict
from bot.core.command import Command
from bot.core.errors import Refused, Unknown
from bot.core.fact import Fact
from bot.core.fix import Change, Fix, Wait
from bot.core.look import CannotLook
from bot.core.plan import fix_to_json
from bot.core.ports import ChangeRow, NotSent, Sender, Tx
from bot.core.question import Output
from bot.engine.journal import Cancelled, Journal
from bot.engine.rounds import Diagnoser

LONGEST_LOCK_WAIT = timedelta(hours=1)
DOUBT_OPEN_FOR = timedelta(hours=24)
ENSURE_FROM = 50  # ensure changes are numbered behind the steps of their fix
FIXES_PER_PLAN = 100
STEPS_PER_FIX = 100
UNIT_LOOKS = 5  # quick looks at a unit before the run sleeps: a restart is often over within a second
UNIT_LOOK_EVERY = 0.2  # seconds
UNIT_GRACE = timedelta(seconds=30)  # beyond its own bound, until a unit that says nothing is in doubt
MOST_ASKS = 9  # of one doubt; the question's number has one digit for it
UNSENT = ("not needed", "not sent")  # results of changes that surely never left
MOST_SAID = 2000  # characters of a program's words that the story keeps
MOST_SAVED = 20_000  # characters of what was saved before the first change
Json = dict[str, Any]


class Result(Enum):
    """How a fix went. HEALED and GONE (nothing was left to fix) count as fixed; of GONE, ALTERED and NOT_BEGUN nothing
    was sent.
    """

    HEALED = "healed"
    GONE = "gone"
    ALTERED = "altered"
    NOT_BEGUN = "not begun"
    FAILED = "failed"
    IN_DOUBT = "in doubt"
    CANCELLED = "cancelled"


class InDoubt(Exception):
    """A change may or may not have happened, and nobody has said so in time, or a person said to leave it so."""

    def __init__(self, does: str, leave: bool = False) -> None:
        super().__init__(does)
        self.leave = leave


class StepFailed(Exception):
    """A step did not do what it should; the text says what was seen."""


@dataclass(frozen=True)
class Way:
    """Where a fix came from: how to make it anew before it is applied, and how to prove it afterwards.

    `again` gives the fixes as they would be offered now, None when nothing is left to fix; `troubles` gives what the
    diagnosis still says about the target, empty when it is silent.
    """

    again: Callable[[], Sequence[Fix] | None]
    troubles: Callable[[], list[str]]


@dataclass(frozen=True)
class Pace:
    """How often a settling machine is asked, and how long a lock is waited for."""

    poll: timedelta = timedelta(seconds=2)
    lock_wait: timedelta = LONGEST_LOCK_WAIT


@dataclass(frozen=True)
class Applying:
    """One fix of one plan of one run, numbered, so that every journal entry has its own place."""

    journal: Journal
    sender: Sender
    diagnoser: Diagnoser
    pace: Pace
    identity: str
    plan_no: int
    fix_no: int
    fix: Fix
    way: Way
    locks: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"plan.{self.plan_no}.fix.{self.fix_no}"

    def change_no(self, step: int) -> int:
        return (self.plan_no * FIXES_PER_PLAN + self.fix_no) * STEPS_PER_FIX + step

    def apply(self) -> Result:
        """The result, recorded once; locks are held until then, over crashes and waits too."""
        if (done := self.journal.recorded(f"{self.key}.result")) is not None:
            return Result(done[0])
        try:
            self._lock()
            result = self._begin() or self._work()
        except StepFailed as why:
            result = self._failed(why)
        except InDoubt as doubt:
            if not doubt.leave:
                self._ensure()
            result = Result.IN_DOUBT
        except Cancelled:
            self._stop_units()
            self._ensure()
            if not self._unresolved():
                self._end(Result.CANCELLED)
                raise
            result = Result.IN_DOUBT
        return self._end(result)

    # ------------------------------------------------------------ before the first change

    def _lock(self) -> None:
        def check(tx: Tx) -> Any:
            holder = self.journal.store.lock(tx, self.journal.run.id, self.locks)
            if holder is None:
                return {"locked": True}
            self._tell_waiting(tx, holder)
            return {"locked": False, "holder": holder} if self.journal.clock.now() >= until else None

        until = self._deadline("lock", self.pace.lock_wait)
        if not (seen := self.journal.wait(f"{self.key}.lock", check, until))["locked"]:
            raise StepFailed(f"{self.fix.target} was kept busy by run {seen['holder']} for too long")

    def _tell_waiting(self, tx: Tx, holder: int) -> None:
        step = f"{self.key}.busy.{holder}"
        if self.journal.recorded(step) is None:
            self.journal.tell(tx, "waiting", **{"for": f"run {holder}, which holds {self.fix.target}", "until": ""})
            self.journal.claim.record(tx, step, True)

    def _begin(self) -> Result | None:
        """Old evidence is not evidence: as long as nothing was sent, look again. Only an unchanged fix goes on."""
        if self._has_begun():
            return None
        try:
            offered = self.way.again()
        except (CannotLook, Unknown, Refused) as why:
            raise StepFailed(f"could not look again, so nothing was sent: {why}") from why
        if offered is None:
            return Result.GONE
        if fix_to_json(self.fix) not in map(fix_to_json, offered) or self._identity_now() != self.identity:
            return Result.ALTERED
        self._save()
        return None

    def _identity_now(self) -> str:
        return self.diagnoser.asker.identity(self.fix.target)

    def _has_begun(self) -> bool:
        return any(self._row(no) for no, _ in self._numbered())

    def _numbered(self) -> Iterator[tuple[int, Change]]:
        """Every change of this fix with its number, those of `ensure` too."""
        for no, step in (*enumerate(self.fix.steps), *enumerate(self.fix.ensure, ENSURE_FROM)):
            if isinstance(step, Change):
                yield self.change_no(no), step

    def touched(self) -> bool:
        """Whether anything may have been sent; a change that surely was not does not count."""
        rows = (self._row(no) for no, _ in self._numbered())
        return any(row is not None and _may_be_sent(row) for row in rows)

    def _unresolved(self) -> bool:
        rows = (self._row(no) for no, _ in self._numbered())
        return any(row is not None and row.result is None for row in rows)

    def _save(self) -> None:
        def ask() -> Json:
            return {fact.asks: self.journal.show(self._answer(fact))[:MOST_SAVED] for fact in self.fix.saves}

        def keep(tx: Tx, saved: Json) -> None:
            for asks, value in saved.items():
                text = self.journal.redactor.show(value)
                self.journal.store.keep_evidence(tx, self.journal.run.id, self.fix.target.name, f"saved: {asks}", text)

        if self.fix.saves:
            self.journal.once(f"{self.key}.saves", ask, keep)

    # ------------------------------------------------------------ the steps

    def _work(self) -> Result:
        for no, step in enumerate(self.fix.steps):
            self.journal.check_cancel()
            if isinstance(step, Wait):
                self._settle(no, step)
            else:
                self._change(self.change_no(no), step)
        return self._verify()

    def _failed(self, why: StepFailed) -> Result:
        self._tell_step(f"{self.key}.failed", str(why), "failed")
        self._ensure()
        return Result.FAILED if self.touched() else Result.NOT_BEGUN

    def _verify(self) -> Result:
        def keep(tx: Tx, troubles: list[str]) -> None:
            self.journal.tell(
                tx, "verified", target=self.fix.target.name, fix=self.fix.title, healed=not troubles, troubles=troubles
            )

        def look() -> list[str]:
            return [self.journal.show(each)[:MOST_SAID] for each in self.way.troubles()]

        troubles = self.journal.once(f"{self.key}.verified", look, keep)
        return Result.FAILED if troubles else Result.HEALED

    def _settle(self, no: int, wait: Wait) -> None:
        """Ask again and again until the fact says what it should; no thread is held in between."""
        step = f"{self.key}.wait.{no}"
        if (done := self.journal.recorded(step)) is None:
            deadline = self._deadline(f"wait.{no}", wait.within)
            self._tell_step(f"{step}.told", wait.what, "waiting")
            done = (self._settled(step, wait, deadline),)
        if not done[0]["met"]:
            raise StepFailed(f"{wait.fact} did not come to pass: {done[0]['seen']}")

    def _settled(self, step: str, wait: Wait, deadline: datetime) -> Json:
        seen, met = self._seen(wait)
        if not met and self.journal.clock.now() < deadline:
            self.journal.pause(self.pace.poll)
        ending = {"met": met, "seen": seen}

        def keep(tx: Tx, _: Json) -> None:
            result = "done" if met else "failed"
            self.journal.tell(
                tx, "step", fix=self.fix.title, target=self.fix.target.name, does=wait.what, result=result, said=seen
            )

        self.journal.once(step, lambda: ending, keep)
        return ending

    def _seen(self, wait: Wait) -> tuple[str, bool]:
        """What the fact says now; a machine that cannot be reached yet has not settled."""
        try:
            value = self._answer(wait.fact)
        except (CannotLook, Unknown) as why:
            return self.journal.show(why)[:MOST_SAID], False
        return self.journal.show(f"it is {value}")[:MOST_SAID], wait.until.met_by(value)

    def _answer(self, fact: Fact[Any]) -> Any:
        try:
            return self.diagnoser.answer(fact, self.journal.stop)
        finally:
            self.journal.heed_stop()

    def _deadline(self, what: str, span: timedelta) -> datetime:
        """Fixed once, so that a crash does not give the machine more time."""
        stored = self.journal.write(f"{self.key}.{what}.until", lambda _: (self.journal.clock.now() + span).isoformat())
        return datetime.fromisoformat(stored)

    def _tell_step(self, step: str, does: str, result: str) -> None:
        def keep(tx: Tx) -> bool:
            self.journal.tell(tx, "step", fix=self.fix.title, target=self.fix.target.name, does=does, result=result)
            return True

        self.journal.write(step, keep)

    # ------------------------------------------------------------ a change, at most once

    def _change(self, no: int, change: Change) -> None:
        """Send it unless it was sent before; raises StepFailed when it certainly did not work, InDoubt when nobody
        knows.
        """
        result = self._known_result(no)
        if result is None:
            result = self._doubt(no, change) if self._row(no) else self._send(no, 1, change)
        while result["state"] == "in doubt":
            result = self._doubt(no, change)
        if result["state"] in ("failed", "not sent"):
            raise StepFailed(f"{change.does}: {result['state']}: {result.get('said', '')}".rstrip(": "))

    def _row(self, no: int) -> Any:
        with self.journal.claim.commit() as tx:
            return self.journal.store.change(tx, self.journal.run.id, no)

    def _known_result(self, no: int) -> Mapping[str, Any] | None:
        row = self._row(no)
        return None if row is None else row.result

    def _send(self, no: int, ask: int, change: Change) -> Mapping[str, Any]:
        if change.needed is not None and not self._needed(change.needed):
            return self._conclude(no, ask, change, {"state": "not needed", "said": f"no longer true: {change.needed}"})
        if not self._intend(no, ask, change):
            return {"state": "in doubt"}
        result = self._sent(no, ask, change)
        return result if result["state"] == "in doubt" else self._conclude(no, ask, change, result)

    def _needed(self, fact: Fact[bool]) -> bool:
        try:
            return bool(self._answer(fact))
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
                rows = self.sender.execute(self.fix.target, change.command, change.within, stop)
                return {"state": "done", "said": f"{len(rows.rows)} rows"}
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
        deadline = self._deadline(f"unit.{no}.{ask}", change.within + UNIT_GRACE)
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

    def _stop_units(self) -> None:
        """End what runs on the machine under our name, and write down how it ended, where the machine says so."""
        for no, change in self._numbered():
            row = self._row(no) if change.slow else None
            if row is not None and row.result is None and (ended := self._steady()._stopped(no)) is not None:
                self._conclude(no, row.ask_no, change, ended)

    def _stopped(self, no: int) -> Mapping[str, Any] | None:
        """How a unit ended, by itself or because it is stopped now; None when nobody can tell."""
        seen = self._unit_seen(no)
        if seen is not None and seen["state"] == unit.State.NEVER_STARTED.value:
            return {"state": "not sent", "said": "it never started"}
        if seen is not None and seen["state"] != unit.State.RUNNING.value:
            return seen
        try:
            stopped = self.sender.send(self.fix.target, unit.stop(self._unit(no)), timedelta(seconds=30), Flag())
        except NotSent:
            return None
        return {"state": "failed", "said": "stopped, because the run has to end"} if stopped.ok else None

    def _steady(self) -> "Applying":
        """The same, for what has to be done before a run ends: no cancel stops it."""
        return replace(self, journal=replace(self.journal, heed_cancel=False))

    def _conclude(self, no: int, ask: int, change: Change, result: Mapping[str, Any]) -> Mapping[str, Any]:
        with self.journal.claim.commit() as tx:
            if result["state"] == "not needed":
                shown = self.journal.redactor.show(change.command)
                self.journal.store.intend(tx, self.journal.run.id, no, ask, self.journal.claim.attempt, shown)
            self.journal.store.settle(tx, self.journal.run.id, no, ask, self.journal.shown(result))
            asked = self.journal.store.approval_of(tx, self.journal.run.id, _question(no, ask))
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
                self.sender.send(self.fix.target, command, timedelta(seconds=30), Flag())

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
        row = self._row(no)
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
            still = self._answer(change.needed)
        except (CannotLook, Unknown):
            return None
        return None if still else {"state": "done", "said": f"seen on the machine: no longer true: {change.needed}"}

    def _ask_person(self, no: int, ask: int, change: Change) -> Json:
        step = f"change.{no}.doubt.{ask}"
        question = _question(no, ask)

        def put(tx: Tx) -> Any:
            journal = self.journal
            self._tell_change(tx, change, "in doubt", "")
            until = journal.clock.now() + DOUBT_OPEN_FOR
            title = f"Did this happen? {self.fix.target}: {change.does}"
            text = journal.redactor.show(
                f"{change.command}\n\nopsbot was interrupted after it may have been sent, and the machine cannot tell. "
                f"Done: it happened, go on. Again: it did not, send it once more. Stop: leave everything as it is."
            )
            asked = Ask(journal.run.id, question, Kind.DOUBT, "", 1, until, journal.redactor.show(title), text)
            journal.store.put(tx, asked, journal.run.order.actor)
            return until.isoformat()

        until = datetime.fromisoformat(self.journal.write(f"{step}.put", put))
        return dict(self.journal.wait(step, lambda tx: answered(self.journal, tx, question, until), until))

    # ------------------------------------------------------------ ending

    def _ensure(self) -> None:
        """Leave the machine as it should be, once anything may have been sent to it."""
        if not self.fix.ensure or not self.touched():
            return
        for no, change in enumerate(self.fix.ensure):
            try:
                self._steady()._change(self.change_no(ENSURE_FROM + no), change)
            except (StepFailed, InDoubt) as why:
                self._tell_step(f"{self.key}.ensure.{no}", f"{change.does}: {why}", "failed")

    def wind_up(self) -> bool:
        """Stop and tidy up, for a run that ends without applying the rest; whether a change is in doubt."""
        if self.journal.recorded(f"{self.key}.result") is None:
            self._stop_units()
            self._ensure()
        return self._unresolved()

    def _end(self, result: Result) -> Result:
        def keep(tx: Tx) -> str:
            for task in self.journal.store.unlock(tx, self.journal.run.id):
                self.journal.wake(tx, task)
            return result.value

        return Result(self.journal.write(f"{self.key}.result", keep))


def answered(journal: Journal, tx: Tx, no: int, until: datetime) -> Json | None:
    """The verdict on a stored question, None while it is open; closes it as expired when its time is over."""
    approval = journal.store.approval_of(tx, journal.run.id, no)
    if approval is not None and approval.state == "open" and journal.clock.now() >= until:
        approval = journal.store.expire(tx, approval.id) or journal.store.approval_of(tx, journal.run.id, no)
    if approval is None or approval.state == "open":
        return None
    by = approval.decided_by[-1].user if approval.decided_by else ""
    return {"verdict": approval.state, "by": by, "reason": journal.show(approval.reason), "approval": approval.id}


def _may_be_sent(row: ChangeRow) -> bool:
    return row.ask_no > 1 or row.result is None or row.result["state"] not in UNSENT


def _question(no: int, ask: int) -> int:
    return no * 10 + ask


def _result_of(change: Change, output: Output, stopped: bool) -> Mapping[str, Any]:
    if output.exit is None:
        hung_up = {"state": "done", "said": "the machine hung up, as expected"}
        return hung_up if change.breaks_connection and not stopped else {"state": "in doubt"}
    return {"state": "done" if output.ok else "failed", "said": _said(output)}


def _said(output: Output) -> str:
    words = " ".join(f"{output.out} {output.err}".split())
    return f"exit {output.exit}: {words}" if words else f"exit {output.exit}"
