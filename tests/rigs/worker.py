"""An installation to be wrong: two workers and a platform behind real sshd, and one real RabbitMQ that tells the truth.

    with installation(broker) as prod:
        prod.worker_1.tell_worker("lose")         # RabbitMQ sees its consumers no more, the process lives on
        prod.changes("worker-1")                  # what was sent to change it, from the machine's own log

worker-1 has systemd and Docker, worker-2 upstart, platform-1 a container with `rabbitmqctl`. Programs that would need
a whole machine are stand-ins that come first on the PATH; the workers themselves are real processes with real AMQP
connections from addresses of their own, so their consumers are counted by RabbitMQ and by nobody else.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import amqp  # type: ignore[import-untyped]

from bot.adapters.ssh import Host
from bot.core import wire
from bot.core.target import Role, Site, Target
from tests.rigs import sshd
from tests.rigs.programs.answers import Answer, Call, Programs, become, said
from tests.rigs.programs.machine import Machine
from tests.rigs.programs.systemd import SystemdMachine
from tests.rigs.programs.upstart import UpstartMachine
from tests.rigs.rabbitmq import PASSWORD, PROGRAMS, USER, VHOST, Broker

NAME = "prod"
QUEUE = "builds.xenial"
POOL = 2
ADDRESSES = {"worker-1": "127.0.0.31", "worker-2": "127.0.0.32", "platform-1": "127.0.0.10"}
CONTAINER = "4f1c2ab9d0e1"
SECONDS = 20.0


class Installation:
    """The machines, and what is seen of them from outside."""

    def __init__(
        self,
        broker: Broker,
        rig: sshd.Rig,
        worker_1: SystemdMachine,
        worker_2: UpstartMachine,
        programs: list[Programs],
    ) -> None:
        self.broker = broker
        self.rig = rig
        self.worker_1 = worker_1
        self.worker_2 = worker_2
        self._programs = programs
        roles = {name: Role.WORKER if name.startswith("worker") else Role.PLATFORM for name in ADDRESSES}
        self.site = Site(
            NAME, "travis.example.com", "2.2", tuple(Target(n, roles[n], NAME, a) for n, a in ADDRESSES.items())
        )

    @property
    def hosts(self) -> dict[str, Host]:
        """How to log in, by target key."""
        return {f"{NAME}/{name}": host for name, host in self.rig.hosts.items()}

    def target(self, name: str) -> Target:
        found = self.site.find(name)
        assert found is not None
        return found

    def consumers(self, name: str) -> int:
        """How many build consumers RabbitMQ has from this machine, asked of RabbitMQ itself."""
        rows = (
            line.split("\t") for line in self.broker.ctl("-q", "list_channels", "name", "consumer_count").splitlines()
        )
        mine = [int(row[1]) for row in rows if row[0].startswith(f"{ADDRESSES[name]}:")]
        return max(0, sum(mine) - 1)  # one listens to cancellations

    def changes(self, name: str) -> list[str]:
        """The commands that were sent to change this machine, in order, from its own append-only log."""
        scripts = (note.stdin for note in self.rig.received(name) if note.command == wire.SHELL)
        return [line for script in scripts if (line := wire.read_change(script))]

    def order_builds(self, count: int) -> None:
        """Messages for the queue, as the platform would send them."""
        with amqp.Connection(
            f"{self.broker.host}:{self.broker.port}", userid=USER, password=PASSWORD, virtual_host=VHOST
        ) as connection:
            channel = connection.channel()
            for number in range(count):
                body = json.dumps({"id": number})
                channel.basic_publish(amqp.Message(body, delivery_mode=2), routing_key=QUEUE)

    def waiting_builds(self) -> int:
        """Messages in the queue that no worker has acknowledged."""
        rows = self.broker.ctl("-q", "list_queues", "-p", VHOST, "name", "messages").splitlines()
        return sum(int(row.split("\t")[1]) for row in rows if row.startswith(f"{QUEUE}\t"))

    def not_understood(self) -> list[Call]:
        return [call for programs in self._programs for call in programs.not_understood]

    def wait_for_consumers(self, name: str, count: int = POOL) -> None:
        deadline = time.monotonic() + SECONDS
        while (seen := self.consumers(name)) != count:
            assert time.monotonic() < deadline, f"RabbitMQ sees {seen} build consumers from {name}, not {count}"
            time.sleep(0.1)


@contextmanager
def installation(broker: Broker) -> Iterator[Installation]:
    """Everything runs and is healthy, and its workers seem to have run for an hour."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="opsbot-worker-")))
        folder.chmod(0o755)
        worker_env = {"AMQP_URI": broker.url, "QUEUE_NAME": QUEUE, "POOL_SIZE": str(POOL)}
        one = SystemdMachine("worker-1", ADDRESSES["worker-1"], folder / "worker-1", worker_env)
        two = UpstartMachine("worker-2", ADDRESSES["worker-2"], folder / "worker-2", worker_env)
        answers = {one.name: one.programs(), two.name: two.programs(), "platform-1": platform(broker)}
        programs = {
            name: until_the_end.enter_context(Programs(folder / f"{name}-bin", known))
            for name, known in answers.items()
        }
        one.path = f"{programs[one.name].folder}:{sshd.SYSTEM_PATH}"
        specs = [_spec(name, each.folder) for name, each in programs.items()]
        rig = until_the_end.enter_context(sshd.sshd(*specs))
        for machine in (one, two):
            machine.power = partial(_power, rig, machine)
            until_the_end.callback(machine.off)
            machine.on()
            machine.settle()
        for machine in (one, two):
            machine.wait_for_log("worker started")  # which it says when RabbitMQ has confirmed its consumers
        yield Installation(broker, rig, one, two, list(programs.values()))


def platform(broker: Broker) -> dict[str, Answer]:
    """The programs of the platform machine: one container, in which the real rabbitmqctl asks the real broker."""
    containers = (
        (CONTAINER, "registry.replicated.com/quay.io-travisci-te-main:2.2.17", "sleepy_dewdney"),
        ("9a31cc07be52", "quay.io/replicated/replicated:2.45", "replicated"),
    )

    def docker(call: Call) -> str | None:
        if not call.root:
            return said(err="permission denied while trying to connect to the Docker daemon socket\n", status=1)
        if call.words == ("ps", "--format", "{{.ID}}\t{{.Image}}\t{{.Names}}"):
            return said("".join("\t".join(row) + "\n" for row in containers))
        if call.has("exec", CONTAINER, "rabbitmqctl"):
            return become(str(PROGRAMS / "rabbitmqctl"), call.words[3:], broker.env)
        return None

    return {"docker": docker}


def _spec(name: str, programs: Path) -> sshd.HostSpec:
    return sshd.HostSpec(name, address=ADDRESSES[name], path_front=[programs])


def _power(rig: sshd.Rig, machine: Machine, on: bool) -> None:
    (rig.power_on if on else rig.power_off)(machine.name)
