"""What is wrong, on which machine, and how one knows."""

from dataclasses import dataclass
from enum import IntEnum

from bot.core.fix import Fix
from bot.core.target import Target


class Severity(IntEnum):
    """INFO is worth knowing, WARN will become a fault, BROKEN is one."""

    INFO = 1
    WARN = 2
    BROKEN = 3


@dataclass(frozen=True)
class Finding:
    """One cause on one target. `cause` is a stable id such as `worker.amqp-lost`; `fixes` are gentlest first.

    Where no fix can be sent by machine, `person` says what somebody must do, and `link` where it is described.
    `blamed` are the machines that would have to be in trouble for this to be no more than their consequence: what is
    wrong with only some of them, or with others, does not explain it. None: any of them does. `unless` are the causes
    that explain it away, where they are not those of its diagnosis.
    """

    cause: str
    severity: Severity
    target: Target
    title: str
    evidence: str = ""
    fixes: tuple[Fix, ...] = ()
    person: str = ""
    link: str = ""
    blamed: tuple[Target, ...] | None = None
    unless: tuple[str, ...] | None = None

    @property
    def key(self) -> str:
        return f"{self.cause}@{self.target.key}"

    def __str__(self) -> str:
        return self.title if self.target.name in self.title else f"{self.target}: {self.title}"
