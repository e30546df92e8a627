"""Facts about the broker: who consumes what, from which machine.

RabbitMQ is asked by `rabbitmqctl`, in the platform's container (2.x) or on the broker's own host. Without `-p travis`
it would read another vhost and see nothing. Tables are tab-separated, with a header row since RabbitMQ 3.8. Source:
https://docs.travis-ci.com/user/enterprise/worker-cli-commands/
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Role
from handlers.toolbox import platform

_PEER = re.compile(r"^\[?([0-9A-Fa-f.:]+?)\]?:(\d+) -> ")
BUILDS = "builds."
CANCELS = "amq.gen-"  # each connected worker has one such queue, for the cancel button


@dataclass(frozen=True)
class Broker:
    """How to speak to the broker: the container it runs in (empty: the host itself) and the vhost."""

    container: str
    vhost: str


@dataclass(frozen=True)
class Consumer:
    """One consumer: its queue, and the pid of the channel it came by."""

    queue: str
    channel: str


@dataclass(frozen=True)
class Queue:
    """One queue: messages that wait, messages that were taken and not yet acknowledged, and who takes them."""

    name: str
    ready: int
    unacked: int
    consumers: int


def broker(look: Look) -> Broker:
    """The installation's broker, its container found and not guessed."""
    vhost = look.site.option("rabbitmq.vhost", "travis")
    via = look.site.option("rabbitmq.via", "container")
    if via == "http":
        raise Unknown("RabbitMQ is reached by its management API alone, which does not answer rabbitmqctl")
    if via == "host":
        return Broker("", vhost)
    return Broker(look(platform.main_container()), vhost)


def ctl(container: str, *words: str) -> Command:
    """`rabbitmqctl -q …` as root: in that container, or on the host itself when it is empty."""
    ask = ("rabbitmqctl", "-q", *words)
    return sh("docker", "exec", container, *ask).sudo() if container else sh(*ask).sudo()


@fact
def consumers(container: str, vhost: str) -> Fact[tuple[Consumer, ...]]:
    """Every consumer of the vhost."""
    question = ctl(container, "list_consumers", "-p", vhost)
    return Fact("Who consumes from which queue?", Role.PLATFORM, question, _consumers, sampled=True)


@fact
def queues(container: str, vhost: str) -> Fact[tuple[Queue, ...]]:
    """Every queue of the vhost with its messages and consumers."""
    columns = ("name", "messages_ready", "messages_unacknowledged", "consumers")
    question = ctl(container, "list_queues", "-p", vhost, *columns)
    return Fact("What waits in which queue?", Role.PLATFORM, question, read_queues, sampled=True)


@fact
def channels(container: str) -> Fact[dict[str, str]]:
    """Channel pid -> address of the machine it comes from."""
    question = ctl(container, "list_channels", "pid", "name")
    return Fact("Which machine does each channel come from?", Role.PLATFORM, question, _channels)


@fact
def consumers_from(container: str, vhost: str, machine: str, addresses: str) -> Fact[int]:
    """How many consumers hang on channels from one of a machine's comma-separated addresses."""

    def count(said: Output) -> int:
        rows = _rows(said, 3)
        mine = (row for row in rows if row[1] == vhost and peer_of(row[0]) in addresses.split(","))
        return sum(int(row[2]) for row in mine if row[2].isdigit())

    question = ctl(container, "list_channels", "name", "vhost", "consumer_count")
    return Fact(f"number of consumers of {machine}", Role.PLATFORM, question, count)


def _consumers(said: Output) -> tuple[Consumer, ...]:
    return tuple(Consumer(row[0], row[1]) for row in _rows(said, 3) if row[0] != "queue_name")


def read_queues(said: Output) -> tuple[Queue, ...]:
    """The rows of `list_queues` whose numbers are known: a queue that is down has none."""
    rows = (row for row in _rows(said, 4) if all(cell.isdigit() for cell in row[1:4]))
    return tuple(Queue(row[0], int(row[1]), int(row[2]), int(row[3])) for row in rows)


def _channels(said: Output) -> dict[str, str]:
    return {row[0]: peer_of(row[1]) for row in _rows(said, 2) if row[0] != "pid"}


def _rows(said: Output, columns: int) -> Iterator[Sequence[str]]:
    if not said.ok:
        raise Unknown(f"rabbitmqctl failed: {(said.err or said.out).strip() or 'no words'}")
    rows = (line.split("\t") for line in said.out.splitlines() if line.strip())
    return (row for row in rows if len(row) >= columns)


def peer_of(name: str) -> str:
    """The address in `10.0.0.11:41234 -> 10.0.0.10:5672 (1)`, empty when there is none."""
    found = _PEER.match(name)
    return found[1] if found else ""


@dataclass(frozen=True)
class Presence:
    """What the broker sees of one address: consumers on build queues, and cancel queues (one per worker process)."""

    builds: int = 0
    cancels: int = 0


def presences(look: Look, at: Broker) -> Mapping[str, Presence]:
    """Address -> what RabbitMQ sees from there; addresses that only serve the platform itself are left out."""
    look.together(consumers(at.container, at.vhost), channels(at.container))
    peers = look(channels(at.container))
    return _presences(look(consumers(at.container, at.vhost)), tuple(peers.items()))


@lru_cache(maxsize=4)  # every worker asks for the same
def _presences(every: tuple[Consumer, ...], peers: tuple[tuple[str, str], ...]) -> Mapping[str, Presence]:
    places = dict(peers)
    seen: dict[str, Presence] = {}
    for consumer in every:
        address = places.get(consumer.channel, "")
        before = seen.get(address, Presence())
        if consumer.queue.startswith(BUILDS):
            seen[address] = Presence(before.builds + 1, before.cancels)
        elif consumer.queue.startswith(CANCELS):
            seen[address] = Presence(before.builds, before.cancels + 1)
    return MappingProxyType(seen)


@fact
def held(container: str, vhost: str) -> Fact[dict[str, int]]:
    """Address -> messages that were taken from there and are not acknowledged: each is kept for as long as its build
    lasts.
    """

    def count(said: Output) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, where, messages in (row[:3] for row in _rows(said, 3)):
            if where == vhost and messages.isdigit():
                found[peer_of(name)] = found.get(peer_of(name), 0) + int(messages)
        return found

    question = ctl(container, "list_channels", "name", "vhost", "messages_unacknowledged")
    return Fact("Which machine holds how many messages?", Role.PLATFORM, question, count, sampled=True)
