"""A lease and what is written under it: one transaction, which fails as a whole when the lease is another's."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from bot.adapters.durable import Claim, Durable
from bot.adapters.store import Pool, Store
from bot.core.errors import LeaseLost
from bot.core.shown import Shown

Begin = Callable[..., int]
Show = Callable[[object], Shown]
Take = Callable[..., Claim | None]
WITHOUT_FENCE = """
CREATE OR REPLACE FUNCTION opsbot.hold(p_run uuid, p_worker text, p_lease integer) RETURNS void
    LANGUAGE plpgsql AS $$ BEGIN END $$
"""
WITHOUT_NAMES = """
CREATE OR REPLACE FUNCTION opsbot.hold(p_run uuid, p_worker text, p_lease integer) RETURNS void
    LANGUAGE plpgsql AS $$ BEGIN PERFORM absurd.extend_claim('opsbot', p_run, p_lease); END $$
"""


@pytest.fixture
def take(pool: Pool) -> Take:
    """Claims the next task for a worker, as `Workers` does."""

    def take(worker: str = "a", lease: int = 30) -> Claim | None:
        asked = time.monotonic()
        with pool.connection() as tx:
            row = tx.execute("SELECT * FROM opsbot.claim(%s, %s, 1)", [worker, lease]).fetchone()
        return Claim(pool, row, worker, lease, asked) if row else None

    return take


@pytest.fixture
def held(durable: Durable, take: Take) -> Claim:
    """A task that worker a holds."""
    with durable.transaction() as tx:
        durable.spawn(tx, "order", {"run": 7}, "k")
    claim = take("a")
    assert claim is not None
    return claim


def let_leases_end(pool: Pool) -> None:
    with pool.connection() as tx:
        tx.execute("UPDATE absurd.r_opsbot SET claim_expires_at = now() - interval '1 s' WHERE state = 'running'")


def take_over(pool: Pool, take: Take) -> Claim:
    let_leases_end(pool)
    take("b")  # the first call finds the lease ended, the second what follows from it
    claim = take("b")
    assert claim is not None
    return claim


def test_a_spawned_task_is_claimed_once(durable: Durable, take: Take) -> None:
    with durable.transaction() as tx:
        task = durable.spawn(tx, "order", {"run": 7}, "k")
    claim = take()
    assert claim is not None
    assert (claim.task, claim.name, claim.params, claim.attempt) == (task, "order", {"run": 7}, 1)
    assert not claim.abort.is_set()
    assert take("b") is None


def test_a_key_spawns_once(durable: Durable, take: Take) -> None:
    with durable.transaction() as tx:
        assert durable.spawn(tx, "order", {}, "k") is not None
        assert durable.spawn(tx, "order", {}, "k") is None
    said: list[str | None] = []

    def spawn() -> None:
        with durable.transaction() as tx:
            said.append(durable.spawn(tx, "order", {}, "at once"))

    threads = [threading.Thread(target=spawn) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sum(task is not None for task in said) == 1
    assert len(said) == 10


def test_a_rolled_back_spawn_was_never_there(durable: Durable, take: Take) -> None:
    with suppress(LookupError), durable.transaction() as tx:
        durable.spawn(tx, "order", {}, "k")
        raise LookupError
    assert take() is None
    with durable.transaction() as tx:
        assert durable.spawn(tx, "order", {}, "k") is not None


def test_a_step_and_our_rows_are_one(pool: Pool, store: Store, held: Claim, begin: Begin, shown: Show) -> None:
    run = begin()
    assert held.recorded("step") is None
    with suppress(LookupError), held.commit() as tx:
        store.intend(tx, run, 1, 1, held.attempt, shown("x"))
        held.record(tx, "step", {"done": True})
        assert held.recorded("step") == ({"done": True},)
        raise LookupError
    assert held.recorded("step") is None
    with held.commit() as tx:
        assert store.change(tx, run, 1) is None
        held.record(tx, "step", {"done": (1, None, "ü")})
        held.record(tx, "nothing", None)
    assert held.recorded("step") == ({"done": [1, None, "ü"]},), "as it will be read after a takeover"
    assert held.recorded("nothing") == (None,)


def test_a_peer_knows_what_was_recorded(pool: Pool, held: Claim, take: Take) -> None:
    for step, result in (("first", [1]), ("second", None)):
        with held.commit() as tx:
            held.record(tx, step, result)
    peer = take_over(pool, take)
    assert (peer.task, peer.attempt) == (held.task, 2)
    assert [peer.recorded(step) for step in ("first", "second", "third")] == [([1],), (None,), None]


def test_a_stale_worker_leaves_no_trace(
    pool: Pool, store: Store, held: Claim, take: Take, begin: Begin, shown: Show
) -> None:
    """A pauses past its lease, B goes on: nothing that A writes stands, and A's work is told to stop."""
    run = begin()
    take_over(pool, take)
    with pytest.raises(LeaseLost, match="carried on by another process"), held.commit() as tx:
        store.intend(tx, run, 1, 1, 1, shown("restart"))
    assert held.abort.is_set()
    assert held.lost.is_set()
    with pool.connection() as tx:
        assert store.change(tx, run, 1) is None


