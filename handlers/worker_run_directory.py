"""The directory that a worker's wrapper writes its settings into is missing, somebody else's, or one level too deep.

The manual's own remedy lacks `sudo` and the restart, and its prose has people make a directory of the file's name.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import edit, settings, worker
from handlers.toolbox.settings import EFFECTIVE, RUN_DIR, Place

PAGE = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"
OWNER: Final = "travis"
_COMPLAINT: Final = re.compile(  # today's scripts say another line than the manual
    r"(?:travis-worker-wrapper|travis-combined-env): line \d+: /var/tmp/travis-run\.d/travis-worker: "
    r"(?:No such file or directory|Is a directory|Permission denied)"
)


@dataclass(frozen=True)
class Problem:
    """What is wrong with the directory, and the changes that put it right."""

    cause: str
    title: str
    evidence: str


@diagnosis(
    "worker has no run directory",
    of="builds not starting",
    each=Role.WORKER,
    says="Can the worker's wrapper write its settings?",
    runbook=PAGE,
)
def worker_has_no_run_directory(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.places(machine))
    there = look(settings.places(machine))
    if look(worker.init_system(machine)) == worker.UPSTART or settings.SNAP in there or not _installed(there):
        return
    if (problem := _problem(there)) is None:
        return
    now = worker.service(look, machine, complaint(machine))
    stays = now.running and now.since is not None and now.since >= worker.SETTLED
    yield Finding(
        problem.cause,
        Severity.WARN if stays else Severity.BROKEN,
        machine,
        f"travis-worker {'would not start again' if stays else 'does not start'} on {machine}: {problem.title}",
        evidence="; ".join(filter(None, (problem.evidence, look(complaint(machine))))),
        fixes=(_remedy(look, machine, problem.cause, there),),
        link=PAGE,
    )


def _installed(there: dict[str, Place]) -> bool:
    return any(file in there for file in settings.FILES)


def _problem(there: dict[str, Place]) -> Problem | None:
    folder, file = there.get(RUN_DIR), there.get(EFFECTIVE)
    if folder is None:
        return Problem("worker.run-dir-missing", f"{RUN_DIR} is missing", f"stat: there is no {RUN_DIR}")
    if file is not None and file.kind == "directory":
        title = f"{EFFECTIVE} is a directory, and has to be a file"
        return Problem("worker.run-path-is-directory", title, f"stat: {EFFECTIVE} is a directory")
    wrong = [(path, each) for path, each in ((RUN_DIR, folder), (EFFECTIVE, file)) if each and not _usable(each)]
    if not wrong:
        return None
    path, each = wrong[0]
    said = f"stat: {path} belongs to {each.owner}:{each.group}, mode {each.mode:o}"
    return Problem("worker.run-dir-owner", f"{OWNER} may not write {path}", said)


def _usable(place: Place) -> bool:
    return place.writable_by(OWNER)


@fact
def complaint(machine: Target) -> Fact[str]:
    """What the wrapper said last about the directory, empty when it did not."""
    return Fact(f"What does the wrapper on {machine} say?", machine, worker.log(worker.SYSTEMD), _complained)


def _complained(said: Output) -> str:
    found = _COMPLAINT.findall(said.out) if said.ok else []
    return found[-1] if found else ""


@fact
def run_directory_is(machine: Target, cause: str) -> Fact[bool]:
    """Is this still what is wrong with the directory?"""

    def still(said: Output) -> bool:
        there = settings.places_in(said)
        if not _installed(there):
            raise Unknown(f"stat says nothing of the settings on {machine}")
        problem = _problem(there)
        return problem is not None and problem.cause == cause

    return Fact(f"{RUN_DIR} on {machine} is still wrong", machine, settings.places(machine).question, still)


def changes(machine: Target, cause: str) -> tuple[Change, ...]:
    """What puts the directory right: only the parent has to exist, and to belong to the user that the unit runs as."""
    still = run_directory_is(machine, cause)
    own = Change(
        f"Give it to {OWNER}",
        sh("chown", "-R", f"{OWNER}:{OWNER}", RUN_DIR).sudo(),
        needed=run_directory_is(machine, "worker.run-dir-owner"),
        within=edit.BRIEF,
    )
    first = {
        "worker.run-dir-missing": (
            Change(f"Make {RUN_DIR}", sh("mkdir", "-p", RUN_DIR).sudo(), needed=still, within=edit.BRIEF),
        ),
        "worker.run-path-is-directory": (
            Change(
                f"Remove the directory {EFFECTIVE}, which must be empty",
                sh("rmdir", EFFECTIVE).sudo(),
                needed=still,
                within=edit.BRIEF,
            ),
        ),
    }
    return (*first.get(cause, ()), own)


def _remedy(look: Look, machine: Target, cause: str, there: dict[str, Place]) -> Fix:
    restart, back = edit.taken_up(look, machine)
    return Fix(
        id=cause,
        title=f"Put {RUN_DIR} right and restart travis-worker",
        target=machine,
        steps=(*changes(machine, cause), restart, back),
        risk=Risk.INTERRUPTS,
        undo=_undo(cause, there),
    )


def _undo(cause: str, there: dict[str, Place]) -> str:
    if cause == "worker.run-dir-missing":
        return f"sudo rmdir {RUN_DIR}"
    if cause == "worker.run-path-is-directory":
        return f"sudo mkdir {EFFECTIVE}"
    return f"sudo chown -R {there[RUN_DIR].owner}:{there[RUN_DIR].group} {RUN_DIR}"
