"""A key pair, a folder as a store, and sources whose bytes a test chooses."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import BackupStopped, Source
from bot.core.command import sh
from bot.core.target import Role, Target

PLATFORM = Target("platform-1", Role.PLATFORM, "prod")
KEY = "prod/set-1/data.bin.age"


def source(**more: object) -> Source:
    return replace(Source("data", PLATFORM, sh("cat", "data"), timedelta(minutes=1)), **more)  # type: ignore[arg-type]


def nothing(_: int) -> None:
    """Progress that nobody watches."""


@dataclass
class Machine:
    """A `Streams` that writes these chunks, then fails when it should; remembers what was opened and closed."""

    chunks: Sequence[bytes] = ()
    failure: Exception | None = None
    silent: bool = False  # says nothing after that, and does not end
    warnings: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    opened: list[Source] = field(default_factory=list)
    closed: int = 0

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["Flow"]:
        self.opened.append(source)
        try:
            yield Flow(self, iter(self.chunks), abort)
        finally:
            self.closed += 1


@dataclass
class Flow:
    machine: Machine
    left: Iterator[bytes]
    abort: Flag

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.machine.warnings

    @property
    def rows(self) -> Mapping[str, int]:
        return self.machine.rows

    def read(self, most: int) -> bytes:
        if self.abort.is_set():
            raise BackupStopped("it was stopped")
        chunk = next(self.left, b"")
        while self.machine.silent and not chunk:
            if self.abort.is_set():
                raise BackupStopped("it was stopped")
            time.sleep(0.01)
        if not chunk and self.machine.failure is not None:
            raise self.machine.failure
        return chunk


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture(scope="session")
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def vault(folder: Path, identity: pyrage.x25519.Identity, machine: Machine) -> ObjectVault:
    return ObjectVault(objects(folder.as_uri()), [str(identity.to_public())], machine)


@pytest.fixture
def plain(vault: ObjectVault, identity: pyrage.x25519.Identity) -> Callable[[str], bytes]:
    """What an object holds, for the owner of the key."""
    return lambda key: decrypted(vault, key, identity)


def decrypted(vault: ObjectVault, key: str, identity: pyrage.x25519.Identity) -> bytes:
    return bytes(pyrage.decrypt(b"".join(vault.open(key)), [identity]))


def files(folder: Path) -> Mapping[str, int]:
    """Everything in the store, hidden things too, with its mode."""
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.stat().st_mode & 0o777 for file in found}
