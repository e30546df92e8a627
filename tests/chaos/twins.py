"""Two runs for one broken machine at the same moment, both approved: one repairs it, the other finds nothing to do."""

from collections import Counter

from tests.bench.gates import Figure, exactly, info, note
from tests.chaos.lanes import Lane, side_by_side
from tests.chaos.world import NotInTime, World, until

Twins = tuple[Counter[str], int]


def play(lane: Lane, breaks: tuple[str, ...]) -> Twins:
    """The outcomes, and how many changes were sent twice."""
    since = lane.here()
    lane.world.inject(lane.machine)
    for _ in range(2):
        lane.work(breaks=breaks)
    runs = [lane.order(), lane.order()]
    asked = [until(lambda run=run: lane.question(run), 30, f"run {run} asks") for run in runs]  # type: ignore[misc]
    for each in asked:
        lane.say(each, lane.verdict(each, since))
    try:
        outcomes = Counter(lane.follow(run, since)[0] for run in runs)
    except NotInTime as late:
        note(f"  {late}")
        outcomes = Counter({"none": 1})
    return outcomes, lane.twice(since)


def twins(world: World, machines: list[str], breaks: tuple[str, ...] = ()) -> list[Twins]:
    return side_by_side(world, machines, lambda lane: play(lane, breaks))


def run(world: World, machines: list[str]) -> list[Figure]:
    made = twins(world, machines)
    good = Counter({"FIXED": 1, "HEALTHY": 1})
    for outcomes, _ in made:
        if outcomes != good:
            note(f"  {dict(outcomes)}")
    return [
        info("pairs of runs on one machine at once", len(made)),
        exactly("changes sent twice, by the machines' log", sum(twice for _, twice in made), 0),
        exactly("pairs that are not one FIXED and one HEALTHY", sum(outcomes != good for outcomes, _ in made), 0),
    ]
