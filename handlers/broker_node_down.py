"""A node of a RabbitMQ cluster does not run. The others go on, without the queues that live on it alone.

Travis declares its queues without arguments, so each is on one node: while that is away nobody can use it, and a worker
that is started then does not come up. https://www.rabbitmq.com/docs/clustering
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, rabbitmq

MOST = 5  # queues that are named


@diagnosis(
    "rabbitmq node down",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Do all nodes of RabbitMQ run?",
    unless=("broker.down", "broker.partition"),
    runbook="https://www.rabbitmq.com/docs/clustering",
    once=True,
)
def broker_node_down(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    now = broker.running(look, at.place)
    if not now.away:
        return
    lost = [each.name for each in look(rabbitmq.queues(at.place, at.vhost)) if not each.up and _lasts(each)]
    away = " and ".join(now.away)
    yield Finding(
        "broker.node-down",
        Severity.BROKEN if lost else Severity.WARN,
        machine,
        f"{away} of RabbitMQ's cluster does not run" + (": queues of Travis are away with it" if lost else ""),
        evidence=f"running: {', '.join(now.running) or 'none'}; "
        + (f"away with it: {', '.join(lost[:MOST])}" if lost else "every queue of Travis is on a node that runs"),
        person=f"Start it, one node at a time: on the machine of {away}, `sudo systemctl start rabbitmq-server`, then "
        "`sudo rabbitmqctl -q cluster_status`. When the machine is gone for good, `rabbitmqctl forget_cluster_node` on "
        "another one; queues that were on it alone are lost then, and workers declare them anew when they start.",
        link="https://www.rabbitmq.com/docs/clustering",
    )


def _lasts(queue: rabbitmq.Queue) -> bool:
    """The vhost is Travis' own, and its build queues may be called anything; those for cancelling go with a worker."""
    return not queue.name.startswith(rabbitmq.CANCELS)
