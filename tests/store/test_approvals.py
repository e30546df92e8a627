"""One UPDATE decides; everything that it refuses, the schema refuses again."""

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.adapters.store import Pool, Store
from bot.core.approval import Approval, Click, Kind, Verdict
from bot.core.people import Actor, Place
from tests.store.conftest import ANA, BOB, EVE

Begin = Callable[..., int]
Put = Callable[..., Approval]
MEMBERS = ["UBOB", "UEVE"]


def click(approval: Approval, verdict: Verdict = Verdict.APPROVE, actor: Actor = BOB, **changes: Any) -> Click:
    """A button pressed in the message 17.1 of C1."""
    pressed = Click(approval.id, verdict, actor, "because", approval.nonce, Place("C1", "16.0"), "17.1")
    return replace(pressed, **changes)


def decide(pool: Pool, store: Store, click: Click) -> Approval | None:
    with pool.connection() as tx:
        return store.decide(tx, click, MEMBERS)


def read(pool: Pool, store: Store, approval: Approval) -> Approval:
    with pool.connection() as tx:
        found = store.approval(tx, approval.id)
    assert found is not None
    return found


def test_a_question_is_put_once(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    run = begin()
    first = put(run)
    assert (first.state, first.requester, first.decided_by, first.message) == ("open", ANA, (), None)
    assert (first.ask.title, first.ask.text, first.ask.rule) == ("Restart worker-1", "the whole plan", "rule 1")
    again = put(run, needs=2)
    assert again == first, "the same run and number is the same row"
    with pool.connection() as tx:
        assert store.approval_of(tx, run, 1) == first
        assert store.approval_of(tx, run, 2) is None
        assert store.approval(tx, first.id + 1) is None
        assert store.open_asks(tx, run) == [first.id]
    assert put(run, no=2).nonce != first.nonce


def test_another_person_decides(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    run = begin()
    decided = decide(pool, store, click(put(run)))
    assert decided is not None
    assert (decided.state, decided.decided_by, decided.reason) == ("approve", (BOB,), "because")
    assert (decided.place, decided.message) == (Place("C1", "16.0"), "17.1")
    with pool.connection() as tx:
        assert store.open_asks(tx, run) == []
        kept = tx.execute('SELECT "user", via, verdict, members FROM opsbot.decisions').fetchall()
    assert kept == [{"user": "UBOB", "via": "slack", "verdict": "approve", "members": MEMBERS}]


REFUSED = {
    "the requester": {"actor": ANA},
    "the requester by another way": {"actor": replace(ANA, via="cli"), "nonce": None, "message": None, "place": None},
    "a guessed nonce": {"nonce": "guess"},
    "a button without its nonce": {"nonce": None},
    "an answer to another kind of question": {"verdict": Verdict.DONE},
    "the clock's verdict": {"verdict": Verdict.EXPIRE},
    "the run's verdict": {"verdict": Verdict.CANCEL},
    "no such question": {"approval": 4711},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_what_does_not_count(pool: Pool, store: Store, begin: Begin, put: Put, changes: dict[str, Any]) -> None:
    approval = put(begin())
    assert decide(pool, store, replace(click(approval), **changes)) is None
    assert read(pool, store, approval) == approval, "nothing of it stands"
    assert decide(pool, store, click(approval)) is not None, "and the right click still counts"


def test_a_person_of_the_same_id_elsewhere_is_another_person(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    assert decide(pool, store, click(put(begin()), actor=Actor("T2", ANA.user))) is not None


@pytest.mark.parametrize("actor", [BOB, replace(BOB, via="cli")], ids=str)
def test_typed_words_point_at_no_message(pool: Pool, store: Store, begin: Begin, put: Put, actor: Actor) -> None:
    typed = click(put(begin()), actor=actor, nonce=None, message=None, place=Place("C9"))
    decided = decide(pool, store, typed)
    assert decided is not None
    assert (decided.place, decided.message) == (None, None), "and bind none"


def test_too_late_is_too_late(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), minutes=-1)
    assert decide(pool, store, click(approval)) is None
    with pool.connection() as tx:
        expired = store.expire(tx, approval.id)
        assert expired is not None
        assert (expired.state, expired.decided_by) == ("expire", ())
        assert store.expire(tx, approval.id) is None


def test_nothing_expires_early(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin())
    with pool.connection() as tx:
        assert store.expire(tx, approval.id) is None
    assert read(pool, store, approval).state == "open"


def test_a_decision_is_final(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin())
    assert decide(pool, store, click(approval, Verdict.DECLINE)) is not None
    assert decide(pool, store, click(approval, actor=EVE)) is None
    with pool.connection() as tx:
        store.withdraw(tx, approval.id, Verdict.CANCEL.value)
    assert read(pool, store, approval).state == "decline"


def test_a_withdrawn_question_takes_no_answer(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin())
    with pool.connection() as tx:
        store.withdraw(tx, approval.id, Verdict.CANCEL.value)
    assert decide(pool, store, click(approval)) is None
    assert read(pool, store, approval).state == "cancel"


def test_two_approvers_are_two_people(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), needs=2)
    first = decide(pool, store, click(approval))
    assert first is not None
    assert (first.state, first.decided_by, first.decided_at) == ("open", (BOB,), None)
    assert decide(pool, store, click(approval)) is None
    elsewhere = click(approval, actor=replace(BOB, via="cli"), nonce=None, message=None, place=None)
    assert decide(pool, store, elsewhere) is None, "nor by another way"
    assert decide(pool, store, click(approval, Verdict.DECLINE)) is None, "nor with another mind"
    second = decide(pool, store, click(approval, actor=EVE))
    assert second is not None
    assert (second.state, second.decided_by) == ("approve", (BOB, EVE))


def test_one_of_two_is_enough_to_decline(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), needs=2)
    decide(pool, store, click(approval))
    declined = decide(pool, store, click(approval, Verdict.DECLINE, EVE))
    assert declined is not None
    assert (declined.state, declined.decided_by) == ("decline", (EVE,))


def test_the_first_valid_click_binds_the_message(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), needs=2)
    assert decide(pool, store, click(approval, nonce="guess", message="17.2")) is None
    assert decide(pool, store, click(approval)) is not None
    assert decide(pool, store, click(approval, actor=EVE, message="17.2")) is None, "the other copy"
    assert decide(pool, store, click(approval, actor=EVE, place=Place("C2", "16.0"))) is None, "another channel"
    assert decide(pool, store, click(approval, actor=EVE)) is not None


