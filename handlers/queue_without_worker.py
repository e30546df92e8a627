"""Jobs wait for a queue that no worker takes anything from.

Which queue a job goes to is decided by its build environment; a worker listens to one queue alone. A queue that
RabbitMQ does not even have is worse: what was sent there was dropped without a word.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import jobs, rabbitmq, settings
from handlers.toolbox.jobs import Waiting

LINK = "https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#builds-are-not-starting"
AGAIN = timedelta(minutes=5)
RESTARTING = timedelta(minutes=1)  # a worker that is started again is away for as long; it says nothing


@diagnosis(
    "queue without worker",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does a worker listen to every queue that jobs wait for?",
    unless=("broker.*@BROKEN", "sidekiq.no-process", "net.*", "worker.*", "docker.*"),
    runbook=LINK,
    once=True,
    compares=True,
)
def queue_without_worker(look: Look, machine: Target) -> Iterator[Finding]:
    alone = [each for each in jobs.waiting(look) if _alone(each)]
    if not alone:
        return
    blamed = _absent_workers(look)
    at = rabbitmq.broker(look)
    left = _names_taken(look.earlier(rabbitmq.queues(at.place, at.vhost), RESTARTING))
    known = [each for each in alone if each.queue is not None and each.name not in left]
    if known:
        yield _no_consumers(look, machine, known, blamed)
    unknown = [each for each in alone if each.queue is None]
    if unknown:
        yield _absent(look, machine, unknown, blamed)
    if (just := [each.name for each in alone if each.name in left]) and not known and not unknown:
        raise Unknown(f"the workers of {', '.join(just)} were there at the last look; the next one will tell", AGAIN)


def _names_taken(before: Sequence[rabbitmq.Queue] | None) -> set[str]:
    return {each.name for each in before or () if each.consumers}


def _alone(each: Waiting) -> bool:
    """Of a queue whose node is away nobody knows who listens to it."""
    known = each.queue is None or each.queue.up
    return known and each.consumers == 0 and each.oldest >= jobs.JUST_QUEUED


def _no_consumers(look: Look, machine: Target, queues: list[Waiting], blamed: tuple[Target, ...]) -> Finding:
    return Finding(
        "queue.no-consumers",
        Severity.BROKEN,
        machine,
        f"jobs wait for {_names(queues)}, and no worker listens there",
        evidence=jobs.table(queues),
        person=f"{_attach(look, queues)} {_then(machine, queues)}",
        link=LINK,
        blamed=blamed,
    )


def _then(machine: Target, queues: list[Waiting]) -> str:
    """A queue may have come, or come back, without the messages of jobs that wait for it."""
    held, every = sum(min(each.ready, each.jobs) for each in queues), sum(each.jobs for each in queues)
    if held >= every:
        return "The jobs that wait start by themselves then."
    return (
        f"RabbitMQ holds the messages of {held} of {every} jobs: no other starts by itself even then, but after `reset "
        f"lost jobs {machine} because a worker listens now`, when it has waited for over an hour."
    )


def _absent(look: Look, machine: Target, queues: list[Waiting], blamed: tuple[Target, ...]) -> Finding:
    return Finding(
        "queue.absent",
        Severity.BROKEN,
        machine,
        f"jobs were sent to {_names(queues)}, which RabbitMQ does not have: their messages are lost",
        evidence=jobs.table(queues),
        person=f"{_attach(look, queues)} These jobs do not start by themselves even then: "
        f"`reset lost jobs {machine} because a worker listens now` has the scheduler queue them once more, when they "
        "have waited for over an hour.",
        link=LINK,
        blamed=blamed,
    )


def _attach(look: Look, queues: list[Waiting]) -> str:
    setting = " or ".join(f"`QUEUE_NAME='{each.name}'`" for each in queues)
    elsewhere = jobs.where_else(look.site.version, look.site.domain)
    return (
        f"Attach a worker that has the image for these jobs, with {setting} in {settings.MAIN}; "
        f"or choose an environment that a worker has, for jobs that name none: {elsewhere}."
    )


def _names(queues: list[Waiting]) -> str:
    return ", ".join(each.name for each in queues)


def _absent_workers(look: Look) -> tuple[Target, ...]:
    """The workers that take builds from no queue at all: one of them may be the one that is missed here."""
    seen = rabbitmq.presences(look, rabbitmq.broker(look))
    taking = {address for address, presence in seen.items() if presence.builds}
    return tuple(worker for worker in look.site.of(Role.WORKER) if worker.address not in taking)
