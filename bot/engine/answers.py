"""Answers that need no run: what runs there are, what you may do, what can be asked."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bot.core.chart import Chart
from bot.core.errors import NotUnderstood, OpsbotError
from bot.core.handler import Action, Catalogue, Job
from bot.core.keeping import Backup
from bot.core.number import counted
from bot.core.people import Actor
from bot.core.ports import Durable, Store, Tx
from bot.core.request import A_BACKUP, Ask, Request
from bot.core.run import Run
from bot.core.target import Site
from bot.engine import shelf
from bot.engine.people import Gate
from bot.engine.policy import Policy, Rule
from bot.engine.rounds import Diagnoser
from bot.engine.words import event_line

RUNS_SHOWN = 10
LOOKING = (  # of `help`: what there is whatever the handlers are
    "`status`: a look at everything, nothing is offered",
    "`runs`, `show N`: what runs, one of them",
    '`can @person "restart MACHINE"`: who may, and which rule says so',
    "`backups`, `backup show N`, `restore N`: what there is, one of them, how to restore it",
)
ORDERING = ("`cancel N`, `backup cancel N`: stop run N, or the taking of backup N",)
DECIDING = (
    "`approve N [PLAN]`, `decline N because TEXT`: decide the open plan of a run that somebody else asked for",
    "`done N`, `stop N`: answer run N, which waits for what somebody does by hand",
)
SAID = 3  # questions that say what a situation is about
BACKUPS_SHOWN, BACKUPS_DRAWN = 15, 30
WAITS = "waiting for a decision"


@dataclass(frozen=True)
class Said:
    """An answer as a sentence or list, as data for `--json`, and as what Slack shows beside it."""

    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    charts: tuple[Chart, ...] = ()


@dataclass(frozen=True)
class Answers:
    """Reads rows and rules; `cancel` is the one that writes."""

    store: Store
    durable: Durable
    catalogue: Catalogue
    policy: Policy
    gate: Gate
    diagnosers: Mapping[str, Diagnoser]

    def answer(self, tx: Tx, request: Request, actor: Actor) -> Said:
        """The answer for this person; raises NotUnderstood with a sentence."""
        table: dict[Ask, Callable[[Tx, Request, Actor], Said]] = {
            Ask.HELP: self._help,
            Ask.RUNS: self._runs,
            Ask.SHOW: self._show,
            Ask.CAN: self._can,
            Ask.CANCEL: self._cancel,
            Ask.BACKUPS: self._backups,
            Ask.BACKUP: self._backup,
            Ask.RESTORE: self._restore,
        }
        return table[request.ask](tx, request, actor)

    def _help(self, _tx: Tx, request: Request, actor: Actor) -> Said:
        """Only what this person may run: nothing but looks for who could be anybody, no action or job that every rule
        forbids, and no decisions for who is no approver.
        """
        actions, jobs = ([], []) if actor.nobody else (self._allowed(), self._jobs())
        fixed = self._fixed(actor)
        lines = [f"`diagnose {name}`: {_says(each)}" for name, each in self.catalogue.situations().items()]
        lines += [f"`diagnose {each.name}`: {each.says}" for each in self.catalogue.diagnoses.values()]
        lines += [
            f"`{each.name} {(each.takes or each.each.value).upper()} because TEXT`: {each.says}" for each in actions
        ]
        lines += [f"`{each.name}{' N' if each.takes else ''}`: {each.says}" for each in jobs]
        lines += fixed
        wanted = [line for line in lines if request.subject.lower() in line.lower()]
        where = f"Installations: {', '.join(self.diagnosers)} (add `on NAME`)." if len(self.diagnosers) > 1 else ""
        known = request.subject and wanted
        first = "What you can ask:" if known or not request.subject else _unheard(request.subject)
        shown = wanted if known else [*self._in_short(actions, jobs), *fixed]
        return Said("\n".join(filter(None, [first, *shown, where])), {"help": wanted})

    def _in_short(self, actions: Sequence[Action], jobs: Sequence[Job]) -> list[str]:
        """What there is by name, to be read on a phone; `help WORD` says what each does."""
        known = self.catalogue.situations()
        situations = ", ".join(f"`{name}` ({counted(len(each), 'check')})" for name, each in known.items())
        ordered, begun = _names(each.name for each in actions), _names(each.name for each in jobs)
        first = max(known.items(), key=lambda each: len(each[1]), default=("", ()))[0]
        return [
            *([f"`diagnose …`, such as `diagnose {first}`: {situations}"] if first else []),
            *([f"`… MACHINE because TEXT`, once another person approves: {ordered}"] if ordered else []),
            *([f"without a plan: {begun}"] if begun else []),
            "`help WORD`: what each of these does, such as `help diagnose`",
        ]

    def _fixed(self, actor: Actor) -> tuple[str, ...]:
        if actor.nobody:
            return LOOKING
        return (*LOOKING, *ORDERING, *(DECIDING if self._decides(actor) else ()))

    def _decides(self, actor: Actor) -> bool:
        """Whether this is an approver, or may be: help is given while Slack cannot say so, too."""
        try:
            return self.gate.may_decide(actor, self.gate.deciders(actor.via))
        except OpsbotError:
            return True

    def _allowed(self) -> list[Action]:
        return [each for each in self.catalogue.actions.values() if self._possible(each)]

    def _possible(self, action: Action) -> bool:
        targets = (target for each in self.diagnosers.values() for target in each.site.of(action.each))
        return any(self.policy.rule_for_action(action, target).approvals is not None for target in targets)

    def _jobs(self) -> list[Job]:
        return [
            job
            for job in self.catalogue.jobs.values()
            if any(self.policy.rule_for_job(job.name, site).approvals is not None for site in self.diagnosers)
        ]

    def _runs(self, tx: Tx, _request: Request, _actor: Actor) -> Said:
        runs = [self._now(tx, run) for run in self.store.runs(tx, RUNS_SHOWN)]
        if not runs:
            return Said("Nothing has run yet.", {"runs": []})
        return Said("\n".join(_line(run) for run in runs), {"runs": [run_data(run) for run in runs]})

    def _show(self, tx: Tx, request: Request, _actor: Actor) -> Said:
        run = self._run(tx, request)
        story = self.store.story(tx, run.id)
        lines = [_line(run), *(f"{event.at:%H:%M:%S} {event_line(event)}" for event in story)]
        events = [{"event": event.kind, "at": event.at.isoformat(), **event.data} for event in story]
        return Said("\n".join(lines), {**run_data(run), "story": events})

    def _run(self, tx: Tx, request: Request) -> Run:
        run = self.store.run(tx, request.number) if request.number is not None else None
        if run is None:
            raise NotUnderstood(f"There is no run {request.number}; `runs` lists the latest.")
        return self._now(tx, run)

    def _now(self, tx: Tx, run: Run) -> Run:
        """As it stands: one that waits for people does not run, though its task does."""
        return replace(run, state=WAITS) if run.outcome is None and self.store.open_asks(tx, run.id) else run

    def _can(self, _tx: Tx, request: Request, actor: Actor) -> Said:
        """Names the rule that decides, and whether this person could approve it."""
        who = Actor(actor.team, request.who or actor.user, actor.via)
        barred = self.gate.barred(who)
        if barred:
            return Said(f"No: {barred}.", {"can": False, "why": barred})
        if not (rules := self._rules(request)):
            return Said(f"Yes: {who} may ask for that; it only reads.", {"can": True, "rule": "reads only"})
        if who.nobody:
            why = "no person stands behind it, so it may look, but not order or decide"
            return Said(f"No: {why}.", {"can": False, "why": why})
        named = sorted(map(str, rules))
        if all(rule.approvals is None for rule in rules):
            return Said(f"No: the rule that decides is `{'`, `'.join(named)}`.", {"can": False, "rules": named})
        decides = self.gate.may_decide(who, self.gate.deciders(who.via))
        may = "may also approve it when somebody else asks" if decides else "may not approve it"
        return Said(
            f"{who} may ask for it; the rule that decides is `{'`, `'.join(named)}`. {who} {may}.",
            {"can": True, "rules": named, "may_approve": decides},
        )

    def _rules(self, request: Request) -> set[Rule]:
        """The rules that decide about an order, one for each machine that it may be about; none for a diagnosis."""
        if request.subject in self.catalogue.jobs:
            return {self.policy.rule_for_job(request.subject, request.site)}
        if (action := self.catalogue.actions.get(request.subject)) is None:
            return set()
        targets = self.diagnosers[request.site].site.of(action.each)
        wanted = [target for target in targets if not request.targets or target.name in request.targets]
        return {self.policy.rule_for_action(action, target) for target in wanted}

    def _backups(self, tx: Tx, request: Request, _actor: Actor) -> Said:
        found = self.store.backups(tx, request.site, limit=BACKUPS_SHOWN)
        sites = [request.site] if request.site else list(self.diagnosers)
        charts = tuple(drawn for site in sites if (drawn := self._chart(tx, site)) is not None)
        return Said(shelf.table(found), {"backups": [shelf.backup_data(each) for each in found]}, charts)

    def _chart(self, tx: Tx, site: str) -> Chart | None:
        """Those that were thrown away too: they were taken."""
        return shelf.chart(site, self.store.backups(tx, site, limit=BACKUPS_DRAWN, gone=True))

    def _backup(self, tx: Tx, request: Request, _actor: Actor) -> Said:
        found = self._known_backup(tx, request)
        return Said(shelf.whole(found), shelf.backup_data(found))

    def _restore(self, tx: Tx, request: Request, _actor: Actor) -> Said:
        found = self._known_backup(tx, request)
        known = self.diagnosers.get(found.site)
        site = known.site if known else Site(found.site, "", "", ())
        return Said(shelf.how_to_restore(found, site), {"restored": False, **shelf.backup_data(found)})

    def _known_backup(self, tx: Tx, request: Request) -> Backup:
        found = self.store.backup(tx, request.number) if request.number is not None else None
        if found is None:
            raise NotUnderstood(f"There is no backup {request.number}; `backups` lists the latest.")
        return found

    def _cancel(self, tx: Tx, request: Request, actor: Actor) -> Said:
        if request.argument == A_BACKUP:
            request = replace(request, number=self._known_backup(tx, request).run)
        run = self._run(tx, request)
        if not self.store.cancel(tx, run.id, actor):
            raise NotUnderstood(f"Run {run.id} has ended already: {run.outcome.words if run.outcome else run.state}.")
        if run.task:
            self.durable.wake(tx, run.task)
        self.store.audit(tx, "cancel", actor, {"run": run.id})
        return Said(f"Run {run.id} is told to stop; its thread says how it ended.", {"run": run.id})


def _unheard(word: str) -> str:
    said = "".join(char for char in word if char.isprintable() and char != "`")
    return f"Nothing that you can ask is about `{said}`. There is:"


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _says(diagnoses: tuple[Any, ...]) -> str:
    said = list(dict.fromkeys(each.says for each in diagnoses))
    more = [f"and {len(said) - SAID} more"] if len(said) > SAID else []
    return "; ".join([*said[:SAID], *more])


def _line(run: Run) -> str:
    return f"run {run.id}: {run.order}, asked by {run.order.actor} — {_ending(run)}"


def _ending(run: Run) -> str:
    """`not fixed: Nothing was changed. …`; most summaries begin with the outcome, and say it once."""
    if run.outcome is None:
        return run.state
    words = run.outcome.words
    return run.summary if run.summary.casefold().startswith(words) else f"{words}: {run.summary}"


def run_data(run: Run) -> dict[str, Any]:
    return {
        "run": run.id,
        "order": str(run.order),
        "by": run.order.actor.user,
        "state": run.state,
        "outcome": run.outcome.name if run.outcome else None,
        "summary": run.summary,
        "created": run.created.isoformat(),
    }
