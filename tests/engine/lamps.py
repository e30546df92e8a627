"""A small world for the engine: lamps that are dark, and three ways to light them, gentlest first.

The handlers are real handlers, the store and the durable tasks are real ones in PostgreSQL; only the machines answer
from a table.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from bot.adapters.durable import Claim, Durable, Workers
from bot.adapters.store import Audit, Pool, Store, migrate
from bot.core.approval import Approval, Click, Kind, Verdict
from bot.core.command import sh
from bot.core.errors import Temporary
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.handler import Action, Catalogue, Diagnosis, Job, Steps
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.people import Actor, Person
from bot.core.request import Ask, Request
from bot.core.run import Run
from bot.core.shown import Redactor
from bot.core.story import Event
from bot.core.target import Role, Site, Target
from bot.engine.answers import Answers
from bot.engine.changing import Pace
from bot.engine.desk import Desk
from bot.engine.people import Approvers, Gate
from bot.engine.policy import Policy, Rule
from bot.engine.rounds import Diagnoser
from bot.engine.tasks import Engine, Terms
from tests.engine.machines import Machines

T = TypeVar("T")
TEAM = "T1"
ANA, BO, CY, GUS = (Actor(TEAM, user) for user in ("UANA", "UBO", "UCY", "UGUS"))


@fact
def lamp(machine: Target) -> Fact[str]:
    return Fact(f"light of {machine}", machine, sh("cat", "/lamp"), lambda said: str(said.out.strip()))


@fact
def is_dark(machine: Target) -> Fact[bool]:
    return Fact(f"{machine} is dark", machine, sh("cat", "/lamp"), lambda said: said.out.strip() == "dark")


def tap(machine: Target) -> Fix:
    """One change and a wait; un-taps when it ends early."""
    return Fix(
        "lamp.tap",
        "Tap the lamp",
        machine,
        (
            Change("Tap", sh("tap"), within=timedelta(seconds=5)),
            Wait(lamp(machine), equals("bright"), timedelta(seconds=1)),
        ),
        Risk.INTERRUPTS,
        ensure=(Change("Let go", sh("untap"), within=timedelta(seconds=5)),),
        undo="untap it",
    )


def screw(machine: Target) -> Fix:
    """A change whose doubt the machine can settle: it is needed only while the lamp is dark."""
    return Fix(
        "lamp.screw",
        "Screw the bulb in",
        machine,
        (Change("Screw", sh("screw").sudo(), needed=is_dark(machine), within=timedelta(seconds=5)),),
        Risk.INTERRUPTS,
        saves=(lamp(machine),),
    )


def look_at_lamp(look: Look, machine: Target) -> Iterator[Finding]:
    if look(lamp(machine)) == "dark":
        yield Finding(
            "lamp.dark",
            Severity.BROKEN,
            machine,
            f"{machine} is dark",
            "nobody can see",
            (tap(machine), screw(machine)),
        )


def look_at_fuse(look: Look, machine: Target) -> Iterator[Finding]:
    if look(lamp(machine)) == "confusing":
        raise ZeroDivisionError("a mistake in a handler")
    if look(lamp(machine)) == "no fuse":
        yield Finding("lamp.fuse", Severity.BROKEN, machine, f"{machine} has no fuse", person="Put a fuse in.")


def count(steps: Steps, _look: Look) -> str:
    total = sum(steps.step(f"count {no}", partial(int, no)) for no in range(3))
    return f"counted to {total}"


def lamps() -> Catalogue:
    catalogue = Catalogue()
    catalogue.add(Diagnosis("lamp dark", "darkness", Role.WORKER, "Is it dark?", look_at_lamp, unless=("grid.*",)), "a")
    catalogue.add(Diagnosis("fuse gone", "darkness", Role.WORKER, "Is there a fuse?", look_at_fuse), "b")
    catalogue.add(
        Action(
            "screw",
            Role.WORKER,
            "Screw it in",
            Risk.INTERRUPTS,
            lambda look, m: screw(m),
            proof="lamp dark",
            makes="lamp.screw",
        ),
        "c",
    )
    catalogue.add(Job("count", "Count", count), "d")
    return catalogue


@dataclass
class People:
    """A directory that can be away."""

    guests: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    away: bool = False

    def person(self, actor: Actor) -> Person:
        if self.away:
            raise Temporary("Slack does not say who people are")
        known = actor.user in ("UANA", "UBO", "UCY", "UGUS")
        return Person(actor, actor.user, actor.user not in self.gone, actor.user in self.guests, not known, False)

    def members(self, usergroup: str) -> tuple[str, ...]:
        if self.away:
            raise Temporary("Slack does not say who is in the group")
        return ("UBO", "UCY", "UANA")


@dataclass
class Clock:
    """The wall clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass
