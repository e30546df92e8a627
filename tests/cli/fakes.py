"""A front desk that remembers what it was told, and a story that a test tells as it likes."""

import json
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.adapters.console import Console
from bot.core.errors import Refused
from bot.core.outcome import Outcome
from bot.core.people import Actor, Part, Place
from bot.core.request import Ask, Request, Vocabulary
from bot.core.run import Run
from bot.core.story import Event
from bot.engine.answers import Said
from bot.engine.desk import Filed, order_of
from bot.slack import words

ME = os.getuid()
TEAM, ANA, BO, CY = "T012AB3CD", "U0ANA", "U00BO", "U00CY"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LOOK = ("look", {"no": 1, "asked": ["worker-1"], "checked": ["Is it there?"], "unknown": []})
FINDING: tuple[str, dict[str, Any]] = (
    "finding",
    {
        "look": 1,
        "target": "worker-1",
        "cause": "worker.amqp-lost",
        "severity": "BROKEN",
        "title": "worker-1 is running, but RabbitMQ sees no consumer from it",
        "evidence": "RabbitMQ sees 2 workers",
        "fixes": ["Restart travis-worker"],
        "under": "",
        "person": "",
        "link": "",
    },
)
PLAN: tuple[str, dict[str, Any]] = (
    "plan",
    {
        "no": 1,
        "digest": "0123456789abcdef",
        "risk": "interrupts",
        "rule": "default for risk interrupts: 1 approval",
        "needs": 1,
        "expires": "2026-01-01T00:30:00+00:00",
        "fixes": [
            {
                "title": "Restart travis-worker",
                "target": "worker-1",
                "risk": "interrupts",
                "steps": ["Restart the service: `sudo -n systemctl restart travis-worker`"],
                "undo": "nothing to undo",
            }
        ],
    },
)


def outcome(ended: Outcome, text: str = "so it ended") -> tuple[str, dict[str, Any]]:
    return "outcome", {"outcome": ended.name, "text": text, "exit": ended.exit_status}


def decision(by: str, verdict: str = "approve") -> tuple[str, dict[str, Any]]:
    return "decision", {"approval": 1, "verdict": verdict, "by": by, "via": "cli", "reason": ""}


