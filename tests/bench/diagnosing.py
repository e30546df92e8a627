"""Diagnosing a healthy fleet, beside one script with the same programs on each machine over OpenSSH's ControlMaster:
`python -m tests.bench diagnosing`.

The programs are scripts that print what a healthy simulated installation said, so they cost less than the vendor's own:
what asking them costs weighs more here than it would on a fleet. sudo, `timeout`, ssh and the shells are the real ones.
The peer's script holds the plain commands one after the other, without a bound for any: what a careful person types.
"""

import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

from bot.adapters.ssh import Host, Ssh
from bot.engine.rounds import Diagnoser
from bot.sandbox.installation import Shape
from tests.bench.fanout import ADDRESSES, FAST, THREADS, Cost, Costs, cpus, in_turns, metered, walls
from tests.bench.gates import Figure, at_most, info
from tests.bench.recorded import DIAGNOSES, NOT_RECORDED, PLATFORM, Recorded, healthy, programs, recorded
from tests.rigs.sshd import HostSpec, sshd

FLEETS = (20, 100)
SLOWER = 1.3
DEPTH = 3


def measure() -> list[Figure]:
    """Both fleets; the gate is the big one's."""
    return [figure for count in FLEETS for figure in of_fleet(count)]


def of_fleet(count: int) -> list[Figure]:
    with recorded([Shape(f"worker-{no}", f"10.0.{no // 200}.{no % 200 + 1}") for no in range(count)]) as given:
        with machines(given, count) as hosts, sides(given, hosts) as (ours, peers):
            costs = in_turns(ours.look, peers.run)
        return figures(count, given, costs, hosts)


def figures(count: int, given: Recorded, costs: Costs, hosts: dict[str, Host]) -> list[Figure]:
    of, (wall, peer), (cpu, peer_cpu) = f"{count} workers", walls(costs), cpus(costs, hosts)
    questions = [len(given.commands(name)) for name in hosts if name != PLATFORM]
    gate = at_most(f"{of}, wall / one script", wall / peer, SLOWER, "x")
    return [
        gate if count == max(FLEETS) else info(f"{of}, wall / one script", gate.value),
        info(f"{of}, wall: each", f"{wall:.3g} / {peer:.3g} s"),
        info(f"{of}, client CPU: each", f"{cpu:.3g} / {peer_cpu:.3g} ms a machine"),
        info(f"{of}, questions to a worker, to the platform", f"{max(questions)}, {len(given.commands(PLATFORM))}"),
        at_most(f"{of}, rounds", given.report.rounds, DEPTH),
    ]


# ---------------------------------------------------------------- machines


@contextmanager
def machines(given: Recorded, count: int) -> Iterator[dict[str, Host]]:
    """Workers that share an sshd share its programs' answers: they are equally healthy."""
    names = [f"worker-{no}" for no in range(count)]
    servers = [names[first : first + len(ADDRESSES)] for first in range(0, count, len(ADDRESSES))]
    specs = [_server(f"m{no}", given, shared) for no, shared in enumerate(servers)]
    with sshd(*specs, _server(PLATFORM, given, [PLATFORM])) as rig:
        hosts = {
            name: rig.host(f"m{no}", address)
            for no, shared in enumerate(servers)
            for name, address in zip(shared, ADDRESSES, strict=False)
        }
        yield {**hosts, PLATFORM: rig.host(PLATFORM)}


def _server(name: str, given: Recorded, shared: Sequence[str]) -> HostSpec:
    texts = programs(*(given.commands(each) for each in shared))
    return HostSpec(name, address=ADDRESSES[0], more_addresses=ADDRESSES[1:], programs=texts, recorded=False)


# ---------------------------------------------------------------- ours


@dataclass(frozen=True)
class Ours:
    """Looks at all machines; connections stay from look to look."""

    diagnoser: Diagnoser

    def look(self) -> Cost:
        cost: list[Cost] = []
        with metered(cost):
            report = self.diagnoser.look(DIAGNOSES, self.diagnoser.site, Flag())
        healthy(report)
        return cost[0]


# ---------------------------------------------------------------- OpenSSH's client


@dataclass(frozen=True)
class Peers:
    """One script for each machine, over connections that stay."""

    scripts: dict[str, str]
    hosts: dict[str, Host]
    folder: Path

    def run(self) -> Cost:
        cost: list[Cost] = []
        with metered(cost), ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(self._run, self.scripts))
        return cost[0]

    def leave(self) -> None:
        for name in self.scripts:
            words = ("ssh", *self._words(name)[:-1], "-O", "exit", self._words(name)[-1])
            subprocess.run(words, check=False, capture_output=True, timeout=20)

    def _run(self, name: str) -> None:
        words = ("ssh", "-n", *FAST, *self._words(name), self.scripts[name])
        said = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
        assert NOT_RECORDED not in said.stderr, said.stderr
        assert said.returncode == 0, said

    def _words(self, name: str) -> tuple[str, ...]:
        host = self.hosts[name]
        strict = ("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
        files = ("-o", f"UserKnownHostsFile={host.known_hosts}", "-i", str(host.key_file), "-o", "IdentitiesOnly=yes")
        stay = ("-o", "ControlMaster=auto", "-o", "ControlPersist=300", "-o", f"ControlPath={self.folder}/%C")
        return (*strict, *files, *stay, "-p", str(host.port), f"{host.user}@{host.host}")


def script(given: Recorded, name: str) -> str:
    commands = (str(command) for command, _ in given.commands(name))
    return "\n".join(("export LC_ALL=C; set -o pipefail", *commands, "exit 0"))


@contextmanager
def sides(given: Recorded, hosts: dict[str, Host]) -> Iterator[tuple[Ours, Peers]]:
    """Both keep their connections; OpenSSH's masters are told to leave at the end."""
    ssh = Ssh({f"try/{name}": host for name, host in hosts.items()})
    with tempfile.TemporaryDirectory(prefix="opsbot-bench-") as folder:
        peers = Peers({name: script(given, name) for name in hosts}, hosts, Path(folder))
        try:
            yield Ours(given.looking(ssh)), peers
        finally:
            ssh.close()
            peers.leave()
