"""Sidekiq's archive queue grows: up to 2.1.7 nothing reads it unless archiving is set up, and it fills redis."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, sidekiq


@diagnosis(
    "sidekiq archive queue",
    of="redis filling up",
    each=Role.PLATFORM,
    says="Does anything read Sidekiq's archive queue?",
    unless=("sidekiq.no-process", "redis.*"),
    runbook=sidekiq.RUNBOOK,
    once=True,
    compares=True,
)
def sidekiq_archive(look: Look, machine: Target) -> Iterator[Finding]:
    now = sidekiq.depths(look)
    grown = sidekiq.grown(look, now, [name for name in now.depths if name == sidekiq.ARCHIVE])
    if not grown:
        return
    before, depth = grown[sidekiq.ARCHIVE]
    old = sidekiq.has_archive(look.site.version)
    inside = old and look.site.option("redis.via", "container") == "container"
    yield Finding(
        "sidekiq.archive-growing",
        Severity.WARN,
        machine,
        f"Sidekiq's archive queue holds {depth} jobs, and gets deeper",
        evidence=f"{before} jobs before, {depth} now",
        fixes=(sidekiq.clear_archive(machine, look(platform.main_container()), now.prefix),) if inside else (),
        person=_person(old),
        link=sidekiq.RUNBOOK,
    )


def _person(old: bool) -> str:
    if old:
        return "Nothing reads this queue in this version: clear it, or set up the archiving of logs."
    return "Travis archives logs since 2.1.8, so this queue must not be cleared: look at travis-logs, and its storage."
