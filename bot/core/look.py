"""How a diagnosis sees the world: it can ask, it cannot change."""

from datetime import timedelta
from typing import Any, Protocol, TypeVar

from bot.core.fact import Fact
from bot.core.target import Site

T = TypeVar("T")


class Look(Protocol):
    """Answers facts from the round's cache; what is not there yet is asked, and the diagnosis runs again."""

    @property
    def site(self) -> Site: ...

    def __call__(self, fact: Fact[T]) -> T: ...

    def together(self, *facts: Fact[Any]) -> None:
        """Ask these in one round, before using them one by one; it only saves round trips."""
        ...

    def earlier(self, fact: Fact[T], at_least: timedelta) -> T | None:
        """The fact as it was at least that long ago, and not over an hour longer; None when nobody has looked then,
        or what was seen told nothing.
        """
        ...


class NotYet(BaseException):
    """Not asked yet in this round. A BaseException, so that no handler's `except Exception` swallows it."""

    def __init__(self, *facts: Fact[Any]) -> None:
        super().__init__(", ".join(fact.asks for fact in facts))
        self.facts = facts


class CannotLook(BaseException):
    """Asked, but there was no answer: the engine turns it into a finding of its own."""

    def __init__(self, fact: Fact[Any], why: str, cause: str) -> None:
        super().__init__(why)
        self.fact, self.why, self.cause = fact, why, cause
