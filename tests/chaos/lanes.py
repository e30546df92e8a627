"""Runs without Slack, side by side: each lane has a machine, a database, and processes that are rigged."""

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, TypeVar

from bot.core.approval import Approval, Click, Kind, Verdict
from bot.core.people import Actor
from bot.sandbox.slack import example
from bot.sandbox.slack.workspace import ANA, BO, CY
from bot.settings import load
from bot.wiring import Serving
from tests.chaos.nursery import kill, lives
from tests.chaos.world import Received, World, until

T = TypeVar("T")
KEYS = itertools.count(1)
ANA_AT_HOME, BO_AT_HOME, CY_AT_HOME = (Actor(example().team, user, "cli") for user in (ANA, BO, CY))


@dataclass
class Lane:
    """One machine, one database, the desk to order at, and the processes that work for it."""

    world: World
    machine: str
    desk: Serving
    born: list[int] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)

    # ------------------------------------------------------------ processes

    def work(self, breaks: tuple[str, ...] = (), **rigged: Any) -> int:
        """Start a process and wait until it works."""
        rigged["breaks"] = (*breaks, *self.world.breaks)
        name = f"{self.machine}-{secrets.token_hex(3)}"
        ready = self.world.folder / f"{name}.ready"
        config = self._configuration(name)
        environment = self.environment(self.world)
        pid = self.world.nursery.bear("work", config=str(config), environment=environment, ready=str(ready), **rigged)
        self.born.append(pid)
        until(lambda: ready.exists() or not lives(pid), 30, f"{name} works")
        return pid

    @staticmethod
    def environment(world: World) -> dict[str, str]:
        """Without Slack's tokens."""
        return {name: value for name, value in world.environment().items() if name.startswith("OPSBOT_")}

    def _configuration(self, name: str) -> Path:
        slack = {"team_id": example().team, "app_id": example().app, "connect": False}
        return self.world.configuration(name, slack=slack)

    def end_processes(self) -> None:
        for pid in self.born:
            kill(pid)
        self.born.clear()

    # ------------------------------------------------------------ people

    def order(self) -> int:
        request = self.desk._read(f"diagnose worker lost rabbitmq {self.machine}")
        filed = self.desk.desk.file(request, ANA_AT_HOME, None, f"lane-{next(KEYS)}")
        assert filed.run is not None
        return filed.run

    def question(self, run: int) -> Approval | None:
        """One that is open and was not answered here yet."""
        with self.desk.base.durable.transaction() as tx:
            found = [self.desk.base.store.approval(tx, each) for each in self.desk.base.store.open_asks(tx, run)]
        return next((each for each in found if each and each.id not in self.answered), None)

    def say(self, approval: Approval, verdict: Verdict, by: Actor = BO_AT_HOME) -> None:
        self.answered.add(approval.id)
        self.desk.desk.click(Click(approval.id, verdict, by, "", approval.nonce), f"lane-{next(KEYS)}")

    def outcome(self, run: int) -> str:
        found = self.desk._run(run).outcome
        return found.name if found else ""

    def follow(self, run: int, since: int, within: float = 60.0) -> tuple[str, int]:
        """Answer what is asked, doubts by what the machine received, until the run ends: its outcome, and how many."""
        doubts = 0

        def step() -> str:
            nonlocal doubts
            if asked := self.question(run):
                doubts += asked.ask.kind is Kind.DOUBT
                self.say(asked, self.verdict(asked, since), CY_AT_HOME)
            return self.outcome(run)

        return until(step, within, f"run {run} on {self.machine} ends"), doubts

    def verdict(self, asked: Approval, since: int) -> Verdict:
        if asked.ask.kind is Kind.PLAN:
            return Verdict.APPROVE
        what = "pause" if "USR2" in asked.ask.text else "restart"
        return Verdict.DONE if what in {each.what for each in self.sent(since)} else Verdict.AGAIN

    # ------------------------------------------------------------ the machine

    def here(self) -> int:
        """Now, as a place in the machines' log."""
        return len(self.world.log.lines())

    def sent(self, since: int) -> list[Received]:
        return self.world.log.changes(self.machine, since)

    def twice(self, since: int) -> int:
        whats = [each.what for each in self.sent(since)]
        return len(whats) - len(set(whats))


@contextmanager
def lane(world: World, machine: str) -> Iterator[Lane]:
    with world.new_database() as own, ExitStack() as stack:
        own = changed(own, lease=2.0)
        made = Lane(own, machine, None)  # type: ignore[arg-type]
        config = made._configuration(f"desk-{machine}")
        made.desk = Serving(load(config, made.environment(own)))
        stack.callback(made.desk.base.pool.close)
        stack.callback(made.desk.ssh.close)
        stack.callback(made.end_processes)
        yield made


def side_by_side(world: World, machines: Sequence[str], play: Callable[[Lane], T]) -> list[T]:
    """The same in every lane at once."""

    def one(machine: str) -> T:
        with lane(world, machine) as made:
            return play(made)

    with ThreadPoolExecutor(len(machines)) as pool:
        return list(pool.map(one, machines))


class Counter:
    """Numbers that several lanes share: each gets the next one."""

    def __init__(self) -> None:
        self._next = 0
        self._guard = threading.Lock()

    def take(self) -> int:
        with self._guard:
            self._next += 1
            return self._next
