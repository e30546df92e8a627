"""A store that somebody has the secret key of: its objects are read, decrypted, unpacked, and compared on their way."""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager

from bot.adapters.vault import age, rdb, sets
from bot.adapters.vault.chunks import Chunks
from bot.adapters.vault.hashing import Sha256
from bot.adapters.vault.listing import BROKEN, UNPACK
from bot.adapters.vault.objects import Objects
from bot.core.backup import BackupFailed, Manifest, Readable, StoreAway, Stored, manifest_key


class Unlocked:
    """Reads what an `ObjectVault` wrote. A few chunks are in memory at a time; everything raises BackupFailed."""

    def __init__(self, objects: Objects, keys: Sequence[age.Identity]) -> None:
        self._objects = objects
        self._keys = keys

    @property
    def where(self) -> str:
        return self._objects.where

    def manifests(self, site: str) -> Sequence[Manifest]:
        return sets.manifests(self._objects, site)

    def manifest(self, site: str, folder: str) -> Manifest:
        return sets.manifest(self._objects, manifest_key(site, folder))

    def fits(self, stored: Stored) -> bool | None:
        """Whether the key is one that it was encrypted to; None when it is not what was stored, and does not tell."""
        with closing(_Checked(self._objects, stored, self._keys)) as checked:
            try:
                next(checked.plain(), b"")
            except age.NotARecipient:
                return False
            except StoreAway:
                raise
            except BackupFailed:
                return None
        return True

    @contextmanager
    def open(self, stored: Stored) -> Iterator[Chunks]:
        """The plain bytes, unpacked. Leaving the context reads the rest, and compares all of it with the manifest."""
        with closing(_Checked(self._objects, stored, self._keys)) as checked:
            chunks = checked.plain()
            try:
                plain = UNPACK[stored.packed](chunks)
                yield plain
                while plain.some():  # packers have a checksum at their end
                    pass
            except BROKEN as error:
                raise BackupFailed(f"{stored.key} was stored as it came, but it is not whole: {error}.") from error
            for _ in chunks:
                pass
            checked.compare()


def check_rdb(plain: Readable) -> tuple[str, ...]:
    """What could not be checked of a dump of redis; raises BackupFailed when something is wrong."""
    try:
        return rdb.check(plain)
    except rdb.Broken as error:
        raise BackupFailed(f"It is no dump that redis could load: {error}.") from error


class _Checked:
    """One object on its way from the store: hashed as it is there, decrypted, and hashed again."""

    def __init__(self, objects: Objects, stored: Stored, keys: Sequence[age.Identity]) -> None:
        self._stored = stored
        self._there = objects.get(stored.key)
        self._unreadable = False  # the store does not give it
        self._there_sum, self._plain_sum = Sha256(), Sha256()
        self._opened = age.decrypted(self._sealed(), keys)

    def plain(self) -> Generator[bytes, None, None]:
        """Where decrypting fails, the store's bytes say first whether it was they that changed."""
        try:
            for chunk in self._opened:
                self._plain_sum.feed(chunk)
                yield chunk
        except BackupFailed:
            if not self._unreadable:
                self._compare_stored()
            raise

    def compare(self) -> None:
        self._compare_stored()
        if self._plain_sum.hexdigest() != self._stored.sha256:
            raise BackupFailed(f"{self._stored.key} holds other bytes than were backed up: another plain SHA-256.")

    def close(self) -> None:
        self._opened.close()
        self._there_sum.close()
        self._plain_sum.close()

    def _sealed(self) -> Iterator[bytes]:
        try:
            for chunk in self._there:
                self._there_sum.feed(chunk)
                yield chunk
        except BackupFailed:
            self._unreadable = True
            raise

    def _compare_stored(self) -> None:
        for chunk in self._there:
            self._there_sum.feed(chunk)
        sets.compare(self._stored, self._there_sum.size, self._there_sum.hexdigest())
