"""Drills: each piece of a backup restored from the store with the key of a person, judged, and recorded."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from time import monotonic
from typing import Any, Final, Protocol

from bot.core import dump
from bot.core.backup import BackupFailed, Manifest, NotThere, StoreAway, Stored
from bot.core.drill import Drilled, Practice, Unpacked
from bot.core.errors import Permanent, Refused
from bot.core.keeping import ALL, Backup, Piece, Proof
from bot.core.people import Actor
from bot.core.ports import Store, Tx
from bot.core.shown import Redactor
from bot.engine.proving import as_named
from bot.engine.shelter import apart, place_of
from bot.engine.taking import KEY_NAME
from bot.engine.words import listed, size

ORDER: Final = ("databases", "key", "redis", "rabbitmq", "settings", "data")  # the key is tried on the databases
BY_FORM: Final = {"pg_dump": "databases", "bytes": "key", "rdb": "redis", "tar": "data"}
COUNTED: Final = (("user", "users"), ("vhost", "vhosts"), ("queue", "queues"), ("policy", "policies"))


class Shelf(Protocol):
    """What manifests say, in the store itself. `manifests` are the oldest first; `manifest` raises NotThere."""

    def manifests(self, site: str) -> Sequence[Manifest]: ...

    def manifest(self, site: str, folder: str) -> Manifest: ...


@dataclass(frozen=True)
class Task:
    """One piece to restore. `stored` is what the manifest in the store says; a text says why it says nothing."""

    kind: str
    name: str
    stored: Stored | str
    fingerprint: str = ""
    piece: int = 0


# ---------------------------------------------------------------- which backup


def chosen(store: Store, tx: Tx, sites: Sequence[str], number: int | None) -> Backup:
    """The backup of that number; else the newest complete one of everything, or of what there is. Raises Refused."""
    if number is None:
        complete = [each for site in sites for each in store.backups(tx, site) if each.state == "complete"]
        if not complete:
            raise Refused(f"there is no complete backup of {listed(list(sites))} yet; `backup all` takes one")
        return next((each for each in complete if each.what == ALL), complete[0])
    found = store.backup(tx, number)
    if found is None or found.site not in sites:
        raise Refused(f"there is no backup {number} of {listed(list(sites))}; `opsbot run backups` lists them")
    if found.state != "complete":
        raise Refused(f"backup {number} is {found.state}, so there is nothing whole to restore")
    return found


def tasks(shelf: Shelf, backup: Backup) -> list[Task]:
    """The pieces of a recorded backup; what they should be is what the manifests in the store say."""
    manifest = cache(lambda site: shelf.manifest(site, backup.folder))
    return _ordered(_task(manifest, backup, each) for each in backup.pieces)


def _task(manifest: Callable[[str], Manifest], backup: Backup, piece: Piece) -> Task:
    try:
        stored: Stored | str = as_named(manifest(place_of(backup, piece)).objects, piece)
    except StoreAway:
        raise
    except BackupFailed as why:
        stored = str(why)
    return Task(piece.kind, piece.name, stored, piece.fingerprint, piece.id)


def tasks_in_store(shelf: Shelf, site: str, folder: str) -> tuple[str, list[Task], str]:
    """The set's folder (the fullest where none is named), its pieces, and what is not known of it. Raises Refused."""
    newer = ""
    if not folder:
        folder, newer = _fullest(shelf, site)
    if not (found := _in_store(shelf, site, folder)):
        raise Refused(f"no manifest of {site}/{folder} is in the store")
    return folder, found, " ".join(filter(None, (newer, left_out(found))))


def left_out(tasks: Sequence[Task]) -> str:
    """A sentence for what a backup of everything would have; empty when it is all there."""
    missing = [kind for kind in ORDER if kind not in _kinds(tasks)]
    return f"Not in this backup, and so not drilled: {listed(missing)}." if missing else ""


def _fullest(shelf: Shelf, site: str) -> tuple[str, str]:
    """The newest of the sets that hold the most: a copy of the databases alone, taken before a restore, proves little.
    With it a sentence for a newer one that holds less.
    """
    sets = {each.set: _kinds(_in_store(shelf, site, each.set)) for each in shelf.manifests(site)}
    if not sets:
        raise Refused(f"no manifest of {site} is in the store")
    newest, most = list(sets)[-1], max(map(len, sets.values()))
    chosen = [name for name, kinds in sets.items() if len(kinds) == most][-1]
    if chosen == newest:
        return chosen, ""
    return chosen, f"There is a newer set, {newest}, with {listed(sorted(sets[newest]))} only."


def _kinds(tasks: Iterable[Task]) -> set[str]:
    return {task.kind for task in tasks}


def _in_store(shelf: Shelf, site: str, folder: str) -> list[Task]:
    """The key lies apart, and a set of one kind has a manifest in one of the two places alone."""
    try:
        keys = [Task("key", each.name, each) for each in _objects(shelf, apart(site), folder)]
    except BackupFailed as why:
        keys = [Task("key", KEY_NAME, str(why))]
    return _ordered([*(Task(_kind(each), each.name, each) for each in _objects(shelf, site, folder)), *keys])


def _objects(shelf: Shelf, site: str, folder: str) -> Sequence[Stored]:
    try:
        return shelf.manifest(site, folder).objects
    except NotThere:
        return ()


