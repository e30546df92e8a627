"""The nodes of a RabbitMQ cluster have lost each other and go on apart: each half has queues of its own."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, rabbitmq


@diagnosis(
    "rabbitmq split",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Are all nodes of RabbitMQ of one mind?",
    runbook="https://www.rabbitmq.com/docs/partitions",
    once=True,
)
def broker_partition(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    now = broker.running(look, at.place)
    if not now.splits:
        return
    yield Finding(
        "broker.partition",
        Severity.BROKEN,
        machine,
        "RabbitMQ's cluster has split: builds and workers on different sides do not see each other",
        evidence="; ".join(f"{node} cannot communicate with {others}" for node, others in now.splits)
        + f"; running: {', '.join(now.running) or 'none'}, members: {', '.join(now.nodes) or 'unknown'}",
        person="First mend the network between the nodes. Then choose the side to keep, best the one most workers are "
        "connected to, and on each node of the other side, one after the other: `sudo rabbitmqctl stop_app`, then "
        "`sudo rabbitmqctl start_app`. What was queued there alone is lost: reset those builds. It is healed when "
        "`sudo rabbitmqctl -q cluster_status` says Network Partitions (none) on every node.",
        link="https://www.rabbitmq.com/docs/partitions#recovering",
    )
