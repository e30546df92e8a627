"""Backups as values: what is streamed from where, what was stored of it, and the manifest that makes a set count.

The bytes go from their origin through hash, listing and age into the store, without a copy of the whole anywhere else.
A set is its manifest: that is written last, and an object that no manifest names does not count. docs/decisions/
backup-streams.md, backup-encryption.md and backup-store.md say why.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from typing import Any, Final, Literal, Protocol, get_args

from bot.core.command import Command, sh
from bot.core.errors import Permanent
from bot.core.target import Target

Form = Literal["tar", "pg_dump", "rdb", "json", "bytes"]
Packed = Literal["zstd", "gzip", ""]
Progress = Callable[[int], None]  # the bytes that came so far; called about once a second, and at the end

PACKERS: Final[Mapping[str, Command]] = {"zstd": sh("zstd", "-q", "-c", "-1", "-T0"), "gzip": sh("gzip", "-c", "-1")}
HAS_ZSTD: Final = sh("zstd", "--version")  # exit 0 where a machine can pack with zstd: ten times faster than gzip
ENDINGS: Final[Mapping[str, str]] = {"tar": "tar", "pg_dump": "dump", "rdb": "rdb", "json": "json", "bytes": "bin"}
PACKED_ENDINGS: Final[Mapping[str, str]] = {"zstd": ".zst", "gzip": ".gz", "": ""}
MANIFEST: Final = "manifest.json"
NAME: Final = re.compile(r"[A-Za-z0-9_+=-][A-Za-z0-9._+=-]{0,120}")  # of one step of a key: no way out of the store

TAR_WARNINGS: Final = ((1, "tar: files changed while they were read; their copies may be half old, half new"),)
LIVE: Final = (
    "the files of a running PostgreSQL are in it, which cannot be restored by themselves: restore the database from "
    "`backup databases`, or stop the app (`replicatedctl app stop`) before `backup data`"
)


class BackupFailed(Permanent):
    """What happened, to what, why, and what to do. Nothing half-written is left; a later `sweep` looks again."""


class NotThere(BackupFailed):
    """The store can be read, and has no such object."""


class StoreAway(BackupFailed):
    """The store cannot be asked now, which says nothing of what it has."""


class BackupStopped(BackupFailed):
    """Somebody wanted no more of it: the run was cancelled, or the process ends."""


# ---------------------------------------------------------------- what is streamed


@dataclass(frozen=True)
class Dump:
    """A PostgreSQL that is reached from opsbot's own host, `main` or `logs`: dumped by a pg_dump there."""

    database: str
    counted: bool = False


@dataclass(frozen=True)
class DumpInside:
    """A PostgreSQL in a container of the target: dumped by the pg_dump in there."""

    container: str
    name: str
    user: str
    counted: bool = False


@dataclass(frozen=True)
class RedisCopy:
    """A redis that is reached from opsbot's own host: a copy as a replica gets it."""


@dataclass(frozen=True)
class Definitions:
    """A RabbitMQ whose management API is reached from opsbot's own host: what it would export to a file."""


@dataclass(frozen=True)
class Local:
    """What a program on opsbot's own host writes. `env` may hold secrets and is never shown; `words` may not."""

    words: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


Origin = Command | Dump | DumpInside | RedisCopy | Definitions | Local


@dataclass(frozen=True)
class Source:
    """Bytes of an installation, and where they come from.

    A command of `origin` runs on the target's machine: `packed` says which packer the stream adds there ("zstd" where
    `HAS_ZSTD` answered 0, else "gzip"; "" leaves them as they are), and of its exit statuses `fine` are a success,
    `warnings` are one with their sentence, every other is a failure. `within` bounds all of it, there and here.
    """

    name: str
    target: Target
    origin: Origin
    within: timedelta
    form: Form = "bytes"
    packed: Packed = ""
    fine: tuple[int, ...] = (0,)
    warnings: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def counted(self) -> "Source":
        """The same with the rows counted in the very snapshot that is dumped; what has no rows stays as it is."""
        if isinstance(self.origin, Dump | DumpInside):
            return replace(self, origin=replace(self.origin, counted=True))
        return self

    def __str__(self) -> str:
        return f"{self.name} of {self.target}"


class Stream(Protocol):
    """The bytes of one source as they come."""

    def read(self, most: int) -> bytes:
        """Some bytes, at most that many; nothing at the end. Raises BackupFailed when it is not a good end."""
        ...

    @property
    def warnings(self) -> tuple[str, ...]:
        """Known at the end."""
        ...

    @property
    def rows(self) -> Mapping[str, int]:
        """Of each table in the snapshot that is dumped, where they are counted. Known at the end."""
        ...


class Streams(Protocol):
    """Where the bytes of sources come from."""

    def open(self, source: Source, abort: Flag) -> AbstractContextManager[Stream]:
        """Starts it; leaving the context before the end ends it wherever it runs. Raises BackupFailed."""
        ...


class Checking(Protocol):
    """Who can tell before the night that nothing would come of a source."""

    def check(self, source: Source, abort: Flag, /) -> None:
        """Raises BackupFailed with what lacks. Nothing is streamed or changed; what cannot be told is passed over."""
        ...


def sent(command: Command, packed: Packed) -> Command:
    """What runs on a machine: the command, and the packer behind it."""
    return command | PACKERS[packed] if packed else command


# ---------------------------------------------------------------- what was stored


