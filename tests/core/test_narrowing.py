"""A fix may be carried out for fewer rows than were agreed to, and for nothing else."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.command import sh
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.plan import narrows
from bot.core.question import Rows
from bot.core.sql import Query, Statement
from bot.core.target import Role, Target

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")
UPDATE = "UPDATE users SET is_syncing = false WHERE is_syncing AND id = ANY(%s)"
ids = st.lists(st.integers(1, 10**9), min_size=2, max_size=8, unique=True)


@fact
def syncing(found: tuple[int, ...]) -> Fact[int]:
    query = Query("SELECT count(*) AS n FROM users WHERE is_syncing AND id = ANY(%s)", (found,))
    return Fact(f"how many of {len(found)} are syncing", Role.PLATFORM, query, _count)


def _count(said: Rows) -> int:
    return int(str(said.rows[0]["n"]))


def clear(*found: int) -> Fix:
    """Three ways to name items: a bound parameter, a comma list behind an option, and the arguments of a fact."""
    names = ",".join(f"user{no}" for no in found)
    return Fix(
        "users.clear",
        f"Clear the flag of {len(found)} users",
        PLATFORM,
        (
            Change("Clear", Statement(UPDATE, (found,), rows=len(found))),
            Change("Sync again", sh("replicated", "admin", "--no-tty", "sync_users", f"--logins={names}").sudo()),
            Change("Remove", sh("docker", "rm", "-f", *map(str, found)).sudo()),
            *(Change(f"Greet {no}", sh("greet", f"user{no}")) for no in found),
            Wait(syncing(found), equals(0), timedelta(minutes=1)),
        ),
        Risk.DATA,
        saves=(syncing(found),),
        undo=f"set it again for {found}",
        items=(*map(str, found), *(f"user{no}" for no in found)),
    )


@given(ids, st.data())
def test_fewer_items_are_a_part_of_what_was_agreed(found: list[int], data: st.DataObject) -> None:
    left = data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=len(found) - 1, unique=True))
    assert narrows(clear(*left), clear(*found))
    assert not narrows(clear(*found), clear(*left))


def test_a_step_about_two_items_is_not_dropped_for_one() -> None:
    both = Change("Swap", sh("swap", "1", "2"))
    agreed = replace(clear(1, 2), steps=(*clear(1, 2).steps, both))
    assert not narrows(clear(1), agreed)


def test_the_same_items_are_not_fewer() -> None:
    assert not narrows(clear(1, 2), clear(1, 2))


def test_another_item_is_not_a_part() -> None:
    assert not narrows(clear(1, 9), clear(1, 2, 3))


@pytest.mark.parametrize(
    "other",
    [
        replace(clear(1), id="users.other"),
        replace(clear(1), risk=Risk.DESTROYS),
        replace(clear(1), target=Target("platform-2", Role.PLATFORM, "prod")),
        replace(clear(1), steps=clear(1).steps[:3]),
        replace(clear(1), steps=(Change("Clear", Statement(UPDATE[:38], rows=1)), *clear(1).steps[1:])),
        replace(clear(1), steps=(Change("Clear", Statement(UPDATE, ((1,),))), *clear(1).steps[1:])),
        replace(
            clear(1),
            steps=(clear(1).steps[0], Change("All", sh("replicated", "admin").sudo()), *clear(1).steps[2:]),
        ),
        replace(clear(1), ensure=(Change("More", sh("true")),)),
        replace(clear(1), items=()),
    ],
    ids=["id", "risk", "target", "steps", "sql", "row count", "command", "ensure", "no items"],
)
def test_whatever_else_differs_needs_a_new_approval(other: Fix) -> None:
    assert not narrows(other, clear(1, 2))
