"""How a run can end, and the exit status that says so to a script."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """The last word of a run; the second value is what `opsbot run` exits with."""

    HEALTHY = ("healthy", 0)
    FIXED = ("fixed", 0)
    DONE = ("done", 0)
    PARTLY_FIXED = ("partly fixed", 1)
    UNFIXED = ("not fixed", 1)
    FOUND = ("found, nothing changed", 1)
    FAILED = ("failed", 1)
    COULD_NOT_LOOK = ("could not look", 3)
    DECLINED = ("declined", 4)
    EXPIRED = ("expired", 4)
    CANCELLED = ("cancelled", 4)
    IN_DOUBT = ("in doubt", 5)
    REFUSED = ("refused", 6)

    def __init__(self, words: str, exit_status: int) -> None:
        self.words = words
        self.exit_status = exit_status


@dataclass(frozen=True)
class Ending:
    """How a run ended, as a sentence."""

    outcome: Outcome
    text: str
