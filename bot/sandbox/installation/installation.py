"""The whole installation: a platform, its broker, and the workers; where they are and what they can reach."""

import itertools
import pkgutil
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bot.sandbox.installation import programs
from bot.sandbox.installation.broker import PORT, TLS_PORT, Broker, Job
from bot.sandbox.installation.database import TravisDatabase
from bot.sandbox.installation.platform import App, install
from bot.sandbox.installation.programs import Context, Reply
from bot.sandbox.installation.redis import Redis
from bot.sandbox.installation.scheduler import REPOS, Scheduler
from bot.sandbox.installation.state import Machine, Service, Unit
from bot.sandbox.installation.timeline import Event, Timeline
from bot.sandbox.installation.tls import Tls
from bot.sandbox.installation.worker import RUN_DIR, SETTINGS, UNIT, UPSTART_LOG, TravisWorker, main_settings

# Importing a family puts its programs into the table.
for _family in sorted(each.name for each in pkgutil.iter_modules(programs.__path__)):
    pkgutil.resolve_name(f"{programs.__name__}.{_family}")

DOMAIN = "travis.example.com"
QUEUE = "builds.trusty"
POOL = 2
DOWN = 30.0  # seconds that a machine is away when it reboots
HANG_UP = 0.4  # seconds between the order to reboot and the end of its connections
DAY = 86400.0
AMQP_START = "\1\0\0\0\0\1\xf3\0\n\0\n"  # the beginning of a frame of type 1, connection.start
AMQP_VERSION = "AMQP\0\0\t\1"  # what a broker says to anything but AMQP, before it hangs up
TLS_ALERT = "\x15\3\3\0\2\2F"
UPSTART_CONF = """\
description "Travis Worker"

start on (started networking)
stop on runlevel [!2345]

setuid travis
respawn
respawn limit unlimited
console log
post-stop exec sleep 5
"""


@dataclass(frozen=True)
class Shape:
    """One machine to make: its name, its address, and what it is."""

    name: str
    address: str
    worker: bool = True
    systemd: bool = True
    release: str = "18.04"
    snap: bool = False


SHAPES = (
    Shape("platform-1", "127.0.0.21", worker=False, release="16.04"),
    Shape("worker-1", "127.0.0.22"),
    Shape("worker-2", "127.0.0.23"),
    Shape("worker-3", "127.0.0.24", systemd=False, release="14.04"),
)


