"""What a store gives back to the owner of a key: the very bytes, or a sentence that says who changed them."""

import os
import resource
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters.vault import ObjectVault, Unlocked, objects
from bot.core.backup import BackupFailed, Packed, Stored
from tests.adapters.vault.conftest import KEY, Machine, nothing, source

DATA = os.urandom(3_000_000)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("backup-")]
    for thread in left:
        thread.join(3)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def unlocked(folder: Path, identity: pyrage.x25519.Identity) -> Unlocked:
    return Unlocked(objects(folder.as_uri()), [identity])


def put(vault: ObjectVault, machine: Machine, data: bytes = DATA, packed: Packed = "") -> Stored:
    machine.chunks = [data]
    return vault.put(source(packed=packed), KEY, nothing, Flag())


def read(unlocked: Unlocked, stored: Stored) -> bytes:
    with unlocked.open(stored) as plain:
        return b"".join(iter(lambda: plain.read(70_000), b""))


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, len(DATA)])
def test_the_plain_bytes_come_back(vault: ObjectVault, machine: Machine, unlocked: Unlocked, size: int) -> None:
    stored = put(vault, machine, DATA[:size])
    assert read(unlocked, stored) == DATA[:size]
    assert unlocked.fits(stored) is True


@pytest.mark.parametrize(("packed", "program"), [("zstd", "zstd"), ("gzip", "gzip")])
def test_they_come_unpacked(
    vault: ObjectVault, machine: Machine, unlocked: Unlocked, packed: Packed, program: str
) -> None:
    small = subprocess.run([program, "-c"], input=DATA, check=True, capture_output=True).stdout
    assert read(unlocked, put(vault, machine, small, packed)) == DATA


def test_whoever_stops_reading_gets_the_verdict_all_the_same(
    vault: ObjectVault, machine: Machine, unlocked: Unlocked
) -> None:
    stored = put(vault, machine)
    with unlocked.open(stored) as plain:
        assert plain.read(10) == DATA[:10]
    with pytest.raises(BackupFailed, match="another plain SHA-256"), unlocked.open(replace(stored, sha256="0" * 64)):
        pass


def test_another_key_is_no_fault_of_the_backup(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    stored = put(vault, machine)
    stranger = Unlocked(objects(folder.as_uri()), [pyrage.x25519.Identity.generate()])
    assert stranger.fits(stored) is False
    with pytest.raises(BackupFailed, match="not encrypted to this identity"):
        read(stranger, stored)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize(
    ("how", "said", "fits"),
    [
        ("header", "its SHA-256 is another one", None),
        ("middle", "its SHA-256 is another one", True),
        ("end", "its SHA-256 is another one", True),
        ("cut", "bytes, and .* were stored", True),
        ("missing", "there is no ", None),
    ],
)
def test_what_the_store_changed_is_said_to_be_the_stores(
    vault: ObjectVault, machine: Machine, unlocked: Unlocked, folder: Path, how: str, said: str, fits: bool | None
) -> None:
    stored = put(vault, machine)
    data = (folder / KEY).read_bytes()
    spoilt = {
        "header": flipped(data, 60),
        "middle": flipped(data, 2_000_000),
        "end": flipped(data, len(data) - 1),
        "cut": data[:-70_000],
    }
    (folder / KEY).unlink()
    if how in spoilt:
        (folder / KEY).write_bytes(spoilt[how])
    with pytest.raises(BackupFailed, match=said):
        read(unlocked, stored)
    assert unlocked.fits(stored) is fits


def test_packed_bytes_that_are_not_whole(vault: ObjectVault, machine: Machine, unlocked: Unlocked) -> None:
    small = subprocess.run(["zstd", "-c"], input=DATA, check=True, capture_output=True).stdout
    stored = replace(put(vault, machine, small[:-4]), packed="zstd")
    with pytest.raises(BackupFailed, match="was stored as it came, but it is not whole: "):
        read(unlocked, stored)


def test_what_the_reader_raises_is_raised(vault: ObjectVault, machine: Machine, unlocked: Unlocked) -> None:
    stored = put(vault, machine)
    with pytest.raises(ZeroDivisionError), unlocked.open(stored):
        raise ZeroDivisionError


def test_memory_stays_flat(vault: ObjectVault, machine: Machine, unlocked: Unlocked) -> None:
    chunk = os.urandom(1 << 20)
    machine.chunks = [chunk] * 120
    stored = vault.put(source(), KEY, nothing, Flag())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with unlocked.open(stored) as plain:
        assert sum(len(part) for part in iter(lambda: plain.read(1 << 20), b"")) == 120 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 << 10  # KiB
