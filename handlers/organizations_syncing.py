"""Organizations that look stuck in syncing: they have no such mark of their own, it is members who are stuck."""

from collections import Counter
from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import sidekiq, sync

SHOWN = 20


@diagnosis(
    "organizations stuck syncing",
    of="users syncing",
    each=Role.PLATFORM,
    says="Do the members of every organization come to the end of their sync?",
    unless=("users.sync-stuck", "sidekiq.no-process", "redis.*"),
    runbook=sync.RUNBOOK,
    once=True,
    compares=True,
)
def organizations_stuck_syncing(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(sync.members(), *sidekiq.doors())
    now = look(sync.members())
    if not now or sidekiq.sync_depth(sidekiq.depths(look)) >= sync.SHALLOW:
        return
    stuck = sync.stuck(look, sync.members, now)
    if not stuck:
        return
    by_organization = Counter(user.organization for user in stuck)
    yield Finding(
        "orgs.sync-stuck",
        Severity.BROKEN,
        machine,
        f"{counted(len(by_organization), 'organization')} stuck in syncing, because members of theirs are",
        evidence="stuck members: " + ", ".join(f"{name} {count}" for name, count in by_organization.most_common(SHOWN)),
        fixes=(sync.release(machine, stuck, look.site.version),),
        person=sync.afterwards(stuck, look.site.version),
        link=sync.RUNBOOK,
    )
