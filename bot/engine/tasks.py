"""The durable tasks: an order that becomes a run, a click that becomes a decision, a question that gets an answer."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from threading import Lock
from typing import Any, TypeVar

from bot.core.approval import Verdict
from bot.core.archive import SUFFIX
from bot.core.chart import Chart
from bot.core.errors import LeaseLost, NotUnderstood, OpsbotError, Permanent, Refused, Unknown
from bot.core.fact import Fact
from bot.core.handler import Catalogue, Diagnosis, Job
from bot.core.look import CannotLook
from bot.core.outcome import Ending, Outcome
from bot.core.people import Actor, Place
from bot.core.ports import Claim, Clock, Durable, Sender, Store, Tx
from bot.core.run import Order, Run, Verb
from bot.core.shown import Redactor
from bot.core.taking import Taking
from bot.engine import astray, proving, shelf, taking
from bot.engine.agreeing import Agreement
from bot.engine.answers import Answers, Said
from bot.engine.changing import Pace
from bot.engine.deciding import Deciding
from bot.engine.journal import Cancelled, Journal
from bot.engine.looking import Looking
from bot.engine.people import Gate
from bot.engine.policy import Policy
from bot.engine.recovery import Recovery
from bot.engine.rounds import AskingLook, Diagnoser, Found
from bot.engine.shelter import Shelter
from bot.engine.stored import actor_from_json, click_from_json, place_from_json, request_from_json
from bot.engine.words import ended, listed

T = TypeVar("T")
MOST_TRIES = 3
CHART = "backups.png"
BACK_OFF = (timedelta(seconds=1), timedelta(seconds=5))
log = logging.getLogger("opsbot.engine")


@dataclass(frozen=True)
class Terms:
    """How long people get, and how often machines are asked while they settle."""

    approval_open_for: timedelta = timedelta(minutes=30)
    pace: Pace = field(default_factory=Pace)


@dataclass(frozen=True)
class Engine:
    """Carries durable tasks to their end. One per process; everything it needs is given to it."""

    store: Store
    durable: Durable
    sender: Sender
    diagnosers: Mapping[str, Diagnoser]
    catalogue: Catalogue
    policy: Policy
    gate: Gate
    redactor: Redactor
    clock: Clock
    terms: Terms
    shelters: Mapping[str, Shelter] = field(default_factory=dict)
    # One question is answered at a time: a burst of them must not keep Slack's acknowledgements from being written.
    answering: Lock = field(default_factory=Lock, repr=False, compare=False)

    def carry(self, claim: Claim) -> None:
        """Do the task of this claim, or go on with it; Suspended and LeaseLost pass through."""
        tasks: dict[str, Callable[[Claim], None]] = {
            "order": self._order,
            "click": self._click,
            "ask": self._ask,
        }
        tasks[claim.name](claim)

    def woken(self, claim: Claim) -> None:
        """A task was woken while it runs here: when its run was cancelled, what it does on machines has to stop."""
        if "run" not in claim.params:
            return
        with self.durable.transaction() as tx:
            run = self.store.run(tx, claim.params["run"])
        if run is not None and run.cancelled_by is not None:
            claim.abort.set()

    # ------------------------------------------------------------ orders

    def _order(self, claim: Claim) -> None:
        with claim.commit() as tx:
            run = self.store.run(tx, claim.params["run"])
        if run is None or run.outcome is not None or not self._admitted(claim, run):
            return
        journal = Journal(claim, self.store, self.redactor, self.clock, run, self.durable.wake)
        if run.order.site not in self.diagnosers:
            self._finish(journal, astray.wait(journal))
            return
        if run.state == "failing":
            self._wind_up(journal)
            return
        ending = self._job(journal) if run.order.verb is Verb.JOB else self._recovery(journal).carry()
        self._finish(journal, ending)

    def _admitted(self, claim: Claim, run: Run) -> bool:
        """Whether this order may be carried out, decided once; a refusal is private, and ends the run."""
        if (decided := claim.recorded("admitted")) is not None:
            return bool(decided[0])
        refusal = self._refusal(run.order)
        with claim.commit() as tx:
            if refusal:
                self._refuse(tx, run, refusal)
            else:
                self._begin(tx, run)
            claim.record(tx, "admitted", not refusal)
        return not refusal

    def _refusal(self, order: Order) -> str:
        """Why this order is not carried out; raises Temporary when it cannot be known who gave it."""
        if barred := self.gate.barred(order.actor):
            return barred
        if order.site not in self.diagnosers:
            return f"there is no installation called {order.site}"
        if order.verb is Verb.ACT and not order.because.strip():
            return "an action needs a reason: add `because …`"
        if order.verb is Verb.JOB and (rule := self.policy.rule_for_job(order.subject, order.site)).approvals is None:
            return f"a rule forbids it ({rule})"
        return ""

    def _refuse(self, tx: Tx, run: Run, why: str) -> None:
        text = self.redactor.show(f"Not done: {why}. Nothing was changed.")
        self.store.finish(tx, run.id, Outcome.REFUSED, text)
        self.store.reply(tx, run.order.actor, _in_the_open(run.order.place), text)
        detail = {"run": run.id, "order": self.redactor.show(run.order), "why": self.redactor.show(why)}
        self.store.audit(tx, "refused", run.order.actor, detail)

    def _begin(self, tx: Tx, run: Run) -> None:
        order, site = run.order, self.diagnosers[run.order.site].site
        self.store.set_state(tx, run.id, "running")
        count = len(order.targets or list(site))
        asked = f"the first look at {count} machine{'' if count == 1 else 's'}"
        self.store.tell(tx, run.id, "waiting", {"for": self.redactor.show(asked), "until": ""})
        detail = {"run": run.id, "order": self.redactor.show(order), "because": self.redactor.show(order.because)}
        self.store.audit(tx, "ordered", order.actor, detail)

    def _recovery(self, journal: Journal) -> Recovery:
        diagnoser = self.diagnosers[journal.run.order.site]
        looking = Looking(journal, diagnoser)
        agreement = Agreement(journal, self.policy, self.terms.approval_open_for, str(self.gate.approvers))
        back_up = partial(self._back_up, journal)
        return Recovery(
            journal, diagnoser, self.sender, self.catalogue, self.policy, self.terms.pace, looking, agreement, back_up
        )

    def _finish(self, journal: Journal, ending: Ending) -> None:
        outcome, run = ending.outcome, journal.run.id
        with journal.claim.commit() as tx:
            text = self.redactor.show(ending.text)
            for task in self.store.unlock(tx, run):
                self.durable.wake(tx, task)
            for approval in self.store.open_asks(tx, run):
                self.store.withdraw(tx, approval, Verdict.CANCEL.value)
            journal.tell(tx, "outcome", outcome=outcome.name, text=text, exit=outcome.exit_status)
            self.store.finish(tx, run, outcome, text)
            self.store.audit(tx, "ended", None, {"run": run, "outcome": outcome.name})

    # ------------------------------------------------------------ jobs

    def _job(self, journal: Journal) -> Ending:
        if (job := self.catalogue.jobs.get(journal.run.order.subject)) is None:
            return Ending(Outcome.FAILED, f"This opsbot knows no job called `{journal.run.order.subject}` any more.")
        try:
            return Ending(Outcome.DONE, self._worked(journal, job))
        except Cancelled:
            return Ending(Outcome.CANCELLED, f"Cancelled.{self._stands(journal)}")
        except (CannotLook, Unknown) as why:
            return Ending(Outcome.COULD_NOT_LOOK, f"{ended(str(why))}{self._stands(journal)}")
        except Refused as why:
            return Ending(Outcome.REFUSED, f"{ended(str(why))}{self._stands(journal)}")
        except Permanent as why:
            return Ending(Outcome.FAILED, str(why))

    def _stands(self, journal: Journal) -> str:
        with journal.claim.commit() as tx:
            steps = [each.data["result"] for each in self.store.story(tx, journal.run.id) if each.kind == "step"]
        return " The steps that had finished stand." if "done" in steps else " No step was done."

    def _worked(self, journal: Journal, job: Job) -> str:
        site = journal.run.order.site
        diagnoses = tuple(self.catalogue.diagnoses.values())
        steps = JobSteps(journal, self.diagnosers[site], diagnoses, self.shelters.get(site))
        return job.work(steps, JobLook(self.diagnosers[site], journal.stop, journal))

    def _back_up(self, journal: Journal, what: str) -> str:
        """A backup as a step of a plan. What comes after it may destroy what it holds, so it has to be beyond doubt:
        its job raises when anything is missing or unproven.
        """
        if (job := self.catalogue.jobs.get(f"backup {what}")) is None:
            raise Permanent(f"this opsbot knows no job called `backup {what}`")
        return self._worked(journal, job)

    # ------------------------------------------------------------ clicks and questions

    def _click(self, claim: Claim) -> None:
        with self.durable.transaction() as tx:
            click = click_from_json(self.store.request(tx, claim.params["request"]))
        decided = Deciding(self.store, self.durable, self.gate, self.redactor).decide(claim, click)
        log.info("click on approval %s: %s", click.approval, decided.text)

    def _ask(self, claim: Claim) -> None:
        with self.answering, self.durable.transaction() as tx:
            body = self.store.request(tx, claim.params["request"])
        actor, place = actor_from_json(body["actor"]), place_from_json(body["place"])
        barred = self.gate.barred(actor)
        with suppress(OpsbotError):  # remembered for a while: no answer asks Slack inside of its transaction
            self.gate.deciders(actor.via)
        with self.answering, claim.commit() as tx:
            said = Said(barred) if barred else self._answered(tx, body, actor)
            text = self.redactor.show(said.text)
            self.store.reply(tx, actor, place, text)
            if place is not None:
                self._post(tx, place, said.charts)
            if barred:
                self.store.audit(tx, "refused", actor, {"asked": body["request"]["ask"], "why": text})
            claim.end(tx)

    def _answered(self, tx: Tx, body: Mapping[str, Any], actor: Actor) -> Said:
        answers = Answers(self.store, self.durable, self.catalogue, self.policy, self.gate, self.diagnosers)
        try:
            return answers.answer(tx, request_from_json(body["request"]), actor)
        except (Refused, NotUnderstood) as why:
            return Said(str(why))

    def _post(self, tx: Tx, place: Place, charts: Sequence[Chart]) -> None:
        """For all who are there: Slack shows no file to one person alone. A letter has the numbers, never a picture."""
        for chart in charts:
            title, said = self.redactor.show(chart.title), self.redactor.show(shelf.described(chart))
            body = {"text": title, "file": CHART, "said": said, "chart": replace(chart, title=title).to_json()}
            self.store.post(tx, place, body)

    # ------------------------------------------------------------ when something goes wrong

    def failed(self, claim: Claim, error: Exception) -> timedelta | None:
        """After an unexpected error: when to try again, None to give up. Takeovers do not come here."""
        log.error("task %s (%s) failed: %s: %s", claim.task, claim.name, type(error).__name__, error, exc_info=error)
        run = claim.params.get("run")
        if run is None or claim.recorded("admitted") is None:
            return self._failed_request(claim, error)
        with claim.commit() as tx:
            tries = self.store.count_try(tx, run)
            if tries == MOST_TRIES:
                self.store.set_state(tx, run, "failing")
            why = f"{type(error).__name__}: {error}"[:500]
            self.store.tell(tx, run, "note", {"text": self.redactor.show(f"Try {tries} failed: {why}")})
        if tries > MOST_TRIES:
            self._give_up(claim, run)
            return None
        return BACK_OFF[min(tries, len(BACK_OFF)) - 1]

    def _failed_request(self, claim: Claim, error: Exception) -> timedelta | None:
        """An order not yet begun, a click or a question: tried again for a while, then the person is told."""
        with claim.commit() as tx:
            body = self.store.request(tx, claim.params["request"])
            tries = self.store.count_request_try(tx, claim.params["request"])
            if tries <= MOST_TRIES:
                return BACK_OFF[min(tries, len(BACK_OFF)) - 1]
            why = str(error) if isinstance(error, OpsbotError) else type(error).__name__
            text = self.redactor.show(f"This could not be done, and nothing was changed: {why}. Try again in a moment.")
            actor, place = actor_from_json(body["actor"]), place_from_json(body["place"])
            self.store.reply(tx, actor, _in_the_open(place) if "run" in claim.params else place, text)
            if "run" in claim.params:
                self.store.finish(tx, claim.params["run"], Outcome.FAILED, text)
        return None

    def _wind_up(self, journal: Journal) -> None:
        """The last thing a failing run does: leave the machines as they should be, free its locks, say so."""
        doubtful = [] if journal.run.order.verb is Verb.JOB else self._recovery(journal).wind_up()
        text = self._failed_text(journal.run.id)
        if doubtful:
            known = f"Nobody knows whether a change happened: {listed([str(fix) for fix in doubtful])}."
            self._finish(journal, Ending(Outcome.IN_DOUBT, f"{text} {known}"))
        else:
            self._finish(journal, Ending(Outcome.FAILED, text))

    def _give_up(self, claim: Claim, run: int) -> None:
        """Even winding up failed: end the run all the same, so that nobody waits for it."""
        with claim.commit() as tx:
            if (current := self.store.run(tx, run)) is None:
                return
        try:
            journal = Journal(claim, self.store, self.redactor, self.clock, current, self.durable.wake)
            self._finish(journal, Ending(Outcome.FAILED, self._failed_text(run)))
        except LeaseLost:
            return

    def _failed_text(self, run: int) -> str:
        return f"opsbot failed in run {run} after {MOST_TRIES} tries; the notes above and its log say where."


@dataclass(frozen=True)
class JobLook(AskingLook):
    """The `look` of a job, which may take long, and ends when it is wanted no more."""

    journal: Journal

    def __call__(self, fact: Fact[T]) -> T:
        try:
            return super().__call__(fact)
        finally:
            self.journal.heed_stop()


@dataclass(frozen=True)
class JobSteps:
    """What a job gets: steps recorded one by one, sentences and archives for the thread, findings."""

    journal: Journal
    diagnoser: Diagnoser
    diagnoses: tuple[Diagnosis, ...] = ()
    shelter: Shelter | None = None

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        self.journal.check_cancel()
        return self.journal.once(f"job.{name}", do)

    def say(self, text: str) -> None:
        def keep(tx: Tx) -> bool:
            self.journal.tell(tx, "note", text=text)
            return True

        self.journal.write(f"said.{text[:80]}", keep)

    def masked(self, text: str) -> tuple[str, Mapping[str, int]]:
        return self.journal.redactor.counted(text)

    def attach(self, name: str, files: Mapping[str, str], says: str) -> None:
        def keep(tx: Tx) -> bool:
            self.journal.tell(tx, "note", text=says, file=f"{name}{SUFFIX}", files=dict(files))
            return True

        self.journal.write(f"attached.{name}", keep)

    def backup(self, what: str) -> Taking:
        return taking.begin(self.journal, self._shelter(), what)

    def verify_backup(self) -> str:
        return proving.verify(self.journal, self._shelter(), self.journal.run.order.argument)

    def _shelter(self) -> Shelter:
        if self.shelter is None:
            raise Refused("no backups are configured: `backups:` in the configuration says where they go, and for whom")
        return self.shelter

    def findings(self) -> Sequence[str]:
        try:
            report = self.diagnoser.look(self.diagnoses, self.diagnoser.site, self.journal.stop)
        finally:
            self.journal.heed_stop()
        return [*map(_finding_text, report.findings), *(f"not known: {each}" for each in report.unknown)]


def _finding_text(found: Found) -> str:
    said = found.finding
    under = f", a consequence of {found.under}" if found.under else ""
    lines = [f"{said.severity.name} {said.target}: {said.title} [{said.cause}]{under}"]
    lines += [f"  evidence: {said.evidence}"] if said.evidence else []
    lines += [f"  for a person: {said.person}"] if said.person else []
    return "\n".join(lines)


def _in_the_open(place: Place | None) -> Place | None:
    """The channel itself: below an order that came to nothing is no thread, and Slack shows nothing private there."""
    return place and replace(place, thread=None)
