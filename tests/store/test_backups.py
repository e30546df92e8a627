"""What no bug may do to a backup: forget the newest, forget anything while the newest is unproven, lose a key."""

from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest

from bot.adapters.store import Pool, Store
from bot.core.errors import Refused
from bot.core.keeping import Backup, Piece, Proof
from bot.core.shown import Shown

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
Begin = Callable[..., int]
Show = Callable[[object], Shown]


def piece(kind: str = "data", name: str = "data", key: str = "k", fingerprint: str = "") -> Piece:
    rows = {} if fingerprint else {"public.users": 500, 'public."Odd \\ name"': 0}
    return Piece(0, kind, name, key, 10, 12, "ab" * 32, "zstd", NOON, NOON, fingerprint, ("a warning",), rows=rows)


class Shelf:
    """Backups of one site, taken one after the other."""

    def __init__(self, pool: Pool, store: Store, begin: Begin, show: Show) -> None:
        self.pool, self.store, self.begin, self.show = pool, store, begin, show

    def take(self, what: str = "data", proven: bool = True, sealed: bool = True, fingerprint: str = "") -> int:
        run = self.begin()
        kind = "key" if fingerprint else "data"
        with self.pool.connection() as tx:
            backup = self.store.begin_backup(tx, "prod", what, run, f"set-{run}")
            number = self.store.add_piece(tx, backup, piece(kind, kind, f"prod/{run}", fingerprint))
            if sealed:
                self.store.seal_backup(tx, backup, f"prod/{run}/manifest")
        if proven:
            self.prove(number, True)
        return backup

    def prove(self, number: int, passed: bool, by: Proof = Proof.LISTING) -> None:
        with self.pool.connection() as tx:
            self.store.prove(tx, number, by, passed, self.show("3 files"))

    def read(self, backup: int) -> Backup:
        with self.pool.connection() as tx:
            found = self.store.backup(tx, backup)
        assert found is not None
        return found

    def give_up(self, backup: int) -> None:
        with self.pool.connection() as tx:
            self.store.give_up_backup(tx, backup)

    def give_up_pieces(self, backup: int) -> list[str | None]:
        with self.pool.connection() as tx:
            return [self.store.give_up_piece(tx, each.id) for each in self.read(backup).pieces]


@pytest.fixture
def shelf(pool: Pool, store: Store, begin: Begin, shown: Show) -> Shelf:
    return Shelf(pool, store, begin, shown)


def test_a_backup_is_read_as_it_was_written(shelf: Shelf) -> None:
    taken = shelf.read(shelf.take())
    assert (taken.site, taken.what, taken.state, taken.stored) == ("prod", "data", "complete", 12)
    assert taken.pieces[0].warnings == ("a warning",)
    assert taken.pieces[0].rows == {"public.users": 500, 'public."Odd \\ name"': 0}
    assert taken.proven is not None
    assert (taken.proven.by, taken.proven.said) == (Proof.LISTING, "3 files")


def test_one_run_takes_one_backup(shelf: Shelf, pool: Pool, store: Store, begin: Begin) -> None:
    run = begin()
    with pool.connection() as tx:
        first = store.begin_backup(tx, "prod", "all", run, "set-1")
        assert store.begin_backup(tx, "prod", "all", run, "set-2") == first
    assert shelf.read(first).folder == "set-1"
    assert shelf.read(first).state == "being taken"


def test_a_proof_that_failed_last_counts(shelf: Shelf) -> None:
    backup = shelf.take()
    number = shelf.read(backup).pieces[0].id
    shelf.prove(number, False, Proof.READ_BACK)
    assert shelf.read(backup).proven is None
    shelf.prove(number, True, Proof.READ_BACK)
    assert shelf.read(backup).proven is not None


def test_the_newest_stays(shelf: Shelf) -> None:
    backup = shelf.take()
    with pytest.raises(Refused, match="is the newest of `data` on prod"):
        shelf.give_up(backup)


