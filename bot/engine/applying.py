"""Applying one fix: take the locks, look again, send each change at most once, settle, prove it by the same
diagnosis.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any

from bot.core.approval import Ask, Kind, Verdict
from bot.core.errors import Permanent, Refused, Unknown
from bot.core.fix import ByHand, Change, Fix, Step, TakeBackup, Wait
from bot.core.look import CannotLook
from bot.core.plan import fix_from_json, fix_to_json, narrows
from bot.core.ports import Sender, Tx
from bot.engine.changing import MOST_SAID, Changing, InDoubt, Pace, StepFailed, answered, may_be_sent, question
from bot.engine.journal import Cancelled, Journal
from bot.engine.rounds import Diagnoser

ENSURE_FROM = 50  # ensure changes are numbered behind the steps of their fix
FIXES_PER_PLAN = 100
STEPS_PER_FIX = 100
MOST_SAVED = 20_000  # characters of what was saved before the first change
Json = dict[str, Any]
BackUp = Callable[[str], str]  # takes a backup of these things within the run; the sentence that says how it went


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


@dataclass(frozen=True)
class Way:
    """Where a fix came from: how to make it anew before it is applied, and how to prove it afterwards.

    `again` gives the fixes as they would be offered now, None when nothing is left to fix; `troubles` gives what the
    diagnosis still says about the target, empty when it is silent.
    """

    again: Callable[[], Sequence[Fix] | None]
    troubles: Callable[[], list[str]]


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
    back_up: BackUp

    @property
    def key(self) -> str:
        return f"plan.{self.plan_no}.fix.{self.fix_no}"

    @property
    def changing(self) -> Changing:
        return Changing(self.journal, self.sender, self.diagnoser, self.pace, self.key, self.fix)

    def change_no(self, step: int) -> int:
        return (self.plan_no * FIXES_PER_PLAN + self.fix_no) * STEPS_PER_FIX + step

    def apply(self) -> Result:
        """The result, recorded once; locks are held until then, over crashes and waits too."""
        if (done := self.journal.recorded(f"{self.key}.result")) is not None:
            return Result(done[0])
        try:
            self._lock()
            begun = self._begin()
            result = begun if isinstance(begun, Result) else begun._work()
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

        until = self.changing.deadline("lock", self.pace.lock_wait)
        if not (seen := self.journal.wait(f"{self.key}.lock", check, until))["locked"]:
            raise StepFailed(f"{self.fix.target} was kept busy by run {seen['holder']} for too long")

    def _tell_waiting(self, tx: Tx, holder: int) -> None:
        step = f"{self.key}.busy.{holder}"
        if self.journal.recorded(step) is None:
            self.journal.tell(tx, "waiting", **{"for": f"run {holder}, which holds {self.fix.target}", "until": ""})
            self.journal.claim.record(tx, step, True)

    def _begin(self) -> "Result | Applying":
        """Old evidence is not evidence: as long as nothing was sent, look again. Only what was agreed to goes on, or
        less of it.
        """
        if self._has_begun():
            return self
        try:
            offered = self.way.again()
        except (CannotLook, Unknown, Refused) as why:
            raise StepFailed(f"could not look again, so nothing was sent: {why}") from why
        if offered is None:
            return Result.GONE
        left = next((fix for fix in offered if fix_to_json(fix) == fix_to_json(self.fix)), None) or next(
            (fix for fix in offered if narrows(fix, self.fix)), None
        )
        if left is None:
            return self._altered("what would be done")
        if self._identity_now() != self.identity:
            return self._altered("the machine's address or host key")
        narrowed = self._narrowed(left)
        narrowed._save()
        return narrowed

    def _altered(self, what: str) -> Result:
        """Whoever agreed has to know why they are asked once more."""

        def keep(tx: Tx) -> bool:
            text = f"{self.fix}: not begun, nothing was sent: {what} has changed since it was agreed to. Looking anew."
            self.journal.tell(tx, "note", text=text)
            return True

        self.journal.write(f"{self.key}.altered", keep)
        return Result.ALTERED

    def _narrowed(self, left: Fix) -> "Applying":
        """From now on this is the fix, also for a process that takes over."""
        if (gone := len(self.fix.items) - len(left.items)) == 0:
            return self

        def keep(tx: Tx) -> Json:
            text = f"{gone} of {len(self.fix.items)} that were agreed to no longer need it and are left alone: {left}"
            self.journal.tell(tx, "note", text=text)
            return fix_to_json(left)

        stored = self.journal.write(f"{self.key}.narrowed", keep)
        return replace(self, fix=fix_from_json(stored, self.diagnoser.site))

    def _identity_now(self) -> str:
        return self.diagnoser.asker.identity(self.fix.target)

    def _has_begun(self) -> bool:
        """Whether a change may have been sent, or a person told to do something: from then on the way leads forward."""
        return self._handed_over() or any(self.changing.row(no) for no, _ in self._numbered())

    def _handed_over(self) -> bool:
        """Whether people were told to do a step; they may have begun, whatever they say of it in the end."""
        steps = (no for no, step in enumerate(self.fix.steps) if isinstance(step, ByHand))
        return any(self.journal.recorded(f"{self._hand(no)}.put") for no in steps)

    def _hand(self, no: int) -> str:
        return f"{self.key}.hand.{no}"

    def _numbered(self) -> Iterator[tuple[int, Change]]:
        """Every change of this fix with its number, those of `ensure` too."""
        for no, step in (*enumerate(self.fix.steps), *enumerate(self.fix.ensure, ENSURE_FROM)):
            if isinstance(step, Change):
                yield self.change_no(no), step

    def touched(self) -> bool:
        """Whether anything may have been sent, or done by hand; a change that surely was not sent does not count."""
        rows = (self.changing.row(no) for no, _ in self._numbered())
        return self._handed_over() or any(row is not None and may_be_sent(row) for row in rows)

    def _unresolved(self) -> bool:
        rows = (self.changing.row(no) for no, _ in self._numbered())
        return any(row is not None and row.result is None for row in rows)

    def _save(self) -> None:
        def ask() -> Json:
            try:
                answers = {fact.asks: self.changing.answer(fact) for fact in self.fix.saves}
            except (CannotLook, Unknown) as why:
                raise StepFailed(f"what is there now could not be saved, so nothing was sent: {why}") from why
            return {asks: self.journal.show(answer)[:MOST_SAVED] for asks, answer in answers.items()}

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
            self._do(no, step)
        return self._verify()

    def _do(self, no: int, step: Step) -> None:
        if isinstance(step, Change):
            self.changing.make(self.change_no(no), step)
        elif isinstance(step, Wait):
            self._settle(no, step)
        elif isinstance(step, TakeBackup):
            self._back_up(no, step)
        else:
            self._hand_over(no, step)

    def _failed(self, why: StepFailed) -> Result:
        self._tell_step(f"{self.key}.failed", str(why), "failed")
        self._ensure()
        return Result.FAILED if self.touched() or self._took_backup() else Result.NOT_BEGUN

    def _took_backup(self) -> bool:
        """A run takes one: planned anew, it would rely on what may be hours old then."""
        return self.journal.recorded("backup.for") is not None

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
            deadline = self.changing.deadline(f"wait.{no}", wait.within)
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
            self._tell(tx, wait.what, "done" if met else "failed", seen)

        self.journal.once(step, lambda: ending, keep)
        return ending

    def _seen(self, wait: Wait) -> tuple[str, bool]:
        """What the fact says now; a machine that cannot be reached yet has not settled."""
        try:
            value = self.changing.answer(wait.fact)
        except (CannotLook, Unknown) as why:
            return self.journal.show(why)[:MOST_SAID], False
        return self.journal.show(f"it is {value}")[:MOST_SAID], wait.until.met_by(value)

    def _back_up(self, no: int, step: TakeBackup) -> None:
        """Told piece by piece while it is taken, so only its end is recorded here."""
        if self.journal.write("backup.for", lambda _: self.key) != self.key:
            raise StepFailed(f"`backup {step.what}` was taken for an earlier plan of this run; order this anew")
        try:
            self.journal.once(f"{self.key}.backup.{no}", lambda: self.back_up(step.what))
        except (CannotLook, Unknown, Refused, Permanent) as why:
            self.journal.heed_stop()
            raise StepFailed(f"`backup {step.what}`: {why}") from why

    def _hand_over(self, no: int, step: ByHand) -> None:
        """Put the step to people, and wait until one of them says that it is done."""
        number = question(self.change_no(no), 1)

        def put(tx: Tx) -> str:
            until, run = self.journal.clock.now() + step.within, self.journal.run
            does, how = self.journal.show(step.does), self.journal.show(step.how)
            self.journal.store.put(tx, Ask(run.id, number, Kind.HAND, "", 1, until, does, how), run.order.actor)
            self._tell(tx, step.does, "waiting", "for somebody to do it by hand")
            return until.isoformat()

        until = datetime.fromisoformat(self.journal.write(f"{self._hand(no)}.put", put))
        answer = self.journal.wait(self._hand(no), lambda tx: answered(self.journal, tx, number, until), until)
        if answer["verdict"] != Verdict.DONE.value:
            late = answer["verdict"] == Verdict.EXPIRE.value
            raise StepFailed(f"{step.does}: {'nobody said that it was done' if late else 'stopped by a person'}")
        self._tell_step(f"{self._hand(no)}.done", step.does, "done")

    def _tell_step(self, step: str, does: str, result: str) -> None:
        def keep(tx: Tx) -> bool:
            self._tell(tx, does, result)
            return True

        self.journal.write(step, keep)

    def _tell(self, tx: Tx, does: str, result: str, said: str = "") -> None:
        where = {"fix": self.fix.title, "target": self.fix.target.name}
        self.journal.tell(tx, "step", **where, does=does, result=result, said=said)

    # ------------------------------------------------------------ ending

    def _stop_units(self) -> None:
        for no, change in self._numbered():
            self.changing.stop_unit(no, change)

    def _ensure(self) -> None:
        """Leave the machine as it should be, once anything may have been sent to it."""
        if not self.fix.ensure or not self.touched():
            return
        for no, change in enumerate(self.fix.ensure):
            try:
                self.changing.steady().make(self.change_no(ENSURE_FROM + no), change)
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
