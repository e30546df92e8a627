"""What is shown is what runs: a plan survives being stored, and its digest covers everything that will be done."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.command import sh
from bot.core.errors import Permanent
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.plan import Plan, plan_from_json
from bot.core.question import Output
from bot.core.sql import Statement
from bot.core.target import Role, Site, Target

WORKER = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")
OTHER = Target("worker-2", Role.WORKER, "prod", "10.0.0.12")
SITE = Site("prod", "travis.example.com", "2.2", (WORKER, OTHER))
words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20)


def _length(said: Output) -> int:
    return len(said.out)


@fact
def length(machine: Target, word: str) -> Fact[int]:
    return Fact(f"length of {word}", machine, sh("cat", word), _length)


FIX = Fix(
    "worker.x",
    "Do x",
    WORKER,
    (Change("X", sh("x", "1").sudo(), slow=True), Wait(length(WORKER, "w"), equals(3), timedelta(minutes=1))),
    Risk.INTERRUPTS,
    saves=(length(WORKER, "s"),),
    undo="undo x",
    ensure=(Change("Y", sh("y")),),
)
PLAN = Plan((FIX,), (("worker-1", "10.0.0.11:22 SHA256:a"),))


def stored(plan: Plan) -> Plan:
    return plan_from_json(json.loads(json.dumps(plan.to_json())), SITE)


def test_a_plan_is_the_same_after_it_was_stored() -> None:
    assert stored(PLAN) == PLAN
    assert stored(PLAN).digest == PLAN.digest


@given(st.lists(words, min_size=1, max_size=5))
def test_any_words_come_back_as_they_were(hostile: list[str]) -> None:
    command = sh("echo", *hostile) | sh("wc", *hostile).sudo()
    plan = replace(PLAN, fixes=(replace(FIX, steps=(Change("say", command),)),))
    (fix,) = stored(plan).fixes
    assert next(fix.changes()).command == command


def test_a_statement_comes_back_with_its_parameters() -> None:
    statement = Statement("UPDATE users SET is_syncing = false WHERE id = ANY(%s)", ((1, 2),), rows=2)
    plan = replace(PLAN, fixes=(replace(FIX, steps=(Change("reset", statement),)),))
    (fix,) = stored(plan).fixes
    assert next(fix.changes()).command == statement


@pytest.mark.parametrize(
    "other",
    [
        replace(FIX, target=OTHER),
        replace(FIX, target=replace(WORKER, address="10.0.0.99")),
        replace(FIX, steps=FIX.steps[::-1]),
        replace(FIX, steps=(Change("X", sh("x", "2").sudo(), slow=True), *FIX.steps[1:])),
        replace(FIX, steps=(Change("X", sh("x", "1"), slow=True), *FIX.steps[1:])),
        replace(FIX, steps=(*FIX.steps[:1], Wait(length(WORKER, "w"), equals(4), timedelta(minutes=1)))),
        replace(FIX, steps=(*FIX.steps[:1], Wait(length(WORKER, "v"), equals(3), timedelta(minutes=1)))),
        replace(FIX, risk=Risk.DATA),
        replace(FIX, saves=()),
        replace(FIX, undo="nothing"),
        replace(FIX, ensure=()),
    ],
)
def test_the_digest_covers_everything_that_will_be_done(other: Fix) -> None:
    assert Plan((other,), PLAN.identities).digest != PLAN.digest


def test_the_digest_covers_the_host_key() -> None:
    assert replace(PLAN, identities=(("worker-1", "10.0.0.11:22 SHA256:b"),)).digest != PLAN.digest


def test_a_fact_nobody_can_make_again_is_refused() -> None:
    loose = Fact("loose", WORKER, sh("cat"), _length)
    plan = replace(PLAN, fixes=(replace(FIX, steps=(Wait(loose, equals(1), timedelta(seconds=1)),)),))
    with pytest.raises(Permanent, match="@fact"):
        plan.to_json()


def test_a_plan_of_another_version_says_what_it_cannot_do() -> None:
    old = json.loads(json.dumps(PLAN.to_json()).replace("length", "breadth"))
    with pytest.raises(Permanent, match="this version of opsbot cannot ask"):
        plan_from_json(old, SITE)


def test_a_machine_that_is_gone_is_said() -> None:
    with pytest.raises(Permanent, match="no longer a machine of prod"):
        plan_from_json(PLAN.to_json(), replace(SITE, targets=(OTHER,)))
