"""A queue of Sidekiq is deep and gets deeper: the service that works it off is too slow, hangs, or is away."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import sidekiq


@diagnosis(
    "sidekiq backlog",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Do Sidekiq's queues keep up?",
    unless=("sidekiq.no-process", "redis.*", "broker.*@BROKEN"),
    runbook=sidekiq.RUNBOOK,
    once=True,
    compares=True,
)
def sidekiq_backlog(look: Look, machine: Target) -> Iterator[Finding]:
    now = sidekiq.depths(look)
    grown = sidekiq.grown(look, now, [name for name in now.depths if name != sidekiq.ARCHIVE])
    if not grown:
        return
    names = sorted(grown, key=lambda name: -grown[name][1])
    services = dict.fromkeys(sidekiq.SERVICES.get(name, "the service that reads it") for name in names)
    yield Finding(
        "sidekiq.backlog",
        Severity.WARN,
        machine,
        f"Sidekiq's {'queue' if len(names) == 1 else 'queues'} {', '.join(names)} get deeper",
        evidence="\n".join(f"{name}: {grown[name][0]} jobs before, {grown[name][1]} now" for name in names),
        person=f"Look at {' and '.join(services)} in the platform's container: its log says what fails; restart it "
        "when it hangs, and give it more processes when it is only slow.",
        link=sidekiq.RUNBOOK,
    )
