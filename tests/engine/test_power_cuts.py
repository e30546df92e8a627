"""Cut the power before each journal write of one run: nothing is lost, nothing is done twice."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from bot.adapters.durable import Workers
from bot.core.approval import Kind, Verdict
from bot.core.errors import LeaseLost
from bot.core.outcome import Outcome
from bot.core.question import Output
from tests.engine.lamps import BO, CY, Room, light, room, until
from tests.rigs import postgres

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
MOST_WRITES = 200
TOGETHER = 4


class PowerCut(Exception):
    """What the process would not have lived to see."""


class Dying:
    """A claim whose process dies just before its nth commit: the transaction is rolled back."""

    def __init__(self, claim: Any, fuse: list[int]) -> None:
        self._claim = claim
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._claim, name)

    def commit(self) -> Any:
        return _Cut(self._claim.commit(), self._fuse)


class _Cut:
    def __init__(self, context: Any, fuse: list[int]) -> None:
        self._context = context
        self._fuse = fuse

    def __enter__(self) -> Any:
        return self._context.__enter__()

    def __exit__(self, *error: Any) -> Any:
        self._fuse[0] -= 1
        if error[0] is None and self._fuse[0] == 0:
            cut = PowerCut()
            with suppress(PowerCut):
                self._context.__exit__(PowerCut, cut, None)
            raise LeaseLost("the power was cut")
        return self._context.__exit__(*error)


def dying_workers(made: Room, fuse: list[int]) -> Workers:
    return made.set_to_work(lease=1, carry=lambda claim: made.engine.carry(Dying(claim, fuse)))


def play(made: Room, fuse: list[int]) -> tuple[Outcome | None, int]:
    """The whole incident, decided by people who see what was really sent; how it ended, how often they were asked."""
    questions = 0
    run = made.order()
    dying_workers(made, fuse)
    answered: set[int] = set()
    while made.run(run).outcome is None:
        until(lambda: made.run(run).outcome or is_new(made, run, answered), 20, f"something happens (cut {fuse})")
        if (ask := made.open_ask(run)) is None or ask.id in answered:
            continue
        answered.add(ask.id)
        if ask.ask.kind is Kind.PLAN:
            made.click(ask, BO)
        else:
            questions += 1
            made.click(ask, CY, Verdict.DONE if "tap" in made.sent() else Verdict.AGAIN)
    return made.run(run).outcome, questions


def is_new(made: Room, run: int, answered: set[int]) -> bool:
    ask = made.open_ask(run)
    return ask is not None and ask.id not in answered


class Ended(NamedTuple):
    """How an incident ended, what was asked and sent, and the fuse: above 0 the cut was never reached."""

    outcome: Outcome | None
    questions: int
    sent: list[str]
    left: int


def incident(database: str, cut: int) -> Ended:
    with room(database, open_for=timedelta(minutes=5)) as made:

        def tapped(machine: str, command: str) -> Output:
            light(made, machine, "bright")
            return Output(0)

        made.machines.on_send = tapped
        fuse = [cut]
        outcome, questions = play(made, fuse)
        return Ended(outcome, questions, made.sent("untap"), fuse[0])


def test_before_each_journal_write(postgres_server: postgres.Server) -> None:
    """Several incidents at a time: each waits for the lease of the one that died rather than for the processor."""

    def cut_before(write: int) -> Ended:
        with postgres_server.migrated() as database:
            return incident(database, write)

    ended: list[Ended] = []
    with ThreadPoolExecutor(TOGETHER) as together:
        while len(ended) < MOST_WRITES and not (ended and ended[-1].left > 0):
            ended += together.map(cut_before, range(len(ended) + 1, len(ended) + 1 + TOGETHER))
    for write, each in enumerate(ended, 1):
        assert each.outcome is Outcome.FIXED, f"cut before write {write}"
        assert each.sent == ["tap"], f"cut before write {write}: {each.sent}"
        assert each.questions <= 1
    assert len(ended) > 10, "the run has more journal writes than that"
    assert ended[-1].left > 0, "every write was cut once"
