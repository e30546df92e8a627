"""The recovery loop, written once: look, report, plan, approve, apply, prove; until nothing is wrong or nothing is
left to try.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bot.core.approval import Ask, Kind, Verdict
from bot.core.errors import Refused, Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import Action, Catalogue, Diagnosis
from bot.core.look import CannotLook
from bot.core.outcome import Outcome
from bot.core.plan import Plan, finding_from_json, finding_to_json, fix_from_json, plan_from_json
from bot.core.ports import Sender, Tx
from bot.core.question import Answer, Question, answer_to_json
from bot.core.run import Verb
from bot.core.target import Target
from bot.engine.applying import Applying, BackUp, Result, Way
from bot.engine.changing import Pace, answered
from bot.engine.journal import Cancelled, Journal
from bot.engine.policy import Policy, Rule
from bot.engine.rounds import Diagnoser, Found, Report, shown_answer
from bot.engine.words import listed, plan_text, plan_title, step_text

MOST_ALTERATIONS = 2  # an approved plan that keeps changing under our hands is given up
MOST_PLANS = 20
MOST_NAMED = 3  # checks that a sentence names; more are counted
EVIDENCE_CAP = 20_000  # characters of one answer that are kept
CAPS = {"title": 500, "evidence": 4000, "person": 1000, "link": 500}  # characters of a finding's words
MOST_UNKNOWN = 500  # characters of a sentence that says what could not be told
Json = dict[str, Any]


@dataclass(frozen=True)
class Ending:
    """How a run ended, as a sentence."""

    outcome: Outcome
    text: str


@dataclass(frozen=True)
class Terms:
    """How long people get, and how often machines are asked while they settle."""

    approval_open_for: timedelta = timedelta(minutes=30)
    pace: Pace = field(default_factory=Pace)


@dataclass
class Recovery:
    """One diagnose or action run, from the first look to its ending."""

    journal: Journal
    diagnoser: Diagnoser
    sender: Sender
    catalogue: Catalogue
    policy: Policy
    terms: Terms
    approvers: str
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
            report = self._look(no)
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
        return Ending(Outcome.UNFIXED, f"Gave up after {MOST_PLANS} plans. {self._done_so_far()}")

    def _waits(self, no: int, report: Report) -> bool:
        """Wait once, durably, for what only a later look can tell; nothing else is left to do meanwhile."""
        wait = report.again_in
        waited = any(self.journal.recorded(f"again.{before}") for before in range(1, no))
        if wait is None or waited or self.journal.run.order.look_only:
            return False

        def keep(tx: Tx) -> Json:
            until = (self.journal.clock.now() + wait).isoformat()
            self.journal.tell(tx, "waiting", **{"for": "a second look, to compare with this one", "until": until})
            return {"until": until}

        until = datetime.fromisoformat(self.journal.write(f"again.{no}", keep)["until"])
        self.journal.wait(f"waited.{no}", lambda _: self.journal.clock.now() >= until or None, until)
        return True

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

    def _look(self, no: int) -> Report:
        """One look at everything, journalled whole; a run that died while looking looks again."""
        answers: list[tuple[Target, Question, Answer]] = []
        sampled: set[Question] = set()

        def do() -> Json:
            report = self._seen(self._diagnoses(), self._machines())
            answers.extend(report.answers)
            sampled.update(report.sampled)
            return self._kept(_report_to_json(report))

        def keep(tx: Tx, stored: Json) -> None:
            self._tell_look(tx, no, _report_from_json(stored, self.diagnoser), stored.get("unsure", ()))
            self._keep_samples(tx, [each for each in answers if each[1] in sampled])
            self._keep_evidence(tx, no, stored, answers)

        return _report_from_json(self.journal.once(f"look.{no}", do, keep), self.diagnoser)

    def _kept(self, report: Json) -> Json:
        """What was found as it is journalled: its words come from machines; its fixes are what will run."""
        show = self.journal.redactor.show
        findings = [
            {**each, **{key: show(each[key])[:most] for key, most in CAPS.items()}} for each in report["findings"]
        ]
        return {**report, "findings": findings, "unknown": [show(each)[:MOST_UNKNOWN] for each in report["unknown"]]}

    def _seen(self, diagnoses: Sequence[Diagnosis], machines: Sequence[Target]) -> Report:
        report = self.diagnoser.look(diagnoses, machines, self.journal.stop)
        self.journal.heed_stop()
        return report

    def _tell_look(self, tx: Tx, no: int, report: Report, unsure: Iterable[str]) -> None:
        """What was checked is what nothing was found by: a question that was answered with `no`, or not at all, is
        not among it.
        """
        spoke = {found.by for found in report.findings} | set(unsure)
        quiet = [each for each in self._diagnoses() if each.name in report.checked and each.name not in spoke]
        checked = [each.says or each.name for each in quiet]
        self.journal.tell(tx, "look", no=no, asked=report.asked, checked=checked, unknown=report.unknown)
        for found in report.findings:
            finding = found.finding
            self.journal.tell(
                tx,
                "finding",
                look=no,
                target=finding.target.name,
                cause=finding.cause,
                severity=finding.severity.name,
                title=finding.title,
                evidence=finding.evidence,
                fixes=[fix.title for fix in finding.fixes],
                under=found.under,
                person=finding.person,
                link=finding.link,
            )

    def _keep_samples(self, tx: Tx, answers: Sequence[tuple[Target, Question, Answer]]) -> None:
        for target, question, answer in answers:
            self.journal.store.sample(tx, target.key, str(question), answer_to_json(answer))

    def _keep_evidence(self, tx: Tx, no: int, stored: Json, answers: Sequence[tuple[Target, Question, Answer]]) -> None:
        show, store, run = self.journal.redactor.show, self.journal.store, self.journal.run
        store.keep_findings(tx, run.id, no, [self.journal.shown(each) for each in stored["findings"]])
        texts = []
        for target, question, answer in answers:
            text = show(shown_answer(question, answer))
            capped = show(f"{text[:EVIDENCE_CAP]}\n(cut: {len(text)} characters)") if len(text) > EVIDENCE_CAP else text
            store.keep_evidence(tx, run.id, target.name, str(show(question)), capped)
            texts.append(f"# {target}\n{capped}")
        if stored["findings"] and texts:
            name = f"evidence-run-{run.id}-look-{no}.txt"
            summary = f"What the machines said in look {no}: {len(texts)} answers"
            self.journal.tell(tx, "note", text=summary, file=name, content="\n\n".join(texts))

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
            report = self._seen([diagnosis], machines)
            same = [each.finding for each in report.findings if each.finding.key == found.finding.key]
            return same, _unseen(report)

        def again() -> Sequence[Fix] | None:
            same, unseen = look()
            if unseen:
                raise Unknown("; ".join(unseen))
            return [fix for finding in same for fix in finding.fixes] if same else None

        def troubles() -> list[str]:
            same, unseen = look()
            bad = [each for each in same if each.severity >= Severity.WARN and not _is_about_others(each, fix)]
            return [str(finding) for finding in bad] + unseen

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
            return Ending(Outcome.COULD_NOT_LOOK, "; ".join(found.finding.title for found in troubles))
        return self._unfixed(troubles)

    def _with_what_was_done(self, ending: Ending, troubles: Sequence[Found] = ()) -> Ending:
        """A rule that forbids the rest of the fixes refuses only a run that has sent nothing yet."""
        if ending.outcome is not Outcome.REFUSED:
            return ending
        if troubles and (self.healed or self._unproven()):
            return self._unfixed(troubles, ending.text)
        return Ending(ending.outcome, f"{ending.text} {self._done_so_far()}")

    def _unfixed(self, troubles: Sequence[Found], forbidden: str = "") -> Ending:
        left = listed([str(found.finding).rstrip(".") for found in troubles])
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
                return Ending(Outcome.COULD_NOT_LOOK, f"{why}. {self._done_so_far()}")
            except Refused as why:
                return Ending(Outcome.REFUSED, f"{why}. {self._done_so_far()}")
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
            report = self._seen(proofs, [fix.target])
            bad = [each.finding for each in report.troubles() if not _is_about_others(each.finding, fix)]
            return [str(finding) for finding in bad] + _unseen(report)

        return Way(lambda: [self._action_fix(action, fix.target)], troubles)

    # ------------------------------------------------------------ plan, agree, apply

    def _go(
        self, no: int, chosen: Sequence[tuple[Found | None, Fix]] | Sequence[tuple[Found, Fix]], ways: Mapping[str, Way]
    ) -> Ending | Result:
        """Propose a plan and apply it when people agree; stops at the first fix that does not verify."""
        plan = self._plan(no, [fix for _, fix in chosen])
        if (ending := self._agree(no, plan)) is not None:
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
        pace, back_up = self.terms.pace, self.back_up
        return Applying(self.journal, self.sender, self.diagnoser, pace, identity, no, fix_no, fix, way, locks, back_up)

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

    def _agree(self, no: int, plan: Plan) -> Ending | None:
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
            Verdict.DECLINE.value: (Outcome.DECLINED, f"Declined by <@{answer['by']}>: {_ended(answer['reason'])}"),
            Verdict.EXPIRE.value: (Outcome.EXPIRED, "Nobody decided in time. Ask again when needed."),
            Verdict.CANCEL.value: (Outcome.CANCELLED, "The question was withdrawn."),
        }
        if answer["verdict"] == Verdict.APPROVE.value:
            return None
        outcome, text = endings[answer["verdict"]]
        return Ending(outcome, f"{text} {self._done_so_far()}")

    def _put(self, tx: Tx, no: int, plan: Plan, rule: Rule) -> Json:
        journal = self.journal
        until = journal.clock.now() + self.terms.approval_open_for
        identities = dict(plan.identities)
        fixes = [_told_fix(fix, identities.get(fix.target.name, "")) for fix in plan.fixes]
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
        remind = until - self.terms.approval_open_for / 2
        return remind if self.journal.recorded(f"remind.{no}") is None and self.journal.clock.now() < remind else until

    def _answer(self, tx: Tx, no: int, until: datetime) -> Json | None:
        answer = answered(self.journal, tx, no, until)
        remind = until - self.terms.approval_open_for / 2
        if answer is None and self.journal.clock.now() >= remind and self.journal.recorded(f"remind.{no}") is None:
            whose = f" of {self.approvers}" if self.approvers else ""
            text = f"Still waiting for a decision{whose}: nothing happens without one."
            self.journal.tell(tx, "note", text=text)
            self.journal.claim.record(tx, f"remind.{no}", True)
        return answer

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


def _told_fix(fix: Fix, identity: str) -> Json:
    """A fix as the command line shows it: all that its approver in Slack sees."""
    return {
        "title": fix.title,
        "target": fix.target.name,
        "machine": f"{fix.target.key} {identity}".rstrip(),
        "risk": fix.risk.value,
        "saves": [str(fact) for fact in fix.saves],
        "steps": [step_text(step) for step in fix.steps],
        "ensure": [step_text(step) for step in fix.ensure],
        "undo": fix.undo,
    }


def _ended(text: str) -> str:
    """What a person typed, as a sentence that another one may follow."""
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."


def _unseen(report: Report) -> list[str]:
    """What kept a look from seeing: unreachable machines, and answers that could not be read."""
    return [*(each.finding.title for each in report.findings if not each.by), *report.unknown]


def _worst(plan: Plan) -> str:
    order = ["none", "interrupts", "data", "destroys"]
    return max((fix.risk.value for fix in plan.fixes), key=order.index)


def _report_to_json(report: Report) -> Json:
    findings = [{**finding_to_json(each.finding), "by": each.by, "under": each.under} for each in report.findings]
    return {
        "findings": findings,
        "asked": list(report.asked),
        "checked": list(report.checked),
        "unknown": list(report.unknown),
        "unsure": sorted({name for name, _ in report.unsure}),
        "again_in": None if report.again_in is None else report.again_in.total_seconds(),
    }


def _report_from_json(stored: Json, diagnoser: Diagnoser) -> Report:
    findings = tuple(
        Found(finding_from_json(each, diagnoser.site), each["by"], each["under"]) for each in stored["findings"]
    )
    again_in = None if stored.get("again_in") is None else timedelta(seconds=stored["again_in"])
    words = (tuple(stored["asked"]), tuple(stored["checked"]), tuple(stored["unknown"]))
    return Report(findings, *words, again_in=again_in)
