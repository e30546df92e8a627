"""Facts that a look makes once."""

from bot.core.command import sh
from bot.core.fact import Fact, derived, fact, made_once
from bot.core.question import Output
from bot.core.target import Role, Target

MADE: list[str] = []


@fact
def lit(machine: Target) -> Fact[bool]:
    MADE.append(machine.name)
    return Fact(f"Is the lamp on {machine} lit?", machine, sh("lamp", machine.address), lambda said: bool(said.out))


@derived
def counted(lamps: tuple[str, ...], more: tuple[str, ...]) -> int:
    MADE.append("counted")
    return len(lamps) + len(more)


def hall(address: str) -> Target:
    return Target("hall", Role.WORKER, "home", address)


def test_a_look_makes_a_fact_once_and_the_next_look_anew() -> None:
    MADE.clear()
    machine = hall("10.0.0.1")
    with made_once():
        assert lit(machine) is lit(machine)
        assert lit(Target("attic", Role.WORKER, "home")).on != machine
    assert MADE == ["hall", "attic"]
    with made_once():
        assert lit(machine).parse(Output(0, "on"))
    assert MADE == ["hall", "attic", "hall"]


def test_what_one_look_made_is_not_taken_for_a_machine_that_has_moved_since() -> None:
    """Targets of the same name are equal, whatever their address is."""
    with made_once():
        before = lit(hall("10.0.0.1"))
    with made_once():
        moved = lit(hall("10.0.0.2"))
    assert (before.question, moved.question) == (sh("lamp", "10.0.0.1"), sh("lamp", "10.0.0.2"))


def test_outside_of_a_look_nothing_is_kept() -> None:
    assert lit(hall("10.0.0.1")) is not lit(hall("10.0.0.1"))
    assert lit(hall("10.0.0.1")) == lit(hall("10.0.0.1"))


def test_what_is_derived_is_worked_out_once_in_a_look_for_the_same_values() -> None:
    MADE.clear()
    lamps, others = tuple("ab"), tuple("ab")
    with made_once():
        assert [counted(lamps, others) for _ in range(3)] == [4, 4, 4]
        assert counted(lamps, ("attic",)) == 3
    assert MADE == ["counted"] * 2
    assert counted(lamps, others) == counted(lamps, others) == 4
    with made_once():
        assert counted(others, lamps) == 4
    assert MADE == ["counted"] * 5


def test_what_is_derived_is_not_taken_for_that_of_a_value_that_is_gone() -> None:
    with made_once():
        assert [counted(tuple("x" * size), ()) for size in range(50)] == list(range(50))