class Room:
    """Everything of one opsbot but Slack: order, decide, look at what happened."""

    dsn: str
    machines: Machines
    pool: Pool
    store: Store
    durable: Durable
    engine: Engine
    desk: Desk
    people: People
    clock: Clock
    workers: list[Workers] = field(default_factory=list)
    deliveries: int = 0

    def key(self) -> str:
        self.deliveries += 1
        return f"delivery-{self.deliveries}"

    def order(self, subject: str = "darkness", kind: str = "diagnose", by: Actor = ANA, **more: Any) -> int:
        request = Request(Ask.RUN, kind, subject, site="home", because=more.pop("because", "it is night"), **more)
        filed = self.desk.file(request, by, None, self.key())
        assert filed.run is not None
        return filed.run

    def click(self, approval: Approval, by: Actor, verdict: Verdict = Verdict.APPROVE, reason: str = "") -> None:
        self.desk.click(Click(approval.id, verdict, by, reason, approval.nonce), self.key())

    def run(self, run: int) -> Run:
        with self.durable.transaction() as tx:
            found = self.store.run(tx, run)
        assert found is not None
        return found

    def story(self, run: int, kind: str = "") -> list[Event]:
        with self.durable.transaction() as tx:
            return [event for event in self.store.story(tx, run) if kind in ("", event.kind)]

    def open_ask(self, run: int) -> Approval | None:
        with self.durable.transaction() as tx:
            found = [self.store.approval(tx, each) for each in self.store.open_asks(tx, run)]
        return found[-1] if found else None

    def asked(self, run: int, within: float = 15) -> Approval:
        """The open question of a run, as soon as there is one."""
        found = until(lambda: self.open_ask(run), within, f"run {run} asks something")
        assert found is not None
        return found

    def doubt(self, run: int) -> Approval:
        """The open doubt of a run, as soon as there is one."""
        until(lambda: (ask := self.open_ask(run)) and ask.ask.kind is Kind.DOUBT, 30, f"run {run} is in doubt")
        return self.asked(run)

    def plan_no(self, run: int, no: int) -> Approval:
        """The open question about the run's nth plan."""
        until(lambda: (ask := self.open_ask(run)) and ask.ask.no == no, 15, f"run {run} proposes plan {no}")
        return self.asked(run)

    def ended(self, run: int, within: float = 20) -> Run:
        until(lambda: self.run(run).outcome, within, f"run {run} ends")
        return self.run(run)

    def outcome(self, run: int, within: float = 20) -> Outcome | None:
        return self.ended(run, within).outcome

    def sent(self, *but: str) -> list[str]:
        return [command for _, command in self.machines.sent if command not in but]

    def set_to_work(self, engine: Engine | None = None, lease: float = 2, carry: Any = None) -> Workers:
        engine = engine or self.engine
        workers = Workers(
            self.pool,
            carry or engine.carry,
            engine.failed,
            woken=engine.woken,
            lease=timedelta(seconds=lease),
            threads=8,
        )
        workers.start()
        self.workers.append(workers)
        return workers


def until(look: Callable[[], T], within: float, what: str) -> T:
    ends = time.monotonic() + within
    while time.monotonic() < ends:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {within} s: {what}")


def home() -> Site:
    workers = tuple(Target(name, Role.WORKER, "home", f"10.0.0.{no}") for no, name in enumerate(("hall", "attic")))
    return Site("home", "example.com", "2.2", (Target("grid", Role.PLATFORM, "home", "10.0.1.1"), *workers))


@contextmanager
def room(dsn: str, rules: tuple[Rule, ...] = (), open_for: timedelta = timedelta(minutes=30)) -> Iterator[Room]:
    """A room with a dark hall and a bright attic; nobody works until `set_to_work`."""
    migrate(dsn)
    pool = Pool(dsn, size=16)
    machines = Machines({"hall": {"cat /lamp": "dark"}, "attic": {"cat /lamp": "bright"}})
    store, durable = Store(Audit(pool, b"k" * 32)), Durable(pool)
    people, clock, redactor = People(), Clock(), Redactor(["open sesame"])
    gate = Gate(people, Approvers(usergroup="S1"))
    diagnosers = {"home": Diagnoser(home(), machines, lambda target, question, span: None)}
    policy = Policy(rules)
    terms = Terms(open_for, Pace(poll=timedelta(milliseconds=200)))
    engine = Engine(store, durable, machines, diagnosers, lamps(), policy, gate, redactor, clock, terms)
    answers = Answers(store, durable, engine.catalogue, policy, gate, diagnosers)
    desk = Desk(store, durable, engine.catalogue, redactor, answers)
    made = Room(dsn, machines, pool, store, durable, engine, desk, people, clock)
    try:
        yield made
    finally:
        for workers in made.workers:
            workers.stop()
        pool.close()


def light(made: Room, machine: str, state: str) -> None:
    made.machines.answers[machine]["cat /lamp"] = state


class Killed(BaseException):
    """The process dies here: nothing after this line happens, nothing is given back."""


@dataclass
class DyingClaim:
    """A claim whose process is killed right before its nth transaction commits."""

    claim: Claim
    die_at: list[int]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.claim, name)

    @contextmanager
    def commit(self) -> Iterator[Any]:
        with self.claim.commit() as tx:
            yield tx
            self.die_at[0] -= 1
            if self.die_at[0] == 0:
                raise Killed
