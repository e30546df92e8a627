"""Facts about the broker itself: does it run, has it raised an alarm, is its cluster of one mind?

`rabbitmqctl cluster_status` answers all of it in one question, in text with headings since RabbitMQ 3.8 and as Erlang
terms before; when the node does not run, `rabbitmqctl` says so in its own diagnostics. Of a broker elsewhere the
management API's list of nodes says the same, whichever node answers. Sources:
https://www.rabbitmq.com/docs/monitoring and https://www.rabbitmq.com/docs/alarms
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, at_least, equals
from bot.core.look import Look
from bot.core.question import Output, Question, Response
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq
from handlers.toolbox.rabbitmq import API, api, ctl

RUNNING, STOPPED, DOWN = "running", "stopped", "down"
START_WITHIN = timedelta(minutes=3)
REPORTS, LOGS = "reporting.jobs.builds", "reporting.jobs.logs"
DRAINS = {REPORTS: "travis-hub-drain", LOGS: "travis-logs-drain"}  # which service of the platform empties which queue
SERVERS = ("rabbitmq", "rabbitmq-server")  # what RabbitMQ may be called among the services of te-main
NODES = (
    "name", "running", "partitions", "mem_alarm", "mem_used", "mem_limit", "disk_free_alarm", "disk_free",
    "disk_free_limit",
)  # fmt: skip
RESOURCES = {"memory": "memory", "free disk space": "disk", "disk": "disk", "file descriptor": "file descriptors"}

# The node is not there: its port mapper says so, or there is no port mapper. A wrong cookie or a name that cannot be
# looked up ends with the same status, and says nothing about the node.
_DOWN = re.compile(r"node '[^']*' not running at all|unable to connect to epmd [^\n]*: address")
_STOPPED = "requires the 'rabbit' app to be running"
_BOLD = re.compile(r"\x1b\[[0-9;]*m")
_HEADINGS = ("Disk Nodes", "RAM Nodes", "Running Nodes", "Alarms", "Network Partitions")
_ALARM = re.compile(r"^(.+?) alarm on node (\S+)$")
_SPLIT = re.compile(r"^Node (\S+) cannot communicate with (.+)$")


@dataclass(frozen=True)
class Cluster:
    """How the broker is: `state` is `running`, `stopped` (the Erlang node runs, RabbitMQ in it does not) or `down`.

    `alarms` are pairs of resource and node, `splits` say which node has lost which others; `mute` are nodes that run
    and do not tell whether they have an alarm.
    """

    state: str
    nodes: tuple[str, ...] = ()
    running: tuple[str, ...] = ()
    alarms: tuple[tuple[str, str], ...] = ()
    splits: tuple[tuple[str, str], ...] = ()
    mute: tuple[str, ...] = ()
    said: str = ""

    @property
    def away(self) -> tuple[str, ...]:
        """Members of the cluster that do not run."""
        return tuple(node for node in self.nodes if node not in self.running)


@dataclass(frozen=True)
class Room:
    """How much a node uses and has left, in its own words; empty where it does not say. It is the node that was asked,
    of several that the API tells about the one that is short of something.
    """

    node: str = ""
    memory: str = ""
    memory_limit: str = ""
    disk_free: str = ""
    disk_limit: str = ""


# ---------------------------------------------------------------- facts


@fact
def cluster(place: str) -> Fact[Cluster]:
    """Does the broker run, and what does it say of itself?"""
    question: Question = api("nodes", NODES) if place == API else ctl(place, "cluster_status")
    return Fact("Does RabbitMQ run?", Role.PLATFORM, question, _cluster)


def running(look: Look, place: str) -> Cluster:
    """The cluster, of which one node runs at least; raises Unknown while none does."""
    now = look(cluster(place))
    if now.state != RUNNING:
        raise Unknown("RabbitMQ does not run, so it tells nothing of its nodes and queues")
    return now


@fact
def state(place: str) -> Fact[str]:
    """The state alone, for waiting."""
    question = cluster(place).question
    return Fact("state of RabbitMQ", Role.PLATFORM, question, lambda said: _cluster(said).state)


@fact
def is_stopped(place: str) -> Fact[bool]:
    """Does the node run without RabbitMQ in it?"""
    question = cluster(place).question
    return Fact("RabbitMQ is stopped", Role.PLATFORM, question, lambda said: _cluster(said).state == STOPPED)


@fact
def room(place: str) -> Fact[Room]:
    """Memory and disk of the node, next to their limits."""
    question: Question = api("nodes", NODES) if place == API else ctl(place, "status")
    return Fact("How much memory and disk has RabbitMQ left?", Role.PLATFORM, question, _room)


@fact
def services(inside: str) -> Fact[tuple[str, ...]]:
    """Which of RabbitMQ and the drains the container's own service manager (runit) knows; none when it has another."""
    question = _inside(inside, "sv", "status", *SERVERS, *DRAINS.values())
    return Fact("Which services can be started alone?", Role.PLATFORM, question, _services)


