"""The whole way: from a real machine over OpenSSH into the store, and what a kill on the way leaves behind."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import TAR_WARNINGS, BackupFailed, object_key
from bot.core.command import sh
from bot.core.target import Role, Target
from tests.adapters.vault.conftest import KEY, PLATFORM, decrypted, files, nothing, source
from tests.rigs.sshd import HostSpec, Rig, sshd, wait_until

ENDLESS = sh("sh", "-c", "while :; do head -c 1000000 /dev/urandom; done", "endless-61851")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with sshd(HostSpec("platform-1"), HostSpec("cut")) as running:
        yield running


@pytest.fixture
def vault(rig: Rig, folder: Path, identity: pyrage.x25519.Identity) -> ObjectVault:
    streams = OpenSsh({f"prod/{name}": host for name, host in rig.hosts.items()})
    return ObjectVault(objects(folder.as_uri()), [str(identity.to_public())], streams)


def test_a_tree_comes_back_byte_for_byte(
    vault: ObjectVault, rig: Rig, tmp_path: Path, identity: pyrage.x25519.Identity
) -> None:
    tree = rig.folder / "var"
    tree.mkdir()
    for no in range(40):
        (tree / f"file {no}").write_bytes(os.urandom(no * 1000))
    command = sh("tar", "-C", str(rig.folder), "-c", "var")
    wanted = source(origin=command, form="tar", packed="zstd", warnings=TAR_WARNINGS)
    key = object_key("prod", "set-1", "data", "tar", "zstd")
    stored = vault.put(wanted, key, nothing, Flag())
    vault.verify(stored, Flag())
    assert (stored.entries, stored.warnings) == (41, ())
    packed = decrypted(vault, key, identity)
    assert hashlib.sha256(packed).hexdigest() == stored.sha256
    subprocess.run(["tar", "-C", str(tmp_path), "--zstd", "-x"], input=packed, check=True)
    for no in range(40):
        assert (tmp_path / "var" / f"file {no}").read_bytes() == (tree / f"file {no}").read_bytes()


def test_a_broken_connection_leaves_nothing(vault: ObjectVault, rig: Rig, folder: Path) -> None:
    def cut(came: int) -> None:
        rig.drop_connections("cut")

    wanted = replace(source(origin=ENDLESS), target=Target("cut", Role.PLATFORM, "prod"))
    with pytest.raises(BackupFailed, match="the connection broke"):
        vault.put(wanted, KEY, cut, Flag())
    assert files(folder) == {}
    wait_until(lambda: not rig.running("cut", "endless-61851"), 5)


def test_a_stopped_backup_ends_on_the_machine_too(vault: ObjectVault, rig: Rig, folder: Path) -> None:
    abort = Flag()
    with pytest.raises(BackupFailed, match="was stopped"):
        vault.put(source(origin=ENDLESS), KEY, lambda _: abort.set(), abort)
    assert (files(folder), rig.running("platform-1", "endless-61851")) == ({}, [])


# ---------------------------------------------------------------- in a process of its own

BACKUP = """\
import sys
from datetime import timedelta
from pathlib import Path
from threading import Event
from bot.adapters.ssh import Host
from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import Source
from bot.core.command import sh
from bot.core.target import Role, Target
url, recipient, host, port, user, key, known, *command = sys.argv[1:]
ssh = OpenSsh({"prod/platform-1": Host(host, int(port), user, Path(key), Path(known))})
target = Target("platform-1", Role.PLATFORM, "prod")
source = Source("data", target, sh(*command), timedelta(seconds=100))

def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])

vault = ObjectVault(objects(url), [recipient], ssh)
vault.put_bytes("small", b"x", "prod/warm/small.bin.age")
before = peak()
stored = vault.put(source, "prod/set-1/data.bin.age", lambda came: print(came, flush=True), Event())
print(stored.sha256, stored.plain_bytes, peak() - before)
"""


def in_a_child(rig: Rig, folder: Path, identity: pyrage.x25519.Identity, *command: str) -> "subprocess.Popen[str]":
    host = rig.hosts["platform-1"]
    where = (host.host, str(host.port), host.user, str(host.key_file), str(host.known_hosts))
    words = (sys.executable, "-c", BACKUP, folder.as_uri(), str(identity.to_public()), *where, *command)
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_memory_does_not_grow_with_the_backup(rig: Rig, folder: Path, identity: pyrage.x25519.Identity) -> None:
    with in_a_child(rig, folder, identity, "head", "-c", str(256 << 20), "/dev/zero") as child:
        last = child.communicate(timeout=100)[0].splitlines()[-1]
    digest, size, grown = last.split()
    assert digest == hashlib.sha256(bytes(256 << 20)).hexdigest()
    assert int(size) == 256 << 20
    assert int(grown) < 80 << 10, f"{int(grown) >> 10} MiB more"


def test_a_killed_opsbot_leaves_what_a_sweep_finds(
    vault: ObjectVault, rig: Rig, folder: Path, identity: pyrage.x25519.Identity
) -> None:
    with in_a_child(rig, folder, identity, *map(str, ENDLESS.words)) as child:
        assert child.stdout is not None
        assert int(child.stdout.readline()) > 0
        assert rig.running("platform-1", "endless-61851")
        child.send_signal(signal.SIGKILL)
        wait_until(lambda: not rig.running("platform-1", "endless-61851"), 5)
    keys = {each.key for each in objects(folder.as_uri()).list("prod/set-1")}
    left = [name for name in files(folder) if name.startswith("prod/set-1/")]
    assert (keys, len(left)) == (set(), 1)
    assert vault.sweep(timedelta(days=1)) == []
    os.utime(folder / left[0], (0, 0))
    assert vault.sweep(timedelta(days=1)) == left
    assert [name for name in files(folder) if name.startswith("prod/set-1/")] == []


def test_the_machine_of_a_source_is_the_one_that_is_asked(vault: ObjectVault) -> None:
    with pytest.raises(BackupFailed, match="does not know how to reach platform-9"):
        vault.put(replace(source(), target=replace(PLATFORM, name="platform-9")), KEY, nothing, Flag())