@pytest.mark.parametrize(("proven", "sealed"), [(False, True), (True, False)])
def test_nothing_goes_while_the_newest_is_unproven(shelf: Shelf, proven: bool, sealed: bool) -> None:
    old = shelf.take()
    shelf.take(proven=proven, sealed=sealed)
    with pytest.raises(Refused, match="stays while backup"):
        shelf.give_up(old)
    assert shelf.read(old).gone is None


def test_an_old_one_goes_when_a_newer_one_is_proven(shelf: Shelf) -> None:
    old, other = shelf.take(), shelf.take("all")
    shelf.take()
    shelf.give_up(old)
    assert shelf.read(old).state == "gone"
    assert len(shelf.give_up_pieces(old)) == 1
    with pytest.raises(Refused):
        shelf.give_up(other)  # the only one of everything


def test_a_piece_stays_as_long_as_its_backup(shelf: Shelf) -> None:
    old = shelf.take()
    shelf.take()
    with pytest.raises(Refused, match="goes with its backup only"):
        shelf.give_up_pieces(old)


def test_the_last_copy_of_a_key_stays_though_its_backup_goes(shelf: Shelf) -> None:
    first, second = shelf.take("key", fingerprint="one"), shelf.take("key", fingerprint="one")
    shelf.take("key", fingerprint="two")
    shelf.give_up(first)
    shelf.give_up(second)
    assert shelf.give_up_pieces(first) != [None]
    with pytest.raises(Refused, match="last copy of that encryption key"):
        shelf.give_up_pieces(second)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM opsbot.backups",
        "TRUNCATE opsbot.backup_proofs",
        "UPDATE opsbot.backup_pieces SET sha256 = 'x'",
        "UPDATE opsbot.backup_pieces SET rows = '{}'",
        "UPDATE opsbot.backups SET folder = 'x'",
        "UPDATE opsbot.backups SET sealed_at = NULL, manifest = NULL",
        "UPDATE opsbot.backup_proofs SET passed = false",
    ],
)
def test_rows_stand_as_they_were_written(shelf: Shelf, pool: Pool, sql: str) -> None:
    shelf.take()
    with pytest.raises(psycopg.Error) as error, pool.connection() as connection:
        connection.execute(sql.encode())
    assert (error.value.sqlstate or "")[:3] in ("OB0", "0A0")


def test_a_sealed_backup_takes_no_more(shelf: Shelf, pool: Pool, store: Store) -> None:
    backup = shelf.take()
    with pytest.raises(psycopg.Error, match="takes no more"), pool.connection() as tx:
        store.add_piece(tx, backup, piece(name="more", key="more"))


def test_an_empty_backup_is_never_complete(pool: Pool, store: Store, begin: Begin) -> None:
    with pytest.raises(psycopg.Error, match="holds nothing yet"), pool.connection() as tx:
        store.seal_backup(tx, store.begin_backup(tx, "prod", "all", begin(), "set"), "manifest")


def test_the_store_may_forget_only_what_no_row_stands_for(shelf: Shelf, pool: Pool, store: Store) -> None:
    old = shelf.take()
    new = shelf.take()
    shelf.give_up(old)
    shelf.give_up_pieces(old)
    run = shelf.read(new).run
    with pool.connection() as tx:
        assert store.living_keys(tx) == {f"prod/{run}", f"prod/{run}/manifest"}
        last = store.last_piece(tx, "prod", "data", "data")
    assert last is not None
    assert last.key == f"prod/{run}"


def test_an_alarm_is_raised_once_and_ended_once(pool: Pool, store: Store) -> None:
    with pool.connection() as tx:
        assert [store.raise_alarm(tx, "prod", "backup.overdue") for _ in range(2)] == [True, False]
        assert [store.end_alarm(tx, "prod", "backup.overdue") for _ in range(2)] == [True, False]
