"""How long Slack waits for a command's acknowledgement, which comes after its commit; beside a Bolt app that only acks.

100 commands a second for 10 seconds, made and measured by the local Slack itself. Each is a question (`show 1`), so
that nothing but taking it in, and answering it, costs time: an order would look at machines.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from bot.sandbox.slack import Driver
from bot.sandbox.slack.driver import Load
from tests.bench.gates import Figure, at_most, exactly, info
from tests.chaos.world import World, child, until

RATE, SECONDS, TURNS = 100.0, 10.0, 5


def measure(world: World, turns: int = TURNS) -> list[Figure]:
    ours, bare = [], []
    for turn in range(turns):
        with bare_app(world):
            bare.append(load(world.slack))
        with world.serving(f"intake-{turn}"):
            world.slack.person("ana").slash("/travis", "show 1", channel=world.channels[0])  # everything is imported
            ours.append(load(world.slack))
            until(lambda: not busy(world), 120, "all questions are answered")
        forget_letters(world)
    p99 = median(each.percentile(0.99) for each in ours)
    return [
        exactly("commands that were not acknowledged", sum(len(each.errors) for each in ours), 0),
        at_most("intake with its commit, p99", p99, 50, " ms"),
        info("... of each turn, ms", ", ".join(f"{each.percentile(0.99):.3g}" for each in ours)),
        info("... p50, ms", median(each.percentile(0.5) for each in ours)),
        info("a bare Bolt app, p99, ms", median(each.percentile(0.99) for each in bare)),
        info("... p50, ms", median(each.percentile(0.5) for each in bare)),
    ]


def load(slack: Driver) -> Load:
    return slack.load("ana", "/travis", "show 1", "C0DESK1", RATE, SECONDS)


def forget_letters(world: World) -> None:
    """A thousand private answers, at one a second, are not what is measured."""
    with world.connect() as connection:
        connection.execute(
            "UPDATE opsbot.outbox SET state = 'dead', done_at = clock_timestamp() WHERE state = 'pending'"
        )


def busy(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM absurd.t_opsbot WHERE state <> 'completed'")[0]["n"])


@contextmanager
def bare_app(world: World) -> Iterator[None]:
    until(lambda: world.slack.connections() == 0, 20, "nobody is connected")
    with child(world.folder / "bare.log", "-m", "tests.bench.bare", world.simulator):
        world.slack.wait_for_connection(20)
        yield
    until(lambda: world.slack.connections() == 0, 20, "nobody is connected")
