"""What a simulated machine is made of: files, processes, containers, units, a journal, and when it was started."""

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import inf

from bot.sandbox.installation.timeline import Timeline

MOST_LINES = 20_000  # of the journal; then the older half is forgotten


@dataclass(eq=False)
class File:
    text: str = ""
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644
    changed: float = 0.0
    folder: bool = False

    def readable_by(self, user: str) -> bool:
        return user == "root" or bool(self.mode & 0o004) or (user == self.owner and bool(self.mode & 0o400))


@dataclass(eq=False)
class Process:
    pid: int
    name: str
    line: str
    user: str
    started: float
    container: "Container | None" = None
    on_signal: Callable[[str], None] | None = None
    environment: tuple[str, ...] = ()


@dataclass(eq=False)
class Container:
    id: str
    name: str
    image: str
    created: float
    started: float
    process: Process | None
    command: str = ""
    hostname: str = ""
    environment: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    address: str = "172.17.0.2"
    error: str = ""  # why docker could not start it
    exit: int = 0

    @property
    def running(self) -> bool:
        return self.process is not None


@dataclass(eq=False)
class Docker:
    """The docker daemon: its version, the newest and the oldest API that it speaks, and how long it thinks first."""

    version: str = "18.06.3-ce"
    api: str = "1.38"
    oldest_api: str = "1.12"
    images: set[str] = field(default_factory=lambda: {"travis:default", "travis:ruby"})
    delay: float = 0.0
    refuses: str = ""  # why it starts no container for a build, although it answers


@dataclass(eq=False)
class Disk:
    """A file system: sizes in KiB, as df counts them."""

    device: str = "/dev/xvda1"
    mount: str = "/"
    size: int = 41_156_736
    used: int = 9_123_456
    inodes: int = 2_621_440
    inodes_used: int = 321_044

    def fill(self, percent: float) -> None:
        """So that df says this percentage."""
        self.used = int(self.size * percent / 100)


@dataclass(frozen=True)
class Line:
    """One line of the journal."""

    at: float
    unit: str
    tag: str
    text: str


@dataclass(eq=False)
class Unit:
    """A service as its init system sees it; `service` does what starting and stopping it means."""

    name: str
    description: str
    service: "Service"
    enabled: str = "enabled"
    copied: bool = False  # its file itself lies among the links that start it: it is wanted, and not called enabled
    active: str = "inactive"
    sub: str = "dead"
    result: str = "success"
    main: Process | None = None
    exit_status: int = 0
    exit_code: int = 0
    started: float | None = None
    exited: float | None = None
    restarts: int = 0  # by itself, since somebody last started it
    transient: bool = False
    command: str = ""
    then_start: bool = False
    respawns: bool = False  # it ended by itself, and is started again after a pause

    def turn(self, active: str, sub: str) -> None:
        self.active, self.sub = active, sub

    def start(self) -> None:
        if self.active in ("inactive", "failed"):
            self._begin()
        elif self.active == "deactivating":
            self.then_start = True

    def stop(self) -> None:
        self.then_start = False
        if self.active not in ("inactive", "failed"):
            self.service.stop(self)

    def restart(self) -> None:
        if self.active in ("inactive", "failed"):
            self._begin()
        else:
            self.service.stop(self)
            self.then_start = True

    def stopped(self) -> None:
        """Stopping has come to its end; a restart goes on from here."""
        self.turn("inactive", "dead")
        if self.then_start:
            self.then_start = False
            self._begin()

    def _begin(self) -> None:
        """Somebody starts it, or the machine does: systemd counts anew."""
        self.restarts = 0
        self.service.start(self)


class Service:
    """What a unit runs. The plain one has no life of its own: it is started, and it is stopped."""

    def start(self, unit: Unit) -> None:
        unit.turn("active", "running")

    def stop(self, unit: Unit) -> None:
        unit.stopped()

    def lose_power(self, unit: Unit) -> None:
        """The machine goes down, and everything of it ends without a word."""
        unit.turn("inactive", "dead")


