"""RabbitMQ on the platform, as workers and `rabbitmqctl` see it: vhosts, queues, connections, consumers, alarms."""

import itertools
import random
import string
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.sandbox.installation.timeline import Timeline

VHOST = "travis"
NODE = "rabbit@te-main"
PORT = 5672
TLS_PORT = 4567
DRAINS = ("reporting.jobs.builds", "reporting.jobs.logs")  # what services of the platform consume: hub and logs


class AmqpRefused(Exception):
    """The broker closes the connection; the text is what travis-worker writes into its log."""


@dataclass(eq=False)
class Job:
    """One build job, as a message and as a container; `seconds` is how long it takes once it runs."""

    number: int
    repo: str
    seconds: float
    asleep: bool = False  # a worker that hangs has taken it, and nobody hears of it

    @property
    def container(self) -> str:
        owner, name = self.repo.lower().split("/")
        return f"travis-job-{owner[:14]}-{name[:14]}-{self.number}"


@dataclass(eq=False)
class Connection:
    peer_host: str
    peer_port: int
    user: str
    vhost: str
    pid: str
    connected_at: float
    host: str
    channels: list["Channel"] = field(default_factory=list)
    open: bool = True
    on_error: Callable[[], None] | None = None  # told when it ends with a reason; a clean close tells nobody

    @property
    def name(self) -> str:
        return f"{self.peer_host}:{self.peer_port} -> {self.host}:{PORT}"


@dataclass(eq=False)
class Channel:
    connection: Connection
    number: int
    pid: str
    consumers: list["Consumer"] = field(default_factory=list)


@dataclass(eq=False)
class Consumer:
    channel: Channel
    queue: "Queue"
    tag: str
    deliver: Callable[["Consumer", Job], None] | None = None
    prefetch: int = 1
    unacked: list[Job] = field(default_factory=list)

    @property
    def ack_required(self) -> bool:
        return self.deliver is not None

    @property
    def arguments(self) -> str:
        return '[{"x-priority",0}]' if self.ack_required else "[]"

    @property
    def idle(self) -> bool:
        return self.deliver is not None and len(self.unacked) < self.prefetch


@dataclass(eq=False)
class Queue:
    name: str
    vhost: str = VHOST
    durable: bool = True
    owner: Connection | None = None
    ready: deque[Job] = field(default_factory=deque)
    consumers: list[Consumer] = field(default_factory=list)

    @property
    def unacked(self) -> int:
        return sum(len(consumer.unacked) for consumer in self.consumers)