def test_without_the_fence_a_stale_worker_would_be_believed(
    pool: Pool, store: Store, held: Claim, take: Take, begin: Begin, shown: Show, fence_removed: Callable[[str], None]
) -> None:
    """What the test above is worth: the same interleaving without `hold` lets A's row stand, and even its step, as long
    as the takeover has not committed when A writes it (a checkpoint is no fence).
    """
    run = begin()
    fence_removed(WITHOUT_FENCE)
    let_leases_end(pool)
    with held.commit() as tx:
        assert store.intend(tx, run, 1, 1, 1, shown("restart"))
        held.record(tx, "step", "by the stale worker")
        take("b")
        peer = take("b")
        assert peer is not None, "B holds the task before A commits"
    with pool.connection() as tx:
        assert store.change(tx, run, 1) is not None
    assert peer.recorded("step") == ("by the stale worker",)


def test_while_a_commit_is_open_nobody_takes_over(
    pool: Pool, store: Store, held: Claim, take: Take, begin: Begin, shown: Show
) -> None:
    """The same interleaving with the fence: B gets the task only after A's rows stand, so B sees the intent."""
    run = begin()
    with held.commit() as tx:
        store.intend(tx, run, 1, 1, 1, shown("restart"))
        # An UPDATE from outside would wait for A; what the clock says is the same for B.
        tx.execute("UPDATE absurd.r_opsbot SET claim_expires_at = now() - interval '1 s'")
        assert take("b") is None
        assert take("b") is None
    take("b")
    peer = take("b")
    assert peer is not None
    with peer.commit() as tx:
        assert not store.intend(tx, run, 1, 1, peer.attempt, shown("restart")), "in doubt, not done twice"


def test_a_commit_that_meets_a_takeover_waits_and_loses(pool: Pool, held: Claim, take: Take) -> None:
    said: list[str] = []

    def write() -> None:
        try:
            with held.commit() as tx:
                held.record(tx, "step", 1)
        except LeaseLost as lost:
            said.append(str(lost))

    let_leases_end(pool)
    thread = threading.Thread(target=write)
    with pool.connection() as tx:
        tx.execute("SELECT opsbot.claim('b', 30, 1)")
        thread.start()
        time.sleep(0.2)
        assert said == [], "it waits for the row that B has locked"
    thread.join(10)
    assert len(said) == 1


def test_an_old_claim_of_a_task_that_slept_is_refused(
    pool: Pool, durable: Durable, held: Claim, take: Take, fence_removed: Callable[[str], None]
) -> None:
    """absurd's run id is the same before and after a sleep, so extend_claim alone would accept the old claim."""
    twin = Claim(pool, {**vars(held), "task_id": held.task, "run_id": held.run, "seen": 0}, held.worker, 30, 0.0)
    with held.commit() as tx:
        held.sleep(tx, None)
    with durable.transaction() as tx:
        durable.wake(tx, held.task)
    peer = take("b")
    assert peer is not None
    assert peer.run == held.run
    with pytest.raises(LeaseLost, match="another process"), twin.commit() as tx:
        twin.record(tx, "step", 1)
    fence_removed(WITHOUT_NAMES)
    twin.over = False
    with twin.commit() as tx:
        twin.record(tx, "step", "accepted without the worker's name")
    assert peer.recorded("step") == ("accepted without the worker's name",)


def test_what_slept_writes_nothing_more(held: Claim, durable: Durable) -> None:
    with held.commit() as tx:
        held.sleep(tx, datetime.now(UTC) + timedelta(hours=1))
    with pytest.raises(LeaseLost, match="not held by this process any more"), held.commit():
        pytest.fail("nothing may be written here")


