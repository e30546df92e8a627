"""Jobs say `queued` for an hour while their workers are idle: their messages are gone, and no worker will see them.

A message is lost when its queue did not exist yet, or when a broker came back without it. Only jobs that were seen so
twice are called lost, and only while nothing else could still hold or report them.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from bot.core.errors import Refused, Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk
from bot.core.handler import action, diagnosis
from bot.core.look import CannotLook, Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import jobs, rabbitmq, sidekiq
from handlers.toolbox.jobs import Job, Waiting

APART = timedelta(minutes=4)  # samples are taken every five
AGAIN = timedelta(minutes=5)
REPORTS = "reporting.jobs.builds"  # what workers report comes in here
HUB = tuple(sidekiq.depth(under, "hub") for under in (sidekiq.PREFIX, ""))  # and waits here until it is written down


@diagnosis(
    "jobs lost",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Is there a message for every job that is queued?",
    unless=("broker.*@BROKEN", "platform.hub-drain-down", "sidekiq.no-process"),
    runbook=jobs.RUNBOOK,
    once=True,
    compares=True,
)
def jobs_lost(look: Look, machine: Target) -> Iterator[Finding]:
    long = look(jobs.long_queued())
    lost = _in_idle_queues(look, long) if long else []
    if not lost:
        return
    before = look.earlier(jobs.long_queued(), APART)
    if before is None:
        raise Unknown(f"{len(lost)} jobs look lost; two looks five minutes apart will tell", again_in=AGAIN)
    lost = _seen_before(lost, before)
    if lost:
        yield Finding(
            "jobs.stuck-queued",
            Severity.BROKEN,
            machine,
            f"{counted(len(lost), 'job is', 'jobs are')} queued for over an hour although workers are idle: "
            f"{'its message is' if len(lost) == 1 else 'their messages are'} lost",
            evidence=_evidence(look, lost),
            fixes=(jobs.reset(machine, lost), jobs.cancel(machine, lost)),
            link=jobs.RUNBOOK,
        )


def _in_idle_queues(look: Look, long: Sequence[Job]) -> list[Job]:
    """Those whose queue is empty and has workers with nothing to do; raises Unknown where they may run unreported."""
    look.together(*rabbitmq.ahead(look), *HUB)
    idle = {each.name for each in jobs.waiting(look) if _idle(each)}
    lost = [job for job in long if job.queue in idle]
    at = rabbitmq.broker(look)
    reports = next((each for each in look(rabbitmq.queues(at.place, at.vhost)) if each.name == REPORTS), None)
    if lost and (reports is None or reports.ready or not reports.consumers):
        raise Unknown(f"{len(lost)} jobs look lost, but what workers report waits in {REPORTS}: they may run after all")
    if lost and (behind := _not_written_down(look)):
        raise Unknown(
            f"{len(lost)} jobs look lost, but {behind} reports wait in Sidekiq's queue hub: they may have run",
            again_in=AGAIN,
        )
    held = [each for each in jobs.waiting(look) if _held(each) and any(job.queue == each.name for job in long)]
    if held and not lost:
        raise Unknown(f"workers hold messages of jobs that do not run, so none can be called lost: {jobs.table(held)}")
    return lost


def _not_written_down(look: Look) -> int:
    """How many reports travis-hub has not taken; none are known of where opsbot is not set up to ask redis."""
    try:
        return sum(look(depth) for depth in HUB)
    except CannotLook as why:
        if why.cause != sidekiq.NOT_CONFIGURED:
            raise
        return 0


def _held(each: Waiting) -> bool:
    """More is taken than runs: a worker that hangs, or the database lags behind."""
    return each.queue is not None and each.queue.unacked > each.running


def _idle(each: Waiting) -> bool:
    """No message waits, somebody listens with nothing to do, and whatever is taken belongs to a job that runs."""
    if each.queue is None or each.queue.ready:
        return False
    return each.queue.unacked < each.queue.consumers and each.queue.unacked <= each.running


def _seen_before(lost: Sequence[Job], before: Sequence[Job]) -> list[Job]:
    known = {job.id for job in before}
    return [job for job in lost if job.id in known]


def _evidence(look: Look, lost: Sequence[Job]) -> str:
    queues = {job.queue for job in lost}
    shown = ", ".join(map(str, lost[:20])) + (f" and {len(lost) - 20} more" if len(lost) > 20 else "")
    return f"{jobs.table(each for each in jobs.waiting(look) if each.name in queues)}\njobs {shown}"


@action(
    "reset lost jobs",
    each=Role.PLATFORM,
    says="Queue jobs once more whose messages are lost",
    risk=Risk.DATA,
    makes="jobs.reset",
    proof="jobs lost",
)
def reset_lost_jobs(look: Look, machine: Target) -> Fix:
    return jobs.reset(machine, _lost(look, "reset"))


@action(
    "end lost jobs",
    each=Role.PLATFORM,
    says="Cancel jobs whose messages are lost, instead of queueing them once more",
    risk=Risk.DATA,
    makes="jobs.cancel",
    proof="jobs lost",
)
def end_lost_jobs(look: Look, machine: Target) -> Fix:
    return jobs.cancel(machine, _lost(look, "cancel"))


def _lost(look: Look, do: str) -> list[Job]:
    long = look(jobs.long_queued())
    if not (lost := _in_idle_queues(look, long)):
        raise Refused(f"nothing to {do}: no job is queued for over an hour on a queue whose workers are idle")
    return lost
