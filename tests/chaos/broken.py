"""The rules are needed: each is taken out once, and the counts that guard it must go red."""

from tests.bench.gates import Figure, info
from tests.chaos import cuts, stale, twins
from tests.chaos.world import World


def run(world: World, machines: list[str], rest: float) -> list[Figure]:
    """What happens without the intent row, without the locks and without the lease's fence."""
    guarded = cuts.lost(world, machines, ("intent",))
    blind = cuts.lost(world, machines, ("intent", "needed"))
    unlocked = twins.twins(world, machines, ("lock",))
    unfenced = stale.woken(world, machines, 1, rest, ("fence",))
    return [
        info("without intents: changes sent twice (the machine is still asked first)", _twice(guarded)),
        red("without intents, and without asking the machine first: changes sent twice", _twice(blind)),
        red("without locks: changes sent twice by pairs of runs", sum(twice for _, twice in unlocked)),
        red("without the fence: stale processes that sent", sum(each.late > 0 for each in unfenced)),
    ]


def _twice(made: list[cuts.Cut]) -> int:
    return sum(each.twice for each in made)


def red(name: str, count: int) -> Figure:
    return Figure(name, str(count), ">= 1", count >= 1)