class Broker:
    """One node. A connection that goes away takes its channels, consumers and exclusive queues along."""

    def __init__(self, timeline: Timeline, host: str, seed: int = 7) -> None:
        self.timeline = timeline
        self.host = host
        self.balancer = ""  # another address, of a load balancer in front of the platform
        self.running = True
        self.stopped = False  # by `stop_app`: its node runs, RabbitMQ in it does not
        self.split: dict[str, tuple[str, ...]] = {}  # node -> those it has lost
        self.distrusted: Callable[[str, bool], str] = lambda _host, _insecure: ""  # why Go refuses its certificate
        self.no_script: Callable[[str, str], str] = lambda _machine, _uri: ""  # why a worker gets no build script
        self.drains = set(DRAINS)  # whose service runs
        self.ports = {PORT, TLS_PORT}  # where it listens while it runs
        self.users = {"guest": "guest", "travis": "0a1b2c3d4e5f"}
        self.tags = {"guest": "[administrator]", "travis": "[]"}
        self.vhosts = ["/", VHOST]
        self.queues: list[Queue] = []
        self.connections: list[Connection] = []
        self.alarms: set[str] = set()
        self._random = random.Random(seed)
        self._creation = int(timeline.origin.timestamp())
        self._processes = itertools.count(700, 9)
        for name in ("builds.trusty", *DRAINS):
            self.declare(name)
        self.drain()

    # what clients do

    def connect(self, peer_host: str, user: str, password: str, vhost: str) -> Connection:
        if self.users.get(user) != password:
            raise AmqpRefused('Exception (403) Reason: \\"username or password not allowed\\"')
        if vhost not in self.vhosts:
            raise AmqpRefused('Exception (403) Reason: \\"no access to this vhost\\"')
        port = self._random.randrange(32768, 60999)
        made = Connection(peer_host, port, user, vhost, self._pid(), self.timeline.now(), self.host)
        self.connections.append(made)
        return made

    def channel(self, connection: Connection) -> Channel:
        made = Channel(connection, len(connection.channels) + 1, self._pid())
        connection.channels.append(made)
        return made

    def declare(self, name: str, owner: Connection | None = None) -> Queue:
        found = self.queue(name)
        if found is None:
            found = Queue(name or self._generated(), durable=owner is None, owner=owner)
            self.queues.append(found)
        return found

    def consume(
        self, channel: Channel, queue: Queue, tag: str, deliver: Callable[[Consumer, Job], None] | None = None
    ) -> Consumer:
        made = Consumer(channel, queue, tag, deliver, prefetch=1 if deliver else 0)
        channel.consumers.append(made)
        queue.consumers.append(made)
        self.deliver(queue)
        return made

    def publish(self, name: str, *jobs: Job) -> None:
        """To the default exchange: a message for a queue that does not exist is dropped without a word."""
        queue = self.queue(name)
        if queue is not None:
            queue.ready.extend(jobs)
            self.deliver(queue)

    def ack(self, consumer: Consumer, job: Job) -> None:
        if job in consumer.unacked:
            consumer.unacked.remove(job)
            self.deliver(consumer.queue)

    def cancel(self, consumer: Consumer) -> None:
        """The consumer goes, and with it its channel; what it had not acknowledged is delivered again."""
        self._drop(consumer)
        consumer.channel.consumers.remove(consumer)
        if not consumer.channel.consumers and consumer.channel in consumer.channel.connection.channels:
            consumer.channel.connection.channels.remove(consumer.channel)
        self.deliver(consumer.queue)

    def close(self, connection: Connection) -> None:
        if connection not in self.connections:
            return
        connection.open = False
        self.connections.remove(connection)
        consumers = [consumer for channel in connection.channels for consumer in channel.consumers]
        for consumer in consumers:
            self._drop(consumer)
        connection.channels.clear()
        self.queues = [queue for queue in self.queues if queue.owner is not connection]
        for queue in {consumer.queue.name: consumer.queue for consumer in consumers}.values():
            self.deliver(queue)

    def start(self) -> None:
        """It runs again, and the platform's own services have come back to it."""
        self.running, self.stopped = True, False
        self.drain()

    def drain(self) -> None:
        """The services of the platform that take what workers report, each with a connection of its own."""
        for name in sorted(self.drains):
            queue = self.declare(name)
            if not queue.consumers:
                channel = self.channel(self.connect("127.0.0.1", "travis", self.users["travis"], VHOST))
                queue.ready.clear()
                self.consume(channel, queue, "")

    def undrain(self, name: str) -> None:
        """The service that consumes this queue ends."""
        self.drains.discard(name)
        for consumer in list(self.declare(name).consumers):
            self.close(consumer.channel.connection)

    def stop_app(self) -> None:
        self.stop()
        self.running, self.stopped = True, True

    def stop(self) -> None:
        self.running = False
        for connection in list(self.connections):
            self.close(connection)
            if connection.on_error is not None:
                connection.on_error()

    # what it does itself

    def deliver(self, queue: Queue) -> None:
        while queue.ready and (idle := next((c for c in queue.consumers if c.idle), None)):
            job = queue.ready.popleft()
            idle.unacked.append(job)
            queue.consumers.remove(idle)
            queue.consumers.append(idle)  # the next one in turn comes first
            if idle.deliver:
                idle.deliver(idle, job)

    def _drop(self, consumer: Consumer) -> None:
        if consumer in consumer.queue.consumers:
            consumer.queue.consumers.remove(consumer)
        consumer.queue.ready.extendleft(reversed(consumer.unacked))
        consumer.unacked.clear()

    # what is asked

    @property
    def serves(self) -> bool:
        """Clients can connect to it."""
        return self.running and not self.stopped

    def queue(self, name: str) -> Queue | None:
        return next((queue for queue in self.queues if queue.name == name), None)

    def consumers(self) -> list[Consumer]:
        return [consumer for queue in self.queues for consumer in queue.consumers]

    def channels(self) -> list[Channel]:
        return [channel for connection in self.connections for channel in connection.channels]

    def _pid(self) -> str:
        return f"<{NODE}.{self._creation}.{next(self._processes)}.0>"

    def _generated(self) -> str:
        return "amq.gen-" + "".join(self._random.choices(string.ascii_letters + string.digits + "-_", k=22))
