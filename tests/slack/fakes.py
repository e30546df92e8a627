"""A desk and an outbox that remember, for a Slack side without an engine or a database."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from bot.core.approval import Approval, Ask, Click, Kind
from bot.core.outbox import Letter
from bot.core.people import Actor, Place
from bot.core.request import Request, Vocabulary
from bot.core.run import Order, Run, Verb
from bot.core.story import Event
from bot.slack.intake import Receipt

NOW = datetime(2026, 11, 22, 14, 0, tzinfo=UTC)
TEAM, ANA, BO, CY, OPS = "T0ACME", "U0ANA", "U0BO", "U0CY", "C0OPS"

VOCABULARY = Vocabulary(
    command="/travis",
    diagnoses=("builds not starting", "worker lost rabbitmq", "web ui down"),
    actions=("restart", "drain and restart", "reboot"),
    jobs=("backup all", "backup"),
    machines=(("prod", (("platform-1", "platform"), ("worker-1", "worker"), ("worker-2", "worker"))),),
    action_roles=(("restart", "worker"), ("drain and restart", "worker"), ("reboot", "worker")),
)
TWO_SITES = replace(VOCABULARY, machines=(*VOCABULARY.machines, ("staging", (("worker-9", "worker"),))))


@dataclass
class Submitted:
    request: Request
    text: str
    actor: Actor
    place: Place
    key: str


@dataclass
class FakeDesk:
    """Keeps everything in memory; `broken` is raised instead of writing anything down."""

    words: Vocabulary = VOCABULARY
    approvals: dict[int, Approval] = field(default_factory=dict)
    submitted: list[Submitted] = field(default_factory=list)
    clicks: list[tuple[Click, str]] = field(default_factory=list)
    replies: list[tuple[Actor, Place, str]] = field(default_factory=list)
    refusals: list[tuple[Actor, Place | None, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    broken: Exception | None = None
    says: str = ""
    before: Callable[[], None] = lambda: None

    def submit(self, request: Request, text: str, actor: Actor, place: Place, key: str) -> Receipt:
        self.before()
        if not self._new(key):
            return Receipt(len(self.submitted), duplicate=True)
        self.submitted.append(Submitted(request, text, actor, place, key))
        return Receipt(len(self.submitted), text=self.says)

    def click(self, click: Click, key: str) -> None:
        if self._new(key):
            self.clicks.append((click, key))

    def reply(self, actor: Actor, place: Place, text: str, key: str) -> None:
        if self._new(key):
            self.replies.append((actor, place, text))

    def vocabulary(self) -> Vocabulary:
        return self.words

    def approval(self, approval: int) -> Approval | None:
        self._fail()
        return self.approvals.get(approval)

    def refused(self, actor: Actor, place: Place | None, why: str) -> None:
        self._fail()
        self.refusals.append((actor, place, why))

    def _new(self, key: str) -> bool:
        self._fail()
        fresh = key not in self.keys
        self.keys.add(key)
        return fresh

    def _fail(self) -> None:
        if self.broken:
            raise self.broken


@dataclass
class Kept:
    """A letter with what became of it."""

    letter: Letter
    state: str = "waiting"
    why: str = ""
    ts: str | None = None
    posted: bool = False  # said to be a new message, whose ts is to be kept


class FakeOutbox:
    """Letters in order for each channel; `later` moves a clock that the test turns, it does not sleep."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.waits: list[tuple[int, float, str]] = []
        self.taken: set[str] = set()
        self.words: list[str] = []  # for who asked, of letters that could not be sent
        self.guard = threading.Lock()
        self.written = threading.Event()

    def put(self, letter: Letter) -> Kept:
        with self.guard:
            kept = Kept(letter)
            self.kept.append(kept)
        self.written.set()
        return kept

    @contextmanager
    def take(self) -> Iterator[Letter | None]:
        with self.guard:
            kept = self._due()
            if kept:
                self.taken.add(kept.letter.channel)
        try:
            yield kept.letter if kept else None
        finally:
            if kept:
                self.taken.discard(kept.letter.channel)

    def _due(self) -> Kept | None:
        seen: set[str] = set(self.taken)
        for kept in self.kept:
            if kept.state == "waiting" and kept.letter.channel not in seen:
                return kept
            if kept.state == "waiting":
                seen.add(kept.letter.channel)
        return None

    def sent(self, letter: Letter, ts: str | None) -> None:
        kept = self._of(letter)
        kept.state, kept.ts, kept.posted = "sent", ts, letter.message is None

    def later(self, letter: Letter, seconds: float, why: str, tried: bool = True) -> None:
        self.waits.append((letter.id, seconds, why))
        kept = self._of(letter)
        kept.letter = replace(letter, tries=letter.tries + tried)

    def dead(self, letter: Letter, why: str, word: str = "") -> None:
        self._of(letter).state, self._of(letter).why = "dead", why
        self.words += [word] if word else []

    def wait(self, seconds: float) -> None:
        self.written.wait(min(seconds, 0.05))
        self.written.clear()

    def _of(self, letter: Letter) -> Kept:
        return next(kept for kept in self.kept if kept.letter.id == letter.id)


def run(number: int = 12, **changes: object) -> Run:
    order = Order(Verb.DIAGNOSE, "builds not starting", "prod", (), "", Actor(TEAM, ANA), Place(OPS))
    return replace(Run(number, order, "looking", NOW - timedelta(minutes=1)), **changes)  # type: ignore[arg-type]


def ask(**changes: object) -> Ask:
    made = Ask(
        12, 1, Kind.PLAN, "9f2c" * 16, 1, NOW + timedelta(minutes=30), "worker-2: Restart travis-worker",
        "1. worker-2 (10.0.0.12:22): Restart travis-worker\n   sudo systemctl restart travis-worker",
        "interrupts on prod: 1",
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def approval(number: int = 3, **changes: object) -> Approval:
    of_ask = {name: changes.pop(name) for name in list(changes) if name in Ask.__dataclass_fields__}
    made = Approval(number, ask(**of_ask), "n0nce", "open", Actor(TEAM, ANA))
    return replace(made, **changes)  # type: ignore[arg-type]


def story(*events: tuple[str, dict[str, object]]) -> list[Event]:
    return [Event(12, no, kind, data, NOW) for no, (kind, data) in enumerate(events, 1)]


def until(true: Callable[[], object], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.01)
