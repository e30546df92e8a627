"""What only two looks can tell is waited for, once, and no thread is held meanwhile."""

from collections.abc import Iterator
from datetime import timedelta

import pytest

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.target import Role, Target
from tests.engine.lamps import Room, lamp, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


def dimming(look: Look, machine: Target) -> Iterator[Finding]:
    if (state := look(lamp(machine))) == "dim":
        raise Unknown("whether it gets dimmer will be seen in a moment", timedelta(seconds=1))
    if state == "dimmer":
        yield Finding("lamp.dimming", Severity.WARN, machine, f"{machine} gets dimmer", person="Change the bulb.")


@pytest.fixture
def dim(database: str) -> Iterator[Room]:
    with room(database) as made:
        made.engine.catalogue.add(Diagnosis("dimming", "poor light", Role.WORKER, "Does it get dimmer?", dimming), "e")
        light(made, "hall", "dim")
        made.set_to_work()
        yield made


def looks(made: Room, run: int) -> int:
    return len(made.story(run, "look"))


def test_a_second_look_tells(dim: Room) -> None:
    run = dim.order("poor light")
    until(lambda: dim.story(run, "waiting")[1:], 10, "it waits for the second look")
    assert "second look" in dim.story(run, "waiting")[1].data["for"]
    light(dim, "hall", "dimmer")
    ended = dim.ended(run)
    assert ended.outcome is Outcome.UNFIXED
    assert "gets dimmer" in ended.summary
    assert looks(dim, run) == 2


def test_it_waits_only_once(dim: Room) -> None:
    run = dim.order("poor light")
    assert dim.outcome(run) is Outcome.COULD_NOT_LOOK
    assert looks(dim, run) == 2


def test_a_status_waits_for_nothing(dim: Room) -> None:
    run = dim.order("poor light", look_only=True)
    assert dim.ended(run).outcome is not None
    assert looks(dim, run) == 1