def _kind(stored: Stored) -> str:
    return BY_FORM.get(stored.form) or ("rabbitmq" if stored.name.startswith("rabbitmq") else "settings")


def _ordered(found: Iterable[Task]) -> list[Task]:
    return sorted(found, key=lambda task: ORDER.index(task.kind))


# ---------------------------------------------------------------- restoring


def check_key(practice: Practice, tasks: Sequence[Task]) -> None:
    """The smallest object that is what was stored says whether the key fits; raises Permanent when it does not."""
    there = [task.stored for task in tasks if isinstance(task.stored, Stored)]
    for stored in sorted(there, key=lambda each: each.stored_bytes):
        if (fits := practice.fits(stored)) is not None:
            break
    else:
        return
    if not fits:
        raise Permanent(
            f"This identity does not open {stored.key}: the backup was encrypted to others, and nothing was drilled."
            " Take the secret key of one of those who were `backups.recipients` when it was taken."
        )


def drilled(practice: Practice, task: Task) -> Drilled:
    """What was done and how it went; an error that is no verdict on the backup is raised."""
    began = monotonic()
    try:
        if isinstance(task.stored, str):
            raise BackupFailed(task.stored)
        passed, said = True, _RESTORE[task.kind](practice, task.stored, task.fingerprint)
    except StoreAway:
        raise
    except BackupFailed as why:
        passed, said = False, str(why)
    return Drilled(task.kind, task.name, passed, said, monotonic() - began, task.piece)


def _databases(practice: Practice, stored: Stored, _: str) -> str:
    result = practice.restore(stored)
    if not result.passed:
        raise BackupFailed(result.said)
    counts = result.counts or {}
    told = {name: count for name, count in counts.items() if name in stored.rows}
    if wrong := dump.differences(stored.rows, told):
        raise BackupFailed(f"Restored, and it is not what was dumped: {dump.named(wrong)}.")
    same = ", each as many as when it was dumped" if stored.rows else ""
    return f"{result.tables} tables with {sum(counts.values())} rows were restored{same}"


def _key(practice: Practice, stored: Stored, recorded: str) -> str:
    key = practice.read(stored)
    now = practice.fingerprint(key) if recorded else ""
    if now and now != recorded:
        raise BackupFailed("Its fingerprint is another one than was recorded: it is another key.")
    opens = practice.opens(key)
    if opens is False:
        raise BackupFailed("It did not decrypt a value of the restored database.")
    compared = "is the recorded one" if now else "cannot be compared here"
    tried = "it decrypted a value of the restored database" if opens else "no restored database had a value for it"
    return f"its fingerprint {compared}; {tried}"


def _data(practice: Practice, stored: Stored, _: str) -> str:
    result = practice.unpack(stored)
    if stored.entries is not None and stored.entries != result.entries:
        raise BackupFailed(f"It has {result.entries} entries, and {stored.entries} were stored.")
    if result.astray:
        raise BackupFailed(f"Names of it lead out of the folder that it is unpacked into: {', '.join(result.astray)}.")
    return f"{result.entries} entries were {_unpacked(result)}"


def _unpacked(result: Unpacked) -> str:
    if result.written is None:
        return f"read to the last byte, not unpacked: {result.why}"
    left_out = f"; left out, being links out of it or devices: {', '.join(result.left_out)}" if result.left_out else ""
    return f"unpacked, {size(result.written)}{left_out}"


def _redis(practice: Practice, stored: Stored, _: str) -> str:
    loaded = practice.load(stored)
    if loaded.keys is None:
        return f"read to the last byte, not loaded: {'; '.join((loaded.by, *loaded.unchecked))}"
    return f"{loaded.by} loaded it: {loaded.keys} keys"


def _rabbitmq(practice: Practice, stored: Stored, _: str) -> str:
    read = _document(practice, stored)
    if not isinstance(read, dict) or not isinstance(read.get("vhosts"), list):
        raise BackupFailed("It is JSON, but no definitions of RabbitMQ.")
    lists = {name: found for name, found in read.items() if isinstance(found, list)}
    return ", ".join(_count(len(lists.get(many, ())), one, many) for one, many in COUNTED)


def _settings(practice: Practice, stored: Stored, _: str) -> str:
    read = _document(practice, stored)
    return f"parsed: {_count(len(read), 'entry', 'entries') if isinstance(read, dict | list) else 'one value'}"


def _document(practice: Practice, stored: Stored) -> Any:
    try:
        return json.loads(practice.read(stored))
    except ValueError:
        raise BackupFailed("It is no JSON.") from None  # which would quote it


def _count(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


_RESTORE: Final[dict[str, Callable[[Practice, Stored, str], str]]] = {
    "databases": _databases,
    "key": _key,
    "data": _data,
    "redis": _redis,
    "rabbitmq": _rabbitmq,
    "settings": _settings,
}


# ---------------------------------------------------------------- recording


def record(store: Store, tx: Tx, backup: Backup, result: Drilled, who: Actor, redactor: Redactor) -> None:
    """The proof and who made it, together."""
    store.prove(tx, result.piece, Proof.DRILLED, result.passed, redactor.show(result.said))
    detail = {"backup": backup.id, "piece": redactor.show(result.name), "passed": result.passed}
    store.audit(tx, "backup drilled", who, detail)
