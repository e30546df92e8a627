"""All locks or none, and whoever waits is woken."""

import random
import threading
import time
from collections.abc import Callable
from uuid import uuid4

from bot.adapters.store import Pool, Store
from bot.core.outcome import Outcome
from bot.core.shown import Shown

Begin = Callable[..., int]
Show = Callable[[object], Shown]


def test_all_or_none(pool: Pool, store: Store, begin: Begin) -> None:
    one, other = begin(), begin()
    with pool.connection() as tx:
        assert store.lock(tx, one, ["b", "c"]) is None
        assert store.lock(tx, other, ["a", "b"]) == one
        assert store.locks(tx, other) == [], "a was free, but alone it is of no use"
        assert store.lock(tx, one, ["c", "a"]) is None, "who holds some may take more"
        assert store.locks(tx, one) == ["a", "b", "c"]


def test_unlock_names_the_tasks_that_wait(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    holder, *waiting = [begin() for _ in range(5)]
    tasks = sorted(str(uuid4()) for _ in waiting)
    with pool.connection() as tx:
        for run, task in zip(waiting, tasks, strict=True):
            store.attach(tx, run, task)
        assert store.lock(tx, holder, ["a", "b"]) is None
        assert [store.lock(tx, run, ["a"]) for run in waiting[:3]] == [holder] * 3
        store.finish(tx, waiting[0], Outcome.CANCELLED, shown("not interested any more"))
        assert store.lock(tx, waiting[3], ["c"]) is None, "another key"
        assert store.unlock(tx, holder) == tasks[1:3]
        assert store.locks(tx, holder) == []
        assert store.lock(tx, waiting[1], ["a"]) is None
        assert store.unlock(tx, waiting[1]) == [tasks[2]], "who still waits is told again"
        assert store.lock(tx, waiting[2], ["a"]) is None
        assert store.unlock(tx, waiting[2]) == []


def test_a_rolled_back_lock_was_never_there(pool: Pool, store: Store, begin: Begin) -> None:
    one, other = begin(), begin()
    try:
        with pool.connection() as tx:
            store.lock(tx, one, ["a"])
            raise LookupError
    except LookupError:
        pass
    with pool.connection() as tx:
        assert store.lock(tx, other, ["a"]) is None


def test_who_finds_a_lock_taken_is_remembered_before_it_is_freed(pool: Pool, store: Store, begin: Begin) -> None:
    """The wake-up is not lost when unlock comes between being refused and the commit that says so."""
    holder, waiter, task = begin(), begin(), str(uuid4())
    with pool.connection() as tx:
        store.attach(tx, waiter, task)
        store.lock(tx, holder, ["a"])
    woken: list[str] = []

    def free() -> None:
        with pool.connection() as tx:
            woken.extend(store.unlock(tx, holder))

    thread = threading.Thread(target=free)
    with pool.connection() as tx:
        assert store.lock(tx, waiter, ["a"]) == holder
        thread.start()
        time.sleep(0.2)
        assert woken == [], "unlock waits for us"
    thread.join(10)
    assert woken == [task]


def test_runs_that_want_the_same_never_block_each_other(pool: Pool, store: Store, begin: Begin) -> None:
    """Twenty runs, five keys in any order: never two holders, never a deadlock, and everybody is served."""
    keys, holders = "abcde", dict.fromkeys("abcde", 0)
    served: list[int] = []
    errors: list[str] = []
    runs = [begin() for _ in range(20)]

    def work(run: int, dice: random.Random) -> None:
        try:
            for _ in range(3):
                wanted = dice.sample(keys, dice.randint(1, 4))
                while True:
                    with pool.connection() as tx:
                        if store.lock(tx, run, wanted) is None:
                            break
                    time.sleep(0.002)
                for key in wanted:
                    if holders[key]:
                        errors.append(f"{key} is held by {holders[key]} and {run}")
                    holders[key] = run
                for key in wanted:
                    holders[key] = 0
                with pool.connection() as tx:
                    store.unlock(tx, run)
            served.append(run)
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=work, args=[run, random.Random(run)]) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sorted(served) == runs
