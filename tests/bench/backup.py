"""Backups beside OpenSSH with age, SFTP and `tar -cz`: `python -m tests.bench.backup [--scale 0.1] [--write] [NAME …]`.

Machine and opsbot share this computer's cores, so only ratios measured in turns say something. The full size wants
12 GiB of /dev/shm and twenty minutes.
"""

import argparse
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from threading import Event as Flag

import paramiko
import pyrage

from bot.adapters.ssh import Host
from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import TAR_WARNINGS, Packed, Source, Stored
from bot.core.command import Command, sh
from bot.core.target import Role, Target
from tests.bench import datadir
from tests.bench.gates import Figure, at_least, at_most, exactly, info, missed, note, say, table, write
from tests.rigs.sshd import HostSpec, Rig, sshd

GIB = 1 << 30
MIB = 1 << 20
TURNS = 5
STREAMS = 20
SFTP = "Subsystem sftp internal-sftp\n"
REKEYED = "RekeyLimit 64M\n"
FROM = Target("machine", Role.PLATFORM, "bench")
PLACE = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float


@dataclass(frozen=True)
class Bench:
    """A machine with data on it, a key, and a store beside."""

    rig: Rig
    folder: Path
    identity: pyrage.x25519.Identity
    scale: float

    @property
    def host(self) -> Host:
        return self.rig.host("machine")

    @property
    def recipient(self) -> str:
        return str(self.identity.to_public())

    @property
    def vault(self) -> ObjectVault:
        streams = OpenSsh({FROM.key: self.host})
        return ObjectVault(objects((self.folder / "store").as_uri()), [self.recipient], streams)

    def sized(self, size: int) -> int:
        return max(MIB, int(size * self.scale))

    def random_file(self, size: int) -> Path:
        file = self.folder / f"random-{size}"
        if not file.exists():
            with file.open("wb") as writing:
                for _ in range(size // MIB):
                    writing.write(os.urandom(MIB))
        return file

    def put(self, command: Command, packed: Packed = "", name: str = "data") -> Stored:
        form = "tar" if packed else "bytes"
        wanted = Source(name, FROM, command, timedelta(hours=1), form, packed, warnings=TAR_WARNINGS)  # type: ignore[arg-type]
        return self.vault.put(wanted, f"bench/set/{name}.age", lambda _: None, Flag())

    def ssh(self, command: str) -> str:
        host = self.host
        words = ("ssh", "-F", "none", "-c", "aes128-gcm@openssh.com", "-o", "Compression=no", "-o", "BatchMode=yes")
        files = ("-o", f"UserKnownHostsFile={host.known_hosts}", "-i", str(host.key_file), "-o", "IdentitiesOnly=yes")
        return shlex.join((*words, *files, "-p", str(host.port), f"{host.user}@{host.host}", command))

    def out(self) -> Path:
        return self.folder / "theirs"


@contextmanager
def bench(scale: float, config: str = SFTP) -> Iterator[Bench]:
    with (
        tempfile.TemporaryDirectory(prefix="opsbot-bench-", dir=PLACE) as folder,
        sshd(HostSpec("machine", recorded=False, config=config)) as rig,
    ):
        Path(folder).chmod(0o755)
        yield Bench(rig, Path(folder), pyrage.x25519.Identity.generate(), scale)


def timed(work: Callable[[], object]) -> Cost:
    """Wall time, and CPU of this process and of its ended children."""
    before, begun = os.times(), time.monotonic()
    work()
    wall, after = time.monotonic() - begun, os.times()
    return Cost(wall, sum(after[:4]) - sum(before[:4]))


def in_turns(works: Sequence[Callable[[], object]], turns: int = TURNS) -> list[Cost]:
    """The median of each; who goes first changes."""
    costs: list[list[Cost]] = [[] for _ in works]
    for turn in range(turns):
        order = list(zip(costs, works, strict=True))
        for kept, work in order[turn % len(order) :] + order[: turn % len(order)]:
            kept.append(timed(work))
    return [Cost(median(cost.wall for cost in each), median(cost.cpu for cost in each)) for each in costs]


def run(line: str) -> None:
    subprocess.run(("bash", "-o", "pipefail", "-c", line), check=True)


# ---------------------------------------------------------------- one large file


def incompressible(scale: float) -> list[Figure]:
    with bench(scale) as made:
        size = made.sized(2 * GIB)
        file = made.random_file(size)
        theirs = made.ssh(f"cat {file}") + f" | age -r {made.recipient} > {made.out()}"
        ours, peer, sftp = in_turns(
            (
                lambda: made.put(sh("cat", str(file))),
                lambda: run(theirs),
                lambda: fetch(made.host, file, made.out()),
            )
        )
    gib = size / GIB
    return [
        at_least("with SHA-256 and age, speed / (ssh to age)", peer.wall / ours.wall, 0.85, "x"),
        info("speed: ours / ssh to age", f"{size / MIB / ours.wall:.0f} / {size / MIB / peer.wall:.0f} MiB/s"),
        info("CPU: ours / ssh to age", f"{ours.cpu / gib:.2f} / {peer.cpu / gib:.2f} s/GiB"),
        at_least("with SHA-256 and age, speed / SFTP alone", sftp.wall / ours.wall, 3, "x"),
    ]


def fetch(host: Host, file: Path, to: Path) -> None:
    """As people do: paramiko's SFTP, with its prefetching."""
    transport = paramiko.Transport((host.host, host.port))
    try:
        transport.connect(username=host.user, pkey=paramiko.PKey.from_path(host.key_file))
        client = paramiko.SFTPClient.from_transport(transport)
        assert client is not None
        client.get(str(file), str(to))
    finally:
        transport.close()


# ---------------------------------------------------------------- many files


def tree(scale: float) -> list[Figure]:
    with bench(scale) as made:
        folder = made.folder / "var"
        size = datadir.plant(folder, scale)
        command = sh("tar", "-C", str(made.folder), "-c", "var")
        theirs = made.ssh(f"tar -C {made.folder} -cz var") + f" > {made.out()}"
        ours, peer = in_turns((lambda: made.put(command, "zstd"), lambda: run(theirs)))
        stored = made.put(command, "zstd")
        entries = sum(len(folders) + len(names) for _, folders, names in os.walk(folder)) + 1
        kept = f"{stored.stored_bytes / MIB:.0f} / {made.out().stat().st_size / MIB:.0f} MiB"
    return [
        at_least("25,000 files of a platform, speed / (ssh tar -cz)", peer.wall / ours.wall, 8, "x"),
        info("wall: ours / ssh tar -cz", f"{ours.wall:.1f} / {peer.wall:.1f} s for {size / MIB:.0f} MiB"),
        info("stored: ours, encrypted / tar.gz", kept),
        exactly("entries listed while they passed", stored.entries or 0, entries),
    ]


# ---------------------------------------------------------------- memory

CHILD = """\
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event
from bot.adapters.ssh import Host
from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import Source
from bot.core.command import sh
from tests.bench.backup import FROM
url, recipient, host, port, user, key, known, size = sys.argv[1:]
vault = ObjectVault(objects(url), [recipient], OpenSsh({FROM.key: Host(host, int(port), user, Path(key), Path(known))}))
source = Source("data", FROM, sh("head", "-c", size, "/dev/zero"), timedelta(hours=1))
peak = lambda: int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
vault.put_bytes("small", b"x", "bench/set/small.age")
before = peak()
vault.put(source, "bench/set/data.age", lambda _: None, Event())
print((peak() - before) / 1024)
"""


def memory(scale: float) -> list[Figure]:
    with bench(scale) as made:
        sizes = (made.sized(GIB), made.sized(8 * GIB))
        return [at_most(f"memory grown by {size / GIB:.3g} GiB", grown(made, size), 80, " MiB") for size in sizes]


def grown(made: Bench, size: int) -> float:
    host = made.host
    where = (host.host, str(host.port), host.user, str(host.key_file), str(host.known_hosts))
    words = (sys.executable, "-c", CHILD, (made.folder / "store").as_uri(), made.recipient, *where, str(size))
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


# ---------------------------------------------------------------- a server that changes keys all the time


def rekeyed(scale: float) -> list[Figure]:
    with bench(scale, REKEYED) as made:
        file = made.random_file(made.sized(GIB))
        wanted = hashlib.sha256(file.read_bytes()).hexdigest()
        same = sum(made.put(sh("cat", str(file))).sha256 == wanted for _ in range(STREAMS))
    return [exactly(f"streams of {file.name.partition('-')[2]} bytes with RekeyLimit 64M, identical", same, STREAMS)]


MEASURES = {"incompressible": incompressible, "tree": tree, "memory": memory, "rekeyed": rekeyed}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backup", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*MEASURES, []], help="which; all of them without")
    parser.add_argument("--scale", type=float, default=1.0, help="of all sizes; 0.1 for a quick look")
    parser.add_argument("--write", action="store_true", help="put the table into docs/measurements.md")
    given = parser.parse_args()
    figures: list[Figure] = []
    for name in given.name or MEASURES:
        note(f"{name} …")
        figures += MEASURES[name](given.scale)
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    said = table("Backups", figures)
    circumstances = f"`make bench-backup`, sizes times {given.scale:g}, {os.cpu_count()} cores; load average {load}."
    say(f"\n{said}\n\n{circumstances}\n")
    if given.write:
        write("bench backup", f"{said}\n\n{circumstances}")
    misses = missed(figures)
    say("Every gate held." if not misses else f"{misses} gates MISSED.")
    return 1 if misses else 0


if __name__ == "__main__":
    sys.exit(main())
