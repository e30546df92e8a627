"""The recovery loop, written once: look, report, plan, approve, apply, prove; until nothing is wrong or nothing is
left to try.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bot.core.errors import Refused, Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import Action, Catalogue, Diagnosis
from bot.core.look import CannotLook
from bot.core.outcome import Ending, Outcome
from bot.core.plan import Plan, fix_from_json, plan_from_json
from bot.core.ports import Sender, Tx
from bot.core.run import Verb
from bot.core.target import Target
from bot.engine.agreeing import Agreement
from bot.engine.applying import Applying, BackUp, Result, Way
from bot.engine.changing import Pace
from bot.engine.journal import Cancelled, Journal
from bot.engine.looking import Looking, unseen
from bot.engine.policy import Policy
from bot.engine.rounds import Diagnoser, Found, Report
from bot.engine.words import ended, listed

MOST_ALTERATIONS = 2  # an approved plan that keeps changing under our hands is given up
MOST_PLANS = 20
MOST_NAMED = 3  # checks that a sentence names; more are counted
CALM = timedelta(minutes=1)  # for what followed from a cause: a worker that lost RabbitMQ tries again within half of it
Json = dict[str, Any]


@dataclass
class Recovery:
    """One diagnose or action run, from the first look to its ending."""

    journal: Journal
    diagnoser: Diagnoser
    sender: Sender
    catalogue: Catalogue
    policy: Policy
    pace: Pace
    looking: Looking
    agreement: Agreement
    back_up: BackUp
    healed: list[Fix] = field(default_factory=list)
    tried: set[str] = field(default_factory=set)

    def carry(self) -> Ending:
        """Everything that was recorded is read back, the rest is done; Suspended passes through while people decide."""
        try:
            return self._act() if self.journal.run.order.verb is Verb.ACT else self._recover()
        except Cancelled:
            with self.journal.claim.commit() as tx:
                now = self.journal.store.run(tx, self.journal.run.id)
            by = now.cancelled_by if now else None
            done = self._done_so_far(begun="Begun, not proven to have helped")
            return Ending(Outcome.CANCELLED, f"Cancelled{f' by {by}' if by else ''}. {done}")

    # ------------------------------------------------------------ diagnose

    def _recover(self) -> Ending:
        alterations = 0
        for no in range(1, MOST_PLANS + 1):
            report = self.looking.whole(no, self._diagnoses(), self._machines())
            fixes = [] if self.journal.run.order.look_only else self._chosen(no, report)
            if not fixes and self._waits(no, report):
                continue
            if not fixes:
                return self._verdict(report)
            result = self._go(no, fixes, {fix.id + fix.target.key: self._way(found, fix) for found, fix in fixes})
            if isinstance(result, Ending):
                return self._with_what_was_done(result, report.troubles())
            alterations += result in (Result.ALTERED, Result.NOT_BEGUN)
            if alterations > MOST_ALTERATIONS:
                why = "The machines kept changing, or could not be had, while the plan was decided; look again later."
                return Ending(Outcome.UNFIXED, f"{self._done_so_far()} {why}")
            if result is Result.HEALED and self._covered(report, fixes):
                return self._all_fixed()
            if result is Result.HEALED and self._followed(report, fixes):
                self._pause(f"calm.{no}", CALM, "what followed from it to pass")
        return Ending(Outcome.UNFIXED, f"Gave up after {MOST_PLANS} plans. {self._done_so_far()}")

    def _waits(self, no: int, report: Report) -> bool:
        """Wait once, durably, for what only a later look can tell; nothing else is left to do meanwhile."""
        wait = report.again_in
        waited = any(self.journal.recorded(f"again.{before}") for before in range(1, no))
        if wait is None or waited or self.journal.run.order.look_only:
            return False

        self._pause(f"again.{no}", wait, "a second look, to compare with this one")
        return True

    def _pause(self, name: str, wait: timedelta, for_what: str) -> None:
        def keep(tx: Tx) -> Json:
            until = (self.journal.clock.now() + wait).isoformat()
            self.journal.tell(tx, "waiting", **{"for": for_what, "until": until})
            return {"until": until}

        until = datetime.fromisoformat(self.journal.write(name, keep)["until"])
        self.journal.wait(f"{name}.over", lambda _: self.journal.clock.now() >= until or None, until)

    def _followed(self, report: Report, fixes: Sequence[tuple[Found, Fix]]) -> bool:
        """Whether anything came of what was healed just now. Looked at at once, a worker that RabbitMQ was away from
        is met between two tries, and would be taken for one that is broken itself.
        """
        healed = {found.finding.cause for found, _ in fixes}
        return any(found.under in healed for found in report.findings)

    def _covered(self, report: Report, fixes: Sequence[tuple[Found, Fix]]) -> bool:
        """Whether these fixes were for everything that was wrong, and nothing was left unseen. What is about single
        jobs or people may have left some for the next plan.
        """
        troubles = {found.finding.key for found in report.troubles()}
        whole = not report.unknown and not any(fix.items for _, fix in fixes)
        return whole and {found.finding.key for found, _ in fixes} == troubles

    def _diagnoses(self) -> tuple[Diagnosis, ...]:
        return self.catalogue.about(self.journal.run.order.subject) or tuple(self.catalogue.diagnoses.values())

    def _machines(self) -> tuple[Target, ...]:
        site, names = self.diagnoser.site, self.journal.run.order.targets
        return tuple(target for target in site if not names or target.name in names)

    def _chosen(self, no: int, report: Report) -> list[tuple[Found, Fix]]:
        """What was chosen when the plan was made, whatever the policy says now."""
        if (planned := self.journal.recorded(f"plan.{no}")) is None:
            return self._choose(report)
        keys = {(fix["id"], fix["target"]) for fix in planned[0]["fixes"]}
        offered = [(found, fix) for found in report.troubles() for fix in found.finding.fixes]
        first = {(fix.id, fix.target.name): (found, fix) for found, fix in reversed(offered)}
        return [pair for key, pair in first.items() if key in keys]

    def _choose(self, report: Report) -> list[tuple[Found, Fix]]:
        """The gentlest untried fix of each trouble that the policy allows, one per target, within its blast radius.

        Only when nothing allowed is left, a forbidden one is put: its refusal tells which rule stands in the way.
        """
        offered = [(found, fix) for found in report.troubles() for fix in self._untried(found)]
        allowed = [pair for pair in offered if self.policy.rule_for(pair[1]).approvals is not None]
        chosen: dict[Target, tuple[Found, Fix]] = {}
        for found, fix in allowed or offered:
            chosen.setdefault(fix.target, (found, fix))
        fixes = list(chosen.values())
        return fixes[: min((self.policy.rule_for(fix).max_targets for _, fix in fixes), default=0)]

    def _untried(self, found: Found) -> Iterator[Fix]:
        return (fix for fix in found.finding.fixes if fix.id + fix.target.key not in self.tried)

    def _way(self, found: Found, fix: Fix) -> Way:
        diagnosis, target = self.catalogue.diagnoses[found.by], found.finding.target
        machines = (target,) if target.role is diagnosis.each else self._machines()

        def look() -> tuple[list[Finding], list[str]]:
            report = self.looking.seen([diagnosis], machines)
            same = [each.finding for each in report.findings if each.finding.key == found.finding.key]
            return same, unseen(report)

        def again() -> Sequence[Fix] | None:
            same, missed = look()
            if missed:
                raise Unknown("; ".join(missed))
            return [fix for finding in same for fix in finding.fixes] if same else None

        def troubles() -> list[str]:
            same, missed = look()
            bad = [each for each in same if each.severity >= Severity.WARN and not _is_about_others(each, fix)]
            return [str(finding) for finding in bad] + missed

        return Way(again, troubles)

    def _verdict(self, report: Report) -> Ending:
        """The ending when there is nothing (more) to try."""
        troubles = report.troubles()
        if not troubles and report.unknown:
            outcome = Outcome.PARTLY_FIXED if self.healed else Outcome.COULD_NOT_LOOK
            return Ending(outcome, f"{self._done_so_far()} Not known: {'; '.join(report.unknown)}")
        if not troubles and not report.checked:
            return Ending(Outcome.COULD_NOT_LOOK, "None of these diagnoses is about any of these machines.")
        if not troubles and not self.healed and not self._unproven():
            return Ending(Outcome.HEALTHY, _all_well(report))
        if not troubles:
            return self._all_fixed()
        if not self.healed and not self._unproven() and all(not found.by for found in troubles):
            return Ending(Outcome.COULD_NOT_LOOK, "; ".join(found.finding.title.rstrip(".") for found in troubles))
        return self._unfixed(troubles)

    def _with_what_was_done(self, ending: Ending, troubles: Sequence[Found] = ()) -> Ending:
        """A rule that forbids the rest of the fixes refuses only a run that has sent nothing yet."""
        if ending.outcome is Outcome.IN_DOUBT:
            return ending
        if ending.outcome is Outcome.REFUSED and troubles and (self.healed or self._unproven()):
            return self._unfixed(troubles, ending.text)
        return Ending(ending.outcome, f"{ending.text} {self._done_so_far()}")

    def _unfixed(self, troubles: Sequence[Found], forbidden: str = "") -> Ending:
        left = "; ".join(str(found.finding).rstrip(".") for found in troubles)  # titles have commas and `and`s
        if self.journal.run.order.look_only:
            return Ending(Outcome.FOUND, f"Found: {left}.")
        outcome = Outcome.PARTLY_FIXED if self.healed else Outcome.UNFIXED
        hopeless = sorted({found.finding.cause for found in troubles if found.finding.fixes})
        tell = (
            ""
            if not self.tried or not hopeless
            else (
                f" {forbidden or 'Every fix that opsbot knows was tried.'} Tell the vendor's support "
                f"(enterprise@travis-ci.com) the causes {listed(hopeless)} and run {self.journal.run.id}; "
                "`support bundle` collects what it asks for."
            )
        )
        alone = outcome is Outcome.UNFIXED and not self.tried and not any(found.finding.fixes for found in troubles)
        said = f"A person has to act on: {left}." if alone else f"Still wrong: {left}.{tell}"
        return Ending(outcome, f"{self._done_so_far()} {said}")

    def _all_fixed(self) -> Ending:
        if not self.healed and not self._unproven():
            return Ending(Outcome.HEALTHY, "It was gone when opsbot looked again before the change; nothing was sent.")
        return Ending(Outcome.FIXED, f"{self._done_so_far()} The same diagnosis no longer finds it.")

    def _done_so_far(self, begun: str = "Tried without success") -> str:
        """What was changed so far, also what did not help: nobody may read `nothing` where something was sent."""
        told = {"Fixed": self.healed, begun: self._unproven()}
        parts = [f"{what}: {listed([str(fix) for fix in fixes])}." for what, fixes in told.items() if fixes]
        return " ".join(parts) or "Nothing was changed."

    def _unproven(self) -> list[Fix]:
        """Fixes of which something may have been sent, and that did not prove to have helped."""
        return [each.fix for each in self._begun() if each.fix not in self.healed and each.touched()]

    # ------------------------------------------------------------ an action by name

    def _act(self) -> Ending:
        if (action := self.catalogue.actions.get(self.journal.run.order.subject)) is None:
            return Ending(Outcome.FAILED, self._unknown_handler())
        for no in range(1, MOST_ALTERATIONS + 2):
            try:
                stored = self.journal.once(f"action.{no}", lambda: self._action_plan(action).to_json())
            except (CannotLook, Unknown) as why:
                self.journal.heed_stop()
                return Ending(Outcome.COULD_NOT_LOOK, f"{ended(str(why))} {self._done_so_far()}")
            except Refused as why:
                return Ending(Outcome.REFUSED, f"{ended(str(why))} {self._done_so_far()}")
            plan = plan_from_json(stored, self.diagnoser.site)
            pairs: list[tuple[Found | None, Fix]] = [(None, fix) for fix in plan.fixes]
            result = self._go(no, pairs, {fix.id + fix.target.key: self._action_way(action, fix) for fix in plan.fixes})
            if isinstance(result, Ending):
                return self._with_what_was_done(result)
            if result is Result.HEALED:
                return Ending(Outcome.DONE, self._done_so_far().replace("Fixed", "Done"))
            if result not in (Result.ALTERED, Result.NOT_BEGUN):
                return Ending(Outcome.UNFIXED, f"{self._done_so_far()} The rest did not work; see the thread.")
        given_up = "The machine kept changing, or could not be had, while the plan was decided; try again."
        return Ending(Outcome.UNFIXED, f"{self._done_so_far()} {given_up}")

    def _unknown_handler(self) -> str:
        return (
            f"This opsbot knows no action called `{self.journal.run.order.subject}` any more; it was taken away, or "
            f"another version serves now. {self._done_so_far()}"
        )

    def _action_plan(self, action: Action) -> Plan:
        """For every machine that was named and is not done yet; raises Refused."""
        done = [fix.target for fix in self.healed]
        targets = [each for each in self._machines() if each.role is action.each and each not in done]
        if not targets:
            raise Refused(f"`{action.name}` is for machines of the role {action.each.value}, and none was named")
        plan = Plan(tuple(self._action_fix(action, target) for target in targets))
        rule = min((self.policy.rule_for(fix) for fix in plan.fixes), key=lambda each: each.max_targets)
        if len(targets) > rule.max_targets:
            raise Refused(f"{len(targets)} machines at once are too many: {rule.name} allows {rule.max_targets}")
        return plan

    def _action_fix(self, action: Action, target: Target) -> Fix:
        argument = self.journal.run.order.argument
        fix = self.diagnoser.fix(action, target, argument, self.journal.stop)
        self.journal.heed_stop()
        return fix

    def _action_way(self, action: Action, fix: Fix) -> Way:
        proofs = self.catalogue.about(action.proof)

        def troubles() -> list[str]:
            report = self.looking.seen(proofs, [fix.target])
            bad = [each.finding for each in report.troubles() if not _is_about_others(each.finding, fix)]
            return [str(finding) for finding in bad] + unseen(report)

        return Way(lambda: [self._action_fix(action, fix.target)], troubles)

    # ------------------------------------------------------------ plan, agree, apply

    def _go(
        self, no: int, chosen: Sequence[tuple[Found | None, Fix]] | Sequence[tuple[Found, Fix]], ways: Mapping[str, Way]
    ) -> Ending | Result:
        """Propose a plan and apply it when people agree; stops at the first fix that does not verify."""
        plan = self._plan(no, [fix for _, fix in chosen])
        if (ending := self.agreement.on(no, plan)) is not None:
            return ending
        result = Result.HEALED
        for fix_no, fix in enumerate(plan.fixes):
            self.tried.add(fix.id + fix.target.key)
            result = self._applying(no, fix_no, fix, plan, ways[fix.id + fix.target.key]).apply()
            if result is Result.IN_DOUBT:
                return Ending(Outcome.IN_DOUBT, f"{fix}: nobody knows whether a change happened; see the thread.")
            if result is Result.CANCELLED:
                raise Cancelled
            if result in (Result.GONE, Result.ALTERED, Result.NOT_BEGUN) or (result is Result.HEALED and fix.items):
                self.tried.discard(fix.id + fix.target.key)
            if result not in (Result.HEALED, Result.GONE):
                return result
            self.healed += [fix] if result is Result.HEALED else []
        return Result.HEALED

    def _applying(self, no: int, fix_no: int, fix: Fix, plan: Plan, way: Way) -> Applying:
        identity = dict(plan.identities)[fix.target.name]
        locks = self._locks(fix)
        if (narrowed := self.journal.recorded(f"plan.{no}.fix.{fix_no}.narrowed")) is not None:
            fix = fix_from_json(narrowed[0], self.diagnoser.site)
        return Applying(
            self.journal, self.sender, self.diagnoser, self.pace, identity, no, fix_no, fix, way, locks, self.back_up
        )

    def _locks(self, fix: Fix) -> tuple[str, ...]:
        alone = fix.one_at_a_time or self.policy.rule_for(fix).one_at_a_time
        role = f"{fix.target.installation}: one {fix.target.role.value} at a time"
        return tuple(sorted({*fix.locks(), *([role] if alone else [])}))

    def _plan(self, no: int, fixes: Sequence[Fix]) -> Plan:
        """The plan as it was stored when it was first made: what is shown is what runs."""

        def keep(tx: Tx) -> Json:
            seen = {fix.target.name: self.diagnoser.asker.identity(fix.target) for fix in fixes}
            plan = Plan(tuple(fixes), tuple(sorted(seen.items())))
            self.journal.store.keep_plan(tx, self.journal.run.id, no, plan.digest, plan.to_json())
            return plan.to_json()

        return plan_from_json(self.journal.write(f"plan.{no}", keep), self.diagnoser.site)

    def wind_up(self) -> list[Fix]:
        """For a run that cannot go on: leave the machines as they should be; the fixes that are in doubt."""
        return [applying.fix for applying in list(self._begun()) if applying.wind_up()]

    def _begun(self) -> Iterator[Applying]:
        nothing = Way(lambda: None, list)
        for no in range(1, MOST_PLANS + 1):
            if (stored := self.journal.recorded(f"plan.{no}")) is not None:
                plan = plan_from_json(stored[0], self.diagnoser.site)
                for fix_no, fix in enumerate(plan.fixes):
                    yield self._applying(no, fix_no, fix, plan, nothing)


def _all_well(report: Report) -> str:
    """What was looked at, by name while that can be read at a glance."""
    if len(report.checked) <= MOST_NAMED:
        return f"Nothing wrong was found by: {listed(list(report.checked))}."
    machines = f"{len(report.asked)} machine{'s' if len(report.asked) != 1 else ''}"
    return f"Nothing is wrong: {len(report.checked)} checks on {machines} found nothing."


def _is_about_others(finding: Finding, fix: Fix) -> bool:
    """Whether what is found after a fix of single jobs or people is about none of these: they are for the next plan."""
    left = [frozenset(each.items) for each in finding.fixes if each.id == fix.id]
    return bool(fix.items and left) and not any(items & frozenset(fix.items) for items in left)
