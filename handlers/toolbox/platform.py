"""Facts about the platform machine of a 2.x installation.

Sources: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/ and
https://docs.travis-ci.com/user/enterprise/platform-tips-tcie-2.x/
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bot.core import vendor
from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Role, Target

MAIN_IMAGE = "te-main"  # all services of 2.x live in one container of this image, under a random name
DOCKER = "/var/lib/docker"
WATCHED = ("/", DOCKER, "/var/lib/replicated")  # and the folder of the data
CERTIFICATE = "/etc/travis/ssl/rabbitmq.cert"
UPTIME = "https://localhost/api/uptime"
LINES = 5000  # of the platform's log that are read: its end, since an old trouble is over
REDIRECT, STATUSES = "redirect_uri_mismatch", "maximum number of statuses"
SUPPORT = "enterprise@travis-ci.com"
RUNNING = sh("docker", "ps", "--format", "{{.ID}}\t{{.Image}}\t{{.Names}}").sudo()
CONTAINERS = sh("docker", "ps", "-a", "--format", "{{.ID}}\t{{.Image}}\t{{.Status}}").sudo()


@dataclass(frozen=True)
class Container:
    """One container of the platform's image, running or not; `status` is docker's words for how it is."""

    id: str
    status: str

    @property
    def up(self) -> bool:
        return self.status.startswith("Up ") and "Paused" not in self.status


@dataclass(frozen=True)
class Disk:
    """How full a file system is, in percent, and the folders of the platform that lie on it."""

    mount: str
    used: int
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Memory:
    """In MiB: all of it, and what programs could still get."""

    total: int
    left: int

    @property
    def percent(self) -> int:
        return self.left * 100 // self.total if self.total else 0


@dataclass(frozen=True)
class Answer:
    """What a page answered: its HTTP status (0: none came), and why none came."""

    status: int
    why: str = ""


def data_dir(look: Look, platform: Target) -> str:
    """The folder that holds the platform's data on this machine."""
    return vendor.data_dir(look.site, platform)


# ---------------------------------------------------------------- containers


@fact
def main_container() -> Fact[str]:
    """The id of the container that holds the platform's services, on the machine that the look is about."""
    return Fact("Which container runs the platform?", Role.PLATFORM, RUNNING, _main_container)


@fact
def container_of(platform: Target) -> Fact[str]:
    """The same for whoever goes on to speak to this very machine."""
    return Fact(f"Which container runs the platform on {platform}?", platform, RUNNING, _main_container)


def _main_container(said: Output) -> str:
    if not said.ok:
        raise Unknown(f"docker does not answer on the platform: {said.err.strip() or said.out.strip()}")
    rows = (line.split("\t") for line in said.out.splitlines())
    found = [row[0] for row in rows if len(row) >= 2 and MAIN_IMAGE in row[1]]
    if len(found) != 1:
        raise Unknown(f"{len(found) or 'no'} running containers have the image {MAIN_IMAGE}, and one should")
    return found[0]


@fact
def containers(platform: Target) -> Fact[tuple[Container, ...]]:
    """Every container of the platform's image, those that do not run too, the newest first."""
    return Fact(f"Which containers of the platform are on {platform}?", platform, CONTAINERS, _containers)


def _containers(said: Output) -> tuple[Container, ...]:
    if not said.ok:
        raise Unknown(f"docker does not answer on the platform: {said.err.strip() or said.out.strip()}")
    rows = (line.split("\t") for line in said.out.splitlines())
    return tuple(Container(row[0], row[2]) for row in rows if len(row) == 3 and MAIN_IMAGE in row[1])


@fact
def start_error(platform: Target, container: str) -> Fact[str]:
    """Why docker could not start a container, empty when it could."""
    question = sh("docker", "inspect", "--format", "{{.State.Error}}", container).sudo()
    return Fact(f"Why did the platform's container not start on {platform}?", platform, question, _start_error)


def _start_error(said: Output) -> str:
    if not said.ok:
        raise Unknown(f"docker does not tell why the container ended: {said.err.strip()}")
    return said.out.strip()


# ---------------------------------------------------------------- disks