@dataclass(eq=False)
class Installation:
    timeline: Timeline
    broker: Broker
    machines: dict[str, Machine] = field(default_factory=dict)
    tls: Tls = field(init=False)
    shutdowns: dict[str, Event] = field(default_factory=dict)
    password: str = "0a1b2c3d4e5f"
    database: TravisDatabase | None = None  # a real PostgreSQL; without one, psql is refused
    scheduler: Scheduler | None = None  # there when the database is
    redis: Redis = field(init=False)
    app: App = field(init=False)  # what Replicated runs on the platform: its docstring says how to change it
    _jobs: Iterator[int] = field(default_factory=lambda: iter(range(4711, 1_000_000, 3)))

    def __post_init__(self) -> None:
        self.redis = Redis(self.timeline)
        self.tls = Tls(self.timeline, DOMAIN)
        self.broker.distrusted = self.tls.refused_by_go
        self.broker.no_script = self._no_script

    def machine(self, name: str) -> Machine:
        return self.machines[name]

    @property
    def platform(self) -> Machine:
        return self.machines["platform-1"]

    def workers(self) -> list[Machine]:
        return [machine for machine in self.machines.values() if UNIT in machine.units]

    def worker(self, name: str) -> TravisWorker:
        service = self.machines[name].units[UNIT].service
        assert isinstance(service, TravisWorker)
        return service

    def _no_script(self, name: str, uri: str) -> str:
        """What travis-worker says when travis-build gives it no script, empty when it does."""
        machine, host = self.machines[name], urlsplit(uri).hostname or ""
        address = self.resolve(machine, host)
        if not address:
            return f'Post \\"{uri}\\": dial tcp: lookup {host}: no such host'
        if 443 in machine.blocked or 443 not in self.listening(machine, address):
            return f'Post \\"{uri}\\": dial tcp {address}:443: i/o timeout'
        if 443 in machine.proxied:
            return f'Post \\"{uri}\\": net/http: TLS handshake timeout'
        status, _ = self.app.page("/__build__/script")
        return "" if status == 200 else f"expected 200 OK status code but got {status}"

    # what happens

    def reboot(self, machine: Machine) -> None:
        """In a moment the machine hangs up and goes; half a minute later it is back as another boot."""
        machine.timeline.after(HANG_UP, lambda: self.switch_off(machine))
        machine.timeline.after(HANG_UP + DOWN, lambda: self.switch_on(machine))

    def switch_off(self, machine: Machine) -> None:
        if not machine.up:
            return
        machine.up = False
        for name, unit in list(machine.units.items()):
            unit.service.lose_power(unit)
            if unit.transient:
                del machine.units[name]
        for container in [c for c in machine.containers if "job" in c.name or c.name == UNIT]:
            machine.remove_container(container)
        if machine is self.platform:
            self.app.lose_power()
        for tell in machine.on_power:
            tell()

    def switch_on(self, machine: Machine) -> None:
        if machine.up:
            return
        machine.new_boot()
        machine.up = True
        for container in [c for c in machine.containers if not c.error]:
            container.started = machine.timeline.now()
            container.process = machine.spawn("init", container.command, "root", container)
        for unit in machine.units.values():
            if unit.enabled == "enabled" or unit.copied:
                unit.start()
        if machine is self.platform:
            self.app.power_on()
        for tell in machine.on_power:
            tell()

    def push(self, count: int = 1, queue: str = QUEUE, seconds: float = 120.0) -> list[Job]:
        """Somebody pushes: so many build jobs are queued."""
        repo = random.Random(len(self.broker.queues)).choice(REPOS)
        numbers = self.scheduler.push(queue, count, repo) if self.scheduler else itertools.islice(self._jobs, count)
        jobs = [Job(number, repo, seconds) for number in numbers]
        self.broker.publish(queue, *jobs)
        return jobs

    # what can be reached

    def resolve(self, machine: Machine, host: str) -> str:
        if host in machine.names:
            return machine.names[host]
        if host.count(".") == 3 and host.replace(".", "").isdigit():
            return host
        return next((m.address for m in self.machines.values() if m.name == host), "")

    def dial(self, context: Context, host: str, port: int) -> str | Reply:
        """Open a TCP connection as bash does it: nothing when it stands, else what bash says about it."""
        machine = context.machine
        address = self.resolve(machine, host)
        machine.timeline.pause(machine.latency, lambda: context.ended() or not machine.up)
        if not address:
            return Reply(
                1, err=f"bash: {host}: Name or service not known\nbash: /dev/tcp/{host}/{port}: Invalid argument\n"
            )
        if port in machine.blocked:
            machine.timeline.pause(130, lambda: context.ended() or not machine.up)
            return Reply(
                1, err=f"bash: connect: Connection timed out\nbash: /dev/tcp/{host}/{port}: Connection timed out\n"
            )
        listens = port in machine.proxied or port in self.listening(machine, address)
        if listens and port not in machine.rejected:
            return ""
        return Reply(1, err=f"bash: connect: Connection refused\nbash: /dev/tcp/{host}/{port}: Connection refused\n")

    def listening(self, seen_from: Machine, address: str) -> set[int]:
        """The ports on which something listens at an address."""
        if address == "127.0.0.1":
            address = seen_from.address
        if address == self.broker.balancer:
            address = self.platform.address
        machine = next((m for m in self.machines.values() if m.address == address and m.up), None)
        if machine is None:
            return set()
        broker = self.broker.ports if self.broker.serves else set()
        dashboard = {8800} if machine.container("replicated-ui") else set()
        web = {80, 443} if self.app.uptime() else set()
        return {22} | web | dashboard | broker if machine is self.platform else {22}

    def answer(self, machine: Machine, port: int, said: str) -> str | None:
        """What comes back on an open connection to the platform; None for silence, nothing when it is closed."""
        if port in machine.proxied:
            return None
        if port == PORT:
            return AMQP_START if said.startswith("AMQP\0\0\t\1") else AMQP_VERSION
        if port in (80, 443, 8800):
            secure = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n"
            return secure if port != 80 else "HTTP/1.1 301 Moved Permanently\r\nConnection: close\r\n\r\n"
        return TLS_ALERT if port == TLS_PORT else None


