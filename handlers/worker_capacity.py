"""How many builds can run at once, from how many machines, and what waits: the vendor's two one-liners as tables."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bot.core.handler import Steps, job
from bot.core.look import Look
from bot.core.number import counted
from bot.core.target import Role
from handlers.toolbox import rabbitmq


@dataclass(frozen=True)
class Capacity:
    """Of one build queue: places for builds, the machines that they are on, and its messages."""

    queue: str
    places: int
    machines: tuple[str, ...]
    running: int
    waiting: int


@job("worker capacity", says="How many builds can run at once, from how many machines, per queue")
def worker_capacity(steps: Steps, look: Look) -> str:
    found = capacities(look)
    if not found:
        return "RabbitMQ has no build queue: no worker has ever connected to it."
    head = ("queue", "at once", "machines", "running", "waiting")
    rows = [(each.queue, each.places, len(each.machines), each.running, each.waiting) for each in found]
    steps.say(table(head, rows))
    places, machines = sum(each.places for each in found), {name for each in found for name in each.machines}
    names = f": {', '.join(sorted(machines))}" if machines else ""
    return f"{counted(places, 'build')} can run at once, from {counted(len(machines), 'machine')}{names}."


@job("queue statistics", says="Messages and consumers of every RabbitMQ queue of Travis")
def queue_statistics(steps: Steps, look: Look) -> str:
    at = rabbitmq.broker(look)
    found = look(rabbitmq.queues(at.place, at.vhost))
    if not found:
        return f"RabbitMQ has no queue in the vhost {at.vhost}."
    own = sorted((each for each in found if not each.name.startswith(rabbitmq.CANCELS)), key=lambda each: each.name)
    rows = [(each.name, *(_numbers(each) if each.up else ("?", "?", "?"))) for each in own]
    steps.say(table(("queue", "ready", "unacked", "consumers"), rows))
    cancels = len(found) - len(own)
    return f"{counted(len(own), 'queue')}, and {counted(cancels, 'cancel queue')}: one for each connected worker."


def capacities(look: Look) -> tuple[Capacity, ...]:
    """Every build queue with what consumes from it; a machine that is in no configuration goes by its address."""
    at = rabbitmq.broker(look)
    queues, consumers = rabbitmq.queues(at.place, at.vhost), rabbitmq.consumers(at.place, at.vhost)
    look.together(queues, consumers, rabbitmq.channels(at.place, at.vhost))
    peers = look(rabbitmq.channels(at.place, at.vhost))
    names = {each.address: each.name for each in look.site.of(Role.WORKER)}
    found = []
    for queue in rabbitmq.build_queues(look(queues), look(consumers)):
        mine = [peers.get(each.channel, "") for each in look(consumers) if each.queue == queue.name]
        machines = tuple(sorted({names.get(address, address or "unknown") for address in mine}))
        found.append(Capacity(queue.name, len(mine), machines, queue.unacked, queue.ready))
    return tuple(sorted(found, key=lambda each: each.queue))


def _numbers(queue: rabbitmq.Queue) -> tuple[int, ...]:
    return queue.ready, queue.unacked, queue.consumers


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Words to the left, numbers to the right; each line is set as code, so that columns stay columns."""
    lines = [tuple(head), *(tuple(str(cell).replace("`", "'") for cell in row) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(f"`{_row(line, widths)}`" for line in lines)


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers = zip(cells, widths, strict=True)
    return "  ".join((first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in numbers)))
