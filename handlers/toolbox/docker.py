"""Facts about Docker on a worker machine: does it answer, how old is it, which API does it take, which containers hang
around.

Every question here is bounded on the machine: a daemon that hangs takes a request and never answers it. Source:
https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#docker-versions-mismatched
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import recovery, worker

ANSWERS, SILENT, DOWN = "answers", "silent", "down"
ABSENT = "absent"  # as it should be where builds run in LXD
PATIENCE = timedelta(
    seconds=15
)  # the vendor's own cron gives `docker info` 5 s and ends the machine; a busy one is slow
INSTALLER = "https://raw.githubusercontent.com/travis-ci/travis-enterprise-worker-installers/master/installer.sh"
OLDEST = "17.06.2-ce"  # older ones do not work with travis-worker
STUCK = "unregister_netdevice: waiting for lo to become free"
STUCK_OFTEN = 9  # more of these in the kernel's log than this: only a reboot helps (the vendor's own limit)
JOB = "travis-job-"  # what the names of build containers begin with
UP_WITHIN = timedelta(minutes=2)
BATCH = 10  # containers that one command removes: sudo needs a rule for each number of them
TOO_MANY = 100  # containers that one fix removes; a plan with more would not be read
_JOBS = ("ps", "-a", "--filter", f"name={JOB}", "--format")
_ROW = "{{.ID}}\t{{.Names}}\t{{.CreatedAt}}\t{{.Status}}"
_OLD_SERVER = re.compile(r"daemon:\s*client and server don't have same version|client is newer than server")
_OLD_CLIENT = re.compile(r"client version ([\d.]+) is too old(?:\. Minimum supported API version is ([\d.]+\d))?")
_NO_FLAG = re.compile(r"unknown shorthand flag: 'f'|flag provided but not defined: -f")
NO_PROGRAM = 127
_NO_DAEMON = re.compile("Cannot connect to the Docker daemon|failed to connect to the docker API")  # since Docker 29
_REQUEUE = "couldn't start instance, attempting requeue"


def bounded(*words: str) -> Command:
    """A question to docker that ends by itself, so that a daemon that hangs costs seconds and hides nothing else."""
    return sh("timeout", "-k", "2", str(int(PATIENCE.total_seconds())), "docker", *words).sudo()


# ---------------------------------------------------------------- the daemon


@fact
def state(machine: Target) -> Fact[str]:
    """`answers`, `down` when there is no daemon, `absent` when there is no docker at all, `silent` when it gave nothing
    within its time; else not known.
    """
    question = bounded("info", "-f", "{{.ServerVersion}}")
    return Fact(f"state of docker on {machine}", machine, question, _state)


def _state(said: Output) -> str:
    if said.exit is None:
        return SILENT
    if said.exit == NO_PROGRAM:
        return ABSENT
    if not said.out.strip() and _NO_DAEMON.search(said.err):
        return DOWN
    if _NO_FLAG.search(said.err):
        return ANSWERS  # docker before 1.13; its version, asked in another way, is trouble enough
    if not said.ok or not said.out.strip():
        raise Unknown(f"docker said neither yes nor no: {(said.err or said.out).strip()[:200] or 'nothing'}")
    return ANSWERS


@fact
def stuck_devices(machine: Target) -> Fact[int]:
    """How often the kernel said that a container's network cannot be taken down (moby#5618)."""
    question = sh("dmesg").sudo() | sh("grep", "-c", STUCK)
    return Fact(f"How often did the kernel of {machine} wait for a network device?", machine, question, _count)


def _count(said: Output) -> int:
    """`grep -c` ends with 1 when it counts none."""
    if not said.out.strip().isdigit():
        raise Unknown(f"the kernel's log cannot be read: {said.err.strip()[:200]}")
    return int(said.out)


# ---------------------------------------------------------------- versions


@dataclass(frozen=True)
class Versions:
    """The server's version, the API that it speaks, and the oldest API that it still takes (empty when it names none).

    `refused` is what the daemon said instead, to a client that it does not get along with.
    """

    server: str = ""
    api: str = ""
    oldest_api: str = ""
    refused: str = ""


