"""A vault in memory that remembers what it was told, and what else a backup needs; the real ones are adapters."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Event as Flag

from bot.core.backup import BackupFailed, BackupStopped, Form, Manifest, NotThere, Progress, Source, StoreAway, Stored
from bot.core.errors import Unknown
from bot.core.taking import EncryptionKey, Rehearsed
from bot.core.target import Target

KEY = b"a secret encryption key of Travis"


@dataclass
class MemoryVault:
    """A `Vault`. `content` is what machines send by the names of sources; an exception in it is raised instead."""

    content: dict[str, bytes | Exception] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    sets: list[Manifest] = field(default_factory=list)
    told: list[tuple[str, str]] = field(default_factory=list)
    free: int | None = None
    away: bool = False
    broken: str = ""  # the folder whose manifest cannot be read
    on_put: Callable[[Source, Progress, Flag], None] = lambda source, progress, abort: None
    where: str = "memory://vault"

    def put(self, source: Source, key: str, progress: Progress, abort: Flag) -> Stored:
        self.told.append(("put", source.name))
        data = self.content.get(source.name, source.name.encode())
        self.on_put(source, progress, abort)
        if abort.is_set():
            raise BackupStopped(f"{source} was stopped.")
        if isinstance(data, Exception):
            raise data
        progress(len(data))
        return self._kept(source.name, str(source.target), data, key, source.form)

    def put_bytes(self, name: str, data: bytes, key: str, form: Form = "bytes") -> Stored:
        self.told.append(("put_bytes", name))
        return self._kept(name, "", data, key, form)

    def _kept(self, name: str, target: str, data: bytes, key: str, form: Form) -> Stored:
        self.objects[key] = b"encrypted " + data
        digest, now = hashlib.sha256(data).hexdigest(), datetime.now(UTC)
        size = len(self.objects[key])
        entries = 3 if form in ("tar", "pg_dump") else None
        return Stored(key, name, target, form, "", len(data), size, digest, digest, entries, (), now, now)

    def seal(self, manifest: Manifest) -> None:
        self.told.append(("seal", manifest.site))
        lost = [each.key for each in manifest.objects if each.key not in self.objects]
        if lost:
            raise BackupFailed(f"The store has no {lost}.")
        if any(each.key == manifest.key and each != manifest for each in self.sets):
            raise BackupFailed(f"There is another set {manifest.set} already.")
        self.sets = [each for each in self.sets if each.key != manifest.key] + [manifest]

    def manifests(self, site: str) -> Sequence[Manifest]:
        return [each for each in self.sets if each.site == site]

    def manifest(self, site: str, folder: str) -> Manifest:
        if folder == self.broken:
            raise BackupFailed("It cannot be read.")
        for each in self.manifests(site):
            if each.set == folder:
                return each
        raise NotThere(f"There is no manifest of {folder}.")

    def verify(self, stored: Stored, abort: Flag) -> None:
        self.told.append(("verify", stored.name))
        if self.away:
            raise StoreAway("The store does not answer.")
        if hashlib.sha256(self.objects.get(stored.key, b"")[10:]).hexdigest() != stored.sha256:
            raise BackupFailed(f"{stored.key} is not what was stored.")

    def open(self, key: str) -> Iterator[bytes]:
        yield self.objects[key]

    def delete(self, manifest: Manifest) -> None:
        self.told.append(("delete", manifest.key))
        self.sets.remove(manifest)
        for each in manifest.objects:
            self.objects.pop(each.key, None)

    def sweep(self, older_than: timedelta, kept: Collection[str] = ()) -> Sequence[str]:
        named = {*kept, *(each.key for manifest in self.sets for each in manifest.objects)}
        gone = [key for key in self.objects if key not in named]
        self.objects = {key: data for key, data in self.objects.items() if key in named}
        return gone

    def free_space(self) -> int | None:
        return self.free


@dataclass
class Keys:
    """A `KeyReader` of a platform with one key."""

    value: bytes = KEY
    works: bool | None = True
    unknown: str = ""

    def read(self, target: Target, abort: Flag) -> EncryptionKey:
        if self.unknown:
            raise Unknown(self.unknown)
        return EncryptionKey(self.value, hashlib.sha256(b"salt" + self.value).hexdigest()[:16])

    def opens(self, key: EncryptionKey, target: Target, abort: Flag) -> bool | None:
        return self.works


@dataclass
class Rehearsals:
    """A `Rehearsal` that remembers what it should restore."""

    outcome: Rehearsed | None = None
    expected: list[str] = field(default_factory=list)

    def expect(self, source: Source) -> None:
        self.expected.append(source.name)

    def result(self, source: Source) -> Rehearsed | None:
        return self.outcome
