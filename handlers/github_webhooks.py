"""GitHub does not reach the platform any more: pushes happen, and no request comes in.

Silence alone is no fault: nights, weekends and holidays are silent. So it is compared with the longest silence among
the last thousands of requests, and only a much longer one is a warning.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.question import Rows
from bot.core.sql import Query
from bot.core.target import Role, Target

LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"
FEWEST = 20  # requests; with fewer there is no usual rate
DAY, WEEK = timedelta(days=1), timedelta(days=7)
# By id, since that index is always there; the newest few thousand say enough, and are read quickly.
LATEST = """
    SELECT count(*) AS requests,
           extract(epoch FROM (now() AT TIME ZONE 'utc') - max(created_at))::bigint AS silent,
           extract(epoch FROM max(gap))::bigint AS longest,
           extract(epoch FROM max(created_at) - min(created_at))::bigint AS span
    FROM (SELECT created_at, created_at - lag(created_at) OVER (ORDER BY created_at) AS gap
          FROM (SELECT created_at FROM requests ORDER BY id DESC LIMIT 3000) AS latest) AS gaps
"""


@dataclass(frozen=True)
class Requests:
    """How many of the newest requests were looked at, how long none came, and the longest pause among them."""

    count: int
    silent: timedelta
    longest: timedelta
    span: timedelta

    @property
    def alarming(self) -> timedelta:
        """From which silence on it is no pause any more; what covers no weekend knows none, and waits for longer."""
        return max(DAY, 2 * self.longest) if self.span >= WEEK else max(3 * DAY, 2 * self.longest)


@fact
def latest_requests() -> Fact[Requests]:
    return Fact("When did the last request of GitHub come in?", Role.PLATFORM, Query(LATEST), _requests)


def _requests(said: Rows) -> Requests:
    row = said.rows[0] if said.rows else {}
    if not row.get("requests"):
        raise Unknown("no request of GitHub ever came in")
    silent, longest, span = (timedelta(seconds=_number(row.get(key))) for key in ("silent", "longest", "span"))
    return Requests(_number(row["requests"]), silent, longest, span)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


@diagnosis(
    "github webhooks silent",
    of="builds not starting",
    also=("github",),
    each=Role.PLATFORM,
    says="Do requests from GitHub come in?",
    unless=("platform.not-ready", "platform.uptime-failed"),
    runbook=LINK,
    once=True,
)
def github_webhooks(look: Look, machine: Target) -> Iterator[Finding]:
    seen = look(latest_requests())
    if seen.count < FEWEST or seen.silent <= max(seen.longest, DAY / 24):
        return
    title = f"no request of GitHub came in for {readable(seen.silent)}"
    evidence = (
        f"the last {seen.count} requests came within {readable(seen.span)}, the longest pause among them was "
        f"{readable(seen.longest)}; nobody may have pushed"
    )
    if seen.silent < seen.alarming:
        yield Finding("github.webhooks-silent", Severity.INFO, machine, title, evidence)
        return
    yield Finding(
        "github.webhooks-silent",
        Severity.WARN,
        machine,
        title,
        evidence,
        person="Push to a repository; when no build comes, look in GitHub at its Settings > Webhooks > Recent "
        f"Deliveries: they should go to https://{look.site.domain} and be answered 200. An error about certificates "
        "there means that GitHub does not trust the platform's.",
        link=LINK,
    )