@fact
def versions(machine: Target) -> Fact[Versions]:
    question = bounded("version", "-f", "{{.Server.Version}} {{.Server.APIVersion}} {{.Server.MinAPIVersion}}")
    return Fact(f"Which docker runs on {machine}?", machine, question, _versions)


def _versions(said: Output) -> Versions:
    """Docker before 1.13 knows no MinAPIVersion: its client ends with an error, after it has printed the others."""
    if found := _OLD_SERVER.search(said.err):
        return Versions(refused=found[0])
    words = said.out.split()
    if not (said.ok or "MinAPIVersion" in said.err) or len(words) < 2:
        raise Unknown(f"docker did not tell its version: {(said.err or said.out).strip()[:200] or 'nothing'}")
    return Versions(*words[:3])


def numbers(version: str) -> tuple[int, ...]:
    """What a version is compared by: `17.06.2-ce` is 17, 6, 2; raises Unknown for a word that begins with no number."""
    if not (found := re.match(r"\d+(?:\.\d+)*", version)):
        raise Unknown(f"`{version[:40]}` is no version")
    return tuple(int(part) for part in found[0].split("."))


def older(one: str, other: str) -> bool:
    """Whether a version is older than another; a part that is missing counts as 0, what follows a dash not at all."""
    pairs = zip_longest(numbers(one), numbers(other), fillvalue=0)
    return next((mine < yours for mine, yours in pairs if mine != yours), False)


# ---------------------------------------------------------------- what the worker's log says of docker


@dataclass(frozen=True)
class Complaints:
    """What travis-worker wrote about docker since it was started."""

    requeues: int = 0  # builds put back because their container could not be started
    old_server: str = ""  # the daemon's words, when client and server do not fit
    old_client: str = ""  # the API version that the daemon called too old
    oldest_api: str = ""  # the oldest that it takes, in the same breath

    def __str__(self) -> str:
        times = f"{self.requeues} times" if self.requeues != 1 else "once"
        said = (f"`{_REQUEUE}` {times}" if self.requeues else "", f"`{self.old_server}`" if self.old_server else "")
        old = f"`client version {self.old_client} is too old`" if self.old_client else ""
        found = " and ".join(filter(None, (*said, old)))
        return f"the worker's log says {found}" if found else "the worker's log says nothing of it"


@fact
def complaints(machine: Target, init: str) -> Fact[Complaints]:
    """What the worker says of docker in its log since it was started."""
    asks = f"What does {worker.SERVICE} on {machine} say of docker?"
    return Fact(asks, machine, log(init), _complaints)


def log(init: str) -> Command:
    """The end of the worker's log, by the same question as everybody else's, so that it is asked once."""
    if init == worker.UPSTART:
        return sh("tail", "-n", "500", f"/var/log/upstart/{worker.SERVICE}.log").sudo()
    return sh("journalctl", "-u", worker.SERVICE, "-n", "500", "-o", "cat", "--no-pager").sudo()


def _complaints(said: Output) -> Complaints:
    if not said.ok:
        raise Unknown(f"the worker's log cannot be read: {said.err.strip()[:200]}")
    since_start = said.out.rsplit("worker started", 1)[-1]
    server, client = _OLD_SERVER.search(since_start), _OLD_CLIENT.search(since_start)
    return Complaints(
        requeues=since_start.count(_REQUEUE),
        old_server=server[0] if server else "",
        old_client=client[1] if client else "",
        oldest_api=(client[2] or "") if client else "",
    )


# ---------------------------------------------------------------- build containers


@dataclass(frozen=True)
class Container:
    """One build container: its short id, its name, when it was made, and docker's words for its state."""

    id: str
    name: str
    created: datetime
    status: str


@fact
def build_containers(machine: Target) -> Fact[tuple[Container, ...]]:
    """Every build container, oldest first, those that have ended too."""
    question = bounded(*_JOBS, _ROW)
    return Fact(f"Which build containers are on {machine}?", machine, question, _containers)


