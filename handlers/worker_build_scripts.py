"""Builds on a worker end in an error before they begin: it gets no script, which is what such a build is.

The worker tries for a minute and gives the build up; on its page stands "An error occurred while generating the build
script." Where no worker gets any, it is the platform's trouble and said of that.
"""

from collections.abc import Iterator

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network, scripts, settings
from handlers.toolbox.scripts import Asked


@diagnosis(
    "worker waits for scripts",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Is there a script for every build that the worker takes?",
    unless=("platform.no-script", *scripts.ELSEWHERE),
    runbook=network.RUNBOOK,
)
def worker_waits_for_scripts(look: Look, machine: Target) -> Iterator[Finding]:
    asked = scripts.asked(look, machine)
    if asked is None or (asked.served and not asked.distrusts):
        return  # it was away for a while
    if not asked.served and not asked.in_vain:
        raise Unknown(
            f"{asked.page} answers {asked.status} to {machine}: this platform may not pass it on, so it proves nothing"
        )
    yield Finding(
        "worker.no-script",
        Severity.BROKEN,
        machine,
        f"builds on {machine} end in an error: it gets no scripts for them",
        evidence=str(asked),
        person=_distrust(machine) if asked.served else _compare(look, asked),
        link=network.RUNBOOK,
    )


def _distrust(machine: Target) -> str:
    return (
        "Give the platform a certificate that is valid, or have travis-worker take this one: `export "
        f"TRAVIS_WORKER_BUILD_API_INSECURE_SKIP_VERIFY=true` in {settings.MAIN} on {machine}, and restart. "
        f"{scripts.OVER}"
    )


def _compare(look: Look, asked: Asked) -> str:
    """How travis-build is restarted is said of the platform, once for all; of one worker's silence nobody says it."""
    alone = not asked.status and len(look.site.of(Role.WORKER)) == 1
    elsewhere = "it is the platform's, and `diagnose platform makes no scripts` says how to restart travis-build."
    return (
        f"Where other workers get their scripts, find out what answers {asked.worker} instead: compare "
        f"{settings.BUILD_API}, what that host resolves to (`getent hosts`), and any proxy on the way. Where none "
        f"gets any: {scripts.restart(look) if alone else elsewhere}"
    )
