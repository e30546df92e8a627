"""What a worker sends to the platform is dropped on the way: a firewall, or the platform's security group."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network, security_group


@diagnosis(
    "network ports",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does a firewall let the worker through to the platform?",
    unless=("platform.unreachable", "worker.host-mismatch@BROKEN"),
    runbook=network.RUNBOOK,
)
def network_ports(look: Look, machine: Target) -> Iterator[Finding]:
    blocked = network.troubles(look, machine, *network.BLOCKED)
    if not blocked:
        return
    shut = tuple(road for road in blocked if not road.implied)
    fixes, person = _opened(look, machine, shut) if shut else ((), ())
    person = tuple(filter(None, (*person, network.without_port(machine, blocked))))
    yield Finding(
        "net.port-blocked",
        Severity.BROKEN,
        machine,
        f"{machine} gets no answer from port {network.ports(blocked)}",
        evidence=f"tried from {machine}: {network.listed(network.roads(look, machine))}",
        fixes=fixes,
        person=" ".join(person),
        link=network.RUNBOOK,
    )


def _opened(look: Look, machine: Target, shut: tuple[network.Road, ...]) -> tuple[tuple[Fix, ...], tuple[str, ...]]:
    fixes, person = _in_aws(look, machine, shut)
    return fixes, (_person(look, machine, shut), *person)


def _in_aws(look: Look, machine: Target, blocked: tuple[network.Road, ...]) -> tuple[tuple[Fix, ...], tuple[str, ...]]:
    """What the platform's security group says: the rule that is missing as a fix, or as the call for a person."""
    group = security_group.configured(look)
    own = [road for road in blocked if network.leads_to_platform(look, road)]
    if not group or not own:
        return (), ()
    verdict = security_group.verdict(look, machine, [road.port for road in own])
    if not verdict.shut:
        return (), (verdict.says,)
    call = security_group.allow(group, machine, verdict.shut)
    missing = f"{group} has no such rule for {' and '.join(map(str, verdict.shut))}; this adds it: `{call}`."
    if look.site.option("aws.write", "no") != "yes":
        return (), (missing,)
    shut = [road for road in own if road.port in verdict.shut]
    return (security_group.let_in(look, machine, shut),), (missing,)


def _person(look: Look, machine: Target, blocked: tuple[network.Road, ...]) -> str:
    source = f"{machine.address}/32" if network.is_address(machine.address) else machine.address
    rules = "; ".join(
        f"TCP {road.port} ({road.use}) from {source} to {network.platform_of(look, road.host)}" for road in blocked
    )
    return (
        f"Let this through: {rules}. In AWS that is an inbound rule of the security group there with exactly this port "
        "and source; elsewhere the firewalls between the two and on both. Do not open it to the world."
    )
