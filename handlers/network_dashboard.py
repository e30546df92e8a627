"""The admin dashboard of a platform does not answer. Builds run without it; settings and upgrades do not."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network


@diagnosis(
    "network dashboard",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does the admin dashboard answer?",
    unless=("platform.unreachable",),
    runbook=network.RUNBOOK,
)
def network_dashboard(look: Look, machine: Target) -> Iterator[Finding]:
    way = network.dashboard(look, machine)
    if way is network.Way.OPEN:
        return
    yield Finding(
        "platform.dashboard-unreachable",
        Severity.WARN,
        machine,
        f"the dashboard of {machine} does not answer on port {network.DASHBOARD}",
        evidence=f"tried on {machine} itself: {way.value}",
        person=f"On {machine}, look at `sudo docker ps -a` for the container replicated-ui, and start Replicated's "
        "services again: `sudo systemctl restart replicated replicated-ui replicated-operator` (14.04: `sudo service "
        "replicated restart`). Running builds are not touched by that.",
        link="https://docs.travis-ci.com/user/enterprise/platform-administration-tips/",
    )
