"""The directory that a worker's wrapper puts its settings together in: what is wrong with it, and what puts it right.

Only the parent has to exist, and it has to belong to the user that the unit runs as.
"""

import re
from dataclasses import dataclass
from typing import Final

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import edit, settings, worker
from handlers.toolbox.settings import EFFECTIVE, RUN_DIR, Place

OWNER: Final = "travis"
MISSING, OWNED, DEEP = (f"worker.run-{what}" for what in ("dir-missing", "dir-owner", "path-is-directory"))
CAUSES: Final = (MISSING, OWNED, DEEP)
_COMPLAINT: Final = re.compile(  # today's scripts say another line than the manual
    r"(?:travis-worker-wrapper|travis-combined-env): line \d+: /var/tmp/travis-run\.d/travis-worker: "
    r"(?:No such file or directory|Is a directory|Permission denied)"
    r"|cp: cannot create regular file \S/var/tmp/travis-run\.d/travis-worker\S: Permission denied"
    r"|exec: /var/tmp/travis-run\.d/travis-worker: Permission denied"
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with it, as a sentence, and how one knows."""

    cause: str
    title: str
    evidence: str


def installed(there: dict[str, Place]) -> bool:
    """Does this machine read files in /etc/default at all?"""
    return any(file in there for file in settings.FILES)


def problem_of(there: dict[str, Place]) -> Problem | None:
    folder, file = there.get(RUN_DIR), there.get(EFFECTIVE)
    if folder is None:
        return Problem(MISSING, f"{RUN_DIR} is missing", f"stat: there is no {RUN_DIR}")
    if file is not None and file.kind == "directory":
        title = f"{EFFECTIVE} is a directory, and has to be a file"
        return Problem(DEEP, title, f"stat: {EFFECTIVE} is a directory")
    wrong = [(path, each) for path, each in ((RUN_DIR, folder), (EFFECTIVE, file)) if each and not _usable(each)]
    if not wrong:
        return None
    path, each = wrong[0]
    said = f"stat: {path} belongs to {each.owner}:{each.group}, mode {each.mode:o}"
    return Problem(OWNED, f"{OWNER} may not write {path}", said)


def _usable(place: Place) -> bool:
    return place.writable_by(OWNER)


@fact
def complaint(machine: Target, init: str) -> Fact[str]:
    """What the wrapper, or the job of 14.04, said last about the directory, empty when it did not."""
    return Fact(f"What does the wrapper on {machine} say?", machine, worker.log(init), _complained)


def _complained(said: Output) -> str:
    found = _COMPLAINT.findall(said.out) if said.ok else []
    return found[-1] if found else ""


@fact
def run_directory_is(machine: Target, cause: str) -> Fact[bool]:
    """Is this still what is wrong with the directory?"""

    def still(said: Output) -> bool:
        there = settings.places_in(said)
        if not installed(there):
            raise Unknown(f"stat says nothing of the settings on {machine}")
        problem = problem_of(there)
        return problem is not None and problem.cause == cause

    return Fact(f"{RUN_DIR} on {machine} is still wrong", machine, settings.places(machine).question, still)


def changes(machine: Target, cause: str) -> tuple[Change, ...]:
    """What puts the directory right: only the parent has to exist, and to belong to the user that the unit runs as."""
    still = run_directory_is(machine, cause)
    own = Change(
        f"Give it to {OWNER}",
        sh("chown", "-R", f"{OWNER}:{OWNER}", RUN_DIR).sudo(),
        needed=run_directory_is(machine, OWNED),
        within=edit.BRIEF,
    )
    first = {
        MISSING: (Change(f"Make {RUN_DIR}", sh("mkdir", "-p", RUN_DIR).sudo(), needed=still, within=edit.BRIEF),),
        DEEP: (
            Change(
                f"Remove the directory {EFFECTIVE}, which must be empty",
                sh("rmdir", EFFECTIVE).sudo(),
                needed=still,
                within=edit.BRIEF,
            ),
        ),
    }
    return (*first.get(cause, ()), own)