def test_a_rolled_back_sleep_was_none(held: Claim) -> None:
    with suppress(LookupError), held.commit() as tx:
        held.sleep(tx, None)
        raise LookupError
    with held.commit() as tx:
        held.record(tx, "step", 1)


def test_a_commit_inside_a_commit_is_a_mistake(held: Claim) -> None:
    with held.commit(), pytest.raises(RuntimeError, match="would wait for itself"), held.commit():
        pytest.fail("it would wait for ever")


def test_commits_of_several_threads_come_one_after_the_other(held: Claim) -> None:
    inside: list[int] = []
    most: list[int] = []

    def write(no: int) -> None:
        with held.commit() as tx:
            inside.append(no)
            most.append(len(inside))
            held.record(tx, f"step {no}", no)
            time.sleep(0.01)
            inside.remove(no)

    threads = [threading.Thread(target=write, args=[no]) for no in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [1] * 8
    assert [held.recorded(f"step {no}") for no in range(8)] == [(no,) for no in range(8)]


def test_a_task_ends_with_what_it_wrote_or_not_at_all(
    pool: Pool, store: Store, held: Claim, begin: Begin, shown: Show, take: Take
) -> None:
    run = begin()
    with suppress(LookupError), held.commit() as tx:
        store.intend(tx, run, 1, 1, held.attempt, shown("x"))
        held.end(tx)
        raise LookupError
    with held.commit() as tx:
        assert store.change(tx, run, 1) is None
        store.intend(tx, run, 1, 1, held.attempt, shown("x"))
        held.end(tx)
    assert held.over
    assert take() is None
    with pool.connection() as tx:
        assert store.change(tx, run, 1) is not None
        assert tx.execute("SELECT state FROM absurd.t_opsbot").fetchall() == [{"state": "completed"}]


def test_a_completed_task_is_over(pool: Pool, durable: Durable, held: Claim, take: Take) -> None:
    held.complete()
    with durable.transaction() as tx:
        durable.wake(tx, held.task)  # nobody there any more, and no error
    assert take("b") is None
    with pytest.raises(LeaseLost), held.commit():
        pytest.fail("nothing may be written here")
    with pool.connection() as tx:
        assert tx.execute("SELECT state FROM absurd.t_opsbot").fetchall() == [{"state": "completed"}]
        assert tx.execute("SELECT * FROM opsbot.wakes").fetchall() == []


def test_what_is_given_back_is_free_at_once(held: Claim, take: Take) -> None:
    held.give_back()
    peer = take("b")
    assert peer is not None
    assert (peer.task, peer.attempt) == (held.task, 1), "no attempt was lost"
    with pytest.raises(LeaseLost):
        held.give_back()


def test_beats_extend_what_is_held_and_name_what_is_lost(pool: Pool, durable: Durable, held: Claim, take: Take) -> None:
    with durable.transaction() as tx:
        durable.spawn(tx, "order", {}, "other")
    other = take("a:2")
    assert other is not None

    def beat() -> set[str]:
        with pool.connection() as tx:
            parameters = [[held.run, other.run], [held.worker, other.worker], 1000]
            found = tx.execute("SELECT opsbot.beat(%s::uuid[], %s, %s)::text AS run", parameters)
            return {row["run"] for row in found}

    def seconds_left() -> set[int]:
        with pool.connection() as tx:
            found = tx.execute(
                "SELECT round(extract(epoch FROM claim_expires_at - now()), -2)::int AS left FROM absurd.r_opsbot "
                "WHERE state = 'running'"
            )
            return {row["left"] for row in found}

    assert beat() == set()
    assert seconds_left() == {1000}
    with held.commit():
        assert beat() == set(), "a commit in progress is no loss, and nobody waits for it"
    other.give_back()
    assert beat() == {other.run}
    take("b")
    assert beat() == {other.run}, "another worker's"


@pytest.fixture
def fence_removed(pool: Pool) -> Iterator[Callable[[str], None]]:
    """Replaces `opsbot.hold` by something weaker, until the test ends."""

    def replace(sql: str) -> None:
        with pool.connection() as tx:
            tx.execute(sql.encode())

    with pool.connection() as tx:
        row = tx.execute("SELECT pg_get_functiondef('opsbot.hold'::regproc) AS sql").fetchone()
    yield replace
    replace(row["sql"] if row else "")
