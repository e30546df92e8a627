"""A process that is stopped right after it has written an intent, and wakes when a peer has taken over.

It must not send: what it meant was answered by others while it slept.
"""

import time
from dataclasses import dataclass

from tests.bench.gates import Figure, exactly, info, note
from tests.chaos.lanes import Lane, side_by_side
from tests.chaos.nursery import lives
from tests.chaos.world import NotInTime, World, go_on, until

WAKES = 3.0  # seconds that a stale process gets to do its harm


@dataclass(frozen=True)
class Woken:
    """What came of one stale process: what it sent after it woke, and how often the change was made in all."""

    machine: str
    outcome: str
    doubts: int
    late: int
    twice: int
    why: str = ""


def play(lane: Lane, times: int, rest: float, breaks: tuple[str, ...]) -> list[Woken]:
    done = []
    for no in range(times):
        try:
            done.append(one(lane, breaks))
        except NotInTime as late:
            done.append(Woken(lane.machine, "", 0, 0, 0, str(late)))
        lane.end_processes()
        if no < times - 1:
            time.sleep(rest)
    return done


def one(lane: Lane, breaks: tuple[str, ...]) -> Woken:
    since = lane.here()
    lane.world.inject(lane.machine)
    stale = lane.work(freeze=True, breaks=breaks)
    run = lane.order()

    def frozen() -> bool:
        if asked := lane.question(run):
            lane.say(asked, lane.verdict(asked, since))
        return is_stopped(stale)

    until(frozen, 30, "the process stops after its intent")
    lane.work(breaks=breaks)
    outcome, doubts = lane.follow(run, since)
    awake = lane.here()
    go_on(stale)
    time.sleep(WAKES)
    assert lives(stale), "it is still there, and has had its chance"
    return Woken(lane.machine, outcome, doubts, len(lane.sent(awake)), lane.twice(since))


def is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "T"
    except FileNotFoundError:
        return False


def woken(world: World, machines: list[str], times: int, rest: float, breaks: tuple[str, ...] = ()) -> list[Woken]:
    lanes = side_by_side(world, machines, lambda lane: play(lane, times, rest, breaks))
    return [each for lane in lanes for each in lane]


def run(world: World, machines: list[str], times: int, rest: float) -> list[Figure]:
    made = woken(world, machines, times, rest)
    for each in made:
        if each.late or each.outcome != "FIXED":
            note(f"  {each}")
    return [
        info("processes stopped between intent and sending, woken when the run was over", len(made)),
        info("peers that asked a person meanwhile", sum(each.doubts for each in made)),
        exactly("runs that did not end FIXED", sum(each.outcome != "FIXED" for each in made), 0),
        exactly("stale processes that sent their change after all", sum(each.late > 0 for each in made), 0),
    ]
