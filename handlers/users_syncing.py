"""Users whose account says for ever that it is being synced: they see no new repositories, and cannot sync again.

A count alone cannot tell stuck from busy. Stuck is who was syncing ten minutes ago as well, with no sync ended in
between, while Sidekiq has next to nothing to sync and does not have this user in hand.
"""

from collections.abc import Iterator

from bot.core.errors import Refused
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk
from bot.core.handler import action, diagnosis
from bot.core.look import Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import sidekiq, sync

SHOWN = 20


@diagnosis(
    "users stuck syncing",
    of="users syncing",
    each=Role.PLATFORM,
    says="Do accounts that are being synced come to an end?",
    unless=("sidekiq.no-process", "redis.*"),
    runbook=sync.RUNBOOK,
    once=True,
    compares=True,
)
def users_stuck_syncing(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(sync.syncing(), *sidekiq.doors())
    now = look(sync.syncing())
    if not now:
        return
    waiting = sidekiq.sync_depth(sidekiq.depths(look))
    if waiting >= sync.SHALLOW:
        yield Finding(
            "users.sync-backlog",
            Severity.INFO,
            machine,
            f"{counted(len(now), 'user')} in syncing and {counted(waiting, 'sync')} in Sidekiq: they take their turn",
            evidence=f"{waiting} jobs in the queues sync, sync.low and user_sync",
            link=sync.RUNBOOK,
        )
        return
    if stuck := sync.stuck(look, sync.syncing, now):
        yield Finding(
            "users.sync-stuck",
            Severity.BROKEN,
            machine,
            f"{counted(len(stuck), 'user is', 'users are')} stuck in syncing",
            evidence=_evidence(stuck, waiting),
            fixes=(sync.release(machine, stuck, look.site.version),),
            person=sync.afterwards(stuck, look.site.version),
            link=sync.RUNBOOK,
        )


@action(
    "resync",
    each=Role.PLATFORM,
    says="Sync one user with GitHub again",
    risk=Risk.DATA,
    makes="users.resync",
    takes="login",
)
def resync(look: Look, machine: Target, login: str) -> Fix:
    if not look.site.version.startswith("2."):
        raise Refused(f"on {look.site.version} a person syncs one user: {sync.in_its_pod(login)}")
    if (found := look(sync.user(login))) is None:
        raise Refused(f"no user of {look.site.name} has the login {login}")
    is_marked = look(sync.still_syncing(str(found.id)))
    if is_marked and sync.held(look, found):
        raise Refused(f"Sidekiq has a sync of {found.login} in hand or waiting: ask again when it has ended")
    return sync.sync_again(machine, found, is_marked)


def _evidence(stuck: tuple[sync.User, ...], waiting: int) -> str:
    shown = ", ".join(f"{user.login} (last synced {user.last})" for user in stuck[:SHOWN])
    more = f" and {len(stuck) - SHOWN} more" if len(stuck) > SHOWN else ""
    return f"unchanged for over 10 min, while {counted(waiting, 'sync waits', 'syncs wait')} in Sidekiq: {shown}{more}"
