"""`opsbot backup decrypt` on a machine that has nothing but the object and the key."""

import os
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest

import bot

CHECKOUT = Path(bot.__file__).parents[1]
DATA = os.urandom(700_000)


def opsbot(folder: Path, *words: str, given: bytes = b"") -> "subprocess.CompletedProcess[bytes]":
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT), "HOME": str(folder)}
    line = (sys.executable, "-m", "bot.cli", "backup", "decrypt", *words)
    return subprocess.run(line, cwd=folder, env=environment, input=given, capture_output=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Holds an object, `object.age`, and the identity that opens it, `key`."""
    key = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"# created: 2026-11-03T03:00:00Z\n# public key: {key.to_public()}\n{key}\n")
    (tmp_path / "object.age").write_bytes(pyrage.encrypt(DATA, [key.to_public()]))
    return tmp_path


def test_an_object_goes_to_standard_output_or_to_a_new_file(folder: Path) -> None:
    assert opsbot(folder, "--identity", "key", "object.age").stdout == DATA
    done = opsbot(folder, "--identity", "key", (folder / "object.age").as_uri(), "--output", "plain")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (folder / "plain").read_bytes() == DATA
    assert (folder / "plain").stat().st_mode & 0o777 == 0o600


def test_the_key_may_come_on_standard_input(folder: Path) -> None:
    key = (folder / "key").read_bytes()
    assert opsbot(folder, "--identity", "-", "object.age", given=key).stdout == DATA
    refused = opsbot(folder, "--identity", "-", "object.age", given=key[:-5])
    assert refused.returncode == 2
    assert b"Standard input holds no identity that can decrypt" in refused.stderr
    assert b"AGE-SECRET-KEY-1" not in refused.stderr


def test_a_key_as_a_word_is_refused_and_not_repeated(folder: Path) -> None:
    secret = (folder / "key").read_text().splitlines()[-1]
    refused = opsbot(folder, "--identity", secret, "object.age")
    assert refused.returncode == 2
    assert b"as a word of the command" in refused.stderr
    assert secret.encode() not in refused.stderr + refused.stdout


def test_what_debians_age_encrypted_is_decrypted_too(folder: Path) -> None:
    public = (folder / "key").read_text().split("public key: ")[1].split()[0]
    subprocess.run(["age", "-r", public, "-o", folder / "theirs.age"], input=DATA, check=True)
    assert opsbot(folder, "-i", "key", "theirs.age").stdout == DATA


def test_a_key_of_ssh_opens_what_was_encrypted_to_it(folder: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "id")], check=True)
    public = pyrage.ssh.Recipient.from_str((folder / "id.pub").read_text())
    (folder / "to_ssh.age").write_bytes(pyrage.encrypt(DATA, [public]))
    assert opsbot(folder, "-i", "id", "to_ssh.age").stdout == DATA


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-i", "other", "object.age"), "either it was not encrypted to this identity, or it is damaged"),
        (("-i", "key", "cut.age"), "damaged or cut off"),
        (("-i", "key", "flipped.age"), "damaged or cut off"),
        (("-i", "object.age", "object.age"), "holds no identity"),
        (("-i", "nowhere", "object.age"), "The identity nowhere cannot be read"),
        (("-i", "key", "nowhere.age"), "nowhere.age cannot be read"),
        (("-i", "key", "/proc/self/mem"), "The backup cannot be read: Input/output error"),
        (("-i", "key", "s3:///x/y.age"), "is no store"),
    ],
)
def test_what_cannot_be_decrypted_leaves_no_file(folder: Path, words: tuple[str, ...], said: str) -> None:
    (folder / "other").write_text(str(pyrage.x25519.Identity.generate()))
    sealed = bytearray((folder / "object.age").read_bytes())
    (folder / "cut.age").write_bytes(sealed[:-70_000])
    sealed[400_000] ^= 1
    (folder / "flipped.age").write_bytes(sealed)
    before = sorted(folder.iterdir())
    done = opsbot(folder, *words, "--output", "plain")
    assert done.returncode == 2
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
    assert sorted(folder.iterdir()) == before


def test_an_object_that_is_not_there_is_said_so_with_what_is(folder: Path) -> None:
    done = opsbot(folder, "-i", "key", f"{folder.as_uri()}/objekt.age", "-o", "plain")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert said == f"There is no objekt.age in file://{folder}. There is key, object.age\n"
    assert not (folder / "plain").exists()
    done = opsbot(folder, "-i", "key", f"{folder.as_uri()}/nowhere/object.age")
    assert f"There is no object.age in file://{folder}/nowhere. Nothing is there at all" in done.stderr.decode()


def test_what_a_store_says_is_said_as_it_is(folder: Path) -> None:
    (folder / "object.age").unlink()
    (folder / "object.age").mkdir()
    done = opsbot(folder, "-i", "key", f"{folder.as_uri()}/object.age")
    assert done.returncode == 2
    said = done.stderr.decode()
    assert said == (
        f"In the store file://{folder}, object.age could not be read: Is a directory. Look at what it lies on, then run"
        " it again.\n"
    )


def test_a_file_that_is_there_stays(folder: Path) -> None:
    (folder / "plain").write_bytes(b"mine")
    done = opsbot(folder, "-i", "key", "object.age", "-o", "plain")
    assert done.returncode == 2
    assert b"was left as it is" in done.stderr
    assert (folder / "plain").read_bytes() == b"mine"
