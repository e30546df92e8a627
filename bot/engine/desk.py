"""The front desk: everything people ask is a durable row before anybody says yes to it."""

from dataclasses import dataclass, replace

from bot.core.approval import ANSWERS, OF_OTHERS, SHORTEST_DIGEST, Approval, Click, Verdict
from bot.core.errors import Refused
from bot.core.handler import Catalogue
from bot.core.people import Actor, Part, Place
from bot.core.ports import Durable, Store, Tx
from bot.core.request import EVERYTHING, STARTS, Ask, Request, Vocabulary
from bot.core.run import Order, Verb
from bot.core.shown import Redactor
from bot.engine.answers import Answers, Said
from bot.engine.stored import actor_to_json, click_to_json, place_to_json, request_to_json

VERBS = {"diagnose": Verb.DIAGNOSE, "act": Verb.ACT, "job": Verb.JOB}
DECIDES = {
    Ask.APPROVE: Verdict.APPROVE,
    Ask.DECLINE: Verdict.DECLINE,
    Ask.DONE: Verdict.DONE,
    Ask.AGAIN: Verdict.AGAIN,
    Ask.STOP: Verdict.STOP,
}


@dataclass(frozen=True)
class Filed:
    """A request that is committed: the run it began, if any, and whether this very delivery had come before."""

    run: int | None
    duplicate: bool
    text: str


@dataclass(frozen=True)
class Desk:
    """Takes orders, clicks and questions from Slack and the command line alike. Returns only after the commit."""

    store: Store
    durable: Durable
    catalogue: Catalogue
    redactor: Redactor
    answers: Answers

    def file(
        self, request: Request, actor: Actor, place: Place | None, key: str, typed_by: Actor | None = None
    ) -> Filed:
        """File what somebody said; the key is its delivery's own (trigger_id, event_id), so that it counts once.

        `typed_by` is who was really at the keyboard, where somebody acts as another person.
        """
        with self.durable.transaction() as tx:
            if verdict := DECIDES.get(request.ask):
                said = Click(0, verdict, actor, request.because, place=place)
                return self._typed_decision(tx, request, said, key, typed_by)
            if request.ask in STARTS:
                return self._order(tx, order_of(request, actor, place), key, typed_by)
            return self._question(tx, request, actor, place, key)

    def click(self, click: Click, key: str) -> Filed:
        """File a decision; who pressed it is checked by a worker, and the row decides."""
        with self.durable.transaction() as tx:
            return self._click(tx, click, key)

    def parts(self, run: int, who: Actor) -> frozenset[Part]:
        with self.durable.transaction() as tx:
            return self.store.parts(tx, run, who)

    def approval(self, number: int) -> Approval | None:
        with self.durable.transaction() as tx:
            return self.store.approval(tx, number)

    def now(self, request: Request, actor: Actor) -> Said:
        """The answer to a question at once, for the command line; raises Refused."""
        if request.ask is Ask.CANCEL and (barred := self.answers.gate.barred(actor)):
            self.refused(actor, barred)
            raise Refused(f"Not allowed: {barred}.")
        with self.durable.transaction() as tx:
            return self.answers.answer(tx, request, actor)

    def refused(self, actor: Actor | None, why: str) -> None:
        """Put on record that somebody was turned away at the door."""
        with self.durable.transaction() as tx:
            self.store.audit(tx, "refused", actor, {"why": self.redactor.show(why)})

    def _order(self, tx: Tx, order: Order, key: str, typed_by: Actor | None) -> Filed:
        body = {"order": self.redactor.show(order), **_from(order.actor, order.place)}
        if (filed := self.store.accept(tx, key, "order", body, order.actor)) is None:
            return Filed(None, True, "You have asked this already; it is under way.")
        run = self.store.start(tx, order)
        task = self.durable.spawn(tx, "order", {"run": run, "request": filed}, f"order:{key}")
        self.store.attach(tx, run, task or "")
        if typed_by:
            self.store.add_party(tx, run, typed_by)
        return Filed(run, False, self.redactor.show(f"On it: {order} (run {run})."))

    def _question(self, tx: Tx, request: Request, actor: Actor, place: Place | None, key: str) -> Filed:
        body = {"request": request_to_json(request), **_from(actor, place)}
        filed = self.store.accept(tx, key, "ask", body, actor)
        if filed is not None:
            self.durable.spawn(tx, "ask", {"request": filed}, f"ask:{key}")
        # It stays beside the answer: Slack lets nobody replace or delete what a command was acknowledged with, and one
        # acknowledged with nothing would look dead for as long as the answer takes.
        return Filed(None, filed is None, "One moment.")

    def _click(self, tx: Tx, click: Click, key: str) -> Filed:
        filed = self.store.accept(tx, key, "click", click_to_json(click), click.actor)
        if filed is not None:
            self.durable.spawn(tx, "click", {"request": filed}, f"click:{key}")
        return Filed(None, filed is None, "Your decision is being counted.")

    def _typed_decision(self, tx: Tx, request: Request, said: Click, key: str, typed_by: Actor | None) -> Filed:
        """`approve 12` means the only plan of run 12; where there were several, or it is long, `approve 12 3f2a91`."""
        run = request.number or 0
        approval = next(iter(self._open(tx, run, said.verdict)), None)
        if approval is None and self.store.run(tx, run) is None:
            raise Refused(f"There is no run {run}; `runs` lists the latest.")
        if approval is None:
            raise Refused(f"Run {run} waits for no such decision; `show {run}` says where it is.")
        if said.verdict is Verdict.APPROVE:
            _check_named(approval, request.argument)
        if typed_by and not self.store.add_party(tx, run, typed_by) and said.verdict in OF_OTHERS:
            raise Refused("You had a part in this run yourself, so somebody else has to decide.")
        return self._click(tx, replace(said, approval=approval.id), key)

    def _open(self, tx: Tx, run: int, verdict: Verdict) -> list[Approval]:
        found = (self.store.approval(tx, number) for number in self.store.open_asks(tx, run))
        return [each for each in found if each is not None and verdict in ANSWERS[each.ask.kind]]


