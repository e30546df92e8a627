"""What would be changed: a fix is a few steps on one machine, and says beforehand what it risks."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import Enum
from textwrap import indent
from typing import Any

from bot.core.aws import AwsCall
from bot.core.command import Command
from bot.core.fact import Fact
from bot.core.sql import Statement
from bot.core.target import Target


class Risk(Enum):
    """What a fix can cost; policy decides by it who must agree."""

    NONE = "none"
    INTERRUPTS = "interrupts"
    DATA = "data"
    DESTROYS = "destroys"

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]


_MEANINGS = {
    Risk.NONE: "reads only",
    Risk.INTERRUPTS: "running builds start again, or seconds of downtime",
    Risk.DATA: "writes data, and can be undone",
    Risk.DESTROYS: "cannot be undone",
}


@dataclass(frozen=True)
class Until:
    """What a waited-for fact must say, as a value that can be stored and read out: equals, differs from, at least."""

    relation: str
    value: Any

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS:
            raise ValueError(f"`{self.relation}` is no relation: use one of {', '.join(_RELATIONS)}")

    def met_by(self, seen: Any) -> bool:
        return bool(_RELATIONS[self.relation](seen, self.value))

    def __str__(self) -> str:
        return f"{self.relation} {self.value}"


_RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "is": lambda seen, value: seen == value,
    "is not": lambda seen, value: seen != value,
    "is at least": lambda seen, value: seen is not None and seen >= value,
}


def equals(value: object) -> Until:
    return Until("is", value)


def differs(value: object) -> Until:
    return Until("is not", value)


def at_least(value: int) -> Until:
    return Until("is at least", value)


@dataclass(frozen=True)
class Change:
    """One thing that is done to a machine, at most once.

    `command` is a program, a statement or a call of AWS' API. `slow` programs run as a named systemd unit where there
    is one, so that a lost connection neither stops nor doubles them. `needed` is asked just before: when it says False
    nothing is sent, and the report says so. `breaks_connection` expects the machine to hang up (a reboot).
    """

    does: str
    command: Command | Statement | AwsCall
    slow: bool = False
    needed: Fact[bool] | None = None
    breaks_connection: bool = False
    within: timedelta = timedelta(minutes=5)

    def __str__(self) -> str:
        return self.does


@dataclass(frozen=True)
class Wait:
    """Wait until a fact says what it should; the fix has failed when it has not by then."""

    fact: Fact[Any]
    until: Until
    within: timedelta

    def __str__(self) -> str:
        return f"wait until {self.what} (at most {readable(self.within)})"

    @property
    def what(self) -> str:
        """What is waited for, short enough for a status line."""
        return f"{self.fact} {self.until}"


@dataclass(frozen=True)
class TakeBackup:
    """Take a backup within the run, as `backup WHAT` would. The fix has failed when a part of it is missing, or when a
    proof of it failed.
    """

    what: str

    def __str__(self) -> str:
        return f"take `backup {self.what}`, and go on only when it is complete"


@dataclass(frozen=True)
class ByHand:
    """What only a person can do, such as whatever needs a key that opsbot does not have. `how` is the exact way; the
    fix goes on when somebody who may decide says that it is done.
    """

    does: str
    how: str
    within: timedelta

    def __str__(self) -> str:
        how = indent(self.how, " " * 6)  # below the step's own letter in a plan
        return f"by hand: {self.does} [at most {readable(self.within)}]:\n{how}"


Step = Change | Wait | TakeBackup | ByHand


@dataclass(frozen=True)
class Fix:
    """The order one would give, on one target: `worker-1: Restart travis-worker`.

    `ensure` runs whenever the fix ends before its last step (failure, cancel, takeover) and may have begun. `saves` is
    asked before the first change and kept with the run, `undo` says how to go back. `also_locks` names other machines
    that must stand still meanwhile. `items` are the rows, containers or people that a fix is about, as they stand in
    its commands and parameters: the look just before it may find some gone and leaves them out, but never adds one.
    """

    id: str
    title: str
    target: Target
    steps: tuple[Step, ...]
    risk: Risk
    saves: tuple[Fact[Any], ...] = ()
    undo: str = ""
    ensure: tuple[Change, ...] = ()
    also_locks: tuple[Target, ...] = field(default=())
    one_at_a_time: bool = False
    items: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.target}: {self.title}"

    def changes(self) -> Iterator[Change]:
        return (step for step in self.steps if isinstance(step, Change))

    def locks(self) -> tuple[str, ...]:
        """The keys to lock, sorted, so that two runs can never wait for each other in a ring."""
        return tuple(sorted({self.target.key, *(target.key for target in self.also_locks)}))


def placed(fix: Fix, where: Callable[[Fact[Any]], Target | None]) -> Fix:
    """The same fix, each of its facts asked of the machine that `where` names; None leaves it to its role."""

    def there(fact: Fact[Any]) -> Fact[Any]:
        return fact if (machine := where(fact)) is None else replace(fact, on=machine)

    def change(step: Change) -> Change:
        return step if step.needed is None else replace(step, needed=there(step.needed))

    def step(each: Step) -> Step:
        if isinstance(each, Wait):
            return replace(each, fact=there(each.fact))
        return change(each) if isinstance(each, Change) else each

    return replace(
        fix,
        steps=tuple(map(step, fix.steps)),
        saves=tuple(map(there, fix.saves)),
        ensure=tuple(map(change, fix.ensure)),
    )


def readable(span: timedelta) -> str:
    """A duration as people say it: `90 s`, `5 min`, `1 h 30 min`, `3 days`."""
    seconds = int(span.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    if seconds >= 2 * 86400:
        return f"{seconds // 86400} days"
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours} h {minutes} min" if hours and minutes else f"{hours} h" if hours else f"{minutes} min"
