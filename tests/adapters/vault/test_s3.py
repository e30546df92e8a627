"""The same vault over S3: uploads in parts, and nothing to be seen of one that did not end."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters.vault import ObjectVault, Patience, objects
from bot.core.backup import BackupFailed, BackupStopped, Manifest, StoreAway
from tests.adapters.vault.conftest import KEY, Machine, decrypted, nothing, source
from tests.rigs.s3 import S3, s3

MIB = 1 << 20


@pytest.fixture(scope="module")
def started() -> Iterator[S3]:
    with s3() as server:
        yield server


@pytest.fixture
def bucket(started: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    return started


@pytest.fixture
def vault(bucket: S3, identity: pyrage.x25519.Identity, machine: Machine) -> ObjectVault:
    return ObjectVault(objects(f"{bucket.url}/ours"), [str(identity.to_public())], machine)


def test_a_set_goes_up_in_parts_and_comes_back(
    vault: ObjectVault, bucket: S3, machine: Machine, identity: pyrage.x25519.Identity
) -> None:
    data = os.urandom(36 * MIB)
    machine.chunks = [data[start : start + MIB] for start in range(0, len(data), MIB)]
    stored = vault.put(source(), KEY, nothing, Flag())
    assert bucket.keys() == [f"ours/{KEY}"]
    assert bucket.parts(f"ours/{KEY}") == 3
    vault.verify(stored, Flag())
    assert decrypted(vault, KEY, identity) == data
    manifest = Manifest("set-1", "prod", datetime.now(UTC), (stored,), "0.1.0")
    vault.seal(manifest)
    assert vault.manifests("prod") == [manifest]
    assert vault.free_space() is None
    with pytest.raises(BackupFailed, match="SHA-256"):
        vault.verify(replace(stored, stored_sha256="0" * 64), Flag())
    vault.delete(manifest)
    assert bucket.keys() == []


def test_a_cancelled_upload_is_aborted(vault: ObjectVault, bucket: S3, machine: Machine) -> None:
    abort, uploads = Flag(), list[int]()

    def endless() -> Iterator[bytes]:
        for no in range(10_000):
            if no == 40:
                uploads.append(bucket.uploads())
                abort.set()
            yield os.urandom(MIB)

    machine.chunks = endless()  # type: ignore[assignment]  # it is only iterated
    with pytest.raises(BackupStopped):
        vault.put(source(), KEY, nothing, abort)
    assert uploads == [1], "no upload had begun"
    assert (bucket.keys(), bucket.uploads()) == ([], 0)


def test_a_bucket_that_is_not_there_is_told(bucket: S3, identity: pyrage.x25519.Identity, machine: Machine) -> None:
    vault = ObjectVault(objects("s3://elsewhere/x"), [str(identity.to_public())], machine)
    with pytest.raises(BackupFailed, match=r"In the store s3://elsewhere/x, .* could not be written: .*NoSuchBucket"):
        vault.put(source(), KEY, nothing, Flag())


@pytest.mark.parametrize("listening", [True, False])
def test_a_store_that_does_not_answer_is_given_up(
    listening: bool, identity: pyrage.x25519.Identity, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        if not listening:
            silent.close()
        for name, value in S3("s3://backups", port).environment.items():
            monkeypatch.setenv(name, value)
        store = objects("s3://backups", Patience(connect=1, request=1, retries=1, retrying=2))
        vault = ObjectVault(store, [str(identity.to_public())], machine)
        machine.chunks = [os.urandom(MIB)] * 3
        begun = time.monotonic()
        with pytest.raises(StoreAway, match="Check its address"):
            vault.put(source(), KEY, nothing, Flag())
        assert time.monotonic() - begun < 15
    assert machine.closed == 1
