"""Requests, runs and what they keep; each rule is also tried around the adapter, in plain SQL."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from bot.adapters.store import Keep, Pool, Store, forget
from bot.core.errors import Permanent
from bot.core.outcome import Outcome
from bot.core.people import Place
from bot.core.run import Order, Verb
from bot.core.shown import Shown
from tests.store.conftest import ANA, BOB

Begin = Callable[..., int]
Show = Callable[[object], Shown]


def refused(pool: Pool, sql: bytes, says: str) -> None:
    with pytest.raises(psycopg.Error, match=says), pool.connection() as tx:
        tx.execute(sql)


def test_a_delivery_counts_once(pool: Pool, store: Store) -> None:
    body = {"text": "diagnose", "of": {"nested": ["ü", None, 1.5]}}
    with pool.connection() as tx:
        first = store.accept(tx, "trigger-1", "ask", body, ANA)
        assert first is not None
        assert store.accept(tx, "trigger-1", "ask", {}, BOB) is None
        assert store.request(tx, first) == body
        assert [store.count_request_try(tx, first) for _ in range(3)] == [1, 2, 3]
        with pytest.raises(Permanent, match="Request 999"):
            store.request(tx, 999)


def test_hostile_text_is_kept_not_choked_on(pool: Pool, store: Store, shown: Show) -> None:
    body = {"text": "a\0b\ud800c", "\0": ["\0"]}
    with pool.connection() as tx:
        kept = store.accept(tx, "k\0", "ask", body, ANA)
        assert kept is not None
        assert store.request(tx, kept) == {"text": "a\ufffdb\ufffdc", "\ufffd": ["\ufffd"]}
        run = store.start(tx, Order(Verb.ACT, "restart\0", "prod", ("w\0",), "'; DROP TABLE opsbot.runs; --\0", ANA))
        store.tell(tx, run, "note", {"text": "\0\udfff"})
        store.finish(tx, run, Outcome.DONE, shown("fine"))
        found = store.run(tx, run)
    assert found is not None
    assert found.order.because == "'; DROP TABLE opsbot.runs; --\ufffd"


@pytest.mark.parametrize("place", [None, Place("C1"), Place("C1", "17.5")], ids=str)
def test_a_run_comes_back_as_it_was_ordered(pool: Pool, store: Store, place: Place | None) -> None:
    order = Order(Verb.ACT, "restart", "prod", ("worker-1", "worker-2"), "it hangs", ANA, place, look_only=True)
    task = str(uuid4())
    with pool.connection() as tx:
        number = store.start(tx, order)
        store.attach(tx, number, task)
        store.set_state(tx, number, "looking")
        run = store.run(tx, number)
        assert store.run(tx, number + 1) is None
    assert run is not None
    assert (run.id, run.order, run.state, run.task, run.outcome, run.cancelled_by) == (
        number, order, "looking", task, None, None,
    )  # fmt: skip
    assert datetime.now(UTC) - run.created < timedelta(minutes=1)


def test_the_newest_runs_come_first(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    numbers = [begin() for _ in range(4)]
    with pool.connection() as tx:
        store.finish(tx, numbers[3], Outcome.HEALTHY, shown("fine"))
        assert [run.id for run in store.runs(tx, 3)] == numbers[:0:-1]
        assert [run.id for run in store.runs(tx, 3, open_only=True)] == numbers[2::-1]


def test_a_finished_run_never_reopens(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    number = begin()
    with pool.connection() as tx:
        assert [store.count_try(tx, number) for _ in range(2)] == [1, 2]
        store.finish(tx, number, Outcome.FIXED, shown("worker-1 works"))
        store.finish(tx, number, Outcome.FAILED, shown("a late thought"))
        store.set_state(tx, number, "looking")
        assert not store.cancel(tx, number, BOB)
        assert store.count_try(tx, number) == 2
        run = store.run(tx, number)
    assert run is not None
    assert (run.outcome, run.summary, run.state, run.cancelled_by) == (Outcome.FIXED, "worker-1 works", "ended", None)
    for change in (b"outcome = NULL, finished_at = NULL", b"state = 'new'", b"summary = 'x'", b"outcome = 'FAILED'"):
        refused(pool, b"UPDATE opsbot.runs SET " + change, "has ended .FIXED. and never reopens")
    refused(pool, b"DELETE FROM opsbot.runs", "DELETE on opsbot.runs is refused")


def test_a_late_sentence_may_still_be_told(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    number = begin()
    with pool.connection() as tx:
        store.finish(tx, number, Outcome.FIXED, shown("fine"))
        assert store.tell(tx, number, "note", {"text": "the evidence"}) == 1


def test_one_task_carries_one_run(pool: Pool, store: Store, begin: Begin) -> None:
    first, second, task = begin(), begin(), str(uuid4())
    with pool.connection() as tx:
        store.attach(tx, first, task)
    with pytest.raises(psycopg.errors.UniqueViolation), pool.connection() as tx:
        store.attach(tx, second, task)
    with pytest.raises(psycopg.Error, match="carried by another task"), pool.connection() as tx:
        store.attach(tx, first, str(uuid4()))


def test_who_cancels_first_is_who_cancelled(pool: Pool, store: Store, begin: Begin) -> None:
    number = begin()
    with pool.connection() as tx:
        assert store.cancel(tx, number, BOB)
        assert store.cancel(tx, number, ANA)
        run = store.run(tx, number)
    assert run is not None
    assert run.cancelled_by == BOB


def test_the_story_is_numbered_within_its_run(pool: Pool, store: Store, begin: Begin) -> None:
    one, other = begin(), begin()
    with pool.connection() as tx:
        assert [store.tell(tx, one, "look", {"no": no}) for no in (1, 2)] == [1, 2]
        assert store.tell(tx, other, "outcome", {"outcome": "FIXED"}) == 1
        assert [(event.run, event.no, event.kind, event.data) for event in store.story(tx, one)] == [
            (one, 1, "look", {"no": 1}),
            (one, 2, "look", {"no": 2}),
        ]
        assert [event.no for event in store.story(tx, one, after=1)] == [2]
        with pytest.raises(ValueError, match="'gossip' is no kind of event"):
            store.tell(tx, one, "gossip", {})
    refused(pool, b"UPDATE opsbot.events SET data = '{}'", "UPDATE on opsbot.events is refused")


def test_listeners_hear_of_a_story_when_it_is_committed(pool: Pool, store: Store, begin: Begin, migrated: str) -> None:
    number = begin()
    with psycopg.connect(migrated, autocommit=True) as listener:
        listener.execute("LISTEN opsbot_story")
        with pool.connection() as tx:
            store.tell(tx, number, "look", {})
            assert list(listener.notifies(timeout=0.1)) == []
        assert [heard.payload for heard in listener.notifies(timeout=5, stop_after=1)] == [str(number)]


def test_findings_of_a_look_are_replaced_by_looking_again(pool: Pool, store: Store, begin: Begin) -> None:
    number = begin()
    with pool.connection() as tx:
        store.keep_findings(tx, number, 1, [{"cause": "a"}, {"cause": "b"}])
        store.keep_findings(tx, number, 1, [{"cause": "c"}])
        store.keep_findings(tx, number, 2, [])
        kept = tx.execute("SELECT look, no, data FROM opsbot.findings").fetchall()
    assert [tuple(row.values()) for row in kept] == [(1, 1, {"cause": "c"})]


def test_a_plan_stays_as_it_was_posted(pool: Pool, store: Store, begin: Begin) -> None:
    number = begin()
    plan: dict[str, Any] = {"fixes": [{"id": "a"}]}
    with pool.connection() as tx:
        store.keep_plan(tx, number, 1, "digest", plan)
        store.keep_plan(tx, number, 1, "digest", plan)
        assert store.plan(tx, number, 1) == plan
        with pytest.raises(Permanent, match="has no plan 2"):
            store.plan(tx, number, 2)
        with pytest.raises(Permanent, match="it is another one"):
            store.keep_plan(tx, number, 1, "another digest", {})
    refused(pool, b"UPDATE opsbot.plans SET plan = '{}'", "UPDATE on opsbot.plans is refused")


def test_evidence_is_kept_apart(pool: Pool, store: Store, begin: Begin, shown: Show) -> None:
    number = begin()
    with pool.connection() as tx:
        store.keep_evidence(tx, number, "worker-1", "Is it running?", shown("yes\0"))
        assert store.evidence(tx, number) == [("worker-1", "Is it running?", "yes")]


def test_an_earlier_sample_is_the_newest_that_is_old_enough_and_not_too_old(pool: Pool, store: Store) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with pool.connection() as tx:
        for minutes in (0, 5, 10):
            store.sample(tx, "w1", "How many?", {"n": minutes})
            tx.execute(
                "UPDATE opsbot.samples SET at = %s WHERE answer = %s::jsonb",
                [start + timedelta(minutes=minutes), json.dumps({"n": minutes})],
            )
        store.sample(tx, "w2", "How many?", {"n": 99})
        for before, answer in ((-1, None), (0, 0), (7, 5), (60, 10), (70, 10), (71, None)):
            found = store.earlier(tx, "w1", "How many?", start + timedelta(minutes=before))
            assert found == (None if answer is None else {"n": answer})
        assert store.earlier(tx, "w1", "Another question", start + timedelta(minutes=10)) is None


def test_a_long_question_has_samples_too(pool: Pool, store: Store) -> None:
    question = "".join(random.Random(1).choices("abcdefghij", k=20_000))  # an index entry has 2,700 bytes
    with pool.connection() as tx:
        store.sample(tx, "w1", question, {"n": 1})
        assert store.earlier(tx, "w1", question, datetime.now(UTC) + timedelta(minutes=1)) == {"n": 1}
        assert store.earlier(tx, "w1", question[:-1], datetime.now(UTC) + timedelta(minutes=1)) is None


def test_what_is_of_no_use_any_more_is_forgotten(
    pool: Pool, store: Store, begin: Begin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.adapters.store.retention._BATCH", 10)
    old = begin()
    with pool.connection() as tx:
        for no in range(25):
            store.accept(tx, f"old-{no}", "ask", {}, ANA)
        store.sample(tx, "w1", "How many?", {})
        store.tell(tx, old, "look", {})
        tx.execute("UPDATE opsbot.requests SET at = at - interval '40 days'")
        tx.execute("UPDATE opsbot.samples SET at = at - interval '40 days'")
        tx.execute("UPDATE opsbot.outbox SET state = 'sent', done_at = now() - interval '40 days'")
        store.accept(tx, "new", "ask", {}, ANA)
        store.sample(tx, "w1", "How many?", {})
        store.tell(tx, old, "note", {"text": "waiting"})
    assert forget(pool, Keep()) == {"requests": 25, "letters": 1, "samples": 1}
    assert forget(pool, Keep()) == {"requests": 0, "letters": 0, "samples": 0}
    with pool.connection() as tx:
        assert store.accept(tx, "new", "ask", {}, ANA) is None
        assert [event.no for event in store.story(tx, old)] == [1, 2], "stories stay"
