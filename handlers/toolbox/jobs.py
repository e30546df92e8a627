"""Facts about jobs in the platform's database, and the fix for those whose message was lost.

Travis writes every time in UTC without saying so, so ages are counted in the database, in UTC. There is no index on
`queue` or `queued_at`: every question starts from `state`. Sources: https://docs.travis-ci.com/user/enterprise/
operations-manual-tcie-2.x/ and the scheduler's own code, https://github.com/travis-ci/travis-scheduler
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, at_least, readable
from bot.core.look import Look
from bot.core.number import counted
from bot.core.question import Rows
from bot.core.sql import Parameter, Query, Statement
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq

RUNBOOK = "https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#builds-are-not-starting"
NONE_YET = ""  # the queue of a job that the scheduler has not routed
RUNNING = ("received", "started")
JUST_QUEUED = timedelta(minutes=5)  # routing and publishing take seconds; sooner than this, waiting says nothing
BATCH = 200  # jobs in one statement: each is committed whole, and holds its rows for a moment only
TAKEN_UP_WITHIN = timedelta(minutes=15)  # the scheduler looks every five minutes for jobs it has overlooked

STATES = """
SELECT coalesce(queue, '') AS queue, state, count(*) AS jobs,
       extract(epoch FROM (now() AT TIME ZONE 'utc') - min(queued_at))::bigint AS waited,
       extract(epoch FROM (now() AT TIME ZONE 'utc') - max(started_at))::bigint AS began
  FROM jobs WHERE state IN ('created', 'queued', 'received', 'started') GROUP BY 1, 2 ORDER BY 1, 2
"""

# Older than an hour, by a clock that moves in steps of half an hour: a plan does not change while it is read.
LONG_QUEUED = """
SELECT j.id, j.queue, coalesce(r.owner_name || '/' || r.name, '') AS repo,
       extract(epoch FROM (now() AT TIME ZONE 'utc') - j.queued_at)::bigint AS waited
  FROM jobs j LEFT JOIN repositories r ON r.id = j.repository_id
 WHERE j.state = 'queued' AND j.queue IS NOT NULL
   AND j.queued_at < (to_timestamp(floor(extract(epoch FROM now()) / 1800) * 1800) AT TIME ZONE 'utc')
                     - interval '60 minutes'
 ORDER BY j.queued_at, j.id LIMIT 1000
"""

# What the scheduler's own `reset` does, and the row in queueable_jobs without which some versions overlook the job.
RESET = """
WITH these AS (SELECT id FROM jobs WHERE state = 'queued' AND id = ANY(%s) FOR UPDATE),
     queueable AS (INSERT INTO queueable_jobs (job_id) SELECT id FROM these
                    WHERE NOT EXISTS (SELECT 1 FROM queueable_jobs known WHERE known.job_id = these.id))
UPDATE jobs SET state = 'created', queued_at = NULL, received_at = NULL, started_at = NULL, finished_at = NULL,
                worker = NULL
  FROM these WHERE jobs.id = these.id
"""


# What travis-hub's own `cancel` does: the job is over, and so is its build when none of its jobs is left.
CANCEL = """
WITH these AS (SELECT id, source_id, source_type FROM jobs WHERE state = 'queued' AND id = ANY(%s) FOR UPDATE),
     forgotten AS (DELETE FROM queueable_jobs WHERE job_id IN (SELECT id FROM these)),
     over AS (UPDATE builds SET state = 'canceled', canceled_at = now() AT TIME ZONE 'utc',
                     finished_at = now() AT TIME ZONE 'utc'
               WHERE id IN (SELECT source_id FROM these WHERE source_type = 'Build')
                 AND state NOT IN ('passed', 'failed', 'errored', 'canceled')
                 AND NOT EXISTS (SELECT 1 FROM jobs other
                                  WHERE other.source_id = builds.id AND other.source_type = 'Build'
                                    AND other.state NOT IN ('passed', 'failed', 'errored', 'canceled')
                                    AND other.id NOT IN (SELECT id FROM these)))
UPDATE jobs SET state = 'canceled', canceled_at = now() AT TIME ZONE 'utc', finished_at = now() AT TIME ZONE 'utc'
  FROM these WHERE jobs.id = these.id
