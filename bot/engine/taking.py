"""Taking a backup: what a job's `steps.backup` does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final

from bot.core.backup import (
    BackupStopped,
    Manifest,
    Source,
    StoreAway,
    Stored,
    manifest_key,
    object_key,
    stored_from_json,
)
from bot.core.errors import LeaseLost, OpsbotError, Permanent, Refused, Temporary
from bot.core.fix import readable
from bot.core.keeping import ALL, KINDS, Piece, Proof
from bot.core.number import counted
from bot.core.ports import Tx
from bot.core.target import Target
from bot.engine import proving
from bot.engine.journal import Journal
from bot.engine.shelter import Shelter, apart
from bot.engine.words import size

ROOM: Final = 1.1  # of the last sizes: what has to fit in
FIRST_WORD, PATIENCE = 5.0, 1.2  # seconds until progress is first told; then each time that much later
SMALL: Final = 64 * 1024**2  # bytes; what is larger is read back in a step of its own, to be stored once only
LOOKED_BACK: Final = 500  # backups: what is taken once a month, beside one that is taken every two hours
KEY_NAME: Final = "encryption-key"
UNPROVEN: Final = {  # what it means that a proof failed, and what a person does
    Proof.READ_BACK: "what the store has of it cannot be relied on: look at the store, and take it anew",
    Proof.RESTORED: "a restore of it cannot be relied on: find out why, and take it anew",
    Proof.DECRYPTED: "the platform's key is not the one that its data was encrypted with, and without that one nothing "
    "reads the data: find the former key in an older backup (`backups`), and put it back",
}
Made = tuple[str, bool, str]


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
    for backup in reversed(journal.store.backups(tx, journal.run.order.site, limit=LOOKED_BACK)):
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
    unproven: list[str] = field(default_factory=list)

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
        """Seal what was stored, proven or not; raises Permanent where something is missing or did not pass a proof."""
        if not self.stored:
            raise Permanent(f"Nothing was stored. {self._lacks()}")
        self.journal.check_cancel()
        self.journal.once("backup.seal", self._seal, self._sealed)
        total = sum(stored.stored_bytes for _, stored in self.stored)
        said = f"backup {self.number}: {counted(len(self.stored), 'object')}, {size(total)}, encrypted"
        if self.missing or self.unproven:
            state = "Incomplete" if self.missing else "Unproven"
            raise Permanent(f"{state} {said}. {self._lacks()} `backup show {self.number}` has the rest.")
        warnings = [_named(stored.name, warning) for _, stored in self.stored for warning in stored.warnings]
        noted = f" Warnings: {'; '.join(warnings)}." if warnings else ""
        return f"Stored {said}; `backup show {self.number}` says what proves it.{noted}"

    def _lacks(self) -> str:
        return " ".join([*_each("Missing", self.missing), *_each("Not proven", self.unproven)])

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
            said = made["failed"] if "failed" in made else "; ".join(said for _, said in _failed(made["proofs"]))
            self.journal.tell(tx, "step", target=where, does=does, result="failed" if said else "done", said=said)

        made = self.journal.once(f"backup.{name}", attempt, keep)
        if "failed" in made:
            self.missing.append(f"{name}: {made['failed']}")
            return
        stored = stored_from_json(made["stored"])
        self.stored.append((kind, stored))
        self._judge(stored, made["proofs"])
        if stored.stored_bytes > SMALL:
            self._compare(stored, where)

    def _compare(self, stored: Stored, where: str) -> None:
        self.journal.check_cancel()
        does = f"read {stored.name} back"

        def attempt() -> Made:
            self._say(where, does, "under way")
            try:
                return self._read_back(stored)
            finally:
                self.journal.heed_stop()

        def keep(tx: Tx, made: Made) -> None:
            by, passed, said = made
            self._prove(tx, stored, by, passed, said)
            self.journal.tell(tx, "step", target=where, does=does, result="done" if passed else "failed", said=said)

        self._judge(stored, [self.journal.once(f"backup.{stored.name}.read-back", attempt, keep)])

    def _judge(self, stored: Stored, proofs: Sequence[Made]) -> None:
        for by, said in _failed(proofs):
            self.unproven.append(f"{stored.name}: {self.journal.show(said).rstrip('.')}; {UNPROVEN[by]}")

    def _prove(self, tx: Tx, stored: Stored, by: str, passed: bool, said: str) -> None:
        backup = self.journal.store.backup(tx, self.number)
        pieces = (piece for piece in backup.pieces if piece.name == stored.name) if backup else ()
        for piece in pieces:
            self.journal.store.prove(tx, piece.id, Proof(by), passed, self.journal.show(said))

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
        proofs = [*_listing(stored), *self._read_back_now(stored)]
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
        proofs = self._read_back_now(stored)
        opens = self.shelter.keys.opens(key, target, self.journal.stop)
        self.journal.heed_stop()
        if opens is not None:
            said = "it opened a value of the database" if opens else "it did not open a value of the database"
            proofs.append((Proof.DECRYPTED.value, opens, said))
        return {"stored": stored.to_json(), "proofs": proofs, "fingerprint": key.fingerprint}

    def _read_back_now(self, stored: Stored) -> list[Made]:
        return [self._read_back(stored)] if stored.stored_bytes <= SMALL else []

    def _read_back(self, stored: Stored) -> Made:
        """What cannot be read as soon as it is stored is not proven, whosever fault that is."""
        try:
            return proving.read_back(self.shelter.vault, stored, self.journal.stop)
        except StoreAway as why:
            return (Proof.READ_BACK.value, False, str(why))

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


def _listing(stored: Stored) -> list[Made]:
    if stored.entries is None:
        return []
    return [(Proof.LISTING.value, True, f"{counted(stored.entries, 'entry', 'entries')} read while it was stored")]


def _failed(proofs: Sequence[Made]) -> list[tuple[Proof, str]]:
    return [(Proof(by), said) for by, passed, said in proofs if not passed]


def _named(name: str, warning: str) -> str:
    return warning if warning.startswith(f"{name}:") else f"{name}: {warning}"


def _each(word: str, said: Sequence[str]) -> list[str]:
    return [f"{word}: {each.rstrip('.')}." for each in said]
