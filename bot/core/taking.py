"""Taking a backup, as a job sees it: things to store one by one, and a manifest at the end.

What may never be told (the encryption key, the bytes of a dump) passes through here as references only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Event as Flag
from typing import Protocol

from bot.core.backup import Source
from bot.core.target import Target

CONFIGURATION = "/usr/local/travis/etc/travis/config/travis.yml"  # in the platform's container


class Taking(Protocol):
    """One backup on its way. A piece that was stored is recorded, so that whoever takes over does not repeat it."""

    def store(self, kind: str, source: Source) -> None:
        """Stream it into the store; one that fails is said, and leaves the others alone."""
        ...

    def store_key(self, target: Target) -> None:
        """The encryption key, apart from everything else, proven by what it opens; nobody gets to see it."""
        ...

    def skip(self, kind: str, why: str) -> None:
        """It could not even be begun: the backup will be incomplete, and says so."""
        ...

    def finish(self) -> str:
        """Write the manifest; the sentence that ends the job. Raises Permanent when something is missing, or did not
        pass a proof.
        """
        ...


@dataclass(frozen=True)
class EncryptionKey:
    """The key of the database's encrypted columns. Its value is never shown; its fingerprint tells it from another."""

    value: bytes
    fingerprint: str

    def __repr__(self) -> str:
        return f"EncryptionKey({self.fingerprint})"


class KeyReader(Protocol):
    """Reads the encryption key where the platform has it. Raises Unknown with a sentence."""

    def read(self, target: Target, abort: Flag) -> EncryptionKey: ...

    def opens(self, key: EncryptionKey, target: Target, abort: Flag) -> bool | None:
        """Whether it decrypts values of the database, in memory; None when there is no encrypted value to try."""
        ...


@dataclass(frozen=True)
class Rehearsed:
    """How a restore of a dump into an empty server went; `counts` are tables by their names, with their rows."""

    passed: bool
    said: str
    tables: int = 0
    counts: Mapping[str, int] | None = None


class Rehearsal(Protocol):
    """Restores dumps while they pass on their way to the store."""

    def expect(self, source: Source) -> None:
        """Restore this one when it comes."""
        ...

    def result(self, source: Source) -> Rehearsed | None:
        """How it went; None when it was not restored. Asked once."""
        ...