"""


@dataclass(frozen=True)
class Standing:
    """The jobs of one state on one queue: how many, how long ago the first was queued and the last one started."""

    queue: str
    state: str
    jobs: int
    waited: timedelta | None
    began: timedelta | None


@dataclass(frozen=True)
class Job:
    """One job that has been queued for long."""

    id: int
    queue: str
    repo: str
    waited: timedelta

    def __str__(self) -> str:
        return f"{self.id} ({self.repo or 'repository unknown'}, {readable(self.waited)})"


@dataclass(frozen=True)
class Waiting:
    """One build queue: the jobs that wait for it in the database, next to what the broker has of it (None: nothing)."""

    name: str
    jobs: int
    oldest: timedelta
    running: int
    began: timedelta | None
    queue: rabbitmq.Queue | None

    @property
    def consumers(self) -> int:
        return 0 if self.queue is None else self.queue.consumers

    @property
    def ready(self) -> int:
        return 0 if self.queue is None else self.queue.ready

    def __str__(self) -> str:
        seen = "not in RabbitMQ"
        if self.queue is not None and not self.queue.up:
            seen = "its node in RabbitMQ is away"
        elif self.queue is not None:
            seen = f"{self.queue.ready} ready, {self.queue.unacked} unacknowledged, {self.queue.consumers} consumers"
        waits = counted(self.jobs, "job waits", "jobs wait")
        return f"{self.name}: {waits}, the oldest for {readable(self.oldest)}; {seen}"


# ---------------------------------------------------------------- facts


@fact
def standings() -> Fact[tuple[Standing, ...]]:
    """How many jobs are in each state on each queue, of those that have not ended."""
    return Fact("How many jobs wait for which queue?", Role.PLATFORM, Query(STATES), _standings)


@fact
def long_queued() -> Fact[tuple[Job, ...]]:
    """Jobs that have been queued for more than an hour, oldest first."""
    question = Query(LONG_QUEUED)
    return Fact("Which jobs have been queued for over an hour?", Role.PLATFORM, question, _jobs, sampled=True)


@fact
def still_queued(ids: str) -> Fact[bool]:
    """Is any of these jobs (comma-separated ids) still queued?"""
    question = Query("SELECT count(*) AS jobs FROM jobs WHERE state = 'queued' AND id = ANY(%s)", (_numbers(ids),))
    return Fact("some of these jobs are still queued", Role.PLATFORM, question, lambda said: _count(said) > 0)


@fact
def taken_up(ids: str) -> Fact[int]:
    """How many of these jobs the scheduler has taken up: it has queued them again, or they are further."""
    question = Query("SELECT count(*) AS jobs FROM jobs WHERE state <> 'created' AND id = ANY(%s)", (_numbers(ids),))
    return Fact("number of these jobs that the scheduler has queued again", Role.PLATFORM, question, _count)


@fact
def as_they_are(ids: str) -> Fact[str]:
    """These jobs' columns that a reset empties, a line each, to go back to."""
    text = "SELECT id, queue, queued_at, received_at, worker FROM jobs WHERE id = ANY(%s) ORDER BY id"
    question = Query(text, (_numbers(ids),))
    return Fact("these jobs as they are", Role.PLATFORM, question, _lines)


def _numbers(ids: str) -> tuple[int, ...]:
    return tuple(int(each) for each in ids.split(","))


def _standings(said: Rows) -> tuple[Standing, ...]:
    return tuple(
        Standing(str(row["queue"]), str(row["state"]), _whole(row["jobs"]), _span(row["waited"]), _span(row["began"]))
        for row in said.rows
    )


def _jobs(said: Rows) -> tuple[Job, ...]:
    return tuple(
        Job(_whole(row["id"]), str(row["queue"]), str(row["repo"]), _span(row["waited"]) or timedelta())
        for row in said.rows
    )


def _count(said: Rows) -> int:
    return _whole(said.rows[0]["jobs"])


def _lines(said: Rows) -> str:
    return "\n".join(" ".join(f"{name}={value}" for name, value in row.items()) for row in said.rows)


def _whole(value: Parameter) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unknown(f"the database answered `{str(value)[:40]}` where a number was asked for")
    return value


def _span(value: Parameter) -> timedelta | None:
    """Never negative: the database's clock and the writer's may differ by a second."""
    return None if value is None else timedelta(seconds=max(0, _whole(value)))


# ---------------------------------------------------------------- putting facts together


