"""Nothing works off Sidekiq's queues: jobs are never routed, states never reach the database, accounts never sync."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import platform, sidekiq


@diagnosis(
    "sidekiq processes",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does anything work off Sidekiq's queues?",
    unless=("redis.*",),
    runbook=sidekiq.RUNBOOK,
    once=True,
    also=("users syncing",),
)
def sidekiq_processes(look: Look, machine: Target) -> Iterator[Finding]:
    if sidekiq.living(look):
        return
    now = sidekiq.depths(look)
    named = look(sidekiq.processes(now.prefix))
    yield Finding(
        "sidekiq.no-process",
        Severity.BROKEN,
        machine,
        "no Sidekiq process is alive, so nothing that Travis' services put off is ever done",
        evidence=f"{counted(len(named), 'process is', 'processes are')} named in redis, none beats; "
        f"{counted(sum(now.depths.values()), 'job waits', 'jobs wait')}",
        person=_person(look, machine),
        link=sidekiq.RUNBOOK,
    )


def _person(look: Look, machine: Target) -> str:
    if not look.site.version.startswith("2."):
        return (
            "Look which of Travis' deployments have no pod that runs: `kubectl -n NAMESPACE get pods`, and `kubectl -n "
            "NAMESPACE logs` of one says why; travis-scheduler, travis-hub and travis-github-sync work off most queues."
        )
    return (
        f"Read the end of {platform.data_dir(look, machine)}/log/travis.log on {machine}: it says why the services in "
        "the platform's container ended. When that is mended and they stay away, `restart platform "
        f"{machine} because Sidekiq does not run`."
    )
