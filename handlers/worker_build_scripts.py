"""Builds on a worker end in an error before they begin: nothing makes the script that such a build is.

The worker tries for a minute and gives the build up; on its page stands "An error occurred while generating the build
script." That its port 443 is open says nothing of travis-build behind it.
"""

import re
from collections.abc import Iterator
from typing import Final

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import build_starts, network, settings, worker

OVER: Final = "Builds that have ended so have to be restarted."


@diagnosis(
    "worker waits for scripts",
    of="builds not starting",
    each=Role.WORKER,
    says="Is there a script for every build that the worker takes?",
    unless=(
        "net.*",
        "platform.disk-full@BROKEN",
        "platform.not-ready",
        "platform.unreachable",
        "worker.build-api",
        "worker.config-overridden",
        "worker.host-mismatch",
    ),
    runbook=network.RUNBOOK,
)
def worker_waits_for_scripts(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), settings.written(machine))
    init = look(worker.init_system(machine))
    trouble = look(build_starts.troubles(machine, init)).get(build_starts.SCRIPT)
    if trouble is None or not trouble.times:
        return
    written = settings.settings(look(settings.written(machine)), init)
    page = network.uptime_page(written.value(settings.BUILD_API)) or f"https://{look.site.domain}/{network.UPTIME}"
    status, distrusted = look(network.status_of(machine, page)), re.search(r"x509:|tls:", trouble.said)
    served = status == network.OK
    if served and not distrusted:
        return  # it was away for a while
    if network.OK < status < 500:
        raise Unknown(f"{page} answers {status} to {machine}: this platform may not pass it on, so it proves nothing")
    yield Finding(
        "worker.no-script",
        Severity.BROKEN,
        machine,
        f"builds on {machine} end in an error: nothing makes their scripts",
        evidence=f"its log says, {trouble.times} times since one last started: {trouble.said}; "
        f"{page} {'answers' if served else 'does not answer with 200'} when {machine} asks",
        person=_distrust(machine) if served else _restart(look),
        link=network.RUNBOOK,
    )


def _distrust(machine: Target) -> str:
    return (
        "Give the platform a certificate that is valid, or have travis-worker take this one: `export "
        f"TRAVIS_WORKER_BUILD_API_INSECURE_SKIP_VERIFY=true` in {settings.MAIN} on {machine}, and restart. {OVER}"
    )


def _restart(look: Look) -> str:
    if look.site.version.startswith("2."):
        platform = look.site.of(Role.PLATFORM)[0]
        how = (
            f"`sv restart travis-build` in the container on {platform}, or `restart platform {platform} because "
            "travis-build is gone`"
        )
    else:
        how = "`kubectl rollout restart` of the deployment travis-build, in the namespace of Travis CI Enterprise"
    return f"Restart travis-build on the platform: {how}. {OVER}"
