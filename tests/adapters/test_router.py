"""Each question goes to whom it is for, all of them at the same time, and comes back in its place."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Barrier
from threading import Event as Flag

import pytest

from bot.adapters.router import Router
from bot.core.command import sh
from bot.core.ports import NotSent
from bot.core.question import Answer, Output, Question, Reached, RedisRead, Rows, TcpProbe, Unanswered
from bot.core.sql import Query, Statement
from bot.core.target import Role, Target
from tests.engine.machines import Machines

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")
WITHIN = timedelta(seconds=1)


@dataclass
class Other:
    """Answers everything the same, when the others are asked too."""

    answer: Answer
    meet: Barrier
    asked: list[Question] = field(default_factory=list)

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        self.meet.wait(10)
        self.asked += questions
        return [self.answer for _ in questions]

    def identity(self, target: Target) -> str:
        return ""


def test_answers_come_in_the_order_of_the_questions() -> None:
    meet = Barrier(2)  # who is asked first waits for the other: one after the other, they would wait for ever
    rows, lines = Other(Rows(({"n": 1},)), meet), Other(Output(0, "2\n"), meet)
    machines = Machines({"platform-1": {"df": "full", "uptime": "1"}})
    router = Router(machines, {Query: rows, RedisRead: lines})
    queries, commands = (Query("SELECT 1"), Query("SELECT 2")), (sh("df"), sh("uptime"))
    questions: list[Question] = [
        queries[0],
        commands[0],
        RedisRead(("PING",)),
        TcpProbe("x", 1),
        commands[1],
        queries[1],
    ]
    said = router.ask(PLATFORM, questions, Flag())
    nobody = Unanswered("this installation is not set up to ask `connect x:1`", "not-configured")
    assert said == [rows.answer, Output(0, "full"), lines.answer, nobody, Output(0, "1"), rows.answer]
    assert rows.asked == [questions[0], questions[5]]
    assert machines.asked == [("platform-1", "df"), ("platform-1", "uptime")]


def test_one_kind_and_none_at_all() -> None:
    router = Router(Machines({"platform-1": {"df": "full"}}), {TcpProbe: Other(Reached("open"), Barrier(1))})
    assert router.ask(PLATFORM, [TcpProbe("x", 1)], Flag()) == [Reached("open")]
    assert list(router.ask(PLATFORM, [], Flag())) == []


def test_a_statement_goes_to_whom_can_write() -> None:
    writer = Machines(on_send=lambda machine, statement: Output(0, "1 rows changed"))
    router = Router(Machines(), {}, writer)
    assert router.execute(PLATFORM, Statement("UPDATE x"), WITHIN, Flag()).out == "1 rows changed"
    assert writer.sent == [("platform-1", str(Statement("UPDATE x")))]
    with pytest.raises(NotSent, match="nothing was sent"):
        Router(Machines(), {}).execute(PLATFORM, Statement("UPDATE x"), WITHIN, Flag())