@dataclass(eq=False)
class Machine:
    """One machine; everything that can be seen on it is here, and faults are changes of it."""

    name: str
    address: str
    timeline: Timeline
    release: str = "18.04"
    systemd: bool = True
    snap: bool = False  # travis-worker is a snap, whose builds run in LXD: there is no docker
    up: bool = True
    booted: float = 0.0
    boot_id: str = ""
    users: dict[str, int] = field(default_factory=lambda: {"root": 0, "ops": 1000, "travis": 1001})
    sudo_without_password: bool = True
    rekeyed: bool = False  # it was set up anew, and shows another host key than the one that is pinned
    seen_as: str = ""  # the address others see it by, when something stands in between
    wedged: set[str] = field(default_factory=set)  # what is stuck until the kernel starts anew: network, docker
    blocked: set[int] = field(default_factory=set)  # ports that a firewall drops on the way out
    rejected: set[int] = field(default_factory=set)  # ports that a firewall refuses in the other side's name
    proxied: set[int] = field(default_factory=set)  # ports where a proxy takes every connection and passes nothing on
    clock: float = 0.0  # seconds that its clock is ahead of the others'
    latency: float = 0.0  # seconds until the other side answers
    reads: float = inf  # bytes that its disk gives in a second, to what is streamed
    docker: Docker = field(default_factory=Docker)
    disks: list[Disk] = field(default_factory=lambda: [Disk()])  # the longest mount point that begins a path holds it
    sizes: dict[str, int] = field(default_factory=dict)  # KiB of folders whose files are not simulated one by one
    memory: int = 16_038  # MiB, and how much of it nobody needs
    available: int = 12_987
    files: dict[str, File] = field(default_factory=dict)
    units: dict[str, Unit] = field(default_factory=dict)
    containers: list[Container] = field(default_factory=list)
    processes: dict[int, Process] = field(default_factory=dict)
    journal: list[Line] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # what getent knows: host name to address
    on_power: list[Callable[[], None]] = field(default_factory=list)  # told when it goes down and comes up
    unknown: list[str] = field(default_factory=list)  # programs that were asked for and are not simulated

    def __post_init__(self) -> None:
        self.random = random.Random(self.name)
        self._pid = 300
        self.new_boot()

    def new_boot(self) -> None:
        self.boot_id = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        self.booted = self.timeline.now()
        self.processes.clear()
        self.wedged.clear()
        self.spawn("systemd" if self.systemd else "init", "/sbin/init", "root", pid=1)
        self.spawn("sshd", "/usr/sbin/sshd -D", "root")

    @property
    def contained(self) -> bool:
        """Does travis-worker run in a container of its own?"""
        return self.systemd and not self.snap

    @property
    def counts_restarts(self) -> bool:
        """Ubuntu 16.04 has systemd 229; 235 began to count."""
        return self.systemd and self.release != "16.04"

    def uptime(self) -> float:
        return self.timeline.now() - self.booted

    def spawn(
        self, name: str, line: str, user: str, container: Container | None = None, pid: int | None = None
    ) -> Process:
        if pid is None:
            self._pid += self.random.randrange(3, 40)
            pid = self._pid
        made = Process(pid, name, line, user, self.timeline.now(), container)
        self.processes[pid] = made
        return made

    def end(self, process: Process | None) -> None:
        if process is not None:
            self.processes.pop(process.pid, None)

    def run_container(self, name: str, image: str, program: str, line: str, user: str = "root") -> Container:
        now = self.timeline.now()
        made = Container(f"{self.random.getrandbits(256):064x}", name, image, now, now, None, command=line)
        made.hostname = made.id[:12]
        made.address = f"172.17.0.{2 + len(self.containers)}"
        made.process = self.spawn(program, line, user, made)
        self.containers.insert(0, made)
        return made

    def remove_container(self, container: Container) -> None:
        self.end(container.process)
        container.process = None
        if container in self.containers:
            self.containers.remove(container)

    def container(self, name: str) -> Container | None:
        """By name, by id or by the beginning of an id, as docker does."""
        return next((c for c in self.containers if c.name == name or (name and c.id.startswith(name))), None)

    def log(self, unit: str, text: str, tag: str = "") -> None:
        self.journal.append(Line(self.timeline.now(), unit, tag or unit, text))
        if len(self.journal) > MOST_LINES:
            del self.journal[: MOST_LINES // 2]

    def disk(self, path: str) -> Disk:
        """The file system that a path lies on."""
        holding = [disk for disk in self.disks if f"{path}/".startswith(disk.mount.rstrip("/") + "/")]
        return max(holding, key=lambda disk: len(disk.mount))

    def read(self, path: str) -> str | None:
        file = self.files.get(path)
        return file.text if file is not None and not file.folder else None

    def write(self, path: str, text: str, owner: str = "root", mode: int = 0o644) -> None:
        self.files[path] = File(text, owner, owner, mode, self.timeline.now())

    def folder(self, path: str, owner: str = "root", mode: int = 0o755) -> None:
        self.files[path] = File("", owner, owner, mode, self.timeline.now(), folder=True)

    def inside(self, path: str) -> Iterator[str]:
        """The paths directly inside a folder."""
        prefix = path.rstrip("/") + "/"
        return iter(sorted({prefix + p[len(prefix) :].split("/")[0] for p in self.files if p.startswith(prefix)}))
