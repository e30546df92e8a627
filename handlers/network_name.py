"""A worker does not know where the platform is: its name does not resolve."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network


@diagnosis(
    "network name",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does the worker resolve the platform's name?",
    unless=("worker.host-mismatch@BROKEN",),
    runbook=network.RUNBOOK,
)
def network_name(look: Look, machine: Target) -> Iterator[Finding]:
    if not (names := network.unresolved(look, machine)):
        return
    name = " and ".join(names)
    served = network.is_served(look, machine)  # by a name server of its container's own, or from before
    yield Finding(
        "net.dns",
        Severity.WARN if served else Severity.BROKEN,
        machine,
        f"{machine} does not resolve {name}",
        evidence=f"`getent hosts` on {machine} finds nothing" + (", yet RabbitMQ sees its consumers" if served else ""),
        person=_person(look, machine, names),
        link=network.RUNBOOK,
    )


def _person(look: Look, machine: Target, names: tuple[str, ...]) -> str:
    """A line in the machine's /etc/hosts would not do: the worker's container has a file of its own."""
    odd = [name for name in names if name != look.site.domain]
    doubt = f" Or is {odd[0]} a mistake in its configuration? This installation is {look.site.domain}." if odd else ""
    return (
        f"Make {network.platform_of(look, names[0])} resolve on {machine}: correct its DNS record, or the name servers "
        "in /etc/resolv.conf of the machine. A line in its /etc/hosts does not reach travis-worker in its container."
        f"{doubt}"
    )
