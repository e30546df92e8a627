"""Facts about the broker: who consumes what, from which machine.

RabbitMQ is asked by `rabbitmqctl`, in the platform's container (2.x) or on the broker's own host, or by the management
API of a broker that stands elsewhere (high availability). Both list the same under the same names, so a fact is one
question for either place, and one parser of rows. Without `-p travis` it would read another vhost and see nothing.
Tables are tab-separated, with a header row since RabbitMQ 3.8; the API wants a user with the tag `monitoring` who may
enter the vhost. Sources: https://docs.travis-ci.com/user/enterprise/worker-cli-commands/ and
https://www.rabbitmq.com/docs/http-api-reference
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, derived, fact
from bot.core.look import Look
from bot.core.question import HttpGet, Output, Question, Response
from bot.core.target import Role
from handlers.toolbox import platform

_PEER = re.compile(r"^\[?([0-9A-Fa-f.:]+?)\]?:(\d+) -> ")
BUILDS = "builds."  # how the vendor's build queues begin; an installation may have others, under any name
CANCELS = "amq.gen-"  # each connected worker has one such queue, for the cancel button
REPORTS = "reporting."  # of what workers report; the platform's own services take that
BUILD_TAG = "build-job-consumer"  # as a worker calls each of its places for a build
AWAY = "rabbitmq-unreachable"  # why the management API could not be asked: it gives no answer
SPOILS = ("broker.down", "broker.partition", "broker.node-down@BROKEN")  # then what it sees of workers says little
HOST, API = "", "http"  # the places of a broker that is in no container; a container's id is neither
LISTING = 8 << 20  # bytes: 4000 consumers are half a megabyte, and a broker may serve others besides
PATIENCE = timedelta(seconds=20)  # for the API, as long as a program on a machine has


@dataclass(frozen=True)
class Broker:
    """How to speak to the broker: its place (a container's id, HOST: the platform's host itself, API: elsewhere, by its
    management API) and the vhost.
    """

    place: str
    vhost: str

    @property
    def container(self) -> str:
        """The container it runs in, empty when it is in none."""
        return "" if self.elsewhere else self.place

    @property
    def elsewhere(self) -> bool:
        """It stands on machines that are none of the installation's: opsbot can ask it, and changes nothing there."""
        return self.place == API


@dataclass(frozen=True)
class Consumer:
    """One consumer: its queue, the channel it came by (its pid, or its name where the API says it), and its tag."""

    queue: str
    channel: str
    tag: str = ""

    @property
    def takes_builds(self) -> bool:
        """Is it a worker's place for a build? Its queue may be called anything."""
        own = self.tag == BUILD_TAG and not self.queue.startswith((CANCELS, REPORTS))
        return own or self.queue.startswith(BUILDS)


@dataclass(frozen=True)
class Queue:
    """One queue: messages that wait, messages that were taken and not yet acknowledged, and who takes them.

    One that is not `up` is there, but its node is away or has not counted yet: its numbers are 0 and say nothing.
    """

    name: str
    ready: int
    unacked: int
    consumers: int
    up: bool = True


def ahead(look: Look) -> tuple[Fact[Any], ...]:
    """What asking the broker will need, so that it is asked in the same round as something else."""
    return (platform.main_container(),) if look.site.option("rabbitmq.via", "container") == "container" else ()


def broker(look: Look) -> Broker:
    """The installation's broker, its container found and not guessed."""
    vhost = look.site.option("rabbitmq.vhost", "travis")
    outside = {"host": HOST, "http": API}.get(look.site.option("rabbitmq.via", "container"))
    return Broker(look(platform.main_container()) if outside is None else outside, vhost)


def is_elsewhere(look: Look) -> bool:
    """Does the broker stand on machines that are none of the installation's?"""
    return look.site.option("rabbitmq.via", "container") == "http"


# ---------------------------------------------------------------- questions


def ctl(container: str, *words: str) -> Command:
    """`rabbitmqctl -q …` as root: in that container, or on the host itself when it is empty."""
    ask = ("rabbitmqctl", "-q", *words)
    return sh("docker", "exec", container, *ask).sudo() if container else sh(*ask).sudo()


def api(path: str, columns: Sequence[str]) -> HttpGet:
    """A listing of the management API, these columns alone: the whole of it would be many times as long."""
    return HttpGet(f"rabbitmq:/api/{path}?columns={','.join(columns)}", PATIENCE, LISTING)


