"""Schedules in cron syntax: every process counts the slots, the idempotency key gives each to one."""

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from cronsim import CronSim

from bot.core.errors import OpsbotError
from bot.core.ports import Clock

log = logging.getLogger(__name__)
LATEST = timedelta(minutes=5)  # a slot missed for longer (everything was down) is left out


@dataclass(frozen=True)
class Slot:
    """What runs when: cron syntax in UTC, the words one would say, and the installation."""

    cron: str
    run: str
    on: str


class Schedule:
    """Gives each slot's order when its time has come: `give(slot, key)`; the key is the same in every process."""

    def __init__(self, slots: Iterable[Slot], give: Callable[[Slot, str], None], clock: Clock) -> None:
        self._slots = tuple(slots)
        self._give = give
        self._clock = clock

    def run(self, stop: threading.Event) -> None:
        """Until stopped; looks every few seconds, so that a clock that is set does no harm."""
        since = self._clock.now()
        while self._slots and not stop.wait(5):
            now = self._clock.now()
            if self.give_due(max(since, now - LATEST), now):
                since = now

    def give_due(self, since: datetime, now: datetime) -> bool:
        """Give every order due after `since` up to `now`; False when one could not be given, to be tried again."""
        given = [self._given(slot, at) for slot in self._slots for at in _due(slot.cron, since, now)]
        return all(given)

    def _given(self, slot: Slot, at: datetime) -> bool:
        try:
            self._give(slot, f"cron:{slot.cron}:{slot.run}:{slot.on}:{at.isoformat()}")
        except OpsbotError as error:
            log.warning("the schedule `%s` (%s) could not be started: %s", slot.run, slot.cron, error)
            return False
        return True


def _due(cron: str, since: datetime, now: datetime) -> list[datetime]:
    found: list[datetime] = []
    for at in CronSim(cron, since):
        if at > now:
            return found
        found.append(at)
    return found
