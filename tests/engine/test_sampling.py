"""Samples: taken once a slot by whichever process is first, and found again by `look.earlier`."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Event

import pytest

from bot.core.command import sh
from bot.core.fact import Fact, fact
from bot.core.finding import Finding
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.question import answer_from_json
from bot.core.target import Role, Target
from bot.engine.sampling import Sampling
from tests.engine.lamps import room

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@fact
def heat(machine: Target) -> Fact[int]:
    return Fact(f"heat of {machine}", machine, sh("heat"), lambda said: int(said.out), sampled=True)


def warm(look: Look, machine: Target) -> Iterator[Finding]:
    look(heat(machine))
    yield from ()


def never(look: Look, machine: Target) -> Iterator[Finding]:
    raise AssertionError("it compares nothing, so nobody asks it by itself")


def test_each_slot_is_sampled_once_and_found_again(database: str) -> None:
    with room(database) as made:
        made.machines.answers = {"hall": {"heat": "20"}, "attic": {"heat": "5"}}
        warmth = Diagnosis("warm", "comfort", Role.WORKER, "?", warm, compares=True)
        other = Diagnosis("other", "comfort", Role.WORKER, "?", never)
        both = [warmth, other]
        one = Sampling(made.store, made.durable, made.engine.diagnosers, both, made.clock, timedelta(hours=1))
        peer = replace(one)
        assert sorted([one.take("home", Event()), peer.take("home", Event())]) == [0, 2]
        with made.durable.transaction() as tx:
            now = datetime.now(UTC) + timedelta(seconds=1)
            kept = made.store.earlier(tx, "home/attic", "heat", now)
            none = made.store.earlier(tx, "home/attic", "heat", now - timedelta(minutes=5))
    assert kept is not None
    assert answer_from_json(kept).out == "5"  # type: ignore[union-attr]
    assert none is None
