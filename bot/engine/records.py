"""What diagnoses ask of opsbot's own records of backups, and the dead man's switch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event as Flag

from bot.core.errors import OpsbotError
from bot.core.keeping import Backup, Piece, Proof
from bot.core.ports import Clock, Durable, Store, Tx
from bot.core.question import Answer, BackupRecords, Question, Rows, StoredBackup, Unanswered
from bot.core.sql import Parameter
from bot.core.target import Target
from bot.engine.proving import numbered
from bot.engine.shelter import Shelter


@dataclass(frozen=True)
class Records:
    """Answers what diagnoses ask of opsbot's own records, and of the key that the platform has now."""

    store: Store
    durable: Durable
    clock: Clock
    shelters: Mapping[str, Shelter]

    def identity(self, target: Target) -> str:
        return f"opsbot's records of {target.installation}"

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [self._answer(target, question, abort) for question in questions]

    def _answer(self, target: Target, question: Question, abort: Flag) -> Answer | Unanswered:
        if (shelter := self.shelters.get(target.installation)) is None:
            return Rows()
        if isinstance(question, BackupRecords):
            return self._records(target.installation, shelter)
        if isinstance(question, StoredBackup):
            return self._stored(target.installation, shelter, question.number)
        try:
            return Rows(({"fingerprint": shelter.keys.read(target, abort).fingerprint},))
        except OpsbotError as why:
            return Unanswered(str(why), "not-configured")

    def _records(self, site: str, shelter: Shelter) -> Rows:
        with self.durable.transaction() as tx:
            backups = [each for each in self.store.backups(tx, site, limit=500) if each.sealed is not None]
            newest = self.store.last_backup(tx, site)
        age = (self.clock.now() - newest.began).total_seconds() if newest else None
        row = {
            "newest": newest.id if newest else None,
            "age": int(age) if age is not None else None,
            "overdue_after": int(shelter.overdue_after.total_seconds()),
            **_key_row(backups),
        }
        return Rows((row,))

    def _stored(self, site: str, shelter: Shelter, number: str) -> Rows:
        with self.durable.transaction() as tx:
            found = self.store.backup(tx, numbered(number))
        if found is None or found.site != site:
            return Rows()
        return Rows(tuple(_piece_row(shelter, found, piece) for piece in found.pieces))


def _key_row(backups: Sequence[Backup]) -> dict[str, Parameter]:
    """Of complete backups, the newest first."""
    keys = [(backup.id, piece) for backup in backups for piece in backup.pieces if piece.kind == "key"]
    if not keys:
        return {"fingerprint": "", "key_backup": None, "key_opens": "", "key_before": None}
    number, last = keys[0]
    others = (no for no, piece in keys if piece.fingerprint != last.fingerprint and _opens(piece) == "yes")
    return {
        "fingerprint": last.fingerprint,
        "key_backup": number,
        "key_opens": _opens(last),
        "key_before": next(others, None),
    }


def _opens(key: Piece) -> str:
    return next(("yes" if each.passed else "no" for each in key.proofs if each.by is Proof.DECRYPTED), "")


def _piece_row(shelter: Shelter, backup: Backup, piece: Piece) -> dict[str, Parameter]:
    return {
        "kind": piece.kind,
        "name": piece.name,
        "address": f"{shelter.vault.where}/{piece.key}",
        "size": piece.stored,
        "fingerprint": piece.fingerprint,
        "state": backup.state,
        "failed": piece.failed.said if piece.failed else "",
        "live": "yes" if piece.live else "",
    }


@dataclass(frozen=True)
class Silence:
    """Since which backup (its number, or `none`) no other has come, and whether that is too long."""

    last: str
    overdue: bool


def silent(store: Store, tx: Tx, site: str, after: timedelta, since: datetime, now: datetime) -> Silence:
    """`since` is when this opsbot began to look: what was never taken is overdue only then. A backup of the future says
    that a clock is or was wrong: nobody would hear of any silence until then.
    """
    newest = store.last_backup(tx, site)
    began = newest.began if newest else since
    return Silence(str(newest.id) if newest else "none", abs(now - began) > after)
