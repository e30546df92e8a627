"""Facts: a question, whom to ask, and a pure function that reads the answer."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Generic, ParamSpec, TypeVar

from bot.core.question import Question
from bot.core.target import Role, Target

T = TypeVar("T")
P = ParamSpec("P")


@dataclass(frozen=True)
class FactRef:
    """Where a fact is made, so that a stored plan can make it again: module-qualified name and arguments."""

    name: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Fact(Generic[T]):
    """One thing that can be known.

    `asks` is the question in words ("Is travis-worker running on worker-1?"); `on` is a machine, or a role when any
    machine of that role can answer. `parse` gets the answer object that belongs to the question and raises `Unknown`
    when it cannot tell. A `sampled` fact is also stored every five minutes, so that `look.earlier` can compare.
    """

    asks: str
    on: Target | Role
    question: Question
    parse: Callable[[Any], T] = field(compare=False)
    sampled: bool = False
    ref: FactRef | None = field(default=None, compare=False)

    def __str__(self) -> str:
        return self.asks


@dataclass(frozen=True)
class _Made:
    """What was made in this context: facts by their arguments, and what was derived by the identities of its values."""

    facts: dict[tuple[str, tuple[Any, ...]], Fact[Any]] = field(default_factory=dict)
    derived: dict[tuple[Any, ...], tuple[Any, tuple[object, ...]]] = field(default_factory=dict)


FACTS: dict[str, Callable[..., "Fact[Any]"]] = {}
_MADE: ContextVar[_Made | None] = ContextVar("_MADE", default=None)


@contextmanager
def made_once() -> Iterator[None]:
    """In this context a registered function makes a fact once for the same arguments, and a `derived` one works once:
    whoever runs diagnoses again and again would spend most of the time on the same.
    """
    before = _MADE.set(_Made())
    try:
        yield
    finally:
        _MADE.reset(before)


def fact(make: Callable[P, Fact[T]]) -> Callable[P, Fact[T]]:
    """Register a function that makes a fact; only such facts can be waited for, since a plan must survive a restart."""
    name = f"{make.__module__}.{make.__qualname__}"

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> Fact[T]:
        if kwargs:
            raise TypeError(f"{name} takes its arguments by position, since they are stored with the plan")
        context = _MADE.get()
        if context is None:
            return _registered(make(*args, **kwargs), name, args)
        known = context.facts
        if (name, args) not in known:
            known[name, args] = _registered(make(*args, **kwargs), name, args)
        return known[name, args]

    FACTS[name] = made
    return made


def derived(work: Callable[P, T]) -> Callable[P, T]:
    """A pure function of what facts said, worked out once in a look: every worker asks what the broker sees of all.

    The same values are told by their identity, since comparing what a fleet said costs as much as working it out. They
    are kept, so that nothing else gets that identity.
    """

    @functools.wraps(work)
    def once(*said: P.args, **named: P.kwargs) -> T:
        context = _MADE.get()
        if context is None or named:
            return work(*said, **named)
        key = (work, *map(id, said))
        if key not in context.derived:
            context.derived[key] = (work(*said, **named), said)
        value: T = context.derived[key][0]
        return value

    return once


def _registered(new: Fact[T], name: str, arguments: tuple[Any, ...]) -> Fact[T]:
    return Fact(new.asks, new.on, new.question, new.parse, new.sampled, FactRef(name, arguments))
