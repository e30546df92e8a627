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


FACTS: dict[str, Callable[..., "Fact[Any]"]] = {}
_MADE: ContextVar[dict[tuple[str, tuple[Any, ...]], Fact[Any]] | None] = ContextVar("_MADE", default=None)


@contextmanager
def made_once() -> Iterator[None]:
    """In this context a registered function makes a fact once for the same arguments: whoever runs diagnoses again and
    again would spend most of the time on making their facts anew.
    """
    before = _MADE.set({})
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
        known = _MADE.get()
        if known is None:
            return _registered(make(*args, **kwargs), name, args)
        if (name, args) not in known:
            known[name, args] = _registered(make(*args, **kwargs), name, args)
        return known[name, args]

    FACTS[name] = made
    return made


def _registered(new: Fact[T], name: str, arguments: tuple[Any, ...]) -> Fact[T]:
    return Fact(new.asks, new.on, new.question, new.parse, new.sampled, FactRef(name, arguments))
