"""What is in the store is what came, encrypted and whole, or it is not there at all."""

import hashlib
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import (
    BackupFailed,
    BackupStopped,
    Manifest,
    NotThere,
    Stored,
    manifest_from_json,
    object_key,
    stored_from_json,
)
from tests.adapters.vault.conftest import KEY, Machine, files, nothing, source

Plain = Callable[[str], bytes]
DATA = os.urandom(3_500_000)
OLD = timedelta(days=2)


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("backup-")]
    for thread in left:
        thread.join(3)
    assert not [thread for thread in left if thread.is_alive()]


def chunks(data: bytes, size: int = 300_000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def manifest(*stored: Stored, name: str = "set-1") -> Manifest:
    return Manifest(name, "prod", datetime(2026, 11, 3, 3, tzinfo=UTC), stored, "0.1.0")


def put(vault: ObjectVault, machine: Machine, data: bytes = DATA, key: str = KEY) -> Stored:
    machine.chunks = chunks(data)
    return vault.put(source(), key, nothing, Flag())


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, len(DATA)])
def test_what_was_stored_is_what_came(vault: ObjectVault, machine: Machine, plain: Plain, size: int) -> None:
    stored = put(vault, machine, DATA[:size])
    sealed = b"".join(vault.open(KEY))
    assert plain(KEY) == DATA[:size]
    assert (stored.plain_bytes, stored.stored_bytes) == (size, len(sealed))
    assert stored.sha256 == hashlib.sha256(DATA[:size]).hexdigest()
    assert stored.stored_sha256 == hashlib.sha256(sealed).hexdigest()
    assert (stored.target, stored.name, stored.entries) == ("platform-1", "data", None)
    assert "not listed" in stored.warnings[0]
    assert machine.closed == 1


def test_debians_age_opens_it(vault: ObjectVault, machine: Machine, folder: Path, tmp_path: Path) -> None:
    put(vault, machine)
    key = pyrage.x25519.Identity.generate()
    other = ObjectVault(objects(folder.as_uri()), [str(key.to_public())], machine)
    put(other, machine)
    (tmp_path / "key").write_text(f"# ours\n{key}\n")
    done = subprocess.run(["age", "-d", "-i", tmp_path / "key", folder / KEY], capture_output=True, check=True)
    assert done.stdout == DATA


def test_only_the_owner_reads_it(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    os.umask(os.umask(0o002))
    put(vault, machine, b"a secret of theirs" * 9)
    assert b"a secret" not in (folder / KEY).read_bytes()
    assert files(folder) == {KEY: 0o600}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()} == {0o700}


@pytest.mark.parametrize("recipients", [[], ["age1nobody"], [str(pyrage.x25519.Identity.generate())]])
def test_nothing_is_kept_that_nobody_can_read(folder: Path, machine: Machine, recipients: list[str]) -> None:
    with pytest.raises(BackupFailed, match=r"recipients|public key") as refused:
        ObjectVault(objects(folder.as_uri()), recipients, machine)
    assert "AGE-SECRET-KEY-1" not in str(refused.value)


def test_each_recipient_can_read_it(folder: Path, machine: Machine) -> None:
    keys = [pyrage.x25519.Identity.generate() for _ in range(2)]
    vault = ObjectVault(objects(folder.as_uri()), [str(key.to_public()) for key in keys], machine)
    put(vault, machine)
    assert [pyrage.decrypt(b"".join(vault.open(KEY)), [key]) for key in keys] == [DATA, DATA]


# ---------------------------------------------------------------- all or nothing


