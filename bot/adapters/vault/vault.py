"""The vault: a stream becomes a hashed, listed and encrypted object, and objects become a set by their manifest."""

import json
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from threading import Event as Flag
from typing import Final

from bot.adapters.vault import age, sets
from bot.adapters.vault.hashing import Sha256
from bot.adapters.vault.listing import Listing
from bot.adapters.vault.objects import Object, Objects
from bot.core.backup import (
    BackupFailed,
    BackupStopped,
    Form,
    Manifest,
    Progress,
    Source,
    Stored,
    Streams,
    manifest_key,
)

CHUNK: Final = 1 << 20
EVERY: Final = 1.0  # seconds between words of progress


class ObjectVault:
    """A `Vault` over any store; safe to use from many threads. Raises BackupFailed without a recipient."""

    def __init__(
        self,
        objects: Objects,
        recipients: Sequence[str],
        streams: Streams,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects = objects
        self._to = age.recipients(recipients)
        self._streams = streams
        self._now = now

    @property
    def where(self) -> str:
        return self._objects.where

    def put(self, source: Source, key: str, progress: Progress, abort: Flag) -> Stored:
        started = self._now()
        stop = _Stop(abort)
        with self._streams.open(source, stop) as stream, closing(_Passing(source, progress)) as passing:
            came = passing.plain(iter(lambda: stream.read(CHUNK), b""))
            with closing(age.encrypt(came, self._to)) as sealed, stop.on_failure():
                self._objects.put(key, passing.stored(sealed))
            entries, unlisted = passing.listed
            progress(passing.plain_sum.size)
            warnings = (*stream.warnings, *(f"{source.name}: {each}" for each in unlisted))
            rows = dict(stream.rows)
        return Stored(
            key, source.name, source.target.name, source.form, source.packed,
            passing.plain_sum.size, passing.stored_sum.size,
            passing.plain_sum.hexdigest(), passing.stored_sum.hexdigest(),
            entries, warnings, started, self._now(), rows,
        )  # fmt: skip

    def put_bytes(self, name: str, data: bytes, key: str, form: Form = "bytes") -> Stored:
        started = self._now()
        sealed = b"".join(age.encrypt(iter([data]) if data else iter(()), self._to))
        self._objects.put(key, iter([sealed]))
        sums = (sha256(data).hexdigest(), sha256(sealed).hexdigest())
        return Stored(key, name, "", form, "", len(data), len(sealed), *sums, None, (), started, self._now())

    def seal(self, manifest: Manifest) -> None:
        for each in manifest.objects:
            size = self._objects.size(each.key)
            if size != each.stored_bytes:
                raise BackupFailed(
                    f"The set {manifest.set} of {manifest.site} is not complete: {each.key} "
                    + ("is not in the store." if size is None else f"has {size} bytes instead of {each.stored_bytes}.")
                    + " It does not count; run the backup again."
                )
        text = json.dumps(manifest.to_json(), indent=1).encode()
        if self._objects.size(manifest.key) is not None and not manifest.same_as(
            sets.manifest(self._objects, manifest.key)
        ):
            raise BackupFailed(f"There is another set {manifest.set} of {manifest.site} already; it was left as it is.")
        self._objects.put(manifest.key, iter([text]))

    def manifests(self, site: str) -> Sequence[Manifest]:
        return sets.manifests(self._objects, site)

    def manifest(self, site: str, folder: str) -> Manifest:
        return sets.manifest(self._objects, manifest_key(site, folder))

    def verify(self, stored: Stored, abort: Flag) -> None:
        size, summed = 0, sha256()
        for chunk in self._objects.get(stored.key):
            if abort.is_set():
                raise BackupStopped(f"Reading {stored.key} back was stopped.")
            size += len(chunk)
            summed.update(chunk)
        sets.compare(stored, size, summed.hexdigest())

    def open(self, key: str) -> Iterator[bytes]:
        return self._objects.get(key)

    def delete(self, manifest: Manifest) -> None:
        self._objects.delete(manifest.key)
        for each in manifest.objects:
            self._objects.delete(each.key)

    def sweep(self, older_than: timedelta, kept: Collection[str] = ()) -> Sequence[str]:
        """Only keys of our own shape are removed, and none at all when a manifest cannot be read."""
        before = self._now() - older_than
        there = list(self._objects.list())
        manifests = [sets.manifest(self._objects, each.key) for each in there if sets.names_a_manifest(each.key)]
        named = {*kept, *(stored.key for manifest in manifests for stored in manifest.objects)}
        lost = [each for each in there if _is_ours(each) and each.key not in named]
        gone = sorted(each.key for each in (*lost, *self._objects.unfinished()) if each.modified < before)
        for key in gone:
            self._objects.delete(key)
        return gone

    def free_space(self) -> int | None:
        return self._objects.free_space()


class _Stop(Flag):
    """Somebody wants no more, or the store takes no more: whoever waits for the machine's next byte need not."""

    def __init__(self, theirs: Flag) -> None:
        super().__init__()
        self._theirs = theirs

    def is_set(self) -> bool:
        return super().is_set() or self._theirs.is_set()

    @contextmanager
    def on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.set()
            raise


class _Passing:
    """The bytes on their way: hashed and listed as they came, hashed again as they go."""

    def __init__(self, source: Source, progress: Progress) -> None:
        self.plain_sum, self.stored_sum = Sha256(), Sha256()
        self._listing = Listing(source)
        self._progress = progress
        self.listed: tuple[int | None, tuple[str, ...]] = (None, ())

    def plain(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.plain_sum.feed(chunk)
            self._listing.feed(chunk)
            yield chunk
        self.listed = self._listing.end()  # raises before the last byte is stored

    def stored(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        said = time.monotonic()
        for chunk in chunks:
            self.stored_sum.feed(chunk)
            if time.monotonic() - said > EVERY:
                self._progress(self.plain_sum.size)
                said = time.monotonic()
            yield chunk

    def close(self) -> None:
        self._listing.close()
        self.plain_sum.close()
        self.stored_sum.close()


def _is_ours(each: Object) -> bool:
    return each.key.count("/") == 2 and each.key.endswith(".age")
