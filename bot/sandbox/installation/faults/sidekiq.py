"""What can go wrong with Sidekiq, and what only looks so."""

from bot.core.target import Role
from bot.sandbox.installation.faults import SUSPICIOUS, fault
from bot.sandbox.installation.faults.jobs import MINUTE
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.redis import PROCESSES
from bot.sandbox.installation.state import Machine


@fault("has no Sidekiq process", on=Role.PLATFORM, cause="sidekiq.no-process")
def no_process(installation: Installation, _machine: Machine) -> None:
    """Every service that works off Sidekiq's queues has ended."""
    for name in PROCESSES:
        installation.redis.stop_sidekiq(name)


@fault("has dead Sidekiq processes", on=Role.PLATFORM, cause="sidekiq.no-process")
def dead_processes(installation: Installation, _machine: Machine) -> None:
    """They were killed: their names still stand in redis, and nobody beats."""
    for identity in installation.redis.sets["sidekiq:processes"]:
        installation.redis.hashes.pop(f"sidekiq:{identity}", None)


@fault("falls behind in Sidekiq", on=Role.PLATFORM, cause="sidekiq.backlog")
def behind(installation: Installation, _machine: Machine) -> None:
    """The scheduler hangs: its queue gets deeper by the minute."""
    installation.redis.push("scheduler", 400, ago=30 * MINUTE)
    _grows(installation, "scheduler", 20)


@fault("keeps an archive queue", on=Role.PLATFORM, cause="sidekiq.archive-growing")
def archive(installation: Installation, _machine: Machine) -> None:
    """Nothing reads Sidekiq's archive queue, and every job that ends adds to it."""
    installation.redis.push("archive", 5000, ago=60 * MINUTE)
    _grows(installation, "archive", 5)


@fault("works off a deep queue", on=Role.PLATFORM, cause=SUSPICIOUS)
def works_off(installation: Installation, _machine: Machine) -> None:
    """Very many webhooks were put into Sidekiq at once; they get fewer."""
    installation.redis.push("webhook", 3000, ago=5 * MINUTE)
    _shrinks(installation, "webhook", 50)


@fault("has the name of a dead Sidekiq process", on=Role.PLATFORM, cause=SUSPICIOUS)
def stale_name(installation: Installation, _machine: Machine) -> None:
    """One process was killed and another one took over: the old name stands beside the living."""
    installation.redis.sets["sidekiq:processes"].add("te-main:99:5f0c")


@fault("tries some Sidekiq jobs again", on=Role.PLATFORM, cause=SUSPICIOUS)
def retries(installation: Installation, _machine: Machine) -> None:
    """GitHub was away for a moment: three jobs will be tried again."""
    later = installation.timeline.date().timestamp() + 300
    installation.redis.zsets["sidekiq:retry"] = {f'{{"jid":"{no}"}}': later + no for no in range(3)}


def _grows(installation: Installation, queue: str, by: int) -> None:
    installation.timeline.after(MINUTE, lambda: _grows(installation, queue, by))
    installation.redis.push(queue, by)


def _shrinks(installation: Installation, queue: str, by: int) -> None:
    installation.timeline.after(MINUTE, lambda: _shrinks(installation, queue, by))
    del installation.redis.lists[f"sidekiq:queue:{queue}"][:by]