@fact
def disks(platform: Target, folder: str) -> Fact[tuple[Disk, ...]]:
    """How full the file systems are that the platform writes to; `folder` holds its data."""
    return Fact(
        f"How full are the disks of {platform}?", platform, sh("df", "-P", "-k", *_watched(folder)), _disks(folder)
    )


@fact
def inodes(platform: Target, folder: str) -> Fact[tuple[Disk, ...]]:
    """The same for the number of files that still fit."""
    question = sh("df", "-P", "-i", *_watched(folder))
    return Fact(f"How many files fit on {platform}?", platform, question, _disks(folder))


def _watched(folder: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*WATCHED, folder)))


def _disks(folder: str) -> Callable[[Output], tuple[Disk, ...]]:
    """Reads df: a row per folder that is there, though those that are missing make it fail."""

    def parse(said: Output) -> tuple[Disk, ...]:
        rows = [found for line in said.out.splitlines() if (found := _DF.match(line))]
        if not rows:
            raise Unknown(f"df did not answer: {said.err.strip()[:200] or 'it said nothing'}")
        used = {row["mount"]: int(row["used"]) for row in rows if row["used"].isdigit()}  # `-`: it has no such limit
        return tuple(Disk(mount, percent, _lying_on(mount, used, folder)) for mount, percent in used.items())

    return parse


def _lying_on(mount: str, mounts: Mapping[str, int], folder: str) -> tuple[str, ...]:
    return tuple(each for each in _watched(folder) if each != "/" and _mount_of(each, mounts) == mount)


_DF = re.compile(r"^\S.*?\s\d+\s+\d+\s+-?\d+\s+(?P<used>\d+|-)%?\s+(?P<mount>/.*?)\s*$")


def _mount_of(folder: str, mounts: Mapping[str, int]) -> str:
    """The file system that a folder lies on: the longest mount point that begins it."""
    inside = (mount for mount in mounts if mount == "/" or folder == mount or folder.startswith(f"{mount}/"))
    return max(inside, key=len, default="")


@fact
def biggest(platform: Target, folder: str) -> Fact[tuple[tuple[str, int], ...]]:
    """The biggest of what the platform and its machine write, in KiB, biggest first; what takes too long is left out.

    Always the same folders, so that sudo needs one rule.
    """
    asked = (folder, "/var/log", DOCKER)
    question = sh("timeout", "-k", "2", "15", "du", "-x", "-k", "-d", "1", *asked).sudo()
    return Fact(f"What is biggest on {platform}?", platform, question, lambda said: _biggest(said, asked))


def _biggest(said: Output, asked: Sequence[str]) -> tuple[tuple[str, int], ...]:
    rows = (line.split("\t", 1) for line in said.out.splitlines())
    found = [(row[1], int(row[0])) for row in rows if len(row) == 2 and row[0].isdigit() and row[1] not in asked]
    return tuple(sorted(found, key=lambda each: -each[1]))


# ---------------------------------------------------------------- memory


@fact
def memory(platform: Target) -> Fact[Memory]:
    """How much memory there is, and how much of it can still be had: caches count as free."""
    return Fact(f"How much memory is left on {platform}?", platform, sh("free", "-m"), _memory)


def _memory(said: Output) -> Memory:
    rows = [line.split() for line in said.out.splitlines()]
    named = {row[0]: row[1:] for row in rows if row}
    total, without_caches = named.get("Mem:", []), named.get("-/+", [])  # the second row is of Ubuntu 14.04
    left = total[5:6] if rows and "available" in rows[0] else without_caches[2:3]
    if not said.ok or not left or not left[0].isdigit() or not total[0].isdigit():
        raise Unknown(f"free does not tell how much memory is left: {(said.err or said.out).strip()[:200]}")
    return Memory(int(total[0]), int(left[0]))


# ---------------------------------------------------------------- the certificate of RabbitMQ


@fact
def certificate_kind(platform: Target) -> Fact[str]:
    """What lies where RabbitMQ's certificate belongs: `regular file`, `directory`, or nothing (empty)."""
    question = sh("stat", "-c", "%F", CERTIFICATE).sudo()
    return Fact(f"What is {CERTIFICATE} on {platform}?", platform, question, _kind)


