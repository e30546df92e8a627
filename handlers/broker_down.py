"""RabbitMQ does not run: no build starts, and whatever workers say about it is a consequence.

Its own command decides: `rabbitmqctl` tells a node that is not there from one that it may not speak to. The management
API of a broker elsewhere is no such witness: when it gives no answer, the broker is down only if it refuses workers.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import diagnosis
from bot.core.look import CannotLook, Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, network, rabbitmq, replicated

WITNESSES = 3  # workers that are asked how the broker takes their connections


@diagnosis(
    "rabbitmq down",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does RabbitMQ run?",
    unless=(
        "platform.not-ready",
        "platform.app-stopped",
        "platform.rabbitmq-cert-directory",
        "platform.license-*@BROKEN",
    ),
    runbook="https://www.rabbitmq.com/docs/monitoring",
    once=True,
)
def broker_down(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    now = _told_by_workers(look, at) if at.elsewhere else look(broker.cluster(at.place))
    if now.state == broker.RUNNING:
        return
    stopped = now.state == broker.STOPPED
    title = "RabbitMQ was stopped, though its node runs" if stopped else "RabbitMQ does not run"
    yield Finding(
        "broker.down",
        Severity.BROKEN,
        machine,
        f"{title}: no build can start, and workers keep trying to connect",
        evidence=f"asked {_where(machine, at)}: {now.said}",
        fixes=tuple(_fixes(look, machine, at, stopped)),
        person=_person(machine, at),
        link="https://www.rabbitmq.com/docs/troubleshooting",
        unless=_unless(look, at),
    )


def _unless(look: Look, at: rabbitmq.Broker) -> tuple[str, ...] | None:
    """A platform that is not ready explains its own RabbitMQ, and may be the consequence of one on other machines."""
    if not at.elsewhere:
        return None
    roads = _roads(look)
    return None if any(network.leads_to_platform(look, road) for _, road in roads) else ()


def _told_by_workers(look: Look, at: rabbitmq.Broker) -> broker.Cluster:
    """As the management API says; where it gives no answer, down when most workers are refused and none gets through:
    what one of them sends may get lost on its way.
    """
    try:
        return look(broker.cluster(at.place))
    except CannotLook as silent:
        if silent.cause != rabbitmq.AWAY:
            raise
        roads = _roads(look)
        refused = [f"{road.host}:{road.port} refuses {each}" for each, road in roads if road.way is network.Way.REFUSED]
        if any(road.way is network.Way.OPEN for _, road in roads) or 2 * len(refused) <= len(roads):
            raise
        return broker.Cluster(broker.DOWN, said=f"{silent.why.rstrip('.')}; {', '.join(refused)}")


def _roads(look: Look) -> tuple[tuple[Target, network.Road], ...]:
    return network.to_broker(look, look.site.of(Role.WORKER)[:WITNESSES])


def _where(machine: Target, at: rabbitmq.Broker) -> str:
    if at.elsewhere:
        return "its management API"
    return f"in container {at.container} of {machine}" if at.container else f"on {machine}"


def _fixes(look: Look, machine: Target, at: rabbitmq.Broker, stopped: bool) -> Iterator[Fix]:
    """RabbitMQ alone where its container has a service manager that knows it; then the whole app."""
    if stopped:
        yield broker.start_app(machine, at.container)
    if at.container:
        known = [name for name in look(broker.services(at.container)) if name in broker.SERVERS]
        yield from (broker.start_service(machine, at.container, name) for name in known[:1])
        yield replicated.restart(machine)


def _person(machine: Target, at: rabbitmq.Broker) -> str:
    if at.container:
        return (
            "If it does not come back with the app, find out why: "
            f"`sudo docker exec {at.container} sh -c 'tail -n 50 /var/log/rabbitmq/*.log'` on {machine}; "
            "a full disk and a changed host name are the usual causes."
        )
    where = "every machine of the broker" if at.elsewhere else machine
    return (
        f"On {where}: `sudo systemctl start rabbitmq-server`, then `sudo rabbitmqctl -q cluster_status`. If it does "
        "not stay up, the end of its log in /var/log/rabbitmq says why; a full disk is the usual cause."
    )