def test_a_plan_that_is_not_the_stored_one_cannot_be_approved(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin())
    with pool.connection() as tx:
        standing = store.put(tx, replace(approval.ask, no=2, digest="of another plan"), ANA)
    assert decide(pool, store, click(standing)) is None
    assert decide(pool, store, click(approval)) is not None


@pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.STOP])
def test_who_asked_may_say_what_became_of_it(
    pool: Pool, store: Store, begin: Begin, put: Put, verdict: Verdict
) -> None:
    approval = put(begin(), kind=Kind.DOUBT)
    assert decide(pool, store, click(approval, Verdict.APPROVE)) is None
    answered = decide(pool, store, click(approval, verdict, ANA))
    assert answered is not None
    assert (answered.state, answered.decided_by) == (verdict.value, (ANA,))


def test_who_asked_cannot_have_a_change_sent_again(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), kind=Kind.DOUBT)
    assert decide(pool, store, click(approval, Verdict.AGAIN, ANA)) is None
    own = b'INSERT INTO opsbot.decisions (approval_id, team, "user", via, verdict, reason, members) VALUES '
    row = b"(%s, 'T1', 'UANA', 'slack', 'again', '', '{}')"
    with pytest.raises(psycopg.Error, match="cannot decide it"), pool.connection() as tx:
        tx.execute(own + row, [approval.id])
    decided = decide(pool, store, click(approval, Verdict.AGAIN, BOB))
    assert decided is not None
    assert decided.decided_by == (BOB,)


def test_who_typed_as_another_person_orders_nothing_in_that_run(
    pool: Pool, store: Store, begin: Begin, put: Put
) -> None:
    run = begin()
    approval = put(run)
    with pool.connection() as tx:
        assert store.add_party(tx, run, BOB)
        assert not store.add_party(tx, run, BOB)
    assert decide(pool, store, click(approval)) is None
    row = (
        b'INSERT INTO opsbot.decisions (approval_id, team, "user", via, verdict, reason, members) '
        b"VALUES (%s, 'T1', 'UBOB', 'cli', 'approve', '', '{}')"
    )
    with pytest.raises(psycopg.Error, match="had a part"), pool.connection() as tx:
        tx.execute(row, [approval.id])
    assert decide(pool, store, click(put(begin()))) is not None, "in another run he does"
    assert decide(pool, store, click(approval, actor=EVE)) is not None


