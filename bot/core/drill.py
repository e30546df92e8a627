"""A drill: restoring what the store has, for real, with the secret key of a person. Values, and what the world does."""

from dataclasses import dataclass
from typing import Protocol

from bot.core.backup import Stored
from bot.core.taking import Rehearsed


@dataclass(frozen=True)
class Drilled:
    """How one piece of a backup went. `piece` is its row, 0 where only the store is known."""

    kind: str
    name: str
    passed: bool
    said: str
    seconds: float
    piece: int = 0


@dataclass(frozen=True)
class Unpacked:
    """What came out of a tar. `written` are bytes, None when it was only listed, and `why` says why.

    `left_out` are links and devices that belong on the machine alone, `astray` names that lead out of the folder; of
    each, the first few are named.
    """

    entries: int
    written: int | None
    why: str = ""
    left_out: tuple[str, ...] = ()
    astray: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """`keys` that a redis-server had after loading a dump, which `by` names; None when there is none here, and the dump
    was only read: `unchecked` says what that left open.
    """

    keys: int | None
    by: str = ""
    unchecked: tuple[str, ...] = ()


class Practice(Protocol):
    """Restores stored objects, and throws away what came out of them.

    Raises BackupFailed for what cannot be restored, any other error of ours when it could not be tried on this machine.
    """

    def fits(self, stored: Stored) -> bool | None:
        """Whether the key opens it; None when it is not what was stored, and does not tell."""
        ...

    def restore(self, stored: Stored) -> Rehearsed:
        """A dump, into an empty server."""
        ...

    def unpack(self, stored: Stored) -> Unpacked: ...

    def load(self, stored: Stored) -> Loaded: ...

    def read(self, stored: Stored) -> bytes:
        """A small thing; nobody shows it."""
        ...

    def fingerprint(self, key: bytes) -> str:
        """As it was recorded; empty when that cannot be told here."""
        ...

    def opens(self, key: bytes) -> bool | None:
        """Whether it decrypts a value of the databases that were restored; None when they had no encrypted one."""
        ...
