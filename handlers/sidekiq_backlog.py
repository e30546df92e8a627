"""A queue of Sidekiq is deep and gets deeper: the service that works it off is too slow, hangs, or is away.

Where builds depend on it, a few jobs are enough when the next one has waited for long: nobody takes any.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, sidekiq

PROMPT = ("hub", "scheduler")  # without them no build starts, and no result is written down
STILL = timedelta(minutes=10)  # a restart of the service is over by then


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
    if still := _still(look, machine, now):
        yield _stands(look, machine, now, still)
        return
    grown = sidekiq.grown(look, now, [name for name in now.depths if name != sidekiq.ARCHIVE])
    if not grown:
        return
    names = sorted(grown, key=lambda name: -grown[name][1])
    services = dict.fromkeys(sidekiq.SERVICES.get(name, "the service that reads it") for name in names)
    yield Finding(
        "sidekiq.backlog",
        Severity.WARN,
        machine,
        f"Sidekiq's {_queues(names)} {'gets' if len(names) == 1 else 'get'} deeper",
        evidence="\n".join(f"{name}: {grown[name][0]} jobs before, {grown[name][1]} now" for name in names),
        person=f"Look at {' and '.join(services)} in {_home(look)}: its log says what fails; restart it "
        "when it hangs, and give it more processes when it is only slow.",
        link=sidekiq.RUNBOOK,
    )


def _still(look: Look, machine: Target, now: sidekiq.Sidekiq) -> Mapping[str, timedelta]:
    """Those of the prompt queues whose next job has waited for long, and for how long."""
    names = [name for name in PROMPT if now.depths.get(name)]
    if not names:
        return {}
    look.together(platform.clock(machine), *(sidekiq.oldest(now.prefix, name) for name in names))
    since = {name: look(sidekiq.oldest(now.prefix, name)) for name in names}
    ages = {name: look(platform.clock(machine)) - at for name, at in since.items() if at is not None}
    return {name: age for name, age in ages.items() if age >= STILL}


def _stands(look: Look, machine: Target, now: sidekiq.Sidekiq, still: Mapping[str, timedelta]) -> Finding:
    services = " and ".join(sidekiq.SERVICES[name] for name in still)
    return Finding(
        "sidekiq.backlog",
        Severity.BROKEN,
        machine,
        f"Sidekiq's {_queues(tuple(still))} {'stands' if len(still) == 1 else 'stand'} still: nobody takes anything",
        evidence="\n".join(
            f"{name}: {now.depths[name]} jobs, the next one waits for {readable(age)}" for name, age in still.items()
        ),
        person=f"Look at {services} in {_home(look)}: its log says why it takes nothing; restart it.",
        link=sidekiq.RUNBOOK,
    )


def _queues(names: Sequence[str]) -> str:
    return f"{'queue' if len(names) == 1 else 'queues'} {', '.join(names)}"


def _home(look: Look) -> str:
    return "the platform's container" if look.site.version.startswith("2.") else "the pods of Travis"