@fact
def is_away(place: str) -> Fact[bool]:
    """Does RabbitMQ not run? Asked just before it is started."""
    question = cluster(place).question
    return Fact("RabbitMQ does not run", Role.PLATFORM, question, lambda said: _cluster(said).state != RUNNING)


@fact
def takers(place: str, vhost: str, queue: str) -> Fact[int]:
    """How many consumers a queue of the platform has."""
    question = rabbitmq.queues(place, vhost).question
    return Fact(f"consumers of {queue}", Role.PLATFORM, question, _takers(queue))


@fact
def untaken(place: str, vhost: str, queue: str) -> Fact[bool]:
    """Does nobody take messages from it?"""
    asked = takers(place, vhost, queue)
    return Fact(f"{queue} has no consumer", Role.PLATFORM, asked.question, lambda said: asked.parse(said) == 0)


def _takers(queue: str) -> Callable[[Output | Response], int]:
    return lambda said: sum(each.consumers for each in rabbitmq.read_queues(said) if each.name == queue)


def _inside(container: str, *words: str) -> Command:
    return sh("docker", "exec", container, *words).sudo()


def _services(said: Output) -> tuple[str, ...]:
    if said.exit is None:
        raise Unknown("the platform's container did not answer in time")
    return tuple(re.findall(r"^(?:run|down|finish): (?:\S*/)?([\w.-]+):", said.out, re.M))


def _cluster(said: Output | Response) -> Cluster:
    return _from_nodes(rabbitmq.read_json(said)) if isinstance(said, Response) else _from_output(said)


def _from_output(said: Output) -> Cluster:
    words = f"{said.out}\n{said.err}"
    if said.exit is None:
        raise Unknown("rabbitmqctl did not answer in time, so nobody knows whether RabbitMQ runs")
    if _STOPPED in words:
        return Cluster(STOPPED, said=rabbitmq.first_words(said))
    if found := _DOWN.search(words):
        return Cluster(DOWN, said=f"rabbitmqctl says: {found[0]}")
    if not said.ok:
        raise Unknown(f"rabbitmqctl failed: {rabbitmq.first_words(said)}")
    text = _BOLD.sub("", said.out)
    return _from_terms(text) if "{nodes,[" in text else _from_text(text)


# ---------------------------------------------------------------- since RabbitMQ 3.8: text with headings


def _from_text(text: str) -> Cluster:
    under = _sections(text)
    if not {"Running Nodes", "Alarms"} <= under.keys():
        raise Unknown("rabbitmqctl answered in a form that is not known")
    return Cluster(
        RUNNING,
        nodes=tuple(under.get("Disk Nodes", [])) + tuple(under.get("RAM Nodes", [])),
        running=tuple(under["Running Nodes"]),
        alarms=tuple(_alarm(line) for line in under["Alarms"]),
        splits=tuple(_split(line) for line in under.get("Network Partitions", [])),
    )