def waiting(look: Look) -> tuple[Waiting, ...]:
    """Every queue that jobs wait for, or have in RabbitMQ, with both sides next to each other."""
    at = rabbitmq.broker(look)
    look.together(standings(), rabbitmq.queues(at.place, at.vhost))
    seen = {queue.name: queue for queue in look(rabbitmq.queues(at.place, at.vhost))}
    now = look(standings())
    names = {each.queue for each in now if each.state == "queued" and each.queue != NONE_YET}
    full = {name for name, queue in seen.items() if name.startswith(rabbitmq.BUILDS) and queue.ready}
    return tuple(_waiting(name, now, seen.get(name)) for name in sorted(names | full))


def _waiting(name: str, now: Sequence[Standing], queue: rabbitmq.Queue | None) -> Waiting:
    mine = [each for each in now if each.queue == name]
    queued = next((each for each in mine if each.state == "queued"), None)
    return Waiting(
        name,
        queued.jobs if queued else 0,
        (queued.waited if queued else None) or timedelta(),
        sum(each.jobs for each in mine if each.state in RUNNING),
        min((each.began for each in mine if each.began is not None), default=None),
        queue,
    )


def table(queues: Iterable[Waiting]) -> str:
    return "\n".join(map(str, queues))


def where_else(version: str, domain: str) -> str:
    """Where an administrator chooses the queue of jobs that name no environment themselves, and what that costs."""
    if version.startswith("2."):
        return f"https://{domain}:8800/settings#override_default_dist_enable (saving it restarts the platform)"
    page = "the admin console under Config, 'Set Default Build Environment'"
    return f"{page}, then Save and Deploy (which restarts the platform)"


# ---------------------------------------------------------------- fixes


def reset(platform: Target, lost: Sequence[Job]) -> Fix:
    """Lets the scheduler queue these jobs once more; never without naming each of them."""
    named = _named(lost)
    return Fix(
        id="jobs.reset",
        title=f"Reset {_counted(lost)}",
        target=platform,
        steps=(
            *_batches(lost, "Set {} back to created", reset_statement),
            Wait(taken_up(named), at_least(1), TAKEN_UP_WITHIN),
        ),
        risk=Risk.DATA,
        saves=(as_they_are(named),),
        undo="cancel in Travis what should not run; what the rows said is kept with this run",
        items=tuple(named.split(",")),
    )


def cancel(platform: Target, lost: Sequence[Job]) -> Fix:
    """Ends these jobs, and the builds of which nothing else is left; never without naming each of them."""
    named = _named(lost)
    return Fix(
        id="jobs.cancel",
        title=f"Cancel {_counted(lost)}",
        target=platform,
        steps=_batches(lost, "Cancel {}", cancel_statement),
        risk=Risk.DATA,
        saves=(as_they_are(named),),
        undo="restart in Travis what should run after all; what the rows said is kept with this run",
        items=tuple(named.split(",")),
    )


def _counted(lost: Sequence[Job]) -> str:
    batches = (len(lost) + BATCH - 1) // BATCH
    jobs = f"{len(lost)} queued {'job' if len(lost) == 1 else 'jobs'}"
    return f"{jobs} in {batches} batches" if batches > 1 else jobs


def _named(lost: Iterable[Job]) -> str:
    return ",".join(str(each) for each in sorted(job.id for job in lost))


def _batches(lost: Sequence[Job], does: str, statement: Callable[[tuple[int, ...]], Statement]) -> tuple[Change, ...]:
    """One change for so many jobs, each with its exact ids."""
    ordered = sorted(lost, key=lambda job: job.id)
    batches = (ordered[at : at + BATCH] for at in range(0, len(ordered), BATCH))
    return tuple(
        Change(
            does.format(_preview(batch)), statement(tuple(job.id for job in batch)), needed=still_queued(_named(batch))
        )
        for batch in batches
    )


def reset_statement(ids: tuple[int, ...]) -> Statement:
    return _about(RESET, ids)


def cancel_statement(ids: tuple[int, ...]) -> Statement:
    return _about(CANCEL, ids)


def _about(text: str, ids: tuple[int, ...]) -> Statement:
    if not ids or len(ids) > BATCH:
        raise ValueError(f"a statement names the 1 to {BATCH} jobs it is about, not {len(ids)}")
    return Statement(text, (ids,), rows=len(ids))


def _preview(some: Sequence[Job]) -> str:
    """Which jobs, of which repositories; not how old they are, since a plan must read the same a minute later."""
    shown = ", ".join(f"{job.id} ({job.repo or 'repository unknown'})" for job in some)
    return f"jobs {shown}"
