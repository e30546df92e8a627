"""GitHub refuses logins, because its OAuth app names another address than the platform has.

The two settings can be read in GitHub's pages only; what proves a mismatch is that GitHub said so in the platform's
log.
"""

from collections.abc import Iterator
from dataclasses import replace

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, replicated

LINK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/"


@diagnosis(
    "github login mismatch",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Does GitHub know the platform's address?",
    runbook=LINK,
)
def platform_oauth(look: Look, machine: Target) -> Iterator[Finding]:
    signs = platform.signs(machine, platform.data_dir(look, machine))
    look.together(signs, replicated.app(machine))
    count = look(signs).get(platform.REDIRECT, 0)
    if count == 0:
        return
    host = look.site.domain
    found = Finding(
        "platform.oauth-mismatch",
        Severity.BROKEN,
        machine,
        f"GitHub refuses logins to {host}: its OAuth app names another address",
        evidence=f"GitHub's answer {platform.REDIRECT} stands {count} times in the last {platform.LINES} lines of the "
        "platform's log",
        person=f"In GitHub, at the OAuth app of Travis CI, set `Homepage URL` to https://{host} and `Authorization "
        f"callback URL` to https://{host}/api, with https and without a slash at the end; then `restart platform "
        f"{machine} because the OAuth app is corrected`.",
        link=LINK,
    )
    yield replace(found, severity=Severity.WARN) if _runs(look, machine) else found


def _runs(look: Look, machine: Target) -> bool:
    """A platform that runs builds builds all the same; only people cannot log in."""
    try:
        return look(replicated.app(machine)).state == replicated.STARTED
    except Unknown:
        return False
