"""Slow changes are named units on the machine: what is said of one is what the machine says, or that nobody knows."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

import bot.engine.changing
from bot.core.approval import Verdict
from bot.core.command import sh
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.question import Answer, Output, Unanswered
from bot.core.target import Role, Target
from tests.engine.lamps import ANA, BO, CY, Room, lamp, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
SHOWN = (
    "LoadState={load}\nActiveState={active}\nSubState={sub}\nResult=success\nExecMainStatus=0\nExecMainCode={code}\n"
)
GONE = SHOWN.format(load="not-found", active="inactive", sub="dead", code=0)
RUNNING = SHOWN.format(load="loaded", active="active", sub="running", code=0)
DONE = SHOWN.format(load="loaded", active="active", sub="exited", code=1)


def paint(machine: Target) -> Fix:
    change = Change("Paint", sh("paint"), slow=True, within=timedelta(seconds=30))
    return Fix("lamp.paint", "Paint the lamp", machine, (change,), Risk.INTERRUPTS)


def unpainted(look: Look, machine: Target) -> Iterator[Finding]:
    if look(lamp(machine)) == "dark":
        yield Finding("lamp.unpainted", Severity.BROKEN, machine, f"{machine} is dark", fixes=(paint(machine),))


@dataclass
class Systemd:
    """One unit on the hall: runs until it is told otherwise."""

    made: Room
    said: str = GONE
    started: int = 0
    stopped: int = 0
    away: bool = False
    commands: list[str] = field(default_factory=list)

    def ask(self, machine: str, question: str) -> Answer | Unanswered | None:
        if not question.startswith("systemctl show opsbot-"):
            return None
        return Unanswered("hall does not answer") if self.away else Output(0, self.said)

    def send(self, machine: str, command: str) -> Output:
        self.commands.append(command)
        if "systemd-run" in command:
            self.started += 1
            self.said = RUNNING
        if "systemctl stop" in command:
            self.stopped += 1
            if self.away:
                return Output(None)
            self.said = GONE
        return Output(0)

    def ended(self) -> None:
        self.said = DONE
        light(self.made, "hall", "bright")


@pytest.fixture
def painted(database: str) -> Iterator[tuple[Room, Systemd]]:
    with room(database) as made:
        systemd = Systemd(made)
        answer = made.machines._answer

        def answered(machine: str, question: str) -> Answer | Unanswered:
            return systemd.ask(machine, question) or answer(machine, question)

        made.machines._answer = answered  # type: ignore[method-assign]
        made.machines.on_send = systemd.send
        made.engine.catalogue.add(Diagnosis("unpainted", "paint", Role.WORKER, "Is it painted?", unpainted), "e")
        made.set_to_work()
        yield made, systemd


def cancel(made: Room, run: int) -> None:
    with made.durable.transaction() as tx:
        assert made.store.cancel(tx, run, ANA)
        made.durable.wake(tx, made.run(run).task)


def begun(made: Room, systemd: Systemd) -> int:
    run = made.order("paint")
    made.click(made.asked(run), BO)
    until(lambda: systemd.started, 15, "the unit is started")
    return run


def test_a_unit_that_ends_by_itself_is_done(painted: tuple[Room, Systemd]) -> None:
    made, systemd = painted
    run = begun(made, systemd)
    systemd.ended()
    assert made.outcome(run) is Outcome.FIXED
    assert systemd.started == 1


def test_a_cancelled_unit_is_stopped(painted: tuple[Room, Systemd]) -> None:
    made, systemd = painted
    run = begun(made, systemd)
    cancel(made, run)
    assert made.outcome(run) is Outcome.CANCELLED
    assert systemd.stopped


def test_a_unit_that_cannot_be_stopped_is_in_doubt(painted: tuple[Room, Systemd]) -> None:
    made, systemd = painted
    run = begun(made, systemd)
    systemd.away = True
    cancel(made, run)
    assert made.outcome(run) is Outcome.IN_DOUBT
    results = [event.data["result"] for event in made.story(run, "change")]
    assert "failed" not in results


def test_a_unit_that_had_ended_is_not_called_stopped(painted: tuple[Room, Systemd]) -> None:
    made, systemd = painted
    run = begun(made, systemd)
    systemd.away = True
    until(lambda: made.run(run).state == "running", 5, "it waits")
    cancel_when_done(made, systemd, run)
    made.ended(run)
    results = [event.data["result"] for event in made.story(run, "change")]
    assert results[-1] == "done"


def cancel_when_done(made: Room, systemd: Systemd, run: int) -> None:
    """The machine is back, and the unit has ended, right before anybody could look."""
    workers = made.workers.pop()
    workers.stop()
    systemd.away = False
    systemd.ended()
    cancel(made, run)
    made.set_to_work()


def test_a_unit_started_anew_gets_its_whole_time(
    painted: tuple[Room, Systemd], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, systemd = painted
    monkeypatch.setattr(bot.engine.changing, "UNIT_GRACE", timedelta(seconds=-29), raising=False)
    run = begun(made, systemd)
    systemd.away = True
    doubt = made.doubt(run)
    systemd.away, systemd.said = False, GONE
    made.click(doubt, CY, Verdict.AGAIN)
    until(lambda: systemd.started == 2, 15, "it is started anew")
    monkeypatch.setattr(bot.engine.changing, "UNIT_GRACE", timedelta(seconds=30))
    until(lambda: systemd.commands.count(systemd.commands[0]) == 2, 5, "under the same name")
    systemd.ended()
    assert made.outcome(run) is Outcome.FIXED
    asked = [event for event in made.story(run, "change") if event.data["result"] == "in doubt"]
    assert len(asked) == 1


def test_a_doubt_that_the_machine_settles_later_is_closed(painted: tuple[Room, Systemd], monkeypatch: Any) -> None:
    made, systemd = painted
    monkeypatch.setattr(bot.engine.changing, "UNIT_GRACE", timedelta(seconds=-29), raising=False)
    run = begun(made, systemd)
    systemd.away = True
    doubt = made.doubt(run)
    systemd.away = False
    systemd.ended()
    with made.durable.transaction() as tx:
        made.durable.wake(tx, made.run(run).task)
    assert made.outcome(run) is Outcome.FIXED
    with made.durable.transaction() as tx:
        closed = made.store.approval(tx, doubt.id)
    assert closed is not None
    assert closed.state == "cancel"


def test_a_unit_that_is_gone_after_it_was_there_is_not_started_again(painted: tuple[Room, Systemd]) -> None:
    made, systemd = painted
    run = begun(made, systemd)
    systemd.said = GONE  # the machine was restarted
    doubt = made.doubt(run)
    assert systemd.started == 1
    made.click(doubt, CY, Verdict.STOP)
    assert made.outcome(run) is Outcome.IN_DOUBT
    assert systemd.started == 1


def test_ensure_runs_when_nobody_answers_a_doubt(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot.engine.changing, "DOUBT_OPEN_FOR", timedelta(seconds=1))
    with room(database) as made:
        made.machines.on_send = lambda machine, command: Output(None) if command == "tap" else Output(0)
        made.set_to_work()
        run = made.order()
        made.click(made.asked(run), BO)
        assert made.outcome(run) is Outcome.IN_DOUBT
        assert made.sent() == ["tap", "untap"]