@dataclass(frozen=True)
class Stored:
    """One object in the store.

    "Plain" is what came from the machine, packed or not: age keeps no more and no less. `entries` counts what the
    listing found (files of a tar, entries of a dump's table of contents), None where nothing could be listed: then a
    warning says why. `rows` are those of each table (`schema.table`, quoted where SQL wants it) in the very snapshot
    that a dump was made of; nothing where they were not counted.
    """

    key: str
    name: str
    target: str
    form: Form
    packed: Packed
    plain_bytes: int
    stored_bytes: int
    sha256: str
    stored_sha256: str
    entries: int | None
    warnings: tuple[str, ...]
    started: datetime
    ended: datetime
    rows: Mapping[str, int] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        return (self.ended - self.started).total_seconds()

    def to_json(self) -> dict[str, Any]:
        """Without `rows` where there are none: so an older opsbot reads it too."""
        written = {**asdict(self), "started": _written(self.started), "ended": _written(self.ended)}
        return written if self.rows else {name: value for name, value in written.items() if name != "rows"}


def stored_from_json(given: Mapping[str, Any]) -> Stored:
    """Raises BackupFailed when it is none."""
    try:
        if given["form"] not in get_args(Form) or given["packed"] not in get_args(Packed):
            raise ValueError(f"unknown form {given['form']!r} {given['packed']!r}")
        check_key(given["key"])
        times = {"started": _read(given["started"]), "ended": _read(given["ended"])}
        rows = {str(table): int(count) for table, count in given.get("rows", {}).items()}
        return Stored(**{**given, **times, "warnings": tuple(given["warnings"]), "rows": rows})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackupFailed(f"This is not the record of a stored object: {type(error).__name__}: {error}.") from error


@dataclass(frozen=True)
class Manifest:
    """A set of objects that belong together; it counts because this was written, last."""

    set: str
    site: str
    made: datetime
    objects: tuple[Stored, ...]
    opsbot: str

    @property
    def key(self) -> str:
        return manifest_key(self.site, self.set)

    @property
    def stored_bytes(self) -> int:
        return sum(each.stored_bytes for each in self.objects)

    def same_as(self, other: "Manifest") -> bool:
        """Whoever wrote it: a newer opsbot may carry on where an older one was killed."""
        return replace(other, opsbot=self.opsbot) == self

    def to_json(self) -> dict[str, Any]:
        objects = [each.to_json() for each in self.objects]
        return {
            "manifest": 1, "set": self.set, "site": self.site, "made": _written(self.made), "opsbot": self.opsbot,
            "objects": objects,
        }  # fmt: skip


def manifest_from_json(given: Mapping[str, Any]) -> Manifest:
    """Raises BackupFailed when it is none."""
    try:
        if given["manifest"] != 1:
            raise ValueError(f"version {given['manifest']!r} of manifests is not known here")
        objects = tuple(stored_from_json(each) for each in given["objects"])
        manifest = Manifest(given["set"], given["site"], _read(given["made"]), objects, given["opsbot"])
        check_key(manifest.key)
    except (KeyError, TypeError, ValueError) as error:
        raise BackupFailed(f"This is not the manifest of a backup: {type(error).__name__}: {error}.") from error
    return manifest


# ---------------------------------------------------------------- where it is stored


class Readable(Protocol):
    """Plain bytes of a backup, from the first to the last."""

    def read(self, most: int, /) -> bytes:
        """As many bytes as that; fewer at the end alone."""
        ...


class Vault(Protocol):
    """A store of encrypted objects. Everything raises BackupFailed with a sentence for the person in the thread."""

    @property
    def where(self) -> str:
        """The address of the store, without any secret: `s3://bucket/prefix`."""
        ...

    def put(self, source: Source, key: str, progress: Progress, abort: Flag) -> Stored:
        """Stream the source into the object. When anything fails, or `abort` is set, nothing of it is left."""
        ...

    def put_bytes(self, name: str, data: bytes, key: str, form: Form = "bytes") -> Stored:
        """Store a small thing that is known already, encrypted like the others."""
        ...

    def seal(self, manifest: Manifest) -> None:
        """Write the manifest, last of all: now its objects count. Raises when one of them is not there."""
        ...

    def manifests(self, site: str) -> Sequence[Manifest]:
        """All sets of an installation, oldest first; what cannot be read raises, rather than being left out."""
        ...

    def manifest(self, site: str, folder: str) -> Manifest:
        """That of one set; raises NotThere when it has none."""
        ...

    def verify(self, stored: Stored, abort: Flag) -> None:
        """Read the object back; raises when its size or its SHA-256 is another one, StoreAway when nobody can tell."""
        ...

    def open(self, key: str) -> Iterator[bytes]:
        """The stored (encrypted) bytes of an object."""
        ...

    def delete(self, manifest: Manifest) -> None:
        """Remove a set: its manifest first, so that half a set never counts."""
        ...

    def sweep(self, older_than: timedelta, kept: Collection[str] = ()) -> Sequence[str]:
        """Remove the objects that no manifest names, nor `kept`, and that are older; tells their keys."""
        ...

    def free_space(self) -> int | None:
        """Bytes that fit in yet; None where the store does not say."""
        ...


def object_key(site: str, set_id: str, name: str, form: Form, packed: Packed = "") -> str:
    """Where an object belongs: `prod/20261103T030000Z/data.tar.zst.age`."""
    return check_key(f"{site}/{set_id}/{name}.{ENDINGS[form]}{PACKED_ENDINGS[packed]}.age")


def manifest_key(site: str, set_id: str) -> str:
    return check_key(f"{site}/{set_id}/{MANIFEST}")


def check_key(key: str) -> str:
    """The key, when it stays inside the store."""
    for step in key.split("/"):
        _check_name(step)
    return key


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot be a part of an object's name: letters, digits and . _ + = - only")


def _written(time: datetime) -> str:
    return time.astimezone(UTC).isoformat()


def _read(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return time
