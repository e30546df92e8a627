"""A backup of everything, as real programs made it, in a store in a folder: what a drill restores.

made = backup.make(folder, dsn, redis)      # of the database at that DSN and a running redis
made.identity, made.store, made.manifest    # the secret key, where it lies, what it holds
"""

import base64
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag

import psycopg
import pyrage
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from bot.adapters import embedded
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import Form, Manifest, Packed, Source, Stored, Stream, object_key
from bot.core.command import sh
from bot.core.target import Role, Target
from tests.rigs import redis

SCHEMA = Path(__file__).parents[2] / "bot/sandbox/installation/schema/travis-2.2.sql"
PLATFORM = Target("platform-1", Role.PLATFORM, "prod")
KEY = b"an encryption key of 34 characters"
TOKEN = "a token of GitHub that nobody sees"
LOGINS = 500
ROWS = LOGINS + 4  # the schema comes with a few
FOLDER = "20261122T030000Z-all-1"
DEFINITIONS = {
    "users": [{"name": "travis"}],
    "vhosts": [{"name": "travis"}, {"name": "/"}],
    "queues": [],
    "policies": [],
}


@dataclass
class Bytes:
    """A `Stream` of bytes that are known, which counted the rows of a dump."""

    data: bytes
    rows: dict[str, int]
    warnings: tuple[str, ...] = ()

    def read(self, most: int) -> bytes:
        came, self.data = self.data[:most], self.data[most:]
        return came


@dataclass
class Machine:
    """`Streams` of one thing after the other."""

    data: bytes = b""

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator[Stream]:
        yield Bytes(self.data, {})


@dataclass
class Made:
    """A complete backup. Whoever changes `objects` writes both manifests anew with `seal`."""

    folder: Path
    identity: pyrage.x25519.Identity
    main: list[Stored]
    key: Stored

    @property
    def store(self) -> str:
        return (self.folder / "store").as_uri()

    @property
    def secret(self) -> str:
        return str(self.identity)

    def stored(self, name: str) -> Stored:
        return next(each for each in (*self.main, self.key) if each.name == name)

    def path(self, name: str) -> Path:
        return self.folder / "store" / self.stored(name).key

    def replace(self, name: str, **changes: object) -> None:
        """Say something else of it in the manifest."""
        self.main = [replace(each, **changes) if each.name == name else each for each in self.main]  # type: ignore[arg-type]
        self.seal()

    def put(self, name: str, data: bytes, form: Form, packed: Packed = "") -> None:
        """Another object in the place of that name."""
        self.main = [each for each in self.main if each.name != name]
        self.main.append(put(self.vault, Machine(data), name, form, packed))
        self.seal()

    @property
    def vault(self) -> ObjectVault:
        return ObjectVault(objects(self.store), [str(self.identity.to_public())], Machine())

    def seal(self) -> None:
        for site, found in (("prod", tuple(self.main)), ("prod=key", (self.key,))):
            manifest = Manifest(FOLDER, site, datetime(2026, 11, 22, 3, tzinfo=UTC), found, "0.1")
            (self.folder / "store" / manifest.key).unlink(missing_ok=True)
            self.vault.seal(manifest)


def make(folder: Path, dsn: str, server: redis.Server) -> Made:
    """Everything that `backup all` stores, of a small installation."""
    identity = pyrage.x25519.Identity.generate()
    made = Made(folder, identity, [], None)  # type: ignore[arg-type]
    made.key = made.vault.put_bytes("encryption-key", KEY, object_key("prod=key", FOLDER, "encryption-key", "bytes"))
    made.put("data-platform-1", zstd(tar()), "tar", "zstd")
    made.put("database-main", dump(dsn), "pg_dump")
    made.put("redis", rdb(folder, server), "rdb")
    made.put("rabbitmq", json.dumps(DEFINITIONS).encode(), "json")
    made.put("app-config-platform-1", json.dumps({"password": {"value": "only for tests"}}).encode(), "json")
    return made


def put(vault: ObjectVault, machine: Machine, name: str, form: Form, packed: Packed) -> Stored:
    vault._streams = machine
    source = Source(name, PLATFORM, sh("cat"), timedelta(minutes=1), form, packed)
    return vault.put(source, object_key("prod", FOLDER, name, form, packed), lambda _: None, Flag())


def fill(dsn: str) -> None:
    """Travis' own schema, a few rows, and a value that was encrypted by its key."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(SCHEMA.read_bytes())
        connection.execute(
            "INSERT INTO users (login, github_oauth_token, created_at, updated_at) SELECT n, CASE n WHEN 1 THEN %s END,"
            " now(), now() FROM generate_series(1, %s) AS n",
            [encrypted(TOKEN), LOGINS],
        )


def encrypted(text: str) -> str:
    iv = os.urandom(16)
    padder, encryptor = PKCS7(128).padder(), Cipher(AES256(KEY[:32]), CBC(iv)).encryptor()
    sealed = encryptor.update(padder.update(text.encode()) + padder.finalize()) + encryptor.finalize()
    return f"--ENCR--{base64.b64encode(sealed + iv).decode()}"


def dump(dsn: str) -> bytes:
    words = [str(embedded.programs() / "pg_dump"), "-F", "c", "-d", dsn]
    return subprocess.run(words, check=True, capture_output=True, timeout=60).stdout


def rdb(folder: Path, server: redis.Server) -> bytes:
    server.cli("MSET", *(f"{word}{no}" for no in range(42) for word in ("key:", "value")))
    server.cli("--rdb", str(folder / "copy.rdb"))
    return (folder / "copy.rdb").read_bytes()


def tar(*more: tarfile.TarInfo) -> bytes:
    """A few files; entries that are given have no content, whatever they are."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w|") as archive:
        for name in ("var/travis/log/web.log", "etc/travis/ssl/rabbitmq.cert"):
            entry = tarfile.TarInfo(name)
            entry.size = 200_000
            archive.addfile(entry, io.BytesIO(os.urandom(entry.size)))
        for each in more:
            archive.addfile(each)
    return file.getvalue()


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-c"], input=data, check=True, capture_output=True, timeout=60).stdout