def build(timeline: Timeline, shapes: tuple[Shape, ...] = SHAPES) -> Installation:
    """A healthy installation that has run for some days: every worker connected, nothing waiting."""
    platform = next(shape for shape in shapes if not shape.worker)
    installation = Installation(timeline, Broker(timeline, platform.address))
    for shape in shapes:
        machine = Machine(shape.name, shape.address, timeline, shape.release, shape.systemd, shape.snap)
        machine.names = {DOMAIN: platform.address, "localhost": "127.0.0.1"}
        installation.machines[shape.name] = machine
        _common_files(machine)
        if shape.worker:
            _worker(installation, machine)
        else:
            _platform(machine)
            installation.app = install(installation, machine, DOMAIN)
    return installation


def settled(
    timeline: Timeline | None = None, shapes: tuple[Shape, ...] = SHAPES, dsn: str | None = None
) -> Installation:
    """`build`, and all workers have come up and have been running for days.

    `dsn` is an empty database, or one of an earlier installation: it is emptied and seeded.
    """
    timeline = timeline or Timeline()
    with timeline.held():
        installation = build(timeline, shapes)
        if dsn is not None:
            installation.database = TravisDatabase(dsn, timeline=timeline)
            installation.database.reset()
            installation.scheduler = Scheduler(timeline, installation.broker, installation.database, installation.redis)
            installation.scheduler.start()
        for machine in installation.workers():
            worker = installation.worker(machine.name)
            worker.connect_at_once()
        installation.app.age(5 * DAY)
        for machine in installation.machines.values():
            _age(machine, 5 * DAY + machine.random.random() * DAY)
    return installation


def _age(machine: Machine, seconds: float) -> None:
    """As if it had been started so long ago."""
    machine.booted -= seconds
    for process in machine.processes.values():
        process.started -= seconds - 30
    for container in machine.containers:
        container.started = container.created = container.started - seconds + 30
    for unit in machine.units.values():
        unit.started = None if unit.started is None else unit.started - seconds + 30


def _common_files(machine: Machine) -> None:
    names = {"14.04": "Trusty Tahr", "16.04": "Xenial Xerus", "18.04": "Bionic Beaver"}
    name = names[machine.release]
    machine.write(
        "/etc/os-release",
        f'NAME="Ubuntu"\nVERSION="{machine.release} LTS ({name})"\nID=ubuntu\nID_LIKE=debian\n'
        f'PRETTY_NAME="Ubuntu {machine.release} LTS"\nVERSION_ID="{machine.release}"\n',
    )
    for unit in ("ssh", "cron") if machine.snap else ("ssh", "cron", "docker"):
        machine.units[unit] = Unit(unit, f"{unit} service", Service(), active="active", sub="running")


def _platform(machine: Machine) -> None:
    for name, image, program in (
        ("replicated", "quay.io/replicated/replicated:current", "replicated"),
        ("replicated-ui", "quay.io/replicated/replicated-ui:current", "replicated-ui"),
        ("sleepy_dewdney", "registry.replicated.com/travisci/te-main:2.2.19", "init"),
    ):
        machine.run_container(name, image, program, "/sbin/my_init").hostname = (
            "te-main" if "te-main" in image else name
        )
    machine.write("/etc/replicated.conf", "{}\n")
    machine.write("/etc/replicated.alias", 'alias travis="replicated admin"\n')


def _worker(installation: Installation, machine: Machine) -> None:
    worker = TravisWorker(machine, installation.broker)
    machine.units[UNIT] = Unit(UNIT, "Travis Worker", worker)
    settings = (
        f'export AMQP_URI="amqp://travis:{installation.password}@{DOMAIN}/travis"\n'
        f'export BUILD_API_URI="https://{DOMAIN}/__build__/script"\n'
        f"export QUEUE_NAME='{QUEUE}'\nexport POOL_SIZE='{POOL}'\n"
    )
    if machine.snap:
        machine.write(main_settings(machine), settings.replace("export ", ""), mode=0o640)
        return
    settings += "export TRAVIS_WORKER_DOCKER_ENDPOINT='unix:///var/run/docker.sock'\n"
    machine.write(main_settings(machine), settings, mode=0o640)
    machine.folder(RUN_DIR, "travis")
    if not machine.systemd:
        machine.write(SETTINGS[0], f'export TRAVIS_ENTERPRISE_HOST="{DOMAIN}"\n')
        machine.write(UPSTART_LOG, "", mode=0o640)
        machine.write(f"/etc/init/{UNIT}.conf", UPSTART_CONF)
