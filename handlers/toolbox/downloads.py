"""Facts about builds that failed to fetch something: what curl said in their logs.

Logs are large and nothing indexes their text, so the jobs come first: those that failed within a day, found by the
index of `created_at`, and only so many of them. Their logs are found by the job's id; what is not yet put together lies
in `log_parts`. On 2.x everything is in one database, on 3.x logs have one of their own, so this is two queries.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.question import Rows
from bot.core.sql import Query
from bot.core.target import Role

MOST_JOBS = 60
FAILED = f"""
SELECT id, repository_id
FROM jobs
WHERE created_at > (now() AT TIME ZONE 'utc') - interval '1 day' AND state IN ('failed', 'errored')
ORDER BY created_at DESC
LIMIT {MOST_JOBS}
"""
# 6: no such name, 7: no connection, 60 (before curl 7.62: 51): the certificate. Only the line of curl's own is taken.
_LINE = r"'curl: \((?:6|7|51|60)\)[^\r\n]*'"
COMPLAINTS = f"""
WITH found AS (
  SELECT job_id, substring(content FROM {_LINE}) AS said
  FROM logs
  WHERE job_id = ANY(%s) AND position('curl: (' IN content) > 0
  UNION ALL
  SELECT logs.job_id, substring(log_parts.content FROM {_LINE})
  FROM logs JOIN log_parts ON log_parts.log_id = logs.id
  WHERE logs.job_id = ANY(%s) AND logs.aggregated_at IS NULL AND position('curl: (' IN log_parts.content) > 0
)
SELECT job_id, min(left(said, 200)) AS said
FROM found
WHERE said IS NOT NULL
GROUP BY job_id
LIMIT {MOST_JOBS}
"""
_CURL = re.compile(r"curl: \((\d+)\) *(.*)")
_HOST = re.compile(r"(?:[Cc]ould not resolve host:|Failed to connect to|[Cc]ouldn't connect to server at) *([\w.-]+)")


@dataclass(frozen=True)
class Job:
    """A build job that failed, and whose it is."""

    id: int
    repository: int


@dataclass(frozen=True)
class Complaint:
    """What curl said in the log of one job: its number for it, its words, and the host where it names one."""

    job: int
    code: int
    words: str
    host: str

    @property
    def kind(self) -> tuple[int, str]:
        """Complaints of one kind have one reason."""
        return (60 if self.code == 51 else self.code, self.host)


@fact
def failed_jobs() -> Fact[tuple[Job, ...]]:
    """The newest jobs of the last day that failed or errored."""
    return Fact("Which builds failed within a day?", Role.PLATFORM, Query(FAILED), _failed)


def _failed(said: Rows) -> tuple[Job, ...]:
    return tuple(Job(_number(row["id"]), _number(row["repository_id"])) for row in said.rows)


@fact
def complaints(ids: str) -> Fact[tuple[Complaint, ...]]:
    """What curl said in the logs of these jobs (comma-separated ids)."""
    numbers = tuple(int(each) for each in ids.split(","))
    question = Query(COMPLAINTS, (numbers, numbers), database="logs")
    return Fact("What did curl say in the logs of failed builds?", Role.PLATFORM, question, _complaints)


def _complaints(said: Rows) -> tuple[Complaint, ...]:
    read = ((row["job_id"], _CURL.match(str(row["said"]))) for row in said.rows)
    return tuple(_complaint(_number(job), found) for job, found in read if found)


def _complaint(job: int, found: re.Match[str]) -> Complaint:
    words = "".join(each if each.isprintable() else " " for each in found[0]).strip()
    host = _HOST.search(words)
    return Complaint(job, int(found[1]), words, host[1].rstrip(".").lower() if host else "")


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise Unknown(f"the database answered `{str(value)[:40]}` where a number belongs")
    return value


def listed(jobs: Iterable[Job]) -> str:
    """Their ids as `complaints` takes them."""
    return ",".join(str(job.id) for job in jobs)
