"""Whether a store may be written is tried, and nothing of the trial is left, whatever comes of it."""

import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from moto.s3.models import s3_backends

from bot.adapters.vault import Objects, ObjectVault, objects, probe
from bot.adapters.vault.objects import Folder
from bot.core.backup import BackupFailed
from tests.adapters.vault.conftest import Machine
from tests.rigs.s3 import ACCOUNT, BUCKET, S3, s3

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def everything(folder: Path) -> list[str]:
    return sorted(str(Path(top) / name) for top, *names in os.walk(folder) for some in names for name in some)


@pytest.mark.parametrize("there", ["", "store", "store/prod", "store/prod/set-1"])
def test_a_folder_is_as_it_was(there: str, tmp_path: Path) -> None:
    """Also one that opsbot would make: who runs `doctor` as root would make it for root alone."""
    (tmp_path / there).mkdir(parents=True, exist_ok=True)
    before = everything(tmp_path)
    probe(objects((tmp_path / "store").as_uri()), "prod")
    assert everything(tmp_path) == before


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store/prod").write_text("no folder")
    with pytest.raises(BackupFailed, match="could not be written"):
        probe(objects((tmp_path / "store").as_uri()), "prod")
    assert everything(tmp_path / "store") == [str(tmp_path / "store/prod")]


class Lossy(Folder):
    """It keeps the half of what it takes."""

    def size(self, key: str) -> int | None:
        found = super().size(key)
        return found // 2 if found else found


class Blind(Folder):
    """It takes, and cannot say what it has."""

    def size(self, key: str) -> int | None:
        raise BackupFailed(f"nothing is known of {key}")


@pytest.mark.parametrize(
    ("kind", "says"), [(Lossy, r"took 40 bytes as prod/doctor-.* and had 20"), (Blind, "nothing is known")]
)
def test_what_fails_in_between_leaves_nothing(kind: type[Folder], says: str, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match=says):
        probe(kind(tmp_path / "store"), "prod")
    assert everything(tmp_path) == []


class Hoarding(Folder):
    """It is for ever."""

    def delete(self, key: str) -> None:
        raise BackupFailed(f"{key} is for ever.")


def test_what_could_not_be_removed_is_named_and_is_no_backup(tmp_path: Path) -> None:
    store: Objects = Hoarding(tmp_path / "store")
    with pytest.raises(BackupFailed, match="nothing can be removed there") as failed:
        probe(store, "prod")
    (left,) = store.list()
    assert left.key in str(failed.value)
    assert ObjectVault(store, [RECIPIENT], Machine()).manifests("prod") == []
    generous = ObjectVault(Folder(tmp_path / "store"), [RECIPIENT], Machine())
    assert generous.sweep(timedelta(0)) == [left.key], "as a killed `doctor` would leave it"


# ---------------------------------------------------------------- an object store


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3]:
    with s3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def deny(action: str) -> None:
    """Nobody may do that any more."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    s3_backends[ACCOUNT]["aws"].put_bucket_policy(
        BUCKET, json.dumps({"Version": "2012-10-17", "Statement": [statement]}).encode()
    )


def test_a_bucket(bucket: S3) -> None:
    store = objects(f"{bucket.url}/ours")
    probe(store, "prod")
    assert bucket.keys() == []
    deny("s3:PutObject")
    with pytest.raises(BackupFailed, match=r"could not be written.*what they may do"):
        probe(store, "prod")
    assert bucket.keys() == []
    deny("s3:DeleteObject")
    with pytest.raises(BackupFailed, match="can be written, but nothing can be removed there") as failed:
        probe(store, "prod")
    (left,) = bucket.keys()
    assert left.removeprefix("ours/") in str(failed.value)
