"""A worker takes builds and cannot start them, although its docker answers: its log names the cause."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import build_starts, docker, settings, worker
from handlers.toolbox.build_starts import Trouble

LATELY: Final = timedelta(hours=1)  # builds of other kinds may start in between
DEFAULT: Final = "travis:default"  # the image of every language that has none of its own
_NAME: Final = re.compile(r"\btravis:[a-z0-9][a-z0-9_.-]*[a-z0-9]")  # addresses in the log are masked before
LOOPS: Final = 2  # a single build that does not start is tried again, and that may do


@dataclass(frozen=True)
class Cause:
    """What a message of the log is called, and what a person has to do; `{tags}` gives an image the names it misses."""

    id: str
    title: str
    person: str


CAUSES: Final = {
    build_starts.IMAGE: Cause(
        "worker.no-image",
        "has no image for builds that it takes",
        "`sudo docker images travis` there lists what it has: one by the name of each language, and `travis:default` "
        f"for all others. `curl -sSL {docker.INSTALLER} | grep -E '^pull_|travisci/ci-|mapping.json'` names the images "
        "that the installer pulls for each environment: with the one for the worker's queue as IMAGE, `sudo docker "
        "pull IMAGE{tags}`. The builds start by themselves then.",
    ),
    build_starts.CPUS: Cause(
        "worker.cpu-sets",
        "has more places for builds than CPUs",
        f"POOL_SIZE times DOCKER_CPUS (2 unless it is set) must not be more than `nproc` says there: lower one of them "
        f"in {settings.MAIN}, and restart travis-worker.",
    ),
    build_starts.REQUEUE: Cause(
        "worker.requeue-loop",
        "puts builds back into the queue over and over",
        "The reason is docker's own: correct that on the machine (room on its disk, its storage driver, the "
        "worker's DOCKER_* settings). Until then `drain` keeps the worker from taking builds that others could run.",
    ),
}


@diagnosis(
    "worker cannot start builds",
    of="builds not starting",
    each=Role.WORKER,
    says="Do the builds start that the worker takes?",
    unless=("broker.*@BROKEN", "docker.*"),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-configuration/",
    causes=tuple(each.id for each in CAUSES.values()),
)
def worker_cannot_start_builds(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine))
    init = look(worker.init_system(machine))
    look.together(build_starts.troubles(machine, init), *worker.asked(look, machine))
    if not worker.service(look, machine).running:
        return
    found = look(build_starts.troubles(machine, init))
    message = next((each for each in CAUSES if each in found), "")
    if not message or not (severity := _severity(look, machine, message, found[message])):
        return
    cause = CAUSES[message]
    yield Finding(
        cause.id,
        severity,
        machine,
        f"{machine} {cause.title}",
        evidence=f"its log says, {_times(found[message])}: {found[message].said}",
        person=cause.person.replace("{tags}", _tags(found[message].said)),
    )


def _severity(look: Look, machine: Target, message: str, trouble: Trouble) -> Severity | None:
    """Nothing has started since, or other builds have and this one may come again; None for what is over."""
    if message == build_starts.REQUEUE:
        return Severity.BROKEN if trouble.times >= LOOPS else None
    if trouble.times:
        return Severity.BROKEN
    if trouble.at is not None and look(docker.now(machine)) - trouble.at < LATELY:
        return Severity.WARN
    return None


def _tags(said: str) -> str:
    names = dict.fromkeys(_NAME.findall(said)) or (DEFAULT,)
    return "".join(f" && sudo docker tag IMAGE {name}" for name in names)


def _times(trouble: Trouble) -> str:
    if not trouble.times:
        return "and other builds have started since"
    return "once since a build last started" if trouble.times == 1 else f"{trouble.times} times since one last started"
