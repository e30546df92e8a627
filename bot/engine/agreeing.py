"""The approval of a plan: asked once, under the rule of that moment, and waited for; silence is never consent."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.core.approval import Ask, Kind, Verdict
from bot.core.outcome import Ending, Outcome
from bot.core.plan import Plan
from bot.core.ports import Tx
from bot.engine.changing import answered
from bot.engine.journal import Journal
from bot.engine.policy import Policy, Rule
from bot.engine.words import ended, plan_text, plan_title, told_fix

Json = dict[str, Any]


@dataclass(frozen=True)
class Agreement:
    """What people say to the plans of one run."""

    journal: Journal
    policy: Policy
    open_for: timedelta
    approvers: str  # who they are, for the reminder

    def on(self, no: int, plan: Plan) -> Ending | None:
        """None when it may be applied; else how the run ends. Silence is never consent.

        The rule is that of the moment when it was proposed: another policy after a restart changes nothing under way.
        """
        asked = self.journal.write(f"asked.{no}", lambda tx: self._put(tx, no, plan, self.policy.strictest(plan)))
        until = datetime.fromisoformat(asked["until"])
        if asked["needs"] is None:
            return Ending(Outcome.REFUSED, f"Not allowed here ({asked['rule']}): {plan_title(plan)}.")
        if asked["needs"] == 0:
            return None
        answer = self.journal.wait(f"answer.{no}", lambda tx: self._answer(tx, no, until), self._wake_at(no, until))
        endings = {
            Verdict.DECLINE.value: (Outcome.DECLINED, f"Declined by <@{answer['by']}>: {ended(answer['reason'])}"),
            Verdict.EXPIRE.value: (Outcome.EXPIRED, "Nobody decided in time. Ask again when needed."),
            Verdict.CANCEL.value: (Outcome.CANCELLED, "The question was withdrawn."),
        }
        if answer["verdict"] == Verdict.APPROVE.value:
            return None
        return Ending(*endings[answer["verdict"]])

    def _put(self, tx: Tx, no: int, plan: Plan, rule: Rule) -> Json:
        journal = self.journal
        until = journal.clock.now() + self.open_for
        identities = dict(plan.identities)
        fixes = [told_fix(fix, identities.get(fix.target.name, "")) for fix in plan.fixes]
        needs = -1 if rule.approvals is None else rule.approvals
        details: Json = {"rule": str(rule), "needs": needs, "expires": until.isoformat(), "fixes": fixes}
        journal.tell(tx, "plan", no=no, digest=plan.digest, risk=_worst(plan), **details)
        if rule.approvals:
            text, title = journal.redactor.show(plan_text(plan)), journal.redactor.show(plan_title(plan))
            ask = Ask(journal.run.id, no, Kind.PLAN, plan.digest, rule.approvals, until, title, text, str(rule))
            journal.store.put(tx, ask, journal.run.order.actor)
        detail = {"run": journal.run.id, "plan": no, "digest": plan.digest, "rule": str(rule)}
        journal.store.audit(tx, "plan", journal.run.order.actor, journal.shown(detail))
        return {"until": until.isoformat(), "needs": rule.approvals, "rule": str(rule)}

    def _wake_at(self, no: int, until: datetime) -> datetime:
        remind = until - self.open_for / 2
        return remind if self.journal.recorded(f"remind.{no}") is None and self.journal.clock.now() < remind else until

    def _answer(self, tx: Tx, no: int, until: datetime) -> Json | None:
        answer = answered(self.journal, tx, no, until)
        remind = until - self.open_for / 2
        if answer is None and self.journal.clock.now() >= remind and self.journal.recorded(f"remind.{no}") is None:
            whose = f" of {self.approvers}" if self.approvers else ""
            text = f"Still waiting for a decision{whose}: nothing happens without one."
            self.journal.tell(tx, "note", text=text)
            self.journal.claim.record(tx, f"remind.{no}", True)
        return answer


def _worst(plan: Plan) -> str:
    order = ["none", "interrupts", "data", "destroys"]
    return max((fix.risk.value for fix in plan.fixes), key=order.index)
