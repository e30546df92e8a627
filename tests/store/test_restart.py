"""The database goes away and comes back: nothing is lost, nothing recorded is done again, no process gives up."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from bot.adapters.durable import Claim, Durable, Workers
from bot.adapters.store import Pool, migrate
from bot.core.errors import LeaseLost, Temporary
from bot.core.ports import Suspended
from tests.rigs import postgres

Eventually = Callable[..., None]
LEASE = timedelta(seconds=2)


@pytest.fixture(params=postgres.VERSIONS)
def server(request: pytest.FixtureRequest) -> Iterator[postgres.Server]:
    """A server of one's own, since it is stopped."""
    with postgres.server(request.param) as server:
        migrate(server.dsn)
        yield server


@pytest.fixture
def pool(server: postgres.Server) -> Iterator[Pool]:
    with closing(Pool(server.dsn)) as pool:
        yield pool


class FourSteps:
    """A task of four recorded steps, with a sleep and a wake in the middle; remembers what was done."""

    def __init__(self, durable: Durable) -> None:
        self.durable = durable
        self.done: Counter[tuple[str, int]] = Counter()
        self.unsure: set[tuple[str, int]] = set()  # the database went away in mid-commit: it may stand all the same
        self.errors: list[Exception] = []

    def carry(self, claim: Claim) -> None:
        for no in range(4):
            if claim.recorded(f"step {no}") is None:
                time.sleep(0.05)
                self._step(claim, no)

    def on_error(self, claim: Claim, error: Exception) -> timedelta | None:
        self.errors.append(error)
        return None

    def _step(self, claim: Claim, no: int) -> None:
        try:
            with claim.commit() as tx:
                claim.record(tx, f"step {no}", no)
                if no == 1:
                    claim.sleep(tx, None)
                    self.durable.wake(tx, claim.task)
        except Temporary:
            self.unsure.add((claim.task, no))
            raise
        self.done[claim.task, no] += 1
        if no == 1:
            raise Suspended


def test_a_restart_under_load_loses_nothing(server: postgres.Server, pool: Pool, eventually: Eventually) -> None:
    durable = Durable(pool)
    steps = FourSteps(durable)
    with durable.transaction() as tx:
        tasks = [durable.spawn(tx, "order", {}, f"k{no}") or "" for no in range(60)]
    crew = [Workers(pool, steps.carry, steps.on_error, lease=LEASE, threads=4) for _ in range(3)]
    for workers in crew:
        workers.start()
    for _ in range(2):
        time.sleep(0.3)
        server.restart(immediate=True)
    assert _states(pool) != {"completed": 60}, "it was under load"
    eventually(lambda: _states(pool) == {"completed": 60}, 40)
    for workers in crew:
        workers.stop()
    assert steps.errors == []
    for step in ((task, no) for task in tasks for no in range(4)):
        assert steps.done[step] == 1 or (steps.done[step] == 0 and step in steps.unsure), step


def test_work_is_told_to_stop_while_the_database_is_away(
    server: postgres.Server, pool: Pool, eventually: Eventually
) -> None:
    durable = Durable(pool)
    aborted: list[float] = []
    carried: list[int] = []

    def carry(claim: Claim) -> None:
        carried.append(claim.attempt)
        if len(carried) == 1:
            assert claim.abort.wait(20)
            aborted.append(time.monotonic())
            raise LeaseLost("as every step does when it is told to stop")

    with durable.transaction() as tx:
        durable.spawn(tx, "order", {}, "k")
    workers = Workers(pool, carry, lambda claim, error: None, lease=LEASE)
    workers.start()
    eventually(lambda: carried == [1])
    stopped = time.monotonic()
    server.stop(immediate=True)
    eventually(lambda: bool(aborted))
    assert aborted[0] - stopped < LEASE.total_seconds(), "before anybody else could have the lease"
    time.sleep(1)
    server.start()
    eventually(lambda: _states(pool) == {"completed": 1})
    workers.stop()
    assert len(carried) == 2


def test_nothing_but_patience_is_needed(server: postgres.Server, pool: Pool, eventually: Eventually) -> None:
    """Away for a while, with processes that start meanwhile; then everything goes on by itself."""
    durable = Durable(pool)
    server.stop(immediate=True)
    began = time.monotonic()
    with pytest.raises(Temporary, match="does not answer"), durable.transaction():
        pytest.fail("there is no database")
    assert time.monotonic() - began < 8
    with pytest.raises(Temporary, match="nothing listens there"):
        migrate(server.dsn)
    workers = Workers(pool, lambda claim: None, lambda claim, error: None, lease=LEASE)
    workers.start()
    time.sleep(1)
    server.start()
    with durable.transaction() as tx:
        durable.spawn(tx, "order", {}, "k")
    eventually(lambda: _states(pool) == {"completed": 1}, 10)
    workers.stop()


def _states(pool: Pool) -> Counter[str]:
    try:
        with pool.connection() as tx:
            return Counter(row["state"] for row in tx.execute("SELECT state FROM absurd.t_opsbot"))
    except Temporary:
        return Counter()