def _of(vhost: str) -> str:
    return quote(vhost, safe="")


# ---------------------------------------------------------------- facts

CONSUMERS = ("queue.name", "channel_details.name", "consumer_tag")
QUEUES = ("name", "messages_ready", "messages_unacknowledged", "consumers")
CHANNELS = ("name", "vhost", "consumer_count")
HELD = ("name", "vhost", "messages_unacknowledged")


@fact
def consumers(place: str, vhost: str) -> Fact[tuple[Consumer, ...]]:
    """Every consumer of the vhost."""
    return Fact("Who consumes from which queue?", Role.PLATFORM, _consumption(place, vhost), _consumers, sampled=True)


@fact
def channels(place: str, vhost: str) -> Fact[Mapping[str, str]]:
    """Channel, as a `Consumer` names it -> address of the machine it comes from, empty where it is not known."""
    asks = "Which machine does each channel come from?"
    if place == API:
        return Fact(asks, Role.PLATFORM, _consumption(place, vhost), _peers)
    return Fact(asks, Role.PLATFORM, ctl(place, "list_channels", "pid", "name"), _channels)


@fact
def queues(place: str, vhost: str) -> Fact[tuple[Queue, ...]]:
    """Every queue of the vhost with its messages and consumers."""
    question: Question = ctl(place, "list_queues", "-p", vhost, *QUEUES)
    if place == API:
        question = api(f"queues/{_of(vhost)}", (*QUEUES, "state"))
    return Fact("What waits in which queue?", Role.PLATFORM, question, read_queues, sampled=True)


@fact
def consumers_from(place: str, vhost: str, machine: str, addresses: str) -> Fact[int]:
    """How many consumers hang on channels from one of a machine's comma-separated addresses."""

    def count(said: Output | Response) -> int:
        mine = (row for row in _rows(said, CHANNELS) if row[1] == vhost and peer_of(row[0]) in addresses.split(","))
        return sum(int(row[2]) for row in mine if row[2].isdigit())

    question = api("channels", CHANNELS) if place == API else ctl(place, "list_channels", *CHANNELS)
    return Fact(f"number of consumers of {machine}", Role.PLATFORM, question, count)


@fact
def held(place: str, vhost: str) -> Fact[dict[str, int]]:
    """Address -> messages that were taken from there and are not acknowledged: each is kept for as long as its build
    lasts.
    """

    def count(said: Output | Response) -> dict[str, int]:
        found: dict[str, int] = {}
        for name, where, messages in (row[:3] for row in _rows(said, HELD)):
            if where == vhost and messages.isdigit():
                found[peer_of(name)] = found.get(peer_of(name), 0) + int(messages)
        return found

    question = api("channels", HELD) if place == API else ctl(place, "list_channels", *HELD)
    return Fact("Which machine holds how many messages?", Role.PLATFORM, question, count, sampled=True)


def _consumption(place: str, vhost: str) -> Question:
    if place == API:
        return api(f"consumers/{_of(vhost)}", CONSUMERS)
    return ctl(place, "list_consumers", "-p", vhost)


def _consumers(said: Output | Response) -> tuple[Consumer, ...]:
    return tuple(Consumer(*row[:3]) for row in _rows(said, CONSUMERS) if row[0] != "queue_name")


def _peers(said: Response) -> Mapping[str, str]:
    return {row[1]: peer_of(row[1]) for row in _rows(said, CONSUMERS)}


def _channels(said: Output) -> Mapping[str, str]:
    return {row[0]: peer_of(row[1]) for row in _rows(said, ("pid", "name")) if row[0] != "pid"}


def read_queues(said: Output | Response) -> tuple[Queue, ...]:
    """The rows of the listing of queues; the header and what is no row has words where numbers belong."""
    rows = (row for row in _rows(said, QUEUES) if all(cell.isdigit() or not cell for cell in row[1:4]))
    return tuple(_queue(*row[:5]) for row in rows)


def _queue(name: str, ready: str, unacked: str, consumers: str, state: str = "") -> Queue:
    if state == "down" or not (ready and unacked and consumers):
        return Queue(name, 0, 0, 0, up=False)
    return Queue(name, int(ready), int(unacked), int(consumers))


# ---------------------------------------------------------------- rows of either answer


