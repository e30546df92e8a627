"""`backup.overdue`: no complete backup has come for longer than `backups.overdue_after`."""

from collections.abc import Iterator
from datetime import timedelta

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import backup


@diagnosis(
    "backup overdue",
    of="backups missing",
    each=Role.PLATFORM,
    says="Are backups taken in time?",
    runbook="https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/#backups",
    once=True,
)
def backup_overdue(look: Look, platform: Target) -> Iterator[Finding]:
    known = look(backup.records())
    if known is None or not known.is_overdue:
        return
    yield Finding(
        "backup.overdue",
        Severity.WARN,
        platform,
        f"No complete backup of {look.site.name} was taken in time: {_last(known)}",
        evidence=f"`backups.overdue_after` is {backup.ago(known.overdue_after)}",
        person="See with `runs` how the last backup ended, remove what stopped it, and order `backup all`. When none "
        "was begun, look at `schedules:` in the configuration.",
    )


def _last(known: backup.Known) -> str:
    if known.newest is None or known.age is None:
        return "there is none"
    if known.age < timedelta():
        return f"the last one, backup {known.newest}, is dated {backup.ago(-known.age)} ahead: a clock is or was wrong"
    return f"the last one, backup {known.newest}, is {backup.ago(known.age)} old"
