"""A click counts once, and its person is told the truth, also when the process dies right after it was counted."""

from collections.abc import Iterator
from typing import Any

import pytest

from bot.core.approval import Verdict
from bot.core.errors import LeaseLost, Refused
from bot.core.outcome import Outcome
from bot.core.people import Part
from bot.core.question import Output
from bot.core.request import Ask, Request
from bot.engine.policy import Rule
from tests.engine.lamps import ANA, BO, CY, Room, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def forgetful(database: str) -> Iterator[tuple[Room, list[str]]]:
    """A room whose process dies once after each click and each question, when all of it is committed."""
    died: list[str] = []
    with room(database) as made:

        def carry(claim: Any) -> None:
            made.engine.carry(claim)
            if claim.name in ("click", "ask") and claim.task not in died:
                died.append(claim.task)
                raise LeaseLost("killed before the task could be called done")

        made.set_to_work(lease=1, carry=carry)
        yield made, died


def told(made: Room) -> list[str]:
    with made.pool.connection() as connection:
        found = connection.execute("SELECT body FROM opsbot.outbox WHERE kind = 'private' ORDER BY id").fetchall()
    return [str(row["body"]["text"]) for row in found]


def audited(made: Room, what: str) -> int:
    with made.pool.connection() as connection:
        row = connection.execute("SELECT count(*) AS n FROM opsbot.audit WHERE what = %s", [what]).fetchone()
    return int(row["n"]) if row else 0


def ended(made: Room, tasks: int) -> bool:
    with made.pool.connection() as connection:
        sql = "SELECT count(*) AS n FROM absurd.t_opsbot WHERE task_name IN ('click', 'ask') AND state = 'completed'"
        row = connection.execute(sql).fetchone()
    return bool(row and row["n"] == tasks)


def test_a_click_counted_before_a_crash_is_not_called_too_late(forgetful: tuple[Room, list[str]]) -> None:
    made, died = forgetful

    def lit(machine: str, command: str) -> Output:
        light(made, machine, "bright")
        return Output(0)

    made.machines.on_send = lit
    run = made.order()
    made.click(made.asked(run), BO)
    assert made.outcome(run) is Outcome.FIXED
    until(lambda: ended(made, 1), 10, "the click has ended")
    assert died
    assert told(made) == []
    assert audited(made, "refused") == 0


def test_who_typed_as_another_person_is_a_party_by_every_route(database: str) -> None:
    """Bo orders as Ana; then Bo's own click in Slack, and words typed as Cy, count as little as the requester's."""
    with room(database) as made:
        made.set_to_work()
        order = Request(Ask.RUN, "diagnose", "darkness", site="home")
        run = made.desk.file(order, ANA, None, made.key(), BO).run or 0
        ask = made.asked(run)
        assert made.desk.parts(run, BO) == {Part.TYPED}
        assert made.desk.parts(run, ANA) == {Part.ASKED}
        made.click(ask, BO)
        until(lambda: audited(made, "refused") == 1, 10, "it is on record")
        assert "under another name" in told(made)[0]
        with pytest.raises(Refused, match="You had a part in this run yourself"):
            made.desk.file(Request(Ask.APPROVE, number=run), CY, None, made.key(), BO)
        assert made.open_ask(run) == ask
        made.click(ask, CY)
        until(lambda: made.desk.parts(run, CY) == {Part.DECIDED}, 10, "somebody else decides")


def test_an_answer_is_given_once(forgetful: tuple[Room, list[str]]) -> None:
    made, _ = forgetful
    run = made.order()
    made.asked(run)
    made.desk.file(Request(Ask.CANCEL, number=run), ANA, None, made.key())
    assert made.outcome(run) is Outcome.CANCELLED
    until(lambda: ended(made, 1), 10, "the question has ended")
    assert len(told(made)) == 1
    assert "told to stop" in told(made)[0]
    assert audited(made, "cancel") == 1


def test_who_approved_already_is_told_that_another_one_is_missing(database: str) -> None:
    with room(database, rules=(Rule("policy[0]", 2),)) as made:
        made.set_to_work()
        ask = made.asked(made.order())
        made.click(ask, BO)
        made.click(ask, BO)
        until(lambda: told(made), 10, "the second click is answered")
        assert told(made) == [
            "Your decision did not count: you approved it already; of the 2 that it needs, another one is missing."
        ]


def test_a_second_click_is_told_how_the_first_one_ended(database: str) -> None:
    with room(database) as made:
        made.set_to_work()
        run = made.order()
        asked = made.asked(run)
        made.click(asked, BO, Verdict.DECLINE, "the release runs")
        made.ended(run)
        made.click(asked, CY)
        until(lambda: told(made), 10, "who came too late is told")
        assert told(made) == ["Your decision did not count: it was declined already by <@UBO>."]
