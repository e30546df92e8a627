"""Jobs are queued, but nobody has told them where: the scheduler's second step, which chooses the queue, does not run.

The scheduler marks a job as queued first; choosing its queue and sending it to RabbitMQ is a job of its own in Sidekiq.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta

from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import jobs
from handlers.toolbox.jobs import Standing

OVER = timedelta(hours=1)  # what was left behind for longer, while others were routed, is no sign of the scheduler


@diagnosis(
    "jobs not routed",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does the scheduler send queued jobs to a queue?",
    unless=("broker.*@BROKEN", "sidekiq.no-process", "redis.*"),
    runbook=jobs.RUNBOOK,
    once=True,
)
def jobs_not_routed(look: Look, machine: Target) -> Iterator[Finding]:
    now = look(jobs.standings())
    stray = next((each for each in now if each.state == "queued" and each.queue == jobs.NONE_YET), None)
    if stray is None or stray.waited is None or stray.waited < jobs.JUST_QUEUED:
        return
    found = Finding(
        "jobs.not-routed",
        Severity.BROKEN,
        machine,
        f"{counted(stray.jobs, 'queued job')} without a queue, the oldest for {readable(stray.waited)}",
        evidence="their state is `queued` and their queue is empty: travis-scheduler has not run their `notify` step",
        person="Look why travis-scheduler does not work off its queue in Sidekiq: `sidekiq statistics` shows how deep "
        "it is, and the platform's log says `Setting queue to` for each job that is routed. Restart the scheduler"
        f"{_at_last(look, machine)}.",
        link=jobs.RUNBOOK,
    )
    yield _left_behind(found, stray) if stray.waited > OVER and _routes(now, stray.waited) else found


def _routes(now: Sequence[Standing], waited: timedelta) -> bool:
    """Has the scheduler found a queue for every job of some queue since?"""
    return any(each.queue != jobs.NONE_YET and each.waited is not None and each.waited < waited for each in now)


def _left_behind(found: Finding, stray: Standing) -> Finding:
    return replace(
        found,
        severity=Severity.WARN,
        title=f"{counted(stray.jobs, 'queued job')} never got a queue, and later ones did",
        person="The scheduler routes jobs; its step for these has failed. Cancel or restart their builds in Travis.",
    )


def _at_last(look: Look, machine: Target) -> str:
    if not look.site.version.startswith("2."):
        return ": `kubectl rollout restart` of its deployment"
    return f"; when nobody knows how it is started there, `restart platform {machine} because jobs are not routed`"
