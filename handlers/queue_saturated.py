"""More builds wait than all workers of a queue can take at once: nothing is broken, there is too little of it."""

from collections.abc import Iterator
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import jobs
from handlers.toolbox.jobs import Waiting

LATELY = timedelta(hours=1)  # a busy queue starts a job whenever one ends, and the vendor's longest takes 50 minutes


@diagnosis(
    "queue saturated",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Have the workers room for the jobs that wait?",
    unless=("broker.*@BROKEN", "net.*"),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-configuration/",
    once=True,
)
def queue_saturated(look: Look, machine: Target) -> Iterator[Finding]:
    full = [each for each in jobs.waiting(look) if _full(each)]
    slow = [each for each in full if not _moves(each)]
    full = [each for each in full if _moves(each)]
    if slow and not full:
        raise Unknown(
            f"all is taken, and no job has started for over {readable(LATELY)}: builds that last so long, or workers "
            f"that hang: {jobs.table(slow)}"
        )
    if not full:
        return
    names = ", ".join(each.name for each in full)
    yield Finding(
        "capacity.saturated",
        Severity.INFO,
        machine,
        f"all workers of {names} are busy, and jobs wait their turn",
        evidence=jobs.table(full),
        person="Nothing is broken. When it stays so, add a worker, or raise POOL_SIZE where there is memory for it. "
        "POOL_SIZE times DOCKER_CPUS (2 unless it is set) must not be more than the CPUs there: builds would not start "
        "any more.",
        link="https://docs.travis-ci.com/user/enterprise/worker-configuration/",
    )


def _full(each: Waiting) -> bool:
    if each.queue is None or not each.queue.ready or not each.queue.consumers:
        return False
    return each.queue.unacked >= each.queue.consumers


def _moves(each: Waiting) -> bool:
    return each.began is not None and each.began <= LATELY