def _check_named(approval: Approval, said: str) -> None:
    """Whether the words name this very plan: who typed `approve 12` may have read the one before, or half of it."""
    ask = approval.ask
    digest = ask.digest[:SHORTEST_DIGEST]
    if said and not ask.digest.startswith(said):
        raise Refused(f"Plan {said} of run {ask.run} is not open; the one that is now is {digest}: {ask.title}.")
    if not said and (ask.no > 1 or ask.is_long):
        why = "its plan is long" if ask.is_long else "it has put several plans"
        raise Refused(f"Run {ask.run}: {why}. Read it, then say `approve {ask.run} {digest}`.")


def order_of(request: Request, actor: Actor, place: Place | None) -> Order:
    """A request to run something as an order; `status` looks at everything and offers nothing."""
    status = request.ask is Ask.STATUS
    verb = Verb.DIAGNOSE if status else VERBS[request.kind]
    subject = EVERYTHING if status else request.subject
    look_only = status or request.look_only
    return Order(
        verb, subject, request.site, request.targets, request.because, actor, place, look_only, request.argument
    )


def vocabulary_of(catalogue: Catalogue, command: str, sites: dict[str, tuple[tuple[str, str], ...]]) -> Vocabulary:
    """Every name that can be said, for the grammar."""
    return Vocabulary(
        command=command,
        diagnoses=tuple(dict.fromkeys((*catalogue.situations(), *catalogue.diagnoses))),
        actions=tuple(catalogue.actions),
        jobs=tuple(catalogue.jobs),
        machines=tuple(sites.items()),
        action_roles=tuple((each.name, each.each.value) for each in catalogue.actions.values()),
        action_takes=tuple((each.name, each.takes) for each in catalogue.actions.values() if each.takes),
        job_takes=tuple((each.name, each.takes) for each in catalogue.jobs.values() if each.takes),
    )


def _from(actor: Actor, place: Place | None) -> dict[str, object]:
    return {"actor": actor_to_json(actor), "place": place_to_json(place)}
