"""What the nursery can fork. Importing this module imports all of opsbot, which is the point of it."""

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bot.adapters.embedded
import bot.cli  # noqa: F401
from bot import wiring
from bot.adapters.durable import Claim, Workers
from bot.adapters.store.changes import Changes
from bot.adapters.store.locks import Locks
from bot.core.approval import Click
from bot.core.outbox import Letter
from bot.core.shown import Redactor
from bot.engine.changing import Changing
from bot.settings import Settings, load
from bot.slack.outbox import Said, Sender

Json = Mapping[str, Any]


def serve(asked: Json) -> None:
    """`opsbot serve --config FILE --simulator URL`, unchanged unless rules are to be taken out."""
    for rule in asked["breaks"]:
        BREAKS[rule]()
    os.environ.update(asked["environment"])
    raise SystemExit(wiring.serve(load(Path(asked["config"]), os.environ), asked.get("simulator")))


def work(asked: Json) -> None:
    """opsbot without Slack, rigged as asked.

    `cut` dies before that journal write, `lose` before the first one after an intent, when the change is sent and its
    result is not written; `freeze` stops right after an intent, `breaks` takes rules out.
    """
    for rule in asked["breaks"]:
        BREAKS[rule]()
    os.environ.update(asked["environment"])
    wiring.write_logs_as_json(Redactor([]))
    rig = Rig(int(asked.get("cut", 0)), bool(asked.get("lose")), bool(asked.get("freeze")))
    serving = Rigged(load(Path(asked["config"]), os.environ), rig)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    serving.start()
    Path(asked["ready"]).write_text("ready")
    threading.Event().wait()


PROGRAMS: dict[str, Callable[[Json], None]] = {"serve": serve, "work": work}


@dataclass
class Rig:
    """What shall happen to this process, and how far it is."""

    cut: int
    lose: bool
    freeze: bool
    writes: int = 0
    intended: bool = False

    def before_commit(self) -> None:
        self.writes += 1
        if self.writes == self.cut or (self.lose and self.intended):
            os.kill(os.getpid(), signal.SIGKILL)

    def after_commit(self) -> None:
        self.intended = self.intended or bool(INTENDED)
        if self.freeze and INTENDED:
            os.kill(os.getpid(), signal.SIGSTOP)


class Rigged(wiring.Serving):
    """Everything as in `opsbot serve`, but the claims that its runs get are ours."""

    def __init__(self, settings: Settings, rig: Rig) -> None:
        self._rig = rig
        super().__init__(settings)

    def _workers(self) -> Workers:
        workers = super()._workers()
        carry = workers._carry
        workers._carry = lambda claim: carry(RiggedClaim(claim, self._rig))  # type: ignore[arg-type]
        return workers


class RiggedClaim:
    """A claim whose commits the rig may end."""

    def __init__(self, claim: Claim, rig: Rig) -> None:
        self._claim = claim
        self._rig = rig

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claim, name)

    @contextmanager
    def commit(self) -> Iterator[Any]:
        INTENDED.clear()
        with self._claim.commit() as tx:
            yield tx
            self._rig.before_commit()
        self._rig.after_commit()


INTENDED: list[int] = []  # changes whose intent the transaction under way has written
_intend = Changes.intend


def _intend_and_remember(self: Changes, *args: Any) -> bool:
    fresh = _intend(self, *args)
    if fresh:
        INTENDED.append(args[2])
    return fresh


Changes.intend = _intend_and_remember  # type: ignore[method-assign, assignment]


# ---------------------------------------------------------------- rules taken out, to see that they are needed


def forget_intents() -> None:
    """A change is sent without looking whether it was meant before."""

    def forget(_self: Changes, *args: Any) -> bool:
        INTENDED.append(args[2])
        return True

    Changes.intend = forget  # type: ignore[method-assign, assignment]
    Changes.change = lambda *_: None  # type: ignore[method-assign]
    Changes.settle = lambda *_: None  # type: ignore[method-assign]


def ask_no_machine() -> None:
    """A change is sent without looking whether the machine still needs it."""
    Changing._needed = lambda *_: True  # type: ignore[method-assign]


def take_no_locks() -> None:
    Locks.lock = lambda *_: None  # type: ignore[method-assign]


def hold_no_lease() -> None:
    """Neither does a commit look whether the lease is still held, nor is work told to stop when it is not."""
    Claim._hold = lambda *_: None  # type: ignore[method-assign]
    Claim._may_be_lost = lambda *_: False  # type: ignore[method-assign]
    Workers._watch = lambda *_: None  # type: ignore[method-assign]
    Workers._beat = lambda *_: None  # type: ignore[method-assign]


def lose_letters() -> None:
    """Every tenth letter is ticked off and never said."""
    say, count = Sender._say_somewhere, itertools.count(1)

    def tenth(self: Sender, letter: Letter) -> Said:
        return Said(letter.message) if next(count) % 10 == 0 else say(self, letter)

    Sender._say_somewhere = tenth  # type: ignore[method-assign]


def lose_clicks() -> None:
    """Every fifth click is acknowledged and never written down."""
    click, count = wiring.SlackDesk.click, itertools.count(1)

    def fifth(self: wiring.SlackDesk, pressed: Click, key: str) -> None:
        if next(count) % 5:
            click(self, pressed, key)

    wiring.SlackDesk.click = fifth  # type: ignore[method-assign, assignment]


BREAKS: dict[str, Callable[[], None]] = {
    "intent": forget_intents, "needed": ask_no_machine, "lock": take_no_locks, "fence": hold_no_lease,
    "letter": lose_letters, "commit": lose_clicks,
}  # fmt: skip
