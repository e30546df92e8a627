"""Everything of a platform, streamed by OpenSSH from a simulated one into a real store: what the handlers ask for is
what machines have, and what lies in the store can be opened by whoever has the secret key, and by nobody else.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag

import pyrage
import pytest

from bot.adapters import embedded
from bot.adapters.containers import Containers
from bot.adapters.database import Database, DumpsInside, Location
from bot.adapters.encryption_key import Keys
from bot.adapters.origins import Origins
from bot.adapters.rehearsal import Rehearsals, Server
from bot.adapters.ssh import Host, Ssh
from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import BackupFailed, DumpInside, Manifest, Source, Stored, object_key
from bot.core.command import Command
from bot.core.look import Look
from bot.core.taking import Rehearsed
from bot.core.target import Role, Site, Target
from bot.engine.rounds import AskingLook, Diagnoser
from bot.sandbox.installation import Running
from bot.sandbox.installation.platform import ENCRYPTION_KEY
from handlers.toolbox import backup
from tests.installation.test_adapter import router, target_of

IDENTITY = pyrage.x25519.Identity.generate()


@dataclass
class Storing:
    """A `Taking` that stores at once, without records."""

    vault: ObjectVault
    keys: Keys
    rehearsals: Rehearsals
    rehearsed: list[Rehearsed] = field(default_factory=list)
    stored: list[Stored] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    opened: bool | None = None

    def store(self, kind: str, source: Source) -> None:
        if kind == "databases":
            self.rehearsals.expect(source)
        try:
            key = object_key("try", "set", source.name, source.form, source.packed)
            self.stored.append(self.vault.put(source, key, lambda _: None, Flag()))
        except BackupFailed as why:
            self.skipped.append(f"{kind}: {why}")
        if kind == "databases":
            result = self.rehearsals.result(source)
            assert result is None or result.passed, result
            self.rehearsed += [result] if result else []

    def store_key(self, target: Target) -> None:
        key = self.keys.read(target, Flag())
        self.opened = self.keys.opens(key, target, Flag())
        where = object_key("try=key", "set", "encryption-key", "bytes")
        self.stored.append(self.vault.put_bytes("encryption-key", key.value, where))

    def skip(self, kind: str, why: str) -> None:
        self.skipped.append(f"{kind}: {why}")

    def finish(self) -> str:
        return f"{len(self.stored)} objects"


class Steps:
    """What the handlers use of a job's steps."""

    def __init__(self, taking: Storing) -> None:
        self.taking = taking

    def backup(self, what: str) -> Storing:
        return self.taking


@pytest.fixture
def taking(running: Running, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Storing, Look]]:
    given = running.configuration()
    (place,) = given["platforms"]
    host = Host(place["host"], place["port"], given["ssh"]["user"], running.key_file, running.known_hosts)
    hosts = {f"{running.name}/platform-1": host}
    ssh = Ssh(hosts)
    stage = Server(embedded.start, embedded.remove, embedded.programs)
    machines = OpenSsh(hosts)
    streams = Origins({Command: machines, DumpInside: DumpsInside(machines)})
    rehearsals = Rehearsals(streams, tmp_path / "rehearsals", stage, full=getattr(request, "param", False))
    vault = ObjectVault(objects(f"file://{tmp_path}/store"), [str(IDENTITY.to_public())], rehearsals)
    inside = Containers(ssh)
    database = Database({(running.name, "main"): Location()}, ssh, inside)
    platform = target_of(running, "platform-1")
    assert platform.role is Role.PLATFORM
    site = Site(running.name, "travis.example.com", "2.2", (platform,))
    look = AskingLook(Diagnoser(site, router(running, ssh), lambda *_: None), Flag())
    yield Storing(vault, Keys(inside, database, b"salt"), rehearsals), look
    ssh.close()


def take(taking: tuple[Storing, Look], what: str) -> Storing:
    storing, look = taking
    backup.take(Steps(storing), look, what)  # type: ignore[arg-type]
    return storing


def plain(storing: Storing, name: str) -> bytes:
    """What whoever has the secret key reads."""
    (stored,) = [each for each in storing.stored if each.name == name]
    sealed = b"".join(storing.vault.open(stored.key))
    read: bytes = pyrage.decrypt(sealed, [IDENTITY])
    return read


def test_everything_of_a_platform(running: Running, taking: tuple[Storing, Look], tmp_path: Path) -> None:
    storing = take(taking, "all")
    assert storing.skipped == []
    assert [each.name for each in storing.stored] == [
        "data-platform-1", "database-main", "encryption-key", "redis", "rabbitmq", "app-config-platform-1",
        "params-platform-1",
    ]  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(gzip.decompress(plain(storing, "data-platform-1")))) as archive:
        assert "etc/travis/ssl/rabbitmq.cert" in archive.getnames()
        assert any(name.startswith("var/travis/") for name in archive.getnames())
    assert plain(storing, "database-main").startswith(b"PGDMP")
    assert plain(storing, "redis").startswith(b"REDIS")
    assert any(queue["name"] == "builds.trusty" for queue in json.loads(plain(storing, "rabbitmq"))["queues"])
    assert json.loads(plain(storing, "app-config-platform-1"))
    assert plain(storing, "encryption-key") == ENCRYPTION_KEY.encode()
    assert storing.opened is True
    assert running.unknown() == []
    for file in (tmp_path / "store").rglob("*"):
        assert not file.is_file() or ENCRYPTION_KEY.encode() not in file.read_bytes()
    storing.vault.seal(Manifest("set", "try", storing.stored[0].started, tuple(storing.stored), "0.1"))


@pytest.mark.parametrize("taking", [True], indirect=True)
def test_every_row_of_a_dump_is_compared(running: Running, taking: tuple[Storing, Look]) -> None:
    storing = take(taking, "databases")
    assert storing.skipped == []
    (result,) = storing.rehearsed
    assert result.said.endswith("equal to the source's snapshot"), result.said
    assert "public.users" in storing.stored[0].rows
    assert running.unknown() == []


def test_files_of_a_running_database_are_said_to_be_worth_nothing_alone(taking: tuple[Storing, Look]) -> None:
    storing = take(taking, "data")
    assert any("running PostgreSQL" in warning for warning in storing.stored[0].warnings)


def test_a_stopped_database_is_no_warning(running: Running, taking: tuple[Storing, Look]) -> None:
    files = running.machine("platform-1").files
    files.pop(next(path for path in files if path.endswith("postmaster.pid")))
    storing = take(taking, "data")
    assert storing.stored[0].warnings == ()


def test_a_dump_that_fails_is_said(running: Running, taking: tuple[Storing, Look]) -> None:
    running.installation.app.services["postgresql"].stop()
    storing = take(taking, "databases")
    assert storing.stored == []
    assert "database-main of platform-1" in storing.skipped[0]


def test_a_missing_folder_makes_no_backup(running: Running, taking: tuple[Storing, Look]) -> None:
    files = running.machine("platform-1").files
    for path in [path for path in files if path.startswith("/etc/travis")]:
        del files[path]
    storing = take(taking, "data")
    assert storing.stored == []
    assert "Cannot stat" in storing.skipped[0]
