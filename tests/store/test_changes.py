"""A change is intended once per ask, and its result stands."""

from collections.abc import Callable

import psycopg
import pytest

from bot.adapters.store import Pool, Store
from bot.core.errors import Permanent
from bot.core.shown import Shown

Begin = Callable[..., int]
Show = Callable[[object], Shown]


def test_the_second_intent_is_no_intent(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    run = begin()
    with pool.connection() as tx:
        assert store.change(tx, run, 1) is None
        assert store.intend(tx, run, 1, 1, 1, shown("restart"))
        assert not store.intend(tx, run, 1, 1, 2, shown("restart"))
        assert store.intend(tx, run, 2, 1, 1, shown("another change"))
        row = store.change(tx, run, 1)
    assert row is not None
    assert (row.attempt, row.ask_no, row.result) == (1, 1, None)


def test_again_is_a_new_ask(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    run = begin()
    with pool.connection() as tx:
        for ask in (1, 2, 10):
            assert store.intend(tx, run, 1, ask, 1, shown("restart"))
        store.settle(tx, run, 1, 1, {"state": "in doubt"})
        row = store.change(tx, run, 1)
    assert row is not None
    assert (row.ask_no, row.result) == (10, None)


def test_a_result_stands(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    run = begin()
    with pool.connection() as tx:
        store.intend(tx, run, 1, 1, 1, shown("restart"))
        store.settle(tx, run, 1, 1, {"state": "done"})
        store.settle(tx, run, 1, 1, {"state": "failed"})
        row = store.change(tx, run, 1)
    assert row is not None
    assert row.result == {"state": "done"}
    for change in (b"result = NULL, settled_at = NULL", b"result = '{}'", b"attempt = 2"):
        with pytest.raises(psycopg.Error, match="has its result"), pool.connection() as tx:
            tx.execute(b"UPDATE opsbot.changes SET " + change)


def test_a_change_that_was_not_intended_has_no_result(pool: Pool, store: Store, begin: Begin) -> None:
    run = begin()
    with pytest.raises(Permanent, match="was never intended"), pool.connection() as tx:
        store.settle(tx, run, 1, 1, {"state": "done"})


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        (b"DELETE FROM opsbot.changes", "DELETE on opsbot.changes is refused"),
        (b"TRUNCATE opsbot.changes", "TRUNCATE on opsbot.changes is refused"),
        (b"UPDATE opsbot.changes SET ask_no = 2", "stays as it was intended"),
        (b"UPDATE opsbot.changes SET shown = 'x'", "stays as it was intended"),
        (b"UPDATE opsbot.changes SET result = '{}'", "changes_check"),
    ],
    ids=str,
)
def test_nobody_takes_an_intent_back(
    pool: Pool, store: Store, begin: Begin, shown: Show, sql: bytes, says: str
) -> None:
    run = begin()
    with pool.connection() as tx:
        store.intend(tx, run, 1, 1, 1, shown("restart"))
    with pytest.raises(psycopg.Error, match=says), pool.connection() as tx:
        tx.execute(sql)
