"""A wake is never lost, whenever it comes; a sleep ends in time; what is woken for nothing sleeps again."""

import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from bot.adapters.durable import Claim, Durable
from bot.adapters.store import Pool

Take = Callable[[], Claim | None]


@pytest.fixture
def take(pool: Pool) -> Take:
    def take() -> Claim | None:
        with pool.connection() as tx:
            row = tx.execute("SELECT * FROM opsbot.claim('a', 60, 1)").fetchone()
        return Claim(pool, row, "a", 60, time.monotonic()) if row else None

    return take


@pytest.fixture
def claim(durable: Durable, take: Take) -> Claim:
    with durable.transaction() as tx:
        durable.spawn(tx, "order", {}, "k")
    return taken(take)


def taken(take: Take) -> Claim:
    claim = take()
    assert claim is not None
    return claim


def wake(durable: Durable, claim: Claim) -> None:
    with durable.transaction() as tx:
        durable.wake(tx, claim.task)


def sleep(claim: Claim, seconds: float | None = None) -> None:
    until = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    with claim.commit() as tx:
        claim.sleep(tx, until)


def test_it_sleeps_until_it_is_woken(durable: Durable, take: Take, claim: Claim) -> None:
    for seconds in (None, 3600.0, None):
        sleep(claim, seconds)
        assert take() is None
        wake(durable, claim)
        claim = taken(take)


def test_a_wake_before_the_sleep_counts(durable: Durable, take: Take, claim: Claim) -> None:
    """It may be about rows that were not there when the run looked."""
    wake(durable, claim)
    sleep(claim)
    claim = taken(take)
    sleep(claim)
    assert take() is None, "but only once"


def test_a_wake_before_the_claim_is_no_news(durable: Durable, take: Take) -> None:
    with durable.transaction() as tx:
        task = durable.spawn(tx, "order", {}, "k")
        durable.wake(tx, task or "")
    sleep(taken(take))
    assert take() is None


def test_a_wake_while_a_claim_is_under_way_is_no_news_for_it(
    pool: Pool, durable: Durable, take: Take, claim: Claim
) -> None:
    """The claim began before the wake was committed, and finds the task because of it."""
    sleep(claim)
    claims: list[Claim | None] = []
    thread = threading.Thread(target=lambda: claims.append(take()))
    with pool.connection() as tx:
        tx.execute("LOCK TABLE absurd.t_opsbot IN ACCESS EXCLUSIVE MODE")
        durable.wake(tx, claim.task)
        thread.start()
        while not tx.execute("SELECT 1 AS one FROM pg_locks WHERE NOT granted").fetchone():
            assert thread.is_alive()
            time.sleep(0.01)
    thread.join()
    woken = claims[0]
    assert woken is not None
    sleep(woken)
    assert take() is None


def test_a_wake_during_the_sleeps_transaction_waits_for_it(durable: Durable, take: Take, claim: Claim) -> None:
    thread = threading.Thread(target=wake, args=[durable, claim])
    with claim.commit() as tx:
        claim.sleep(tx, None)
        thread.start()
        time.sleep(0.1)
        assert thread.is_alive()
    thread.join(10)
    taken(take)


def test_a_sleep_during_the_wakes_transaction_waits_for_it(durable: Durable, take: Take, claim: Claim) -> None:
    thread = threading.Thread(target=sleep, args=[claim])
    with durable.transaction() as tx:
        durable.wake(tx, claim.task)
        thread.start()
        time.sleep(0.1)
        assert thread.is_alive()
    thread.join(10)
    taken(take)


def test_a_rolled_back_wake_wakes_nobody(durable: Durable, take: Take, claim: Claim) -> None:
    sleep(claim)
    with suppress(LookupError), durable.transaction() as tx:
        durable.wake(tx, claim.task)
        raise LookupError
    assert take() is None


def test_a_sleep_ends_in_time_again_and_again(pool: Pool, durable: Durable, take: Take, claim: Claim) -> None:
    """absurd does not sleep a second time on a name whose wait ended by time; ours are new each time."""
    for _ in range(3):
        sleep(claim, 60)
        assert take() is None
        with pool.connection() as tx:  # an hour later
            tx.execute("UPDATE absurd.r_opsbot SET available_at = now() - interval '1 s'")
            tx.execute("UPDATE absurd.w_opsbot SET timeout_at = now() - interval '1 s'")
        claim = taken(take)
    wake(durable, claim)  # the old names must not confuse the next sleep
    sleep(claim, 60)
    claim = taken(take)
    sleep(claim, 60)
    assert take() is None


@pytest.mark.parametrize("seconds", [-3600.0, 0.0, 0.05], ids=str)
def test_a_sleep_that_is_over_comes_back_soon(take: Take, claim: Claim, seconds: float) -> None:
    sleep(claim, seconds)
    deadline = time.monotonic() + 3
    while take() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sleep_that_is_over_does_not_turn_in_circles(take: Take, claim: Claim) -> None:
    """When this process' clock is behind the database's, the run goes on sleeping until they agree."""
    circles = 0
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        sleep(claim, -5)
        while (again := take()) is None:
            time.sleep(0.002)
        claim = again
        circles += 1
    assert circles <= 11


def test_any_interleaving(pool: Pool, durable: Durable, take: Take) -> None:
    """A hundred and fifty times, a row is written and its task woken at a random moment of: claim, look, sleep.

    The run must see the row while it is claimed, or be due again. (With the number of wakes not compared in
    `opsbot.sleep`, about every fourth is lost.)
    """
    dice = random.Random(18)
    lost = 0
    with pool.connection() as tx:
        tx.execute("DROP TABLE IF EXISTS news; CREATE TABLE news (task uuid PRIMARY KEY)")
    for no in range(150):
        with durable.transaction() as tx:
            task = durable.spawn(tx, "order", {}, f"k{no}") or ""
        thread = threading.Thread(target=_tell, args=[pool, durable, task, dice.uniform(0, 0.006)])
        thread.start()
        claim = taken(take)
        seen = _look(pool, task)
        time.sleep(dice.uniform(0, 0.002))
        sleep(claim, dice.choice([None, 3600]))
        thread.join(10)
        again = take()
        if again is not None:
            assert _look(pool, task)
            again.complete()
        elif not seen:
            lost += 1
    assert lost == 0


def _tell(pool: Pool, durable: Durable, task: str, after: float) -> None:
    time.sleep(after)
    with pool.connection() as tx:
        tx.execute("INSERT INTO news VALUES (%s)", [task])
        durable.wake(tx, task)


def _look(pool: Pool, task: str) -> bool:
    with pool.connection() as tx:
        return tx.execute("SELECT FROM news WHERE task = %s", [task]).fetchone() is not None
