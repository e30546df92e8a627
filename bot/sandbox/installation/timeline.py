"""Time inside the simulated installation: it may run faster than outside, and things happen when their time comes.

Nothing here has a thread: whoever looks at the installation first lets everything happen that is due (`advance`).
"""

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

POLL = 0.05  # real seconds between two looks at whether a waiting program should end


class Ended(Exception):
    """The program that waits was ended from outside: its connection, its time limit or its machine is gone."""

    out = ""  # what was said before
    err = ""


class RealClock:
    """Seconds since the start, `speed` times as fast as outside."""

    def __init__(self, speed: float = 1.0) -> None:
        self.speed = speed
        self._start = time.monotonic()

    def seconds(self) -> float:
        return (time.monotonic() - self._start) * self.speed

    def wait(self, condition: threading.Condition, seconds: float) -> None:
        condition.wait(min(seconds / self.speed, POLL))


class ManualClock:
    """A clock that stands still until told; waiting for it moves it. For tests without servers."""

    def __init__(self) -> None:
        self._now = 0.0

    def seconds(self) -> float:
        return self._now

    def wait(self, _condition: threading.Condition, seconds: float) -> None:
        self._now += seconds


@dataclass(order=True)
class Event:
    due: float
    order: int
    do: Callable[[], None] = field(compare=False)
    cancelled: bool = field(default=False, compare=False)


class Timeline:
    """What will happen when; its lock guards the whole installation."""

    def __init__(self, clock: RealClock | ManualClock | None = None, origin: datetime | None = None) -> None:
        self.clock = clock or RealClock()
        self.origin = origin or datetime.now(UTC)
        self._changed = threading.Condition(threading.RLock())
        self._events: list[Event] = []
        self._order = itertools.count()
        self._happening: float | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """The state as it is now, and nobody else changes it meanwhile."""
        with self._changed:
            self.advance()
            yield

    def now(self) -> float:
        """Seconds since the start; while something happens, the moment it was due."""
        return self.clock.seconds() if self._happening is None else self._happening

    def date(self, seconds: float | None = None) -> datetime:
        return self.origin + timedelta(seconds=self.now() if seconds is None else seconds)

    def after(self, seconds: float, do: Callable[[], None]) -> Event:
        event = Event(self.now() + seconds, next(self._order), do)
        with self._changed:
            heapq.heappush(self._events, event)
            self._changed.notify_all()
        return event

    def advance(self) -> None:
        """Let everything happen that is due."""
        if self._happening is not None:
            return
        while self._events and self._events[0].due <= self.clock.seconds():
            event = heapq.heappop(self._events)
            if not event.cancelled:
                self._happen(event)

    def _happen(self, event: Event) -> None:
        self._happening = event.due
        try:
            event.do()
        finally:
            self._happening = None
            self._changed.notify_all()

    def pause(self, seconds: float, ended: Callable[[], bool] = lambda: False) -> None:
        """Wait with the lock given back; raises Ended when `ended` says so before the time is over."""
        self.until(lambda: False, seconds, ended)

    def until(self, met: Callable[[], bool], seconds: float, ended: Callable[[], bool] = lambda: False) -> bool:
        """Wait until `met`, at most so many seconds; whether it was."""
        end = self.now() + seconds
        while not met():
            if ended():
                raise Ended
            left = end - self.now()
            if left <= 0:
                return False
            self.clock.wait(self._changed, min(left, self._next()))
            self.advance()
        return True

    def _next(self) -> float:
        """Seconds until the next event, a hair more than none, so that a standing clock moves."""
        return max(self._events[0].due - self.clock.seconds(), 0.001) if self._events else 3600.0

    def run(self, stop: Callable[[], bool]) -> None:
        """Let things happen in time even when nobody looks, until told to stop."""
        with self._changed:
            while not stop():
                self.advance()
                self.clock.wait(self._changed, self._next())
