"""Deciding: a click is a pointer; here it is checked who pressed it, and one UPDATE decides."""

from dataclasses import dataclass, replace

from bot.core.approval import OF_OTHERS, Approval, Click, Verdict
from bot.core.people import Part
from bot.core.ports import Claim, Durable, Store, Tx
from bot.core.run import Run
from bot.core.shown import Redactor
from bot.engine.people import Gate


@dataclass(frozen=True)
class Decided:
    """What came of a click, as a sentence for the person."""

    counted: bool
    text: str


@dataclass(frozen=True)
class Deciding:
    """Turns durable clicks into decisions; everything it writes is one transaction under the claim's fence."""

    store: Store
    durable: Durable
    gate: Gate
    redactor: Redactor

    def decide(self, claim: Claim, click: Click) -> Decided:
        """The decision, or why it did not count. Raises Temporary when it cannot be checked who this is.

        The task ends with what it wrote, so that a click that was counted is not called too late after a crash.
        """
        barred = self.gate.barred(click.actor)
        deciders = self.gate.deciders(click.actor.via)
        with claim.commit() as tx:
            decided = self._ruled(tx, click, barred, deciders)
            claim.end(tx)
        return decided

    def _ruled(self, tx: Tx, click: Click, barred: str, deciders: tuple[str, ...]) -> Decided:
        approval = self.store.approval(tx, click.approval)
        refusal = self._refusal(click, approval, barred, deciders) or self._played(tx, click, approval)
        if approval is None or refusal:
            return self._refuse(tx, click, refusal)
        kept = replace(click, reason=self.redactor.show(click.reason))
        if (decided := self.store.decide(tx, kept, deciders)) is None:
            return self._refuse(tx, click, self._too_late(tx, click))
        return self._counted(tx, click, decided)

    def _refusal(self, click: Click, approval: Approval | None, barred: str, deciders: tuple[str, ...]) -> str:
        if approval is None:
            return "there is no such question; the message may be very old"
        if barred:
            return barred
        if click.actor.same_person(approval.requester) and click.verdict in OF_OTHERS:
            return _own(click.verdict, approval.ask.run)
        if not self.gate.may_decide(click.actor, deciders):
            return f"you are not one of the approvers{f' ({self.gate.approvers})' if str(self.gate.approvers) else ''}"
        if click.verdict is Verdict.DECLINE and not click.reason.strip():
            return "declining needs a reason, for the person who asked"
        return ""

    def _played(self, tx: Tx, click: Click, approval: Approval | None) -> str:
        """Who acted as another person in this run is a party of it, under their own name too."""
        if approval is None or click.verdict not in OF_OTHERS:
            return ""
        if Part.TYPED not in self.store.parts(tx, approval.ask.run, click.actor):
            return ""
        return "you had a part in this run under another name, so somebody else has to decide"

    def _too_late(self, tx: Tx, click: Click) -> str:
        approval = self.store.approval(tx, click.approval)
        if approval and approval.state == "open" and any(map(click.actor.same_person, approval.decided_by)):
            return f"you approved it already; of the {approval.ask.needs} that it needs, another one is missing"
        if approval is None or approval.state == "open":
            return (
                "this message is not the one that counts, or the question is over; use the buttons in the run's thread"
            )
        return f"it was {approval.closing}"

    def _refuse(self, tx: Tx, click: Click, why: str) -> Decided:
        text = self.redactor.show(f"Your decision did not count: {why}.")
        self.store.reply(tx, click.actor, click.place, text)
        detail = {"approval": click.approval, "verdict": click.verdict.value, "why": self.redactor.show(why)}
        self.store.audit(tx, "refused", click.actor, detail)
        return Decided(False, text)

    def _counted(self, tx: Tx, click: Click, approval: Approval) -> Decided:
        run = approval.ask.run
        detail = {
            "approval": approval.id,
            "verdict": click.verdict.value,
            "by": click.actor.user,
            "via": click.actor.via,
            "reason": self.redactor.show(click.reason),
        }
        self.store.tell(tx, run, "decision", detail)
        if approval.state != "open" and (current := self.store.run(tx, run)) is not None:
            self._wake(tx, current)
        self.store.audit(tx, "decision", click.actor, {**detail, "run": run, "digest": approval.ask.digest})
        return Decided(True, self.redactor.show(f"Counted: {click.verdict.value} {approval.ask.title}."))

    def _wake(self, tx: Tx, run: Run) -> None:
        if run.task:
            self.durable.wake(tx, run.task)


def _own(verdict: Verdict, run: int) -> str:
    """Why the person who asked does not say this, and what they can do instead."""
    if verdict is Verdict.DECLINE:
        return f"you asked for this yourself; withdraw it with `cancel {run}`"
    instead = " to send a change again; you may say that it was done, or stop" if verdict is Verdict.AGAIN else ""
    return f"you asked for this yourself, so somebody else has to decide{instead}"
