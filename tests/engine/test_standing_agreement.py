"""What people agreed to stands for the run, whatever the configuration says later; nothing else is consent."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from bot.core.approval import Verdict
from bot.core.outcome import Outcome
from bot.core.question import Output
from bot.engine.policy import Policy, Rule
from tests.engine.lamps import BO, CY, Room, light, room

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@contextmanager
def in_doubt(database: str, before: Rule) -> Iterator[tuple[Room, int]]:
    """A run under a first policy that has sent a change and does not know how it ended; nobody is at work."""
    with room(database, rules=(before,)) as made:
        made.machines.on_send = lambda machine, command: Output(None)
        made.set_to_work()
        run = made.order()
        if before.approvals:
            made.click(made.asked(run), BO)
        made.doubt(run)
        made.workers.pop().stop()
        yield made, run


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (Rule("old", 0), Rule("new", 1)),
        (Rule("old", 1), Rule("new", None)),
        (Rule("old", 1), Rule("new", 1, max_targets=0)),
        (Rule("old", 1), Rule("new", 2)),
    ],
    ids=["approval wanted now", "forbidden now", "no target now", "two wanted now"],
)
def test_a_plan_under_way_is_finished_under_the_rule_it_began_with(database: str, before: Rule, after: Rule) -> None:
    with in_doubt(database, before) as (made, run):
        made.set_to_work(replace(made.engine, policy=Policy((after,))))
        light(made, "hall", "bright")
        made.click(made.doubt(run), CY, Verdict.DONE)
        assert made.outcome(run) is Outcome.FIXED


def test_a_withdrawn_question_is_no_consent(database: str) -> None:
    with room(database) as made:
        made.set_to_work()
        run = made.order()
        ask = made.asked(run)
        with made.durable.transaction() as tx:
            made.store.withdraw(tx, ask.id, Verdict.CANCEL.value)
            made.durable.wake(tx, made.run(run).task)
        assert made.outcome(run) is Outcome.CANCELLED
        assert made.sent() == []
