"""RabbitMQ is short of memory or disk, and takes no messages any more: builds that run go on, and nothing new starts.

One node's alarm blocks whoever publishes to any node of the cluster.
"""

from collections.abc import Iterator, Sequence

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, rabbitmq

DEEP = 1000  # messages in one queue from which on it is worth naming
BLOCKING = ("memory", "disk")  # running out of file descriptors refuses new connections, and blocks nobody


@diagnosis(
    "rabbitmq alarm",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does RabbitMQ take messages?",
    runbook="https://www.rabbitmq.com/docs/alarms",
    once=True,
)
def broker_alarm(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    now = broker.running(look, at.place)
    alarms = [alarm for alarm in now.alarms if alarm[0] in BLOCKING]
    if not alarms and now.mute:
        raise Unknown(f"{' and '.join(now.mute)} of RabbitMQ does not tell whether it has an alarm")
    if not alarms:
        return
    look.together(broker.room(at.place), rabbitmq.queues(at.place, at.vhost))
    room, queues = look(broker.room(at.place)), look(rabbitmq.queues(at.place, at.vhost))
    raised = " and ".join(f"the {what} alarm on {node}" for what, node in alarms)
    yield Finding(
        "broker.alarm",
        Severity.BROKEN,
        machine,
        f"RabbitMQ has raised {raised}: whoever publishes is blocked, so no build is queued and no result recorded",
        evidence=_evidence(room, queues),
        person=_person(machine, at, alarms),
        link="https://www.rabbitmq.com/docs/alarms",
    )


def _evidence(room: broker.Room, queues: Sequence[rabbitmq.Queue]) -> str:
    used = f"{room.node or 'the node'}: memory {room.memory or 'unknown'} of at most {room.memory_limit or 'unknown'}"
    free = f"disk {room.disk_free or 'unknown'} free of at least {room.disk_limit or 'unknown'}"
    deep = sorted((each for each in queues if each.ready >= DEEP), key=lambda each: -each.ready)[:3]
    waiting = "; ".join(f"{each.ready} messages in {each.name}, {each.consumers} consumers" for each in deep)
    return f"{used}, {free}; {waiting or f'no queue holds {DEEP} messages'}"


def _person(machine: Target, at: rabbitmq.Broker, alarms: Sequence[tuple[str, str]]) -> str:
    ask = f"docker exec {at.container} " if at.container else ""
    where = " and ".join(dict.fromkeys(node for _, node in alarms)) if at.elsewhere else str(machine)
    steps = {
        "disk": f"Free disk space where RabbitMQ keeps its data: `sudo {ask}df -h` on {where} shows which disk is "
        "full; old logs and unused Docker images go first, never the database or RabbitMQ's own folder.",
        "memory": "Find what fills RabbitMQ's memory: a deep queue without consumers needs its consumer back (for "
        "reporting.* that is the platform's drain), many connections need the worker that opens them stopped. "
        f"Give {'it' if at.elsewhere else 'the platform'} more memory when it is only small.",
    }
    raised = {what for what, _ in alarms}
    words = " ".join(steps[each] for each in BLOCKING if each in raised)
    return f"{words} The alarm goes by itself: `sudo {ask}rabbitmqctl -q cluster_status` says Alarms (none) then."
