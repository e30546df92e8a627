"""Taking backups, proving them, throwing old ones away: what a job's `steps.backup` and the housekeeping do."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event as Flag
from time import monotonic
from typing import Any, Final

from bot.core.backup import (
    BackupFailed,
    BackupStopped,
    Manifest,
    Source,
    Stored,
    Vault,
    manifest_key,
    object_key,
    stored_from_json,
)
from bot.core.errors import LeaseLost, OpsbotError, Permanent, Refused, Temporary
from bot.core.fix import readable
from bot.core.keeping import ALL, KINDS, Backup, Keep, Piece, Proof, dispensable
from bot.core.ports import Clock, Durable, Store, Tx
from bot.core.question import Answer, BackupRecords, Question, Rows, StoredBackup, Unanswered
from bot.core.shown import Redactor
from bot.core.sql import Parameter
from bot.core.taking import KeyReader, Rehearsal
from bot.core.target import Target
from bot.engine.journal import Journal
from bot.engine.words import size

SMALL: Final = 64 * 1024**2  # bytes; what is smaller is read back at once
ROOM: Final = 1.1  # of the last sizes: what has to fit in
FIRST_WORD, PATIENCE = 5.0, 1.2  # seconds until progress is first told; then each time that much later
KEY_NAME: Final = "encryption-key"
Proofs = list[tuple[str, bool, str]]


@dataclass(frozen=True)
class Shelter:
    """What it takes to back an installation up, and its rules."""

    vault: Vault
    keys: KeyReader
    rehearsal: Rehearsal
    keep: Keep = field(default_factory=Keep)
    overdue_after: timedelta = timedelta(hours=26)
    restore: str = "schema"
    most_restored: int = 20 * 1024**3
    version: str = ""


def apart(site: str) -> str:
    """Where the encryption key is kept: never beside what it opens. No installation can be called so."""
    return f"{site}=key"


# ---------------------------------------------------------------- taking


def begin(journal: Journal, shelter: Shelter, what: str) -> "TakingBackup":
    """The backup of this run: its row, and the locks on what it takes; raises Refused."""
    site, store = journal.run.order.site, journal.store
    kinds = KINDS if what == ALL else (what,)

    def keep(tx: Tx) -> dict[str, Any]:
        _check_room(tx, journal, shelter, kinds)
        holder = store.lock(tx, journal.run.id, [f"{site}/backup:{kind}" for kind in kinds])
        if holder is not None:
            raise Refused(f"run {holder} is backing up the same at this moment; wait for it, or `cancel {holder}`")
        now = journal.clock.now()
        folder = f"{now:%Y%m%dT%H%M%SZ}-{what}-{journal.run.id}"
        number = store.begin_backup(tx, site, what, journal.run.id, folder)
        return {"backup": number, "folder": folder, "began": now.isoformat()}

    begun = journal.write("backup.begin", keep)
    began = datetime.fromisoformat(begun["began"])
    return TakingBackup(journal, shelter, what, begun["backup"], begun["folder"], began)


def _check_room(tx: Tx, journal: Journal, shelter: Shelter, kinds: Sequence[str]) -> None:
    """Refuse what did not fit, going by what it took last time; what has never been taken takes what it takes."""
    if (free := shelter.vault.free_space()) is None:
        return
    last: dict[str, int] = {}
    for backup in reversed(journal.store.backups(tx, journal.run.order.site)):
        if backup.sealed is not None:
            last |= {f"{piece.kind}/{piece.name}": piece.stored for piece in backup.pieces if piece.kind in kinds}
    needed = int(sum(last.values()) * ROOM)
    if needed > free:
        raise Refused(
            f"the store has {size(free)} left, and this needs about {size(needed)}, as last time; make room, or keep "
            "fewer backups"
        )


@dataclass
class TakingBackup:
    """A `Taking` that records each piece with its row and its proofs in one transaction."""

    journal: Journal
    shelter: Shelter
    what: str
    number: int
    folder: str
    began: datetime
    stored: list[tuple[str, Stored]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    @property
    def site(self) -> str:
        return self.journal.run.order.site

    def store(self, kind: str, source: Source) -> None:
        self._piece(kind, source.name, str(source.target), lambda: self._put(kind, source))

    def store_key(self, target: Target) -> None:
        self._piece("key", KEY_NAME, str(target), lambda: self._put_key(target))

    def skip(self, kind: str, why: str) -> None:
        self.missing.append(f"{kind}: {why}")

    def finish(self) -> str:
        if not self.stored:
            raise Permanent(f"Nothing was stored. {_missing(self.missing)}")
        self.journal.check_cancel()
        self.journal.once("backup.seal", self._seal, self._sealed)
        total = sum(stored.stored_bytes for _, stored in self.stored)
        said = f"backup {self.number}: {_number(len(self.stored), 'object')}, {size(total)}, encrypted"
        if self.missing:
            raise Permanent(f"Incomplete {said}. {_missing(self.missing)} `backup show {self.number}` has the rest.")
        warnings = [_named(stored.name, warning) for _, stored in self.stored for warning in stored.warnings]
        noted = f" Warnings: {'; '.join(warnings)}." if warnings else ""
        return f"Stored {said}; `backup show {self.number}` says what proves it.{noted}"

    # ------------------------------------------------------------ one piece

    def _piece(self, kind: str, name: str, where: str, put: Callable[[], dict[str, Any]]) -> None:
        """Stored now, or by an earlier process of this run; a failure is recorded, and the next piece gets its turn."""
        self.journal.check_cancel()
        does = f"back up {name}"

        def attempt() -> dict[str, Any]:
            self._say(where, does, "under way")
            try:
                return put()
            except BackupStopped:
                self.journal.heed_stop()
                raise
            except (Temporary, LeaseLost):
                raise
            except OpsbotError as why:
                self.journal.heed_stop()
                return {"failed": self.journal.show(why)}

        def keep(tx: Tx, made: Mapping[str, Any]) -> None:
            if "stored" in made:
                self._add(tx, kind, made)
            said = made.get("failed", "")
            self.journal.tell(tx, "step", target=where, does=does, result="failed" if said else "done", said=said)

        made = self.journal.once(f"backup.{name}", attempt, keep)
        if "failed" in made:
            self.missing.append(f"{name}: {made['failed']}")
        else:
            self.stored.append((kind, stored_from_json(made["stored"])))

    def _add(self, tx: Tx, kind: str, made: Mapping[str, Any]) -> None:
        stored = stored_from_json(made["stored"])
        piece = Piece(
            0, kind, stored.name, stored.key, stored.plain_bytes, stored.stored_bytes, stored.sha256, stored.packed,
            stored.started, stored.ended, made["fingerprint"], stored.warnings, rows=stored.rows,
        )  # fmt: skip
        number = self.journal.store.add_piece(tx, self.number, piece)
        for by, passed, said in made["proofs"]:
            self.journal.store.prove(tx, number, Proof(by), passed, self.journal.show(said))

    def _put(self, kind: str, source: Source) -> dict[str, Any]:
        rehearsed = self._rehearses(kind, source)
        key = object_key(self.site, self.folder, source.name, source.form, source.packed)
        stored = self.shelter.vault.put(source, key, self._progress(kind, source), self.journal.stop)
        self.journal.heed_stop()
        proofs = [*_listing(stored), *self._read_back(stored)]
        if rehearsed and (result := self.shelter.rehearsal.result(source)) is not None:
            proofs.append((Proof.RESTORED.value, result.passed, result.said))
        return {"stored": stored.to_json(), "proofs": proofs, "fingerprint": ""}

    def _rehearses(self, kind: str, source: Source) -> bool:
        if kind != "databases" or self.shelter.restore == "off":
            return False
        with self.journal.claim.commit() as tx:
            last = self.journal.store.last_piece(tx, self.site, kind, source.name)
        if last is not None and last.plain > self.shelter.most_restored:
            return False
        self.shelter.rehearsal.expect(source)
        return True

    def _put_key(self, target: Target) -> dict[str, Any]:
        """Only its fingerprint and what was done with it leave this function."""
        key = self.shelter.keys.read(target, self.journal.stop)
        where = object_key(apart(self.site), self.folder, KEY_NAME, "bytes")
        stored = self.shelter.vault.put_bytes(KEY_NAME, key.value, where)
        proofs = self._read_back(stored)
        opens = self.shelter.keys.opens(key, target, self.journal.stop)
        self.journal.heed_stop()
        if opens is not None:
            said = "it opened a value of the database" if opens else "it did not open a value of the database"
            proofs.append((Proof.DECRYPTED.value, opens, said))
        return {"stored": stored.to_json(), "proofs": proofs, "fingerprint": key.fingerprint}

    def _read_back(self, stored: Stored) -> Proofs:
        if stored.stored_bytes > SMALL:
            return []
        return [read_back(self.shelter.vault, stored, self.journal.stop)]

    # ------------------------------------------------------------ what is told meanwhile

    def _progress(self, kind: str, source: Source) -> Callable[[int], None]:
        """Told a few times, ever more rarely: a dump of hours is no thousand edits of one message."""
        with self.journal.claim.commit() as tx:
            last = self.journal.store.last_piece(tx, self.site, kind, source.name)
        began = monotonic()
        due = [FIRST_WORD]

        def progress(so_far: int) -> None:
            took = monotonic() - began
            if took >= due[0]:
                due[0] = max(took * PATIENCE, took + FIRST_WORD)
                self._say(str(source.target), f"back up {source.name}", "under way", advance(so_far, took, last))

        return progress

    def _say(self, target: str, does: str, result: str, said: str = "") -> None:
        with self.journal.claim.commit() as tx:
            self.journal.tell(tx, "step", target=target, does=does, result=result, said=said)

    # ------------------------------------------------------------ the end

    def _manifests(self) -> list[Manifest]:
        """One of what was stored, and one of the key, which lies apart; the same whoever writes them."""
        made = self.began
        main = tuple(stored for kind, stored in self.stored if kind != "key")
        keys = tuple(stored for kind, stored in self.stored if kind == "key")
        places = ((self.site, main), (apart(self.site), keys))
        return [Manifest(self.folder, site, made, found, self.shelter.version) for site, found in places if found]

    def _seal(self) -> str:
        manifests = self._manifests()
        for each in manifests:
            self.shelter.vault.seal(each)
        return manifest_key(manifests[0].site, self.folder)

    def _sealed(self, tx: Tx, manifest: str) -> None:
        if not self.missing:
            self.journal.store.seal_backup(tx, self.number, manifest)
        detail = {"run": self.journal.run.id, "backup": self.number, "missing": self.journal.show(self.missing)}
        self.journal.store.audit(tx, "backup", None, detail)


def advance(so_far: int, seconds: float, last: Piece | None) -> str:
    """`1.2 GiB of about 3.4 GiB (35 %), 25.0 MiB/s, 1 min left`."""
    rate = so_far / seconds if seconds else 0
    if last is None or not last.plain or so_far > last.plain:
        return f"{size(so_far)}, {size(rate)}/s"
    left = f", {readable(timedelta(seconds=(last.plain - so_far) / rate))} left" if rate else ""
    return f"{size(so_far)} of about {size(last.plain)} ({so_far * 100 // last.plain} %), {size(rate)}/s{left}"


def _listing(stored: Stored) -> Proofs:
    if stored.entries is None:
        return []
    return [(Proof.LISTING.value, True, f"{_number(stored.entries, 'entry', 'entries')} read while it was stored")]


def read_back(vault: Vault, stored: Stored, abort: Flag) -> tuple[str, bool, str]:
    """Read the object from the store and compare; being stopped is no verdict."""
    try:
        vault.verify(stored, abort)
    except BackupStopped:
        raise
    except BackupFailed as why:
        return (Proof.READ_BACK.value, False, str(why))
    return (Proof.READ_BACK.value, True, f"{size(stored.stored_bytes)} read from the store and compared")


def _named(name: str, warning: str) -> str:
    return warning if warning.startswith(f"{name}:") else f"{name}: {warning}"


def _missing(missing: Sequence[str]) -> str:
    return " ".join(f"Missing: {each.rstrip('.')}." for each in missing)


def _number(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or f'{one}s'}"


# ---------------------------------------------------------------- proving again


def verify(journal: Journal, shelter: Shelter, said: str) -> str:
    """Read every piece of a backup back from the store; raises Refused for one that is not there."""
    number = numbered(said)
    with journal.claim.commit() as tx:
        backup = journal.store.backup(tx, number)
    if backup is None or backup.site != journal.run.order.site:
        raise Refused(f"there is no backup {said} of {journal.run.order.site}; `backups` lists them")
    if backup.state != "complete":
        raise Refused(f"backup {number} is {backup.state}, so there is nothing whole to read back")
    results = [_verified(journal, shelter, backup, piece) for piece in backup.pieces]
    failed = [said for passed, said in results if not passed]
    if failed:
        raise Permanent(f"Backup {number} cannot be relied on: {'; '.join(failed)}. Take a new one with `backup all`.")
    return (
        f"Backup {number} was read back from the store whole: {_number(len(results), 'object')}, {size(backup.stored)}."
    )


def numbered(said: str) -> int:
    """The number that somebody typed; 0, which no backup has, where it is none."""
    return int(said) if said.isascii() and said.isdecimal() and len(said) < 10 else 0


def _verified(journal: Journal, shelter: Shelter, backup: Backup, piece: Piece) -> tuple[bool, str]:
    journal.check_cancel()

    def read() -> list[Any]:
        try:
            stored = _stored(shelter.vault, backup, piece)
            _, passed, said = read_back(shelter.vault, stored, journal.stop)
        except BackupStopped:
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
    where = place_of(backup, piece)
    found = (each for manifest in vault.manifests(where) if manifest.set == backup.folder for each in manifest.objects)
    return as_named(found, piece)


def as_named(objects: Iterable[Stored], piece: Piece) -> Stored:
    """The piece as the manifest in the store names it; raises BackupFailed when it names none, or another."""
    stored = next((each for each in objects if each.key == piece.key), None)
    if stored is None:
        raise BackupFailed(f"No manifest in the store names {piece.key} any more.")
    if stored.sha256 != piece.sha256:
        raise BackupFailed(f"The manifest in the store says another SHA-256 of {piece.key} than opsbot recorded.")
    return stored


def place_of(backup: Backup, piece: Piece) -> str:
    """Below which name of the store its manifest is."""
    return apart(backup.site) if piece.kind == "key" else backup.site


# ---------------------------------------------------------------- throwing away


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


# ---------------------------------------------------------------- what diagnoses ask of it


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
        newest = next(iter(backups), None)
        keys = [piece for backup in backups for piece in backup.pieces if piece.kind == "key"]
        age = (self.clock.now() - newest.began).total_seconds() if newest else None
        row = {
            "newest": newest.id if newest else None,
            "age": int(age) if age is not None else None,
            "overdue_after": int(shelter.overdue_after.total_seconds()),
            "fingerprint": keys[0].fingerprint if keys else "",
        }
        return Rows((row,))

    def _stored(self, site: str, shelter: Shelter, number: str) -> Rows:
        with self.durable.transaction() as tx:
            found = self.store.backup(tx, numbered(number))
        if found is None or found.site != site:
            return Rows()
        return Rows(tuple(_piece_row(shelter, found, piece) for piece in found.pieces))


def _piece_row(shelter: Shelter, backup: Backup, piece: Piece) -> dict[str, Parameter]:
    return {
        "kind": piece.kind,
        "name": piece.name,
        "address": f"{shelter.vault.where}/{piece.key}",
        "size": piece.stored,
        "fingerprint": piece.fingerprint,
        "state": backup.state,
        "failed": piece.failed.said if piece.failed else "",
    }


@dataclass(frozen=True)
class Silence:
    """Since which backup (its number, or `none`) no other has come, and whether that is too long."""

    last: str
    overdue: bool


def silent(store: Store, tx: Tx, site: str, after: timedelta, since: datetime, now: datetime) -> Silence:
    """`since` is when this opsbot began to look: what was never taken is overdue only then."""
    newest = next((each for each in store.backups(tx, site, limit=200) if each.sealed is not None), None)
    began = newest.began if newest else since
    return Silence(str(newest.id) if newest else "none", now - began > after)
