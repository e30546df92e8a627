"""Proving a backup again: what is in the store is what its manifest says, and what opsbot recorded."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from threading import Event as Flag
from typing import Any, Final

from bot.core.backup import BackupFailed, BackupStopped, StoreAway, Stored, Vault
from bot.core.errors import Permanent, Refused
from bot.core.keeping import MOST_KEPT, Backup, Piece, Proof
from bot.core.number import counted
from bot.core.ports import Tx
from bot.engine.journal import Journal
from bot.engine.shelter import Shelter, place_of
from bot.engine.words import size

READ: Final = (Proof.READ_BACK, Proof.DRILLED)  # for both, all of the object came from the store
NEVER: Final = datetime.min.replace(tzinfo=UTC)


def verify(journal: Journal, shelter: Shelter, said: str) -> str:
    """Read every piece of a backup back from the store: of that number, else of the one whose turn it is.

    Raises Refused for one that is not there, StoreAway where nobody can tell what the store has.
    """
    backup = _chosen(journal, said)
    results = [_verified(journal, shelter, backup, piece) for piece in backup.pieces]
    failed = [said for passed, said in results if not passed]
    if failed:
        raise Permanent(
            f"Backup {backup.id} cannot be relied on: {'; '.join(failed)}. Take a new one with `backup all`."
        )
    whole = f"{counted(len(results), 'object')}, {size(backup.stored)}"
    return f"Backup {backup.id} was read back from the store whole: {whole}."


def _chosen(journal: Journal, said: str) -> Backup:
    site = journal.run.order.site
    number = numbered(said) if said else journal.write("verify.turn", lambda tx: _turn(journal, tx))
    with journal.claim.commit() as tx:
        backup = journal.store.backup(tx, number)
    if backup is None or backup.site != site:
        raise Refused(f"there is no {f'backup {said}' if said else 'complete backup'} of {site}; `backups` lists them")
    if backup.state != "complete":
        raise Refused(f"backup {number} is {backup.state}, so there is nothing whole to read back")
    return backup


def _turn(journal: Journal, tx: Tx) -> int:
    """Recorded before anything is read, which makes it the turn of another one. 0 where there is none."""
    due = longest_unread(journal.store.backups(tx, journal.run.order.site, limit=MOST_KEPT))
    return due.id if due else 0


def longest_unread(backups: Iterable[Backup]) -> Backup | None:
    """The complete backup that was read back the longest ago; first the newest of those that never were."""

    def turn(backup: Backup) -> tuple[datetime, int]:
        read = [max((each.at for each in piece.proofs if each.by in READ), default=NEVER) for piece in backup.pieces]
        return min(read, default=NEVER), -backup.id

    return min((each for each in backups if each.state == "complete"), key=turn, default=None)


def numbered(said: str) -> int:
    """The number that somebody typed; 0, which no backup has, where it is none."""
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0


def _verified(journal: Journal, shelter: Shelter, backup: Backup, piece: Piece) -> tuple[bool, str]:
    journal.check_cancel()

    def read() -> list[Any]:
        try:
            stored = _stored(shelter.vault, backup, piece)
            _, passed, said = read_back(shelter.vault, stored, journal.stop)
        except (BackupStopped, StoreAway):
            journal.heed_stop()
            raise
        except BackupFailed as why:
            passed, said = False, str(why)
        journal.heed_stop()
        return [passed, said]

    def keep(tx: Tx, made: Sequence[Any]) -> None:
        passed, said = made
        journal.store.prove(tx, piece.id, Proof.READ_BACK, passed, journal.show(said))
        result = "done" if passed else "failed"
        journal.tell(tx, "step", target=backup.site, does=f"read {piece.name} back", result=result, said=said)

    passed, said = journal.once(f"verify.{piece.id}", read, keep)
    return bool(passed), f"{piece.name}: {said.rstrip('.')}"


def _stored(vault: Vault, backup: Backup, piece: Piece) -> Stored:
    """The piece as the manifest in the store has it: that is what a person would restore by."""
    return as_named(vault.manifest(place_of(backup, piece), backup.folder).objects, piece)


def as_named(objects: Iterable[Stored], piece: Piece) -> Stored:
    """The piece as the manifest in the store names it; raises BackupFailed when it names none, or another."""
    stored = next((each for each in objects if each.key == piece.key), None)
    if stored is None:
        raise BackupFailed(f"No manifest in the store names {piece.key} any more.")
    if stored.sha256 != piece.sha256:
        raise BackupFailed(f"The manifest in the store says another SHA-256 of {piece.key} than opsbot recorded.")
    return stored


def read_back(vault: Vault, stored: Stored, abort: Flag) -> tuple[str, bool, str]:
    """Read the object from the store and compare; being stopped is no verdict, nor is a store that is away."""
    try:
        vault.verify(stored, abort)
    except (BackupStopped, StoreAway):
        raise
    except BackupFailed as why:
        return (Proof.READ_BACK.value, False, str(why))
    return (Proof.READ_BACK.value, True, f"{size(stored.stored_bytes)} read from the store and compared")