@dataclass
class FakeDesk:
    """Files and remembers; `then` is told as the story of every run that begins, `counts` is what a decision tells."""

    filed: list[tuple[Request, Actor]] = field(default_factory=list)
    asked: list[tuple[Request, Actor]] = field(default_factory=list)
    typed: set[tuple[int, str]] = field(default_factory=set)
    turned_away: list[tuple[Actor | None, str]] = field(default_factory=list)
    runs: dict[int, Run] = field(default_factory=dict)
    events: dict[int, list[Event]] = field(default_factory=dict)
    then: Sequence[tuple[str, dict[str, Any]]] = ()
    counts: bool = True
    broken: Exception | None = None
    looked: int = 0
    guard: threading.Lock = field(default_factory=threading.Lock)

    def file(
        self, request: Request, actor: Actor, place: Place | None, key: str, typed_by: Actor | None = None
    ) -> Filed:
        assert place is None
        assert key.startswith("cli:")
        if self.broken:
            raise self.broken
        self.filed.append((request, actor))
        run = request.number or len(self.runs) + 1
        if typed_by:
            self.typed.add((run, typed_by.user))
        if request.ask in (Ask.APPROVE, Ask.DECLINE, Ask.DONE, Ask.AGAIN, Ask.STOP):
            if self.counts:
                self.tell(run, *decision(actor.user, request.ask.value))
            return Filed(None, False, "Your decision is being counted.")
        number = self.begin(actor, request)
        for kind, data in self.then:
            self.tell(number, kind, data)
        return Filed(number, False, f"On it: run {number}.")

    def now(self, request: Request, actor: Actor) -> Said:
        self.asked.append((request, actor))
        if request.ask is Ask.CAN:
            return Said("No: guests may not use opsbot.", {"can": False})
        if request.ask is Ask.SHOW and request.number not in self.runs:
            raise Refused(f"There is no run {request.number}; `runs` lists the latest.")
        if request.ask is Ask.SHOW:
            story = [
                {"event": event.kind, "at": event.at.isoformat(), **event.data}
                for event in self.events[request.number or 0]
            ]
            return Said(f"run {request.number}: it\n1. more", {"run": request.number, "story": story})
        if request.ask is Ask.RUNS:
            runs = [{"run": 1, "order": "diagnose all", "by": ANA, "state": "running", "outcome": None,
                     "created": NOW.isoformat()}]  # fmt: skip
            return Said("run 1: diagnose all", {"runs": runs})
        return Said(f"{request.ask.value}: answered")

    def parts(self, run: int, who: Actor) -> frozenset[Part]:
        asked = run in self.runs and self.runs[run].order.actor.user == who.user
        told = [event.data["by"] for event in self.events.get(run, ()) if event.kind == "decision"]
        did = {Part.ASKED: asked, Part.DECIDED: who.user in told, Part.TYPED: (run, who.user) in self.typed}
        return frozenset(part for part, true in did.items() if true)

    def refused(self, actor: Actor | None, why: str) -> None:
        self.turned_away.append((actor, why))

    # ------------------------------------------------------------ what the test does

    def begin(self, actor: Actor, request: Request | None = None) -> int:
        number = len(self.runs) + 1
        order = order_of(request or Request(Ask.STATUS, site="prod"), actor, None)
        self.events[number] = []
        self.runs[number] = Run(number, order, "running", NOW)
        return number

    def tell(self, run: int, kind: str, data: dict[str, Any]) -> None:
        with self.guard:
            self.events[run] = [*self.events[run], Event(run, len(self.events[run]) + 1, kind, data, NOW)]

    def end(self, run: int, ended: Outcome, summary: str) -> None:
        """As a refused run ends: without an event."""
        self.runs[run] = replace(self.runs[run], outcome=ended, summary=summary)

    def story(self, run: int, after: int) -> Sequence[Event]:
        self.looked += 1
        return [event for event in self.events[run] if event.no > after]


def read(text: str) -> Request:
    machines = (("prod", (("platform-1", "platform"), ("worker-1", "worker"))),)
    return words.read(
        text,
        Vocabulary(
            "/travis", ("builds not starting",), ("restart",), ("backup all",), machines, (("restart", "worker"),)
        ),
    )


def console_of(desk: FakeDesk, path: Path, people: dict[int, str], impersonate: bool = False, **more: Any) -> Console:
    return Console(
        path,
        desk=desk,
        read=read,
        people=people,
        team=TEAM,
        impersonate=impersonate,
        events=desk.story,
        run=desk.runs.get,
        pace=0.02,
        **more,
    )


@contextmanager
def serving(desk: FakeDesk, path: Path, people: dict[int, str], **more: Any) -> Iterator[Console]:
    console = console_of(desk, path, people, **more)
    console.start()
    try:
        yield console
    finally:
        console.close()


def connected(path: Path) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(10)
    peer.connect(str(path))
    return peer


def ask(path: Path, **request: Any) -> list[dict[str, Any]]:
    """All lines that one request gets."""
    return ask_raw(path, json.dumps(request).encode() + b"\n")


def ask_raw(path: Path, request: bytes) -> list[dict[str, Any]]:
    with connected(path) as peer, peer.makefile("rb") as lines:
        with suppress(BrokenPipeError):  # it has heard enough; what it said is read below
            peer.sendall(request)
        said: list[dict[str, Any]] = []
        with suppress(ConnectionResetError):  # nobody read what it sent
            for line in lines:
                said.append(json.loads(line))  # noqa: PERF401 - kept when the connection breaks
        return said


def say(path: Path, text: str, **more: Any) -> list[dict[str, Any]]:
    return ask(path, verb="say", text=text, **more)