@fact
def certificate_is_folder(platform: Target) -> Fact[bool]:
    question = sh("stat", "-c", "%F", CERTIFICATE).sudo()
    return Fact(
        f"{CERTIFICATE} on {platform} is a directory", platform, question, lambda said: _kind(said) == "directory"
    )


def _kind(said: Output) -> str:
    if said.ok and said.out.strip():
        return said.out.strip()
    if "No such file" in said.err or "Not a directory" in said.err:
        return ""
    raise Unknown(f"stat does not tell what {CERTIFICATE} is: {said.err.strip()[:200] or 'it said nothing'}")


@fact
def certificate_holds(platform: Target) -> Fact[int]:
    """How many things lie in the directory that should be the certificate."""
    question = sh("ls", "-A", CERTIFICATE).sudo()
    return Fact(f"What is inside {CERTIFICATE} on {platform}?", platform, question, _count)


def _count(said: Output) -> int:
    if not said.ok:
        raise Unknown(f"ls does not tell what is inside {CERTIFICATE}: {said.err.strip()[:200]}")
    return len(said.out.splitlines())


def remove_empty_folder(platform: Target) -> Fix:
    """`rmdir` takes away nothing that holds anything; docker made it when the certificate was missing."""
    return Fix(
        id="platform.remove-cert-directory",
        title="Remove the empty directory where RabbitMQ's certificate belongs",
        target=platform,
        steps=(Change("Remove it", sh("rmdir", CERTIFICATE).sudo(), needed=certificate_is_folder(platform)),),
        risk=Risk.DATA,
        undo=f"`sudo mkdir {CERTIFICATE}` on {platform}",
    )


# ---------------------------------------------------------------- its web side, its log, its clock


@fact
def uptime(platform: Target) -> Fact[Answer]:
    """What the API says about itself, asked on the machine: 200 proves the web service and the database."""
    words = ("curl", "-sk", "--max-time", "10", "-o", "/dev/null", "-w", "%{http_code}", UPTIME)
    return Fact(f"Does {UPTIME} answer on {platform}?", platform, sh(*words), _uptime)


_CURL = {
    6: "the name cannot be resolved",
    7: "the connection is refused",
    28: "no answer came within 10 s",
    35: "the TLS connection fails",
    52: "the answer is empty",
    56: "the connection breaks off",
}


def _uptime(said: Output) -> Answer:
    code = said.out.strip()
    if not code.isdigit():
        raise Unknown(f"curl cannot be asked: {said.err.strip()[:200] or f'exit {said.exit}'}")
    return Answer(int(code), "" if int(code) else _CURL.get(said.exit or 0, f"curl ends with {said.exit}"))


@fact
def clock(platform: Target) -> Fact[datetime]:
    """What time it is there: its own clock is what ends a license on it."""
    return Fact(f"What time is it on {platform}?", platform, sh("date", "-u", "+%s"), _clock)


def _clock(said: Output) -> datetime:
    if not said.out.strip().isdigit():
        raise Unknown(f"date did not answer: {said.err.strip()[:200]}")
    return datetime.fromtimestamp(int(said.out), UTC)


@fact
def signs(platform: Target, folder: str) -> Fact[Mapping[str, int]]:
    """Known words in the end of the platform's log, and how often; only the words are taken, since lines hold
    secrets.
    """
    read = sh("tail", "-n", str(LINES), f"{folder}/log/travis.log").sudo()
    question = read | sh("grep", "-o", "-E", f"{REDIRECT}|{STATUSES}")
    return Fact(f"Which troubles does the platform's log on {platform} name?", platform, question, _signs)


def _signs(said: Output) -> Mapping[str, int]:
    """grep ends with 1 when it found nothing; any words on the second stream mean that the log was not read."""
    if said.err.strip() or said.exit not in (0, 1):
        raise Unknown(f"the platform's log cannot be read: {said.err.strip()[:200] or f'exit {said.exit}'}")
    return Counter(line.strip() for line in said.out.splitlines() if line.strip())


# ---------------------------------------------------------------- how long


def lasted(since: datetime | None, now: datetime) -> timedelta | None:
    """How long something is so; None when that is not known, or clocks disagree."""
    return now - since if since is not None and since <= now else None
