"""GitHub takes no more statuses for a commit: it has a thousand of one name, so the last result never shows there."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform

LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"


@diagnosis(
    "github too many statuses",
    of="github",
    each=Role.PLATFORM,
    says="Does GitHub take the results of builds?",
    runbook=LINK,
)
def github_statuses(look: Look, machine: Target) -> Iterator[Finding]:
    folder = platform.data_dir(look, machine)
    count = look(platform.signs(machine, folder)).get(platform.STATUSES, 0)
    if count == 0:
        return
    yield Finding(
        "github.too-many-statuses",
        Severity.WARN,
        machine,
        "GitHub refuses the results of some builds: their commits have a thousand statuses of one name already",
        evidence=f"`{platform.STATUSES}` (422) stands {count} times in the last {platform.LINES} lines of the log on "
        f"{machine}",
        person=f"`sudo grep '{platform.STATUSES}' {folder}/log/travis.log` on {machine} names the repositories; then "
        f"let their owner use `Sync account` in Travis CI, which also ends doubled webhooks{_order(look)}. New commits "
        "are not affected.",
        link=LINK,
    )


def _order(look: Look) -> str:
    return ", or `resync LOGIN because of doubled webhooks`" if look.site.version.startswith("2.") else ""