def test_a_thousand_hands_and_one_decision(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    """Two hundred clicks from twenty threads, approving and declining: one counts, and its decision is the only row."""
    approval = put(begin())
    counted: list[str] = []
    errors: list[str] = []
    ready = threading.Barrier(20)

    def press(thread: int) -> None:
        ready.wait(30)
        for no in range(10):
            verdict = Verdict.APPROVE if (thread + no) % 2 else Verdict.DECLINE
            try:
                decided = decide(pool, store, click(approval, verdict, Actor("T1", f"U{thread * 10 + no}")))
            except Exception as error:
                errors.append(repr(error))
            else:
                counted.extend([decided.state] if decided else [])

    threads = [threading.Thread(target=press, args=[no]) for no in range(20)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert errors == []
    assert counted == [read(pool, store, approval).state]
    with pool.connection() as tx:
        assert tx.execute("SELECT count(*) AS n FROM opsbot.decisions").fetchone() == {"n": 1}


def test_the_same_person_twice_at_the_same_moment(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin(), needs=2)
    counted: Counter[bool] = Counter()

    def press() -> None:
        counted[decide(pool, store, click(approval)) is not None] += 1

    threads = [threading.Thread(target=press) for _ in range(10)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(30)
    assert counted == {True: 1, False: 9}
    assert read(pool, store, approval).state == "open"


ROUND_THE_ADAPTER = {
    "approve for nobody": (b"state = 'approve', decided_at = now()", "needs 1 people"),
    "approve by the requester": (b"state = 'approve', decided_at = now(), voters = '{T1/UANA}'", "approvals_check"),
    "a verdict of another kind": (b"state = 'done', decided_at = now()", "it cannot become done"),
    "a state that is none": (b"state = 'maybe', decided_at = now()", "it cannot become maybe"),
    "expire early": (b"state = 'expire', decided_at = now()", "has not expired"),
    "closed without a moment": (b"state = 'cancel'", "approvals_check"),
    "fewer people": (b"needs = 0", "stays the question|approvals_needs"),
    "more time": (b"expires_at = expires_at + interval '1 day'", "stays the question"),
    "another plan": (b"digest = 'x'", "stays the question"),
    "another requester": (b"requester_user = 'UEVE'", "stays the question"),
}


@pytest.mark.parametrize(("change", "says"), ROUND_THE_ADAPTER.values(), ids=ROUND_THE_ADAPTER)
def test_the_schema_keeps_an_open_question(pool: Pool, begin: Begin, put: Put, change: bytes, says: str) -> None:
    put(begin())
    with pytest.raises(psycopg.Error, match=says), pool.connection() as tx:
        tx.execute(b"UPDATE opsbot.approvals SET " + change)


@pytest.mark.parametrize(
    "sql",
    [
        b"UPDATE opsbot.approvals SET state = 'open', decided_at = NULL",
        b"UPDATE opsbot.approvals SET state = 'decline'",
        b"UPDATE opsbot.approvals SET reason = 'x'",
        b"UPDATE opsbot.approvals SET voters = voters || 'T1/UEVE'::text",
        b"DELETE FROM opsbot.approvals",
        b"DELETE FROM opsbot.decisions",
        b"UPDATE opsbot.decisions SET \"user\" = 'UEVE'",
        b"TRUNCATE opsbot.decisions",
    ],
    ids=str,
)
def test_the_schema_keeps_a_closed_question(pool: Pool, store: Store, begin: Begin, put: Put, sql: bytes) -> None:
    decide(pool, store, click(put(begin())))
    with pytest.raises(psycopg.Error, match=r"is closed|is refused"), pool.connection() as tx:
        tx.execute(sql)


def test_the_schema_refuses_the_requester_and_a_second_voice(pool: Pool, begin: Begin, put: Put) -> None:
    approval = put(begin(), needs=2)

    def insert(user: str) -> None:
        with pool.connection() as tx:
            tx.execute(
                'INSERT INTO opsbot.decisions (approval_id, team, "user", via, verdict, reason, members) '
                "VALUES (%s, 'T1', %s, 'slack', 'approve', '', '{}')",
                [approval.id, user],
            )

    with pytest.raises(psycopg.Error, match=r"who had a part in approval \d+ cannot decide it"):
        insert("UANA")
    insert("UBOB")
    with pytest.raises(psycopg.errors.UniqueViolation):
        insert("UBOB")


def test_a_question_is_born_open(pool: Pool, store: Store, begin: Begin, put: Put) -> None:
    approval = put(begin())
    with pytest.raises(psycopg.Error, match="begins open"), pool.connection() as tx:
        tx.execute(
            "INSERT INTO opsbot.approvals (run_id, no, kind, digest, needs, expires_at, title, text, rule, nonce, "
            "requester_team, requester_user, requester_via, state, decided_at) "
            "SELECT run_id, 9, kind, digest, needs, expires_at, title, text, rule, 'n', requester_team, "
            "requester_user, requester_via, 'approve', now() FROM opsbot.approvals WHERE id = %s",
            [approval.id],
        )


people = st.sampled_from([ANA, BOB, EVE, replace(ANA, via="cli"), replace(BOB, via="cli")])
clicks = st.tuples(people, st.sampled_from([Verdict.APPROVE, Verdict.DECLINE, Verdict.DONE]), st.sampled_from("12"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pressed=st.lists(clicks, max_size=6), needs=st.integers(1, 3))
def test_any_clicks_in_any_order(
    pool: Pool, store: Store, begin: Begin, put: Put, pressed: list[Any], needs: int
) -> None:
    """Whatever is pressed: an approved plan has as many different people as it needs, and never its requester."""
    approval = put(begin(), needs=needs)
    for actor, verdict, message in pressed:
        decide(pool, store, click(approval, verdict, actor, message=message))
    now = read(pool, store, approval)
    who = {(actor.team, actor.user) for actor in now.decided_by}
    assert ("T1", "UANA") not in who
    assert len(who) == len(now.decided_by)
    assert now.state in ("open", "approve", "decline")
    assert (now.state == "approve") == (len(who) >= needs and now.state != "decline")
