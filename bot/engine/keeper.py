"""Throwing away backups that are no longer kept."""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.core.errors import Refused
from bot.core.keeping import Backup, Piece, dispensable
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
            known = self.store.backups(tx, site, limit=2000, gone=True)
        gone = [self._give_up(shelter, backup) for backup in dispensable(known, shelter.keep)]
        for backup in (each for each in known if each.gone is not None):
            self._forget(shelter, backup)  # a process may have died between the row and the store
        return gone

    def _give_up(self, shelter: Shelter, backup: Backup) -> str:
        with self.durable.transaction() as tx:
            self.store.give_up_backup(tx, backup.id)
            self.store.audit(
                tx, "backup given up", None, {"backup": backup.id, "site": self.redactor.show(backup.site)}
            )
        self._forget(shelter, backup)
        return f"backup {backup.id} of {backup.site} ({backup.what}, {backup.began:%Y-%m-%d}) is no longer kept"

    def _forget(self, shelter: Shelter, backup: Backup) -> None:
        """The last copy of an encryption key stays where it is."""
        for where, pieces in _places(backup):
            left = [piece for piece in pieces if piece.gone is None]
            if not left:
                continue
            try:
                with self.durable.transaction() as tx:
                    for piece in left:
                        self.store.give_up_piece(tx, piece.id)
                    for manifest in shelter.vault.manifests(where):
                        if manifest.set == backup.folder:
                            shelter.vault.delete(manifest)
            except Refused:
                continue


def _places(backup: Backup) -> list[tuple[str, list[Piece]]]:
    keys = [piece for piece in backup.pieces if piece.kind == "key"]
    return [(backup.site, [p for p in backup.pieces if p not in keys]), (apart(backup.site), keys)]
