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
REPOSITORY = """
    SELECT r.owner_name || '/' || r.name AS repository
      FROM (SELECT repository_id FROM requests ORDER BY id DESC LIMIT 1) AS latest
      JOIN repositories r ON r.id = latest.repository_id
"""
# What GitHub shows next to a delivery, and what it means; GitHub alone knows, and opsbot has no token to ask it.
DELIVERIES = (
    "none at all: the hook is gone or inactive, switch the repository off and on again in Travis",
    "`timed out` or no answer: GitHub does not reach port 443, see the firewall and DNS",
    "`Peer certificate cannot be authenticated`: `diagnose certificate wrong`",
    "4xx: its payload URL leads elsewhere, or something in front of the platform refuses it",
    "5xx: the platform took it and failed, `diagnose platform app not ready`",
    "200: it came in and no build was made, `diagnose builds not starting`",
)


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


@fact
def latest_repository() -> Fact[str]:
    """The repository of the newest request, `owner/name`; empty when it is gone."""
    question = Query(REPOSITORY)
    return Fact("Which repository was the last request for?", Role.PLATFORM, question, _repository)


def _repository(said: Rows) -> str:
    return str(said.rows[0]["repository"] or "") if said.rows else ""


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
        person=_steps(look(latest_repository()), look.site.domain),
        link=LINK,
    )


def _steps(repository: str, domain: str) -> str:
    hooks = f"https://github.com/{repository or 'OWNER/NAME'}/settings/hooks"
    return (
        f"Push to {repository or 'a repository'}. When no build comes, open {hooks} (GitHub Enterprise: the same path "
        f"on its host), the hook to https://{domain}, Recent Deliveries, and read the newest one; "
        f"{'; '.join(DELIVERIES)}. Mended, press Redeliver there."
    )
