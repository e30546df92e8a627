"""What somebody said, understood: the one grammar of slash command, mention and command line."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Ask(Enum):
    """The verbs people use. RUN and STATUS start a durable run, the others answer or decide."""

    RUN = "run"
    STATUS = "status"
    RUNS = "runs"
    SHOW = "show"
    CANCEL = "cancel"
    CAN = "can"
    HELP = "help"
    APPROVE = "approve"
    DECLINE = "decline"
    DONE = "done"
    AGAIN = "again"
    STOP = "stop"
    BACKUPS = "backups"
    BACKUP = "backup"
    RESTORE = "restore"


STARTS: Final = frozenset({Ask.RUN, Ask.STATUS})
EVERYTHING: Final = "everything"  # what a run of STATUS is about
A_BACKUP: Final = "backup"  # the argument of a CANCEL whose number is a backup's


@dataclass(frozen=True)
class Request:
    """A sentence in parts.

    RUN has `kind` (`diagnose`, `act`, `job`), `subject`, `targets`, `site`, `because`, and `argument` where an
    action is about something besides a machine, or a job about the number of a backup. SHOW, CANCEL, APPROVE and
    DECLINE have `number` (a run), BACKUP and RESTORE that of a backup, as has CANCEL with the argument A_BACKUP.
    DECLINE has `because`, APPROVE may have the beginning of a plan's digest as its `argument`. CAN has `who` (user id)
    and the rest of a RUN.
    """

    ask: Ask
    kind: str = ""
    subject: str = ""
    targets: tuple[str, ...] = ()
    site: str = ""
    because: str = ""
    number: int | None = None
    who: str = ""
    look_only: bool = False
    argument: str = ""


@dataclass(frozen=True)
class Vocabulary:
    """Every name the grammar can meet: from the catalogue and the configuration.

    `diagnoses`: situations and diagnoses; `actions` and `jobs`: names; `machines`: site name -> ((machine, role), ...);
    `action_roles`: action -> role that its target must have; `action_takes`: action -> what it is about besides a
    machine, such as a login; `job_takes`: the same of jobs.
    """

    command: str
    diagnoses: tuple[str, ...]
    actions: tuple[str, ...]
    jobs: tuple[str, ...]
    machines: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]
    action_roles: tuple[tuple[str, str], ...] = ()
    action_takes: tuple[tuple[str, str], ...] = ()
    job_takes: tuple[tuple[str, str], ...] = ()

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(site for site, _ in self.machines)