def _sections(text: str) -> dict[str, list[str]]:
    """Heading -> its lines without `(none)`; a blank line follows each heading, and one each section."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in (each.strip() for each in text.splitlines()):
        if line in _HEADINGS:
            found[heading := line] = []
        elif heading and line and line != "(none)":
            found[heading].append(line)
        elif heading and not line and found[heading]:
            heading = ""
    return {name: list(_own(name, lines)) for name, lines in found.items()}


def _own(heading: str, lines: list[str]) -> Iterator[str]:
    """Only what belongs there: an empty section is followed by the next heading, which may be one we do not read."""
    shapes = {"Alarms": _ALARM, "Network Partitions": _SPLIT}
    shape = shapes.get(heading, re.compile(r"^\S+@\S+$"))
    return (line for line in lines if shape.match(line))


def _alarm(line: str) -> tuple[str, str]:
    found = _ALARM.match(line)
    assert found is not None
    return RESOURCES.get(found[1].lower(), found[1].lower()), found[2]


def _split(line: str) -> tuple[str, str]:
    found = _SPLIT.match(line)
    assert found is not None
    return found[1], found[2]


# ---------------------------------------------------------------- before: Erlang terms


def _from_terms(text: str) -> Cluster:
    flat = re.sub(r"\s+", "", text)
    if "{running_nodes," not in flat:
        return Cluster(STOPPED, said="its Erlang node answers, and names no node that runs RabbitMQ")
    return Cluster(
        RUNNING,
        nodes=_names(_between(flat, "{nodes,", "{running_nodes,")),
        running=_names(_between(flat, "{running_nodes,", "]}")),
        alarms=tuple((RESOURCES.get(what, what), node) for node, what in _pairs(_between(flat, "{alarms,", ""))),
        splits=tuple(_pairs(_between(flat, "{partitions,", "{alarms,"))),
    )


def _between(text: str, begins: str, ends: str) -> str:
    """What stands after the one and before the other; to the end when that does not come."""
    after = text.partition(begins)[2]
    return after.partition(ends)[0] if ends else after


def _names(terms: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[\w.-]+@[\w.-]+", terms))


def _pairs(terms: str) -> Iterator[tuple[str, str]]:
    """Node and each member of its list, from `[{rabbit@a,[memory]},{rabbit@b,[]}]`."""
    for node, members in re.findall(r"\{'?([\w.-]+@[\w.-]+)'?,\[([^\]]+)\]\}", terms):
        yield from ((node, member.strip("'")) for member in members.split(","))


# ---------------------------------------------------------------- the management API: a list of nodes


def _from_nodes(nodes: list[Mapping[str, Any]]) -> Cluster:
    running = [node for node in nodes if node.get("running")]
    if not running:
        raise Unknown("RabbitMQ's management API names no node that runs")
    return Cluster(
        RUNNING,
        nodes=tuple(node["name"] for node in nodes),
        running=tuple(node["name"] for node in running),
        alarms=tuple((what, node["name"]) for node in running for what in _alarms_of(node)),
        splits=tuple((node["name"], ", ".join(node["partitions"])) for node in running if node.get("partitions")),
        mute=tuple(node["name"] for node in running if "mem_alarm" not in node),
    )


def _alarms_of(node: Mapping[str, Any]) -> tuple[str, ...]:
    told = {"memory": "mem_alarm", "disk": "disk_free_alarm"}
    return tuple(what for what, name in told.items() if node.get(name))


def _room_of(nodes: list[Mapping[str, Any]]) -> Room:
    node = max(nodes, key=lambda each: len(_alarms_of(each)))
    used, limit, free, least = (
        _bytes(str(node.get(name, ""))) for name in ("mem_used", "mem_limit", "disk_free", "disk_free_limit")
    )
    return Room(node["name"], used, limit, free, least)


# ---------------------------------------------------------------- status


def _room(said: Output | Response) -> Room:
    if isinstance(said, Response):
        return _room_of(rabbitmq.read_json(said))
    if not said.ok:
        raise Unknown(f"rabbitmqctl status failed: {rabbitmq.first_words(said)}")
    text = _BOLD.sub("", said.out)
    if "{running_applications" in text:
        return _room_from_terms(re.sub(r"\s+", "", text))
    return Room(
        node=_after(r"^Node name: (\S+)", text),
        memory=_after(r"^Total memory used: (.+)", text),
        memory_limit=_after(r"^Memory high watermark setting: .*?computed to: (.+)", text),
        disk_free=_after(r"^Free disk space: (.+)", text),
        disk_limit=_after(r"^Low free disk space watermark: (.+)", text),
    )


def _room_from_terms(flat: str) -> Room:
    return Room(
        memory=_bytes(_after(r"\{memory,\[\{total,(?:\[\{erlang,\d+\},\{rss,)?(\d+)", flat)),
        memory_limit=_bytes(_after(r"\{vm_memory_limit,(\d+)\}", flat)),
        disk_free=_bytes(_after(r"\{disk_free,(\d+)\}", flat)),
        disk_limit=_bytes(_after(r"\{disk_free_limit,(\d+)\}", flat)),
    )


def _after(pattern: str, text: str) -> str:
    found = re.search(pattern, text, re.M)
    return found[1].strip() if found else ""


def _bytes(digits: str) -> str:
    return f"{int(digits) / 1e9:.4g} gb" if digits.isdigit() else ""


# ---------------------------------------------------------------- fixes


def start_service(platform: Target, container: str, name: str) -> Fix:
    """For a RabbitMQ that has ended, by the service manager of its container: nothing else is touched."""
    command = _inside(container, "sv", "restart", name)
    return Fix(
        id="broker.start-service",
        title="Start RabbitMQ inside the platform's container",
        target=platform,
        steps=(
            Change(f"Start {name}", command, needed=is_away(container), within=START_WITHIN),
            Wait(state(container), equals(RUNNING), START_WITHIN),
        ),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: no worker was connected",
    )


def restart_drain(platform: Target, at: rabbitmq.Broker, queue: str) -> Fix:
    """Starts the service that should empty a queue of the platform; builds go on meanwhile."""
    name = DRAINS[queue]
    return Fix(
        id=f"broker.restart-{name.removeprefix('travis-')}",
        title=f"Restart {name}",
        target=platform,
        steps=(
            Change(
                f"Restart {name}",
                _inside(at.container, "sv", "restart", name),
                needed=untaken(at.place, at.vhost, queue),
                within=START_WITHIN,
            ),
            Wait(takers(at.place, at.vhost, queue), at_least(1), START_WITHIN),
        ),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: the messages waited in RabbitMQ",
    )


def start_app(platform: Target, container: str) -> Fix:
    """For a RabbitMQ that was stopped inside its running node (`rabbitmqctl stop_app`): nothing else is touched."""
    return Fix(
        id="broker.start-app",
        title="Start RabbitMQ in its running node",
        target=platform,
        steps=(
            Change("Start RabbitMQ", ctl(container, "start_app"), needed=is_stopped(container), within=START_WITHIN),
            Wait(state(container), equals(RUNNING), START_WITHIN),
        ),
        risk=Risk.INTERRUPTS,
        undo="`rabbitmqctl stop_app`, as somebody did before",
    )
