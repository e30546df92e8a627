"""Nothing works off Sidekiq's queues: jobs are never routed, states never reach the database, accounts never sync."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import sidekiq


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
        evidence=f"{len(named)} processes are named in redis, none of them beats; {sum(now.depths.values())} jobs wait",
        person="Look why the services in the platform's container do not run (its log is /var/travis/log/travis.log), "
        f"and start them again; as a last resort restart the app at https://{look.site.domain}:8800.",
        link=sidekiq.RUNBOOK,
    )
