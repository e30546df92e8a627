"""What 500 runs that wait for an approval cost the process that will carry them on."""

import os
import time
from pathlib import Path

from tests.bench.gates import Figure, at_most, exactly, info, note
from tests.chaos.world import World, until

RUNS = 500
IDLE = 10.0  # seconds


def measure(world: World, runs: int = RUNS) -> list[Figure]:
    for machine in world.workers:
        world.inject(machine)
    with world.serving("waiting") as serving:
        pid = serving.process.pid
        empty = memory(pid)
        order(world, runs)
        until(lambda: asking(world) >= runs, 600, f"{runs} runs ask", every=0.5)
        until(lambda: not pending(world), 300, "all of it is said in Slack", every=0.5)
        time.sleep(3)
        began = cpu(pid)
        time.sleep(IDLE)
        idle = 100 * (cpu(pid) - began) / IDLE
        return [
            exactly("runs that wait for an approval", asking(world), runs),
            at_most("memory of the process (RSS)", memory(pid), 120, " MB"),
            info("... before the first order, MB", empty),
            info("threads", threads(pid)),
            info("CPU while nothing happens, %", idle),
            info("processes beside it", children(pid)),
        ]


def order(world: World, runs: int) -> None:
    """Orders through Slack, a machine and a channel each, twenty a second."""
    ana = world.slack.person("ana")
    desks = list(zip(world.workers, world.channels, strict=True))
    for no in range(runs):
        machine, channel = desks[no % len(desks)]
        while not ana.slash("/travis", f"diagnose builds not starting {machine}", channel=channel).acked:
            note("  an order was not acknowledged; ana asks again")
        time.sleep(0.05)


def asking(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM opsbot.approvals WHERE state = 'open'")[0]["n"])


def pending(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM opsbot.outbox WHERE state = 'pending'")[0]["n"])


def memory(pid: int) -> float:
    """Megabytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def threads(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def children(pid: int) -> int:
    return sum(len(each.read_text().split()) for each in Path(f"/proc/{pid}/task").glob("*/children"))


def cpu(pid: int) -> float:
    """Seconds of processor time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