def _rows(said: Output | Response, columns: Sequence[str]) -> Iterator[Sequence[str]]:
    """At least these columns of each row, as text."""
    if isinstance(said, Response):
        return (_cells(each, columns) for each in read_json(said))
    if not said.ok:
        raise Unknown(f"rabbitmqctl failed: {first_words(said)}")
    rows = (line.split("\t") for line in said.out.splitlines() if line.strip())
    return (row for row in rows if len(row) >= len(columns))


def first_words(said: Output) -> str:
    """Why rabbitmqctl failed: its first line that says anything. The rest is diagnostics and its usage, in colours."""
    lines = (line.strip() for line in f"{said.err}\n{said.out}".splitlines())
    first = next((line for line in lines if line not in ("", "Error:")), "no words")
    return first.removesuffix(" Please see diagnostics information and suggestions below.")[:300]


def _cells(entry: Any, columns: Sequence[str]) -> Sequence[str]:
    """`queue.name` is the name in the object `queue`; a state is told last, where the API tells one."""
    return [*(_cell(entry, column.split(".")) for column in columns), _cell(entry, ["state"])]


def _cell(entry: Any, path: Sequence[str]) -> str:
    for name in path:
        entry = entry.get(name) if isinstance(entry, Mapping) else None
    return "" if entry is None else str(entry)


def read_json(said: Response) -> list[Any]:
    """A listing of the management API; raises Unknown with its reason when it refuses."""
    if said.status != 200:
        raise Unknown(f"RabbitMQ's management API answered {said.status}: {_reason(said.body)}")
    listed = None if said.truncated else json.loads(said.body)
    if not isinstance(listed, list):
        raise Unknown("RabbitMQ's management API answered in a form that is not known, or more than is read")
    return listed


def _reason(body: str) -> str:
    """`Login failed` of `{"error":"not_authorised","reason":"Login failed"}`."""
    found = re.search(r'"reason":"([^"]{1,200})', body)
    return found[1] if found else "it gave no reason"


def peer_of(name: str) -> str:
    """The address in `10.0.0.11:41234 -> 10.0.0.10:5672 (1)`, empty when there is none."""
    found = _PEER.match(name)
    return found[1] if found else ""


# ---------------------------------------------------------------- putting facts together


@dataclass(frozen=True)
class Presence:
    """What the broker sees of one address: consumers on build queues, and cancel queues (one per worker process)."""

    builds: int = 0
    cancels: int = 0


def presences(look: Look, at: Broker) -> Mapping[str, Presence]:
    """Address -> what RabbitMQ sees from there; addresses that only serve the platform itself are left out."""
    counted = (queues(at.place, at.vhost),) if at.elsewhere else ()
    look.together(consumers(at.place, at.vhost), channels(at.place, at.vhost), *counted)
    every, peers = look(consumers(at.place, at.vhost)), look(channels(at.place, at.vhost))
    if at.elsewhere and _is_behind(every, look(queues(at.place, at.vhost))):
        raise Unknown("RabbitMQ's management API has not counted all consumers yet; look again in a minute")
    return _presences(every, peers)


def _is_behind(every: tuple[Consumer, ...], listed: tuple[Queue, ...]) -> bool:
    """The API tells what it has counted: seconds after it was started it knows of no consumer, whoever is connected."""
    counted = sum(queue.consumers for queue in listed if not queue.name.startswith(REPORTS))
    seen = sum(not consumer.queue.startswith(REPORTS) for consumer in every)
    return seen < counted or not all(queue.up for queue in build_queues(listed, every))


def build_queues(listed: tuple[Queue, ...], every: tuple[Consumer, ...]) -> tuple[Queue, ...]:
    """Those that workers take builds from, or that are called as the vendor calls them."""
    taken = {consumer.queue for consumer in every if consumer.takes_builds}
    return tuple(queue for queue in listed if queue.name in taken or queue.name.startswith(BUILDS))


@derived
def _presences(every: tuple[Consumer, ...], peers: Mapping[str, str]) -> Mapping[str, Presence]:
    seen: dict[str, Presence] = {}
    for consumer in every:
        address = peers.get(consumer.channel, "")
        before = seen.get(address, Presence())
        if consumer.takes_builds:
            seen[address] = Presence(before.builds + 1, before.cancels)
        elif consumer.queue.startswith(CANCELS):
            seen[address] = Presence(before.builds, before.cancels + 1)
    return MappingProxyType(seen)
