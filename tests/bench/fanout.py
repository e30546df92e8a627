"""Asking 100 machines at once, cold and warm, beside OpenSSH's own client.

Client and servers share this computer's cores, so wall time is bound by the servers and only ratios measured in turns
say something. Client CPU per machine is what carries over to a fleet. Accounts have an empty home: a ~/.bashrc would
cost more than the login.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from threading import Event as Flag

from bot.adapters.ssh import Host, Ssh
from bot.core.command import sh
from bot.core.question import Output
from bot.core.target import Role, Target
from tests.bench.gates import Figure, at_most, info
from tests.rigs.sshd import HostSpec, Rig, sshd

SERVERS = 25
ADDRESSES = tuple(f"127.0.0.{no}" for no in range(1, 5))
THREADS = 32
TURNS = 5
REST = 2  # seconds: servers that still take leave of one client would be in the way of the other
QUESTION = sh("cat", "/proc/loadavg")
FAST = ("-o", "KexAlgorithms=curve25519-sha256", "-c", "aes128-gcm@openssh.com")


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float


Round = Callable[[], Cost]
Costs = tuple[list[Cost], list[Cost]]


def measure() -> list[Figure]:
    """Cold and warm rounds over 100 machines, ours and OpenSSH's in turns; medians of five."""
    with fleet() as rig:
        machines = {f"{name}-{address}": rig.host(name, address) for name in rig.hosts for address in ADDRESSES}
        cold = in_turns(lambda: ours_cold(machines), lambda: theirs(machines, FAST))
        with warm_rounds(machines) as (ours, peers):
            warm = in_turns(ours, peers)
    return [
        *compared("cold, wall / ssh", walls(cold), 0.75, " s"),
        *compared("cold, client CPU / ssh", cpus(cold, machines), 0.35, " ms a machine"),
        *compared("warm, wall / ControlMaster", walls(warm), 0.5, " s"),
        *compared("warm, client CPU / ControlMaster", cpus(warm, machines), 0.5, " ms a machine"),
    ]


def compared(name: str, both: tuple[float, float], most: float, unit: str) -> tuple[Figure, Figure]:
    ours, peer = both
    return at_most(name, ours / peer, most, "x"), info(f"{name}: each", f"{ours:.3g} / {peer:.3g}{unit}")


def walls(costs: Costs) -> tuple[float, float]:
    ours, peers = (median(cost.wall for cost in side) for side in costs)
    return ours, peers


def cpus(costs: Costs, machines: dict[str, Host]) -> tuple[float, float]:
    """Milliseconds for one machine."""
    ours, peers = (median(cost.cpu for cost in side) / len(machines) * 1000 for side in costs)
    return ours, peers


@contextmanager
def fleet() -> Iterator[Rig]:
    specs = (
        HostSpec(f"m{no}", address=ADDRESSES[0], more_addresses=ADDRESSES[1:], recorded=False) for no in range(SERVERS)
    )
    with sshd(*specs) as rig:
        yield rig


def in_turns(one: Round, other: Round) -> Costs:
    """The first turn is not counted; who goes first changes."""
    costs: Costs = ([], [])
    for turn in range(TURNS + 1):
        for kept, run in ((costs[0], one), (costs[1], other))[:: 1 if turn % 2 else -1]:
            kept.append(run())
            time.sleep(REST)
    return costs[0][1:], costs[1][1:]


@contextmanager
def metered(into: list[Cost]) -> Iterator[None]:
    cpu, wall = _cpu(), time.monotonic()
    yield
    into.append(Cost(time.monotonic() - wall, _cpu() - cpu))


def _cpu() -> float:
    """Of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# ---------------------------------------------------------------- ours


def ours_cold(machines: dict[str, Host]) -> Cost:
    cost: list[Cost] = []
    ssh = connected(machines)
    with metered(cost):
        ask_all(ssh, machines)
    ssh.close()
    return cost[0]


def ours_warm(ssh: Ssh, machines: dict[str, Host]) -> Cost:
    cost: list[Cost] = []
    with metered(cost):
        ask_all(ssh, machines)
    return cost[0]


def connected(machines: dict[str, Host]) -> Ssh:
    return Ssh({f"bench/{name}": host for name, host in machines.items()})


def ask_all(ssh: Ssh, machines: dict[str, Host]) -> None:
    def ask(name: str) -> None:
        (answer,) = ssh.ask(Target(name, Role.WORKER, "bench"), [QUESTION], Flag())
        assert isinstance(answer, Output), answer
        assert answer.ok, answer

    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(ask, machines))


# ---------------------------------------------------------------- OpenSSH's client


def theirs(machines: dict[str, Host], options: tuple[str, ...]) -> Cost:
    cost: list[Cost] = []
    with metered(cost), ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda host: _ssh(host, options), machines.values()))
    return cost[0]


def _ssh(host: Host, options: tuple[str, ...]) -> None:
    strict = ("-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes")
    files = ("-o", f"UserKnownHostsFile={host.known_hosts}", "-i", str(host.key_file), "-o", "IdentitiesOnly=yes")
    where = ("-p", str(host.port), f"{host.user}@{host.host}")
    subprocess.run(
        ("ssh", *strict, *files, *options, *where, QUESTION.text()), check=True, capture_output=True, timeout=60
    )


@contextmanager
def warm_rounds(machines: dict[str, Host]) -> Iterator[tuple[Round, Round]]:
    """Both keep their connections; OpenSSH's masters are told to leave at the end."""
    ssh = connected(machines)
    with tempfile.TemporaryDirectory(prefix="opsbot-bench-") as folder:
        path = ("-o", f"ControlPath={folder}/%C")
        shared = (*FAST, "-o", "ControlMaster=auto", "-o", "ControlPersist=60", *path)
        try:
            yield lambda: ours_warm(ssh, machines), lambda: theirs(machines, shared)
        finally:
            ssh.close()
            for host in machines.values():
                leave = ("ssh", "-F", "none", *path, "-O", "exit", "-p", str(host.port), f"{host.user}@{host.host}")
                subprocess.run(leave, check=False, capture_output=True, timeout=20)
