"""travis-scheduler and what follows from it in the database: jobs are routed, sent to RabbitMQ, run, and end.

Now and then GitHub is heard, as it is day and night where people push.

Only jobs that this scheduler has sent are followed; others stand in the database as somebody put them there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from bot.sandbox.installation.broker import Broker, Job
from bot.sandbox.installation.database import TravisDatabase
from bot.sandbox.installation.redis import Redis
from bot.sandbox.installation.timeline import Timeline

EVERY = 300.0  # seconds between two looks for jobs that were overlooked
FOLLOWS = 20.0  # seconds until what workers report is in the database, at most
REPOS = ("octo-org/rockets", "octo-org/website", "acme/billing-service")  # in the order of their ids
REPORTS = "reporting.jobs.builds"
LASTS = 120.0  # seconds that a build takes
PUSHED = 1800.0  # seconds between two pushes that ask for no build, as `[skip ci]` does
HEAR = """
INSERT INTO requests (repository_id, state, created_at, updated_at, event_type, result, owner_id, owner_type, private)
SELECT repository_id, 'finished', now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc', 'push', 'rejected', owner_id,
       owner_type, private
  FROM requests ORDER BY id DESC LIMIT 1
"""
TAKE = """
UPDATE jobs SET state = 'queued', queued_at = now() AT TIME ZONE 'utc', queue = coalesce(queue, 'builds.trusty')
  FROM queueable_jobs waiting, repositories r
 WHERE waiting.job_id = jobs.id AND r.id = jobs.repository_id AND jobs.state = 'created'
   AND jobs.created_at < (now() AT TIME ZONE 'utc') - interval '5 minutes'
RETURNING jobs.id, jobs.queue, r.owner_name || '/' || r.name AS repo
"""
MOVE = """
UPDATE jobs SET state = %s, received_at = coalesce(received_at, now() AT TIME ZONE 'utc'),
       started_at = coalesce(started_at, now() AT TIME ZONE 'utc'),
       finished_at = CASE WHEN %s THEN now() AT TIME ZONE 'utc' END
 WHERE id = ANY(%s) AND state <> %s
"""


@dataclass(eq=False)
class Scheduler:
    """Works as long as the services that it needs are there."""

    timeline: Timeline
    broker: Broker
    database: TravisDatabase
    redis: Redis
    sent: set[int] = field(default_factory=set)

    def start(self) -> None:
        self._again(EVERY, self._ping)
        self._again(FOLLOWS, self._follow)
        self._again(PUSHED, self._hear)

    def push(self, queue: str, count: int, repo: str) -> list[int]:
        """So many jobs are queued this moment; the ids under which they are sent."""
        made = [self.database.add_job("queued", queue, 0.0, repository_id=REPOS.index(repo) + 1) for _ in range(count)]
        self.sent.update(made)
        return made

    def _again(self, seconds: float, do: Callable[[], None]) -> None:
        def turn() -> None:
            self._again(seconds, do)
            if self.database.running and not self.database.refuses and self.broker.serves:
                do()

        self.timeline.after(seconds, turn)

    def _hear(self) -> None:
        """Somebody pushes, and GitHub says so."""
        if self.database.hears_github:
            self.database.run(HEAR)

    def _ping(self) -> None:
        """Look for jobs that wait, and send them."""
        for row in self.database.run(TAKE) if self.redis.alive("scheduler") else ():
            self.database.run("DELETE FROM queueable_jobs WHERE job_id = %s", row["id"])
            self.broker.publish(row["queue"], Job(row["id"], row["repo"], LASTS))
            if self.broker.queue(row["queue"]) is not None:
                self.sent.add(row["id"])

    def _follow(self) -> None:
        """What a worker holds has started; what no queue knows any more has ended. The hub drain brings it here."""
        if REPORTS not in self.broker.drains:
            return
        unacked = [job for each in self.broker.consumers() for job in each.unacked]
        taken, asleep = ({job.number for job in unacked if job.asleep is wanted} for wanted in (False, True))
        ready = {job.number for queue in self.broker.queues for job in queue.ready}
        for state, moved in (("started", self.sent & taken), ("passed", self.sent - taken - asleep - ready)):
            if moved:
                self.database.run(MOVE, state, state == "passed", sorted(moved), state)
        self.sent &= taken | asleep | ready
