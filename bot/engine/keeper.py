"""Throwing away backups that are no longer kept."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from bot.core.backup import BackupFailed, NotThere, StoreAway
from bot.core.errors import Refused
from bot.core.keeping import MOST_KEPT, Backup, Piece, dispensable
from bot.core.ports import Durable, Store
from bot.core.shown import Redactor
from bot.engine.shelter import Shelter, apart


@dataclass(frozen=True)
class Keeper:
    """Throws away what is no longer kept: first the row says so, and the schema may refuse, then the store forgets."""

    store: Store
    durable: Durable
    shelters: Mapping[str, Shelter]
    redactor: Redactor

    def clean_up(self) -> list[str]:
        """A sentence for each backup that went."""
        return [said for site, shelter in self.shelters.items() for said in self._clean_up(site, shelter)]

    def _clean_up(self, site: str, shelter: Shelter) -> list[str]:
        with self.durable.transaction() as tx:
            known = self.store.backups(tx, site, limit=MOST_KEPT)
            before = self.store.half_gone(tx, site)  # a process may have died between row and store
        for backup in (given_up := dispensable(known, shelter.keep)):
            self._give_up(backup)
        kept = [said for backup in (*given_up, *before) for said in self._forget(shelter, backup)]
        return [f"{_named(backup)} is no longer kept" for backup in given_up] + kept

    def _give_up(self, backup: Backup) -> None:
        with self.durable.transaction() as tx:
            self.store.give_up_backup(tx, backup.id)
            self.store.audit(
                tx, "backup given up", None, {"backup": backup.id, "site": self.redactor.show(backup.site)}
            )

    def _forget(self, shelter: Shelter, backup: Backup) -> Iterator[str]:
        """The last copy of an encryption key stays where it is. A sentence for what could not be removed, as where its
        manifest is broken; raises StoreAway.
        """
        for where, pieces in _places(backup):
            left = [piece for piece in pieces if piece.gone is None]
            if not left:
                continue
            try:
                with self.durable.transaction() as tx:
                    for piece in left:
                        self.store.give_up_piece(tx, piece.id)
                    with suppress(NotThere):
                        shelter.vault.delete(shelter.vault.manifest(where, backup.folder))
            except Refused:
                continue
            except StoreAway:
                raise
            except BackupFailed as why:
                yield f"{_named(backup)} is no longer kept, and could not be removed: {why}"


def _named(backup: Backup) -> str:
    return f"backup {backup.id} of {backup.site} ({backup.what}, {backup.began:%Y-%m-%d})"


def _places(backup: Backup) -> list[tuple[str, list[Piece]]]:
    keys = [piece for piece in backup.pieces if piece.kind == "key"]
    return [(backup.site, [p for p in backup.pieces if p not in keys]), (apart(backup.site), keys)]
