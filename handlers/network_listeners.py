"""A worker reaches the platform, but nothing listens there, or what listens is not RabbitMQ."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network


@diagnosis(
    "network listeners",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does the platform answer where the worker looks for it?",
    unless=(
        "broker.down",
        "platform.disk-full@BROKEN",
        "platform.license-*@BROKEN",
        "platform.not-ready",
        "platform.rabbitmq-cert-directory",
        "platform.unreachable",
        "worker.host-mismatch@BROKEN",
    ),
    runbook=network.RUNBOOK,
)
def network_listeners(look: Look, machine: Target) -> Iterator[Finding]:
    refused = network.troubles(look, machine, network.Way.REFUSED)
    mute = network.troubles(look, machine, network.Way.MUTE)
    evidence = f"tried from {machine}: {network.listed(network.roads(look, machine))}"
    if refused:
        yield Finding(
            "net.port-refused",
            Severity.BROKEN,
            machine,
            f"ports {network.ports(refused)} refuse {machine}"
            if len(refused) > 1
            else f"port {network.ports(refused)} refuses {machine}",
            evidence=evidence,
            person=_person(look, machine, refused),
            link=network.RUNBOOK,
        )
    if mute:
        yield Finding(
            "net.amqp-silent",
            Severity.BROKEN,
            machine,
            f"something takes {machine}'s connection to {mute[0].host}:{mute[0].port}, but it is not RabbitMQ",
            evidence=evidence,
            person=network.without_port(machine, mute)
            or f"Find out what answers on port {mute[0].port} of {network.platform_of(look, mute[0].host)} for "
            f"{machine.address or machine}: a proxy or a load balancer without a broker behind it. AMQP does not go "
            "through an HTTP proxy; let it reach RabbitMQ directly.",
            link=network.RUNBOOK,
        )


def _person(look: Look, machine: Target, refused: tuple[network.Road, ...]) -> str:
    named = tuple(road for road in refused if not road.implied)
    said = (_start(look, machine, named) if named else "", network.without_port(machine, refused))
    return " ".join(filter(None, said))


def _start(look: Look, machine: Target, refused: tuple[network.Road, ...]) -> str:
    tls = (
        f" RabbitMQ may listen with TLS only, on {network.AMQPS}: then AMQP_URI on {machine} has to begin with "
        f"amqps:// and name that port."
        if any(road.port == network.AMQP for road in refused)
        else ""
    )
    return (
        f"Find out what should listen on {_doors(look, refused)} and start it; a firewall that rejects instead of "
        f"dropping looks the same from {machine.address or machine}.{tls}"
    )


def _doors(look: Look, roads: tuple[network.Road, ...]) -> str:
    """`port 5672 (RabbitMQ) and port 443 (build scripts) of travis.example.com (10.0.0.10)`."""
    hosts = dict.fromkeys(road.host for road in roads)
    listed = {host: [f"port {road.port} ({road.use})" for road in roads if road.host == host] for host in hosts}
    return "; ".join(f"{' and '.join(ports)} of {network.platform_of(look, host)}" for host, ports in listed.items())
