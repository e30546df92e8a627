"""The audit trail: a line, which shows where somebody cut it, changed it or put something in."""

import threading
from collections.abc import Callable

import psycopg
import pytest

from bot.adapters.store import Audit, Pool, Store
from bot.core.errors import Permanent
from tests.store.conftest import ANA, KEY

Tamper = Callable[[str], None]


@pytest.fixture
def trail(pool: Pool, store: Store) -> None:
    """Five records."""
    for no in range(1, 6):
        with pool.connection() as tx:
            store.audit(
                tx, "decision", ANA if no % 2 else None, {"run": no, "text": "ü \0 ≠", "deep": {"b": 1, "a": 2}}
            )


@pytest.fixture
def tamper(migrated: str) -> Tamper:
    """Changes rows as somebody would who owns the database: past the triggers."""

    def tamper(sql: str) -> None:
        with psycopg.connect(migrated) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(sql.encode())

    return tamper


def test_an_empty_trail_fits(audit: Audit) -> None:
    assert audit.verify() is None
    assert audit.verify(audit.head()) is None
    assert list(audit.export()) == []


@pytest.mark.usefixtures("trail")
def test_an_untouched_trail_fits(audit: Audit) -> None:
    assert audit.verify() is None
    assert audit.verify(audit.head()) is None
    records = list(audit.export())
    assert [(record.no, record.what, record.user) for record in records[:2]] == [
        (1, "decision", "UANA"),
        (2, "decision", None),
    ]
    assert records[0].detail == '{"deep":{"a":2,"b":1},"run":1,"text":"\\u00fc \\u0000 \\u2260"}'
    assert audit.head() == f"5:{records[-1].mac}"


@pytest.mark.usefixtures("trail")
@pytest.mark.parametrize(
    "what", ["UPDATE opsbot.audit SET what = 'x'", "DELETE FROM opsbot.audit", "TRUNCATE opsbot.audit"]
)
def test_the_schema_refuses_to_change_it(pool: Pool, audit: Audit, what: str) -> None:
    with pytest.raises(psycopg.Error, match=r"on opsbot\.audit is refused"), pool.connection() as tx:
        tx.execute(what.encode())
    assert audit.verify() is None


TAMPERED = {
    "another person": ("UPDATE opsbot.audit SET \"user\" = 'UEVE' WHERE no = 3", 3),
    "nobody": ('UPDATE opsbot.audit SET "user" = NULL WHERE no = 3', 3),
    "another way": ("UPDATE opsbot.audit SET via = 'cli' WHERE no = 3", 3),
    "another team": ("UPDATE opsbot.audit SET team = 'T2' WHERE no = 3", 3),
    "another moment": ("UPDATE opsbot.audit SET at = at + interval '1 microsecond' WHERE no = 3", 3),
    "another act": ("UPDATE opsbot.audit SET what = 'refused' WHERE no = 3", 3),
    "another detail": ("UPDATE opsbot.audit SET detail = replace(detail, '3', '4') WHERE no = 3", 3),
    "one space": ("UPDATE opsbot.audit SET detail = detail || ' ' WHERE no = 3", 3),
    "one bit of a mac": ("UPDATE opsbot.audit SET mac = translate(mac, '0123456789', '1032547698') WHERE no = 3", 3),
    "the first": ("DELETE FROM opsbot.audit WHERE no = 1", 1),
    "one from the middle": ("DELETE FROM opsbot.audit WHERE no = 3", 3),
    "one, and closed up": (
        "DELETE FROM opsbot.audit WHERE no = 3; UPDATE opsbot.audit SET no = no - 1 WHERE no > 3",
        3,
    ),
    "two change places": (
        (
            "UPDATE opsbot.audit SET no = 99 WHERE no = 2; UPDATE opsbot.audit SET no = 2 WHERE no = 3;"
            "UPDATE opsbot.audit SET no = 3 WHERE no = 99"
        ),
        2,
    ),
    "one more": (
        'INSERT INTO opsbot.audit SELECT 6, at, what, team, "user", via, detail, mac FROM opsbot.audit WHERE no = 5',
        6,
    ),
    "one before the first": (
        (
            "ALTER TABLE opsbot.audit DROP CONSTRAINT audit_no_check;"
            'INSERT INTO opsbot.audit SELECT 0, at, what, team, "user", via, detail, mac FROM opsbot.audit WHERE no = 5'
        ),
        1,
    ),
}