def test_a_stream_that_fails_leaves_nothing(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    machine.failure = BackupFailed("the connection broke")
    with pytest.raises(BackupFailed, match="the connection broke"):
        put(vault, machine)
    assert files(folder) == {}
    assert machine.closed == 1


def test_a_cancel_leaves_nothing(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    abort, seen = Flag(), list[str]()

    def endless() -> Iterator[bytes]:
        for no in range(100_000):
            if no == 40:
                seen.extend(files(folder))
                abort.set()
            yield DATA[:100_000]

    machine.chunks = endless()  # type: ignore[assignment]  # it is only iterated
    with pytest.raises(BackupStopped):
        vault.put(source(), KEY, nothing, abort)
    assert files(folder) == {}
    assert any(".part-" in name for name in seen), "it was stopped before anything was written"


def test_an_archive_that_is_not_whole_leaves_nothing(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    machine.chunks = [b"no tar" * 1000]
    with pytest.raises(BackupFailed, match="it is not whole"):
        vault.put(source(form="tar"), KEY, nothing, Flag())
    assert files(folder) == {}


def test_an_older_object_stays_when_its_successor_fails(vault: ObjectVault, machine: Machine, plain: Plain) -> None:
    put(vault, machine, b"before")
    machine.failure = BackupFailed("no")
    with pytest.raises(BackupFailed):
        put(vault, machine)
    assert plain(KEY) == b"before"


def test_a_full_store_is_told(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    with smallest_files(1 << 20), pytest.raises(BackupFailed, match=r"could not be written: it takes no such size"):
        put(vault, machine)
    assert files(folder) == {}


@contextmanager
def smallest_files(most: int) -> Iterator[None]:
    """Python ignores the signal that would come with it, so that writing fails with a number."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_that_cannot_be_made_is_told(
    machine: Machine, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    (tmp_path / "file").write_text("")
    vault = ObjectVault(objects((tmp_path / "file" / "store").as_uri()), [str(identity.to_public())], machine)
    with pytest.raises(BackupFailed, match=r"In the store file:///.*/file/store, .* could not be written: Not a dir"):
        put(vault, machine)


def test_a_store_that_fails_waits_for_no_silent_machine(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    machine.chunks, machine.silent = [DATA[: (1 << 20) + 70_000]], True  # fails with its first chunk, then waits
    begun = time.monotonic()
    with smallest_files(1 << 20), pytest.raises(BackupFailed, match="could not be written"):
        vault.put(source(), KEY, nothing, Flag())
    assert time.monotonic() - begun < 5
    assert (files(folder), machine.closed) == ({}, 1)


@pytest.mark.parametrize("url", ["ftp://host/x", "file://relative", "/tmp/x", "s3://", "https://user:pw@host/x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(BackupFailed, match="is no store for backups") as refused:
        objects(url)
    assert "pw" not in str(refused.value)


@pytest.mark.parametrize("key", ["../x", "prod//x", "/etc/passwd", "prod/.hidden/x", "prod/a b/x", ""])
def test_no_key_leads_out_of_the_store(vault: ObjectVault, key: str) -> None:
    with pytest.raises(ValueError, match="cannot be a part"):
        vault.put_bytes("x", b"", key)


# ---------------------------------------------------------------- sets


def test_a_set_counts_when_its_manifest_is_written(vault: ObjectVault, machine: Machine) -> None:
    first, second = put(vault, machine), vault.put_bytes("key", b"k", object_key("prod", "set-1", "key", "bytes"))
    assert vault.manifests("prod") == []
    vault.seal(manifest(first, second))
    vault.seal(manifest(first, second))  # once more, as after a crash
    (found,) = vault.manifests("prod")
    assert found == manifest(first, second)
    assert found == manifest_from_json(found.to_json())
    assert vault.manifests("staging") == []


def test_counted_rows_are_in_the_manifest_and_may_be_missing_there(vault: ObjectVault, machine: Machine) -> None:
    counted = replace(put(vault, machine), rows={"public.users": 500, 'public."Odd"': 0})
    vault.seal(manifest(counted))
    assert vault.manifests("prod")[0].objects == (counted,)
    written = put(vault, machine).to_json()
    assert "rows" not in written, "as manifests were before there were any"
    assert stored_from_json(written).rows == {}
    wrongs: tuple[object, ...] = ([], {"public.users": "many"}, 5)
    for wrong in wrongs:
        with pytest.raises(BackupFailed, match="not the record of a stored object"):
            stored_from_json({**written, "rows": wrong})


def test_a_set_that_lacks_an_object_is_not_sealed(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    stored = put(vault, machine)
    with pytest.raises(BackupFailed, match=r"has \d+ bytes instead of 1"):
        vault.seal(manifest(replace(stored, stored_bytes=1)))
    (folder / KEY).unlink()
    with pytest.raises(BackupFailed, match="is not in the store"):
        vault.seal(manifest(stored))
    assert vault.manifests("prod") == []


def test_another_set_of_that_name_stays(vault: ObjectVault, machine: Machine) -> None:
    stored = put(vault, machine)
    vault.seal(manifest(stored))
    with pytest.raises(BackupFailed, match="There is another set"):
        vault.seal(replace(manifest(stored), made=datetime(2026, 11, 4, tzinfo=UTC)))
    assert vault.manifests("prod") == [manifest(stored)]
    newer = replace(manifest(stored), opsbot="0.2.0")
    vault.seal(newer)  # it carries on where an older opsbot was killed
    assert vault.manifests("prod") == [newer]


def test_one_flipped_bit_is_found(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    stored = put(vault, machine)
    vault.verify(stored, Flag())
    data = bytearray((folder / KEY).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / KEY).write_bytes(data)
    with pytest.raises(BackupFailed, match="SHA-256 is another one"):
        vault.verify(stored, Flag())
    (folder / KEY).write_bytes(data[:-1])
    with pytest.raises(BackupFailed, match=r"it has \d+ bytes"):
        vault.verify(stored, Flag())
    (folder / KEY).unlink()
    with pytest.raises(NotThere, match="there is no "):
        vault.verify(stored, Flag())


def test_reading_back_can_be_stopped(vault: ObjectVault, machine: Machine) -> None:
    stored, abort = put(vault, machine), Flag()
    abort.set()
    with pytest.raises(BackupStopped):
        vault.verify(stored, abort)


def test_a_deleted_set_leaves_nothing(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    vault.seal(manifest(put(vault, machine)))
    vault.delete(manifest(put(vault, machine)))
    assert files(folder) == {}
    vault.delete(manifest())  # once more, as after a crash


def test_a_sweep_takes_what_nobody_names_and_nothing_else(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    vault.seal(manifest(put(vault, machine)))
    lost = object_key("prod", "set-2", "data", "bytes")
    put(vault, machine, key=lost)
    for name in ("prod/set-2/.part-0123456789abcdef", "prod/set-2/notes.txt", "theirs.age"):
        (folder / name).write_text("x")
    assert vault.sweep(OLD) == []
    for file in folder.rglob("*"):
        os.utime(file, (0, 0))
    assert sorted(vault.sweep(OLD)) == sorted([lost, "prod/set-2/.part-0123456789abcdef"])
    assert sorted(files(folder)) == sorted([KEY, manifest().key, "prod/set-2/notes.txt", "theirs.age"])


def test_a_sweep_leaves_what_somebody_still_stands_for(vault: ObjectVault, machine: Machine, folder: Path) -> None:
    put(vault, machine)
    os.utime(folder / KEY, (0, 0))
    assert vault.sweep(OLD, {KEY}) == []
    assert vault.sweep(OLD) == [KEY]


def test_what_a_killed_process_left_goes_when_the_same_is_stored_again(
    vault: ObjectVault, machine: Machine, folder: Path
) -> None:
    def killed() -> Iterator[bytes]:
        (unfinished,) = files(folder)
        os.link(folder / unfinished, folder / f"{unfinished[:-8]}killed00")
        yield b"the first"

    machine.chunks = killed()  # type: ignore[assignment]  # it is only iterated
    vault.put(source(), KEY, nothing, Flag())
    assert len(files(folder)) == 2
    put(vault, machine, key=KEY.replace("data", "other"))
    assert len(files(folder)) == 3, "another object's, which may be on its way"
    put(vault, machine)
    assert sorted(files(folder)) == [KEY, KEY.replace("data", "other")]


def test_a_sweep_takes_nothing_while_a_manifest_cannot_be_read(
    vault: ObjectVault, machine: Machine, folder: Path
) -> None:
    vault.seal(manifest(put(vault, machine, key=KEY.replace("set-1", "set-2")), name="set-2"))
    put(vault, machine)
    for file in folder.rglob("*"):
        os.utime(file, (0, 0))
    (folder / manifest().key).write_text("{")
    for look in (lambda: vault.sweep(OLD), lambda: vault.manifests("prod")):
        with pytest.raises(BackupFailed, match=r"manifest.json in .* cannot be read"):
            look()
    assert KEY in files(folder)
    assert len(vault.manifest("prod", "set-2").objects) == 1, "another one can be read"


def test_free_space_is_told(vault: ObjectVault) -> None:
    assert (vault.free_space() or 0) > 0


def test_progress_is_told_at_the_end(vault: ObjectVault, machine: Machine) -> None:
    told: list[int] = []
    machine.chunks = chunks(DATA)
    vault.put(source(), KEY, told.append, Flag())
    assert told[-1] == len(DATA)