def _containers(said: Output) -> tuple[Container, ...]:
    if not said.ok:
        raise Unknown(f"docker does not list its containers: {said.err.strip()[:200] or 'no answer in time'}")
    rows = (line.split("\t") for line in said.out.splitlines() if line.strip())
    return tuple(sorted((_container(row) for row in rows), key=lambda each: (each.created, each.id)))


def _container(row: list[str]) -> Container:
    """From `4f1c2ab9d0e1`, name, `2026-11-22 03:00:00 +0000 UTC`, status."""
    identity, name, created, status = row
    if not re.fullmatch(r"[0-9a-f]{12,64}", identity) or not re.fullmatch(rf"{JOB}[\w.-]*", name):
        raise Unknown(f"docker lists a container that is none of a build: {name[:60]}")
    return Container(identity, name, datetime.strptime(created[:25], "%Y-%m-%d %H:%M:%S %z"), status)


@fact
def now(machine: Target) -> Fact[datetime]:
    """The machine's own clock, which its containers' times are compared with."""
    return Fact(f"What time is it on {machine}?", machine, sh("date", "+%s"), _moment)


def _moment(said: Output) -> datetime:
    return datetime.fromtimestamp(int(said.out), UTC)


@fact
def containers_left(machine: Target, ids: str) -> Fact[int]:
    """How many of these comma-separated containers are still there."""
    wanted = set(ids.split(","))
    question = bounded(*_JOBS, "{{.ID}}")

    def count(said: Output) -> int:
        if not said.ok:
            raise Unknown(f"docker does not list its containers: {said.err.strip()[:200] or 'no answer in time'}")
        return len(wanted & set(said.out.split()))

    return Fact(f"number of these containers on {machine}", machine, question, count)


@fact
def any_left(machine: Target, ids: str) -> Fact[bool]:
    """Is any of these comma-separated containers still there?"""
    left = containers_left(machine, ids)
    return Fact(f"some of them are still there on {machine}", machine, left.question, lambda said: left.parse(said) > 0)


# ---------------------------------------------------------------- fixes


def start(machine: Target, init: str, now: worker.Service) -> Fix:
    """The unit of travis-worker requires that of docker, so starting a worker that is down starts both."""
    back = Wait(state(machine), equals(ANSWERS), UP_WITHIN)
    if init == worker.SYSTEMD and not (now.running or now.turning):
        return recovery.start(machine, init, back)
    words = ("start", "docker") if init == worker.UPSTART else ("systemctl", "start", "docker")
    return Fix(
        id="docker.start",
        title="Start docker",
        target=machine,
        steps=(Change("Start docker", sh(*words).sudo(), slow=init == worker.SYSTEMD), back),
        risk=Risk.INTERRUPTS,
        undo="stop docker by hand",
    )


def remove(machine: Target, containers: Sequence[Container]) -> Fix:
    """Removes exactly these containers, by their ids."""
    names = {each.id: each.name for each in containers}
    ids = tuple(sorted(names))
    batches = [ids[at : at + BATCH] for at in range(0, len(ids), BATCH)]
    return Fix(
        id="worker.remove-orphans",
        title="Remove the build containers that were left behind",
        target=machine,
        steps=(
            *(_removed(machine, batch, [names[each] for each in batch]) for batch in batches),
            Wait(containers_left(machine, ",".join(ids)), equals(0), timedelta(minutes=2)),
        ),
        risk=Risk.INTERRUPTS,
        undo="cannot be undone, and nothing is lost: their builds were given to another container, or have ended",
        items=ids,
    )


def _removed(machine: Target, ids: tuple[str, ...], names: list[str]) -> Change:
    there = any_left(machine, ",".join(ids))
    return Change(f"Remove {', '.join(names)}", removal(ids), needed=there)


def removal(ids: tuple[str, ...]) -> Command:
    return sh("docker", "rm", "-f", *ids).sudo()
