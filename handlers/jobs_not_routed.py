"""Jobs are queued, but nobody has told them where: the scheduler's second step, which chooses the queue, does not run.

The scheduler marks a job as queued first; choosing its queue and sending it to RabbitMQ is a job of its own in Sidekiq.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import jobs


@diagnosis(
    "jobs not routed",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does the scheduler send queued jobs to a queue?",
    unless=("broker.*", "sidekiq.no-process", "redis.*"),
    runbook=jobs.RUNBOOK,
    once=True,
)
def jobs_not_routed(look: Look, machine: Target) -> Iterator[Finding]:
    now = look(jobs.standings())
    stray = next((each for each in now if each.state == "queued" and each.queue == jobs.NONE_YET), None)
    if stray is None or stray.waited is None or stray.waited < jobs.JUST_QUEUED:
        return
    yield Finding(
        "jobs.not-routed",
        Severity.BROKEN,
        machine,
        f"{stray.jobs} queued jobs have no queue, the oldest for {readable(stray.waited)}",
        evidence="their state is `queued` and their queue is empty: travis-scheduler has not run their `notify` step",
        person="Look why travis-scheduler does not work off its queue in Sidekiq: `sidekiq statistics` shows how deep "
        "it is, and the platform's log says `Setting queue to` for each job that is routed. Restart the scheduler.",
        link=jobs.RUNBOOK,
    )
