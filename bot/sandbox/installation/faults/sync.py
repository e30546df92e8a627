"""What can go wrong with syncing accounts, and what only looks so."""

import json

from bot.core.target import Role
from bot.sandbox.installation.faults import SUSPICIOUS, fault
from bot.sandbox.installation.faults.jobs import MINUTE, database_of
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine

MARK = "UPDATE users SET is_syncing = true WHERE login = ANY(%s)"


@fault("has users stuck in syncing", on=Role.PLATFORM, cause="users.sync-stuck")
def stuck(installation: Installation, _machine: Machine) -> None:
    """The syncs of two users died, and left their mark."""
    database_of(installation).run(MARK, ["sam", "nils"])


@fault("has an organization stuck in syncing", on=Role.PLATFORM, cause="orgs.sync-stuck", also=("users.sync-stuck",))
def organization(installation: Installation, _machine: Machine) -> None:
    """All members of octo-org are stuck, so that it looks stuck itself."""
    members = "SELECT user_id FROM memberships WHERE organization_id = 1"
    database_of(installation).run(f"UPDATE users SET is_syncing = true WHERE id IN ({members})")


@fault("syncs everybody", on=Role.PLATFORM, cause="users.sync-backlog")
def backlog(installation: Installation, _machine: Machine) -> None:
    """Somebody has asked for a sync of all users: they wait their turn in Sidekiq."""
    database_of(installation).run("UPDATE users SET is_syncing = true")
    installation.redis.push("sync", 60, ago=20 * MINUTE)


@fault("syncs a user again and again", on=Role.PLATFORM, cause=SUSPICIOUS)
def again(installation: Installation, machine: Machine) -> None:
    """A user is being synced whenever one looks, and each sync comes to its end."""
    database = database_of(installation)
    if database.running:
        database.run("UPDATE users SET is_syncing = true, synced_at = now() WHERE login = 'ada'")
    installation.timeline.after(4 * MINUTE, lambda: again(installation, machine))


@fault("syncs a user with very many repositories", on=Role.PLATFORM, cause=SUSPICIOUS)
def in_hand(installation: Installation, _machine: Machine) -> None:
    """One sync takes an hour: a Sidekiq process has it in hand all the time."""
    database_of(installation).run(MARK, ["rui"])
    process = sorted(installation.redis.sets["sidekiq:processes"])[0]
    job = {"class": "Travis::GithubSync::Worker", "args": ["sync_user", {"user_id": 3}], "queue": "sync", "jid": "5a"}
    work = {"queue": "sync", "payload": job, "run_at": int(installation.timeline.date().timestamp())}
    installation.redis.hashes[f"sidekiq:{process}:workers"] = {"gq1k8": json.dumps(work)}


@fault("has users of whom nobody knows whether they sync", on=Role.PLATFORM, cause=SUSPICIOUS)
def unmarked(installation: Installation, _machine: Machine) -> None:
    """Accounts that were made by an old version have no mark at all: it is NULL."""
    database_of(installation).run("UPDATE users SET is_syncing = NULL, synced_at = NULL")
