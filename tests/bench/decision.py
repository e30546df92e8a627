"""From the decision's row to the first command at the machine: how long a person waits after having approved.

The machine writes a command into its log when it has run it, within a millisecond of its arrival. Machine, database
and opsbot share one clock.
"""

from datetime import datetime

from tests.bench.gates import Figure, at_most, exactly, info
from tests.chaos.people import Desk, Incident
from tests.chaos.world import World, percentile

RUNS = 30
REST = 4.5
DECIDED = """
SELECT d.at FROM opsbot.decisions d JOIN opsbot.approvals a ON a.id = d.approval_id
 WHERE a.run_id = %s AND a.kind = 'plan' ORDER BY d.id LIMIT 1
"""


def measure(world: World, runs: int = RUNS) -> list[Figure]:
    """One run after the other, each on the machine that has rested longest."""
    desks = [Desk(world, machine, channel) for machine, channel in zip(world.workers, world.channels, strict=True)]
    with world.serving("decision"):
        incidents = [desks[no % len(desks)].incident() for no in range(runs)]
        waits = [waited(world, each) for each in incidents]
    return [
        exactly("runs that did not end FIXED", sum(each.outcome != "FIXED" for each in incidents), 0),
        at_most("decision to the second look's first command, p50", percentile(waits, 0.5), 150, " ms"),
        info("... p99, ms", percentile(waits, 0.99)),
        info("runs", len(waits)),
    ]


def waited(world: World, incident: Incident) -> float:
    decided: datetime = world.rows(DECIDED, incident.run)[0]["at"]
    here = (each for each in world.log.lines()[incident.since :] if each.machine in (incident.machine, "platform-1"))
    first = next(at for each in here if (at := datetime.fromisoformat(each.at)) > decided)
    return (first - decided).total_seconds() * 1000
