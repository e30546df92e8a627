"""One run, killed right before each of its journal writes in turn: nothing is lost, nothing is sent twice."""

import time
from dataclasses import dataclass

from tests.bench.gates import Figure, at_least, exactly, info, note
from tests.chaos.lanes import Counter, Lane, side_by_side
from tests.chaos.nursery import lives
from tests.chaos.world import NotInTime, World, until

MOST_WRITES = 150


@dataclass(frozen=True)
class Cut:
    """What came of a run that was killed before this write."""

    no: int
    machine: str
    died: bool
    outcome: str
    doubts: int
    twice: int


def play(lane: Lane, numbers: Counter, rest: float) -> list[Cut]:
    """Cuts of one lane, until a run has lived to its end."""
    done: list[Cut] = []
    while (no := numbers.take()) <= MOST_WRITES:
        done.append(one(lane, no, (), cut=no))
        if not done[-1].died:
            break
        time.sleep(rest)
    return done


def lost(world: World, machines: list[str], breaks: tuple[str, ...]) -> list[Cut]:
    """One run on each machine, killed when its first change was sent and the result not yet written."""
    return side_by_side(world, machines, lambda lane: one(lane, 0, breaks, lose=True))


def one(lane: Lane, no: int, breaks: tuple[str, ...], **rigged: object) -> Cut:
    since = lane.here()
    lane.world.inject(lane.machine)
    dying = lane.work(breaks=breaks, **rigged)
    run = lane.order()
    outcome, doubts = "", 0
    try:
        approve_until_death(lane, run, dying, since)
        died = not lives(dying)
        if died:
            lane.work(breaks=breaks)
        outcome, doubts = lane.follow(run, since, 20 if breaks else 60)
    except NotInTime as late:
        note(f"  cut {no}: {late}")
        died = True
    lane.end_processes()
    return Cut(no, lane.machine, died, outcome, doubts, lane.twice(since))


def approve_until_death(lane: Lane, run: int, dying: int, since: int) -> None:
    def step() -> bool:
        if asked := lane.question(run):
            lane.say(asked, lane.verdict(asked, since))
        return not lives(dying) or bool(lane.outcome(run))

    until(step, 60, f"run {run} ends or its process dies")


def run(world: World, machines: list[str], rest: float) -> list[Figure]:
    began = time.monotonic()
    numbers = Counter()
    made = [cut for each in side_by_side(world, machines, lambda lane: play(lane, numbers, rest)) for cut in each]
    killed = [each for each in made if each.died]
    for each in killed:
        if each.twice or each.outcome != "FIXED" or each.doubts > 1:
            note(f"  {each}")
    return [
        at_least("journal writes before which the process was killed", len(killed), 20),
        info("seconds", time.monotonic() - began),
        exactly("runs that did not end FIXED", sum(each.outcome != "FIXED" for each in made), 0),
        exactly("changes sent twice, by the machines' log", sum(each.twice for each in made), 0),
        exactly("runs that asked more than once", sum(each.doubts > 1 for each in made), 0),
        info("runs that asked a person", sum(each.doubts for each in made)),
    ]
