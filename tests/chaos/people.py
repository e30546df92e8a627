"""The people of the chaos: ana breaks and asks, bo and cy approve, and answer doubts by what the machine's log says.

All of them act in Slack alone, as people do: what is not acknowledged they do again.
"""

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.sandbox.slack import Ack, Message
from bot.sandbox.slack.driver import Refused
from tests.chaos.world import NotInTime, World

ON_IT = re.compile(r"\(run (\d+)\)")
OF_RUN = re.compile(r"run (\d+) · asked by")
ENDED = {
    "Healthy": "HEALTHY", "Fixed": "FIXED", "Done": "DONE", "Partly fixed": "PARTLY_FIXED", "Not fixed": "UNFIXED",
    "Found, nothing changed": "FOUND", "Failed": "FAILED", "Could not look": "COULD_NOT_LOOK", "Declined": "DECLINED",
    "Expired": "EXPIRED", "Cancelled": "CANCELLED", "In doubt": "IN_DOUBT", "Refused": "REFUSED",
}  # fmt: skip
POLL = 0.4


@dataclass
class Incident:
    """One fault, from the moment it was made to the outcome that Slack showed."""

    machine: str
    channel: str
    since: int
    run: int = 0
    root: str = ""
    outcome: str = ""
    began: float = 0.0
    ended: float = 0.0
    to: int = 0
    acknowledged: bool = True
    answers: list[tuple[str, str]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass
class Desk:
    """One machine and its channel: incidents on it, one after the other."""

    world: World
    machine: str
    channel: str
    patience: float = 120.0
    repeated: int = 0
    clicked: set[str] = field(default_factory=set)
    kept: list[str] = field(default_factory=list)  # what tells each acknowledged order and click from all others
    incidents: list[Incident] = field(default_factory=list)

    def incident(self) -> Incident:
        """Break the machine, ask, approve, answer, wait for the outcome."""
        now = Incident(self.machine, self.channel, len(self.world.log.lines()), began=time.monotonic())
        self.incidents.append(now)
        self.world.inject(self.machine)
        self.order(now)
        self.follow(now)
        now.ended, now.to = time.monotonic(), len(self.world.log.lines())
        return now

    def order(self, now: Incident) -> None:
        ana = self.world.slack.person("ana")
        before = self._runs()
        for _ in range(20):
            ack = ana.slash("/travis", f"diagnose worker lost rabbitmq {self.machine}", channel=self.channel)
            found = ON_IT.search(ack.shown or "")
            if ack.acked and found:
                self.kept.append(str(ack.trigger_id))
                now.run = int(found[1])
                return
            self.repeated += 1
            if (began := self._began_anyway(before)) is not None:
                now.run, now.acknowledged = began, False
                return
        raise NotInTime(f"nobody takes orders: {ack}")

    def _runs(self) -> set[int]:
        return {int(found) for each in self._messages() for found in OF_RUN.findall(each.all_text)}

    def _began_anyway(self, before: set[int]) -> int | None:
        """A command that Slack said had failed may have been written down: look before asking again."""
        for _ in range(8):
            time.sleep(0.75)
            if new := self._runs() - before:
                return min(new)
        return None

    def _messages(self) -> list[Message]:
        return self.world.slack.messages(self.channel)

    # ------------------------------------------------------------ following a run

    def follow(self, now: Incident) -> None:
        ends = time.monotonic() + self.patience
        while time.monotonic() < ends:
            for message in self._thread(now):
                self._read(now, message)
            if now.outcome:
                return
            time.sleep(POLL * random.uniform(0.8, 1.2))
        raise NotInTime(f"run {now.run} on {now.machine} has not ended within {self.patience:g} s")

    def _thread(self, now: Incident) -> list[Message]:
        """The run's thread; looked for again now and then, since a kill may have doubled the message it hangs on."""
        if now.root and random.random() > 0.15:
            return self.world.slack.messages(self.channel, now.root)
        found = self._messages()
        roots = [each for each in found if f"run {now.run} · asked by" in each.all_text]
        now.root = roots[-1].ts if roots else ""
        return [each for each in found if each.ts in {one.ts for one in roots} or each.thread_ts == now.root != ""]

    def _read(self, now: Incident, message: Message) -> None:
        if f"run {now.run} · asked by" in message.all_text:
            now.outcome = outcome_of(message)
        elif "approve" in message.actions:
            self._once(message, lambda: self._approve(message))
        elif "again" in message.actions:
            self._once(message, lambda: self._answer(now, message))

    def _once(self, message: Message, do: Callable[[], Ack]) -> None:
        if message.ts in self.clicked:
            return
        ack = do()
        if ack.acked:
            self.kept.append(str(ack.trigger_id))
            self.clicked.add(message.ts)
        else:
            self.repeated += 1

    def _approve(self, message: Message) -> Ack:
        return press(self.world, random.choice(["bo", "cy"]), message, "approve")

    def _answer(self, now: Incident, message: Message) -> Ack:
        """Done when the machine has received it, else again."""
        what = "pause" if "USR2" in message.all_text else "restart"
        arrived = [each for each in self.world.log.changes(self.machine, now.since) if each.what == what]
        verdict = "done" if arrived else "again"
        now.answers.append((what, verdict))
        return press(self.world, "cy", message, verdict)


def press(world: World, person: str, message: Message, action: str) -> Ack:
    """One click; not acknowledged when the button went away just now."""
    try:
        return world.slack.person(person).click(message, action)
    except Refused as why:
        return Ack(False, None, str(why), None, None, None, None, {}, None)


def outcome_of(status: Message) -> str:
    """The outcome in a status message's header, empty while it shows only how far the run is (⏳)."""
    sign, _, word = status.text.split(": ")[0].partition(" ")
    return "" if sign == "⏳" else ENDED.get(word.strip(), "")


@dataclass
class Shift:
    """All desks at work until enough incidents are over."""

    world: World
    wanted: int
    desks: list[Desk] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    rest: float = 0.0  # seconds between two incidents of a machine: a service that has just started is not judged
    _taken: int = 0
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        for machine, channel in zip(self.world.workers, self.world.channels, strict=True):
            desk = Desk(self.world, machine, channel)
            self.desks.append(desk)
            thread = threading.Thread(target=self._work, args=[desk], name=f"desk {machine}", daemon=True)
            self._threads.append(thread)
            thread.start()
            time.sleep(0.1)

    def _work(self, desk: Desk) -> None:
        while self._take():
            try:
                desk.incident()
            except Exception as why:
                self.troubles.append(f"{desk.machine}: {type(why).__name__}: {why}")
                return
            time.sleep(self.rest)

    def _take(self) -> bool:
        with self._guard:
            self._taken += 1
            return self._taken <= self.wanted

    @property
    def working(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    @property
    def incidents(self) -> list[Incident]:
        return [each for desk in self.desks for each in desk.incidents]

    @property
    def over(self) -> int:
        return sum(bool(each.outcome) for each in self.incidents)
