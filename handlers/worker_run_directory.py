"""The directory that a worker's wrapper writes its settings into is missing, somebody else's, or one level too deep.

The manual's own remedy lacks `sudo` and the restart, and its prose has people make a directory of the file's name.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import edit, run_directory, settings, worker
from handlers.toolbox.settings import EFFECTIVE, RUN_DIR, Place

BY_HAND = (
    f"Each start has put a copy of the program into {EFFECTIVE}: see that there is nothing else in it, remove it with "
    "what it holds, and restart travis-worker."
)
PAGE = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"


@diagnosis(
    "worker has no run directory",
    of="builds not starting",
    each=Role.WORKER,
    says="Can the worker's wrapper write its settings?",
    runbook=PAGE,
    causes=run_directory.CAUSES,
)
def worker_has_no_run_directory(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.places(machine))
    init, there = look(worker.init_system(machine)), look(settings.places(machine))
    ours = settings.SNAP not in there and run_directory.installed(there)
    problem = run_directory.problem_of(there) if ours else None
    if problem is None or (init == worker.UPSTART and problem.cause == run_directory.MISSING):
        return  # the job of 14.04 makes the directory itself
    complaint = run_directory.complaint(machine, init)
    now = worker.service(look, machine, complaint)
    by_hand = init == worker.UPSTART and problem.cause == run_directory.DEEP
    stays = now.running and now.since is not None and now.since >= worker.SETTLED
    yield Finding(
        problem.cause,
        Severity.WARN if stays else Severity.BROKEN,
        machine,
        f"travis-worker {'would not start again' if stays else 'does not start'} on {machine}: {problem.title}",
        evidence="; ".join(filter(None, (problem.evidence, look(complaint)))),
        fixes=() if by_hand else (_remedy(look, machine, problem.cause, there),),
        person=BY_HAND if by_hand else "",
        link=PAGE,
    )


def _remedy(look: Look, machine: Target, cause: str, there: dict[str, Place]) -> Fix:
    return Fix(
        id=f"worker.run-{cause.removeprefix('worker.run-')}",
        title=f"Put {RUN_DIR} right and restart travis-worker",
        target=machine,
        steps=(*run_directory.changes(machine, cause), *edit.taken_up(look, machine)),
        risk=Risk.INTERRUPTS,
        undo=_undo(cause, there),
    )


def _undo(cause: str, there: dict[str, Place]) -> str:
    if cause == run_directory.MISSING:
        return f"sudo rmdir {RUN_DIR}"
    if cause == run_directory.DEEP:
        return f"sudo mkdir {EFFECTIVE}"
    return f"sudo chown -R {there[RUN_DIR].owner}:{there[RUN_DIR].group} {RUN_DIR}"