@pytest.mark.usefixtures("trail")
@pytest.mark.parametrize(("sql", "record"), TAMPERED.values(), ids=TAMPERED)
def test_tampering_is_found_at_its_place(audit: Audit, tamper: Tamper, sql: str, record: int) -> None:
    tamper(sql)
    said = audit.verify()
    tamper(
        "ALTER TABLE opsbot.audit DROP CONSTRAINT IF EXISTS audit_no_check; DELETE FROM opsbot.audit WHERE no = 0;"
        "ALTER TABLE opsbot.audit ADD CONSTRAINT audit_no_check CHECK (no > 0)"
    )
    assert said is not None
    assert said.startswith(f"Record {record} ")


@pytest.mark.usefixtures("trail")
def test_records_cut_off_at_the_end_are_missed_by_the_head(audit: Audit, tamper: Tamper) -> None:
    head = audit.head()
    tamper("DELETE FROM opsbot.audit WHERE no > 3")
    assert audit.verify() is None, "the chain alone cannot know"
    assert audit.verify(head) == "Record 4 is missing: the given head names record 5, the trail ends at 3."


@pytest.mark.usefixtures("trail")
def test_a_trail_rewritten_with_the_stolen_key_is_betrayed_by_the_head(
    pool: Pool, audit: Audit, tamper: Tamper
) -> None:
    head = audit.head()
    tamper("DELETE FROM opsbot.audit WHERE no > 4")
    with pool.connection() as tx:
        audit.append(tx, "nothing happened", None, {})
        audit.append(tx, "nothing happened", None, {})
    assert audit.verify() is None
    assert audit.verify(head) == "Record 5 is not the one that the given head names: the trail was rewritten."


@pytest.mark.usefixtures("trail")
def test_a_record_of_another_past_does_not_fit(pool: Pool, audit: Audit, tamper: Tamper) -> None:
    """Signed with the right key and in its place, but it followed something else (a restored backup, a snapshot)."""
    with pool.connection() as tx:
        audit.append(tx, "the inconvenient record", ANA, {})
        audit.append(tx, "what came after it", ANA, {})
    tamper("CREATE TABLE snapshot AS SELECT * FROM opsbot.audit WHERE no = 7; DELETE FROM opsbot.audit WHERE no > 5")
    with pool.connection() as tx:
        audit.append(tx, "something harmless", ANA, {})
    tamper("INSERT INTO opsbot.audit SELECT * FROM snapshot; DROP TABLE snapshot")
    said = audit.verify()
    assert said is not None
    assert said.startswith("Record 7 (what came after it, ")


@pytest.mark.usefixtures("trail")
def test_a_gap_is_called_a_gap(audit: Audit, tamper: Tamper) -> None:
    tamper("DELETE FROM opsbot.audit WHERE no IN (3, 4)")
    assert audit.verify() == "Record 3 is missing: after record 2 comes record 5."


@pytest.mark.usefixtures("trail")
def test_another_key_fits_nothing(pool: Pool) -> None:
    said = Audit(pool, KEY[::-1]).verify()
    assert said is not None
    assert said.startswith("Record 1 (decision, ")


@pytest.mark.parametrize("head", ["x", "5", "5:abc", "-1:" + "0" * 64])
def test_a_head_that_is_none_is_said_so(audit: Audit, head: str) -> None:
    with pytest.raises(Permanent, match="is no head of an audit trail"):
        audit.verify(head)


def test_a_short_key_is_refused(pool: Pool) -> None:
    with pytest.raises(Permanent, match="has 15 bytes; it needs at least 16"):
        Audit(pool, b"x" * 15)


def test_the_chain_is_a_line_whoever_writes(pool: Pool, store: Store, audit: Audit) -> None:
    errors: list[str] = []

    def write(thread: int) -> None:
        try:
            for no in range(15):
                with pool.connection() as tx:
                    store.audit(tx, "change", ANA, {"thread": thread, "no": no})
        except Exception as error:
            errors.append(repr(error))

    threads = [threading.Thread(target=write, args=[no]) for no in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert audit.verify() is None
    assert [record.no for record in audit.export()] == list(range(1, 121))


def test_a_long_trail_is_read_in_parts(pool: Pool, audit: Audit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.store.audit._BATCH", 10)
    with pool.connection() as tx:
        for no in range(30):
            audit.append(tx, "change", None, {"no": no})
    assert [record.no for record in audit.export()] == list(range(1, 31))
    assert audit.verify() is None


def test_a_rolled_back_record_was_never_there(pool: Pool, store: Store, audit: Audit) -> None:
    try:
        with pool.connection() as tx:
            store.audit(tx, "change", ANA, {})
            raise LookupError
    except LookupError:
        assert list(audit.export()) == []
