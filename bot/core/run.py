"""One piece of work that was asked for, from the first word to its outcome."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from bot.core.outcome import Outcome
from bot.core.people import Actor, Place


class Verb(Enum):
    """What kind of handler a run carries."""

    DIAGNOSE = "diagnose"
    ACT = "act"
    JOB = "job"


@dataclass(frozen=True)
class Order:
    """What somebody asked opsbot to do: the durable request, before it becomes a run.

    `subject` is a handler's or group's name ("builds not starting", "restart"); `targets` are machine names, none
    meaning all; `argument` is what an action is about besides them. `look_only` runs diagnose without offering fixes
    (`status`, schedules).
    """

    verb: Verb
    subject: str
    site: str
    targets: tuple[str, ...]
    because: str
    actor: Actor
    place: Place | None = None
    look_only: bool = False
    argument: str = ""

    def __str__(self) -> str:
        where = "".join(f" {each}" for each in (self.argument, ", ".join(self.targets)) if each)
        verb = "diagnose " if self.verb is Verb.DIAGNOSE else ""
        return f"{verb}{self.subject}{where} on {self.site}"


@dataclass(frozen=True)
class Run:
    """A run as the journal knows it. `id` is what people type: `show 12`."""

    id: int
    order: Order
    state: str
    created: datetime
    outcome: Outcome | None = None
    summary: str = ""
    cancelled_by: Actor | None = None
    task: str = ""

    def __str__(self) -> str:
        return f"run {self.id}: {self.order}"
