"""How long Slack waits for a command's acknowledgement, which comes after its commit; beside a Bolt app that only acks.

100 commands a second for 10 seconds, made and measured by the local Slack itself. Each is a question (`show 1`), so
that nothing but taking it in, and answering it, costs time: an order would look at machines.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median

from bot.sandbox.slack import Driver
from bot.sandbox.slack.driver import Load
from tests.bench.gates import Figure, at_most, exactly, info
from tests.chaos.world import World, child, until

RATE, SECONDS, TURNS = 100.0, 10.0, 5
WORKERS = 16  # as `engine.workers` is where nothing else is configured


def measure(world: World, turns: int = TURNS) -> list[Figure]:
    bare, alone, busy = [], [], []
    for turn in range(turns):
        with bare_app(world):
            bare.append(load(world.slack))
        alone.append(ours(world, f"alone-{turn}", workers=1))
        busy.append(ours(world, f"busy-{turn}", workers=WORKERS))
    return [
        exactly("commands that were not acknowledged", sum(len(each.errors) for each in (*alone, *busy)), 0),
        at_most("intake with its commit, p99, as it is set up", p99(busy), 50, " ms"),
        *details(busy),
        info("the same with one thread for all that is claimed, p99, ms", p99(alone)),
        *details(alone),
        info("a Bolt app that acknowledges and does nothing else, p99, ms", p99(bare)),
        *details(bare),
    ]


def p99(loads: Sequence[Load]) -> float:
    return median(each.percentile(0.99) for each in loads)


def details(loads: Sequence[Load]) -> tuple[Figure, Figure]:
    turns = ", ".join(f"{each.percentile(0.99):.3g}" for each in loads)
    return info("... p50, ms", median(each.percentile(0.5) for each in loads)), info("... p99 of each turn, ms", turns)


def ours(world: World, name: str, workers: int) -> Load:
    engine = {"lease": "5s", "poll": "1s", "workers": workers}
    with world.serving(name, engine=engine):
        world.slack.person("ana").slash("/travis", "show 1", channel=world.channels[0])  # everything is imported
        measured = load(world.slack)
        until(lambda: not unanswered(world), 120, "all questions are answered", every=0.5)
    forget_letters(world)
    until(lambda: world.slack.connections() == 0, 20, "nobody is connected")
    return measured


def load(slack: Driver) -> Load:
    return slack.load("ana", "/travis", "show 1", "C0DESK1", RATE, SECONDS)


def forget_letters(world: World) -> None:
    """A thousand private answers, at one a second, are not what is measured."""
    with world.connect() as connection:
        connection.execute(
            "UPDATE opsbot.outbox SET state = 'dead', done_at = clock_timestamp() WHERE state = 'pending'"
        )


def unanswered(world: World) -> int:
    return int(world.rows("SELECT count(*) AS n FROM absurd.t_opsbot WHERE state <> 'completed'")[0]["n"])


@contextmanager
def bare_app(world: World) -> Iterator[None]:
    until(lambda: world.slack.connections() == 0, 20, "nobody is connected")
    with child(world.folder / "bare.log", "-m", "tests.bench.bare", world.simulator):
        world.slack.wait_for_connection(20)
        yield
    until(lambda: world.slack.connections() == 0, 20, "nobody is connected")
