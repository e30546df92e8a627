"""RabbitMQ does not run: no build starts, and whatever workers say about it is a consequence.

Its own command decides: `rabbitmqctl` tells a node that is not there from one that it may not speak to.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, rabbitmq, replicated


@diagnosis(
    "rabbitmq down",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does RabbitMQ run?",
    unless=("platform.not-ready", "platform.app-stopped", "platform.rabbitmq-cert-directory"),
    runbook="https://www.rabbitmq.com/docs/monitoring",
    once=True,
)
def broker_down(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    now = look(broker.cluster(at.container))
    if now.state == broker.RUNNING:
        return
    stopped = now.state == broker.STOPPED
    where = f"in container {at.container} of {machine}" if at.container else f"on {machine}"
    title = "RabbitMQ was stopped, though its node runs" if stopped else "RabbitMQ does not run"
    yield Finding(
        "broker.down",
        Severity.BROKEN,
        machine,
        f"{title}: no build can start, and workers keep trying to connect",
        evidence=f"asked {where}: {now.said}",
        fixes=tuple(_fixes(look, machine, at, stopped)),
        person=_person(machine, at),
        link="https://www.rabbitmq.com/docs/troubleshooting",
    )


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
    return (
        f"On {machine}: `sudo systemctl start rabbitmq-server`, then `sudo rabbitmqctl -q cluster_status`. If it does "
        "not stay up, the end of its log in /var/log/rabbitmq says why; a full disk is the usual cause."
    )
