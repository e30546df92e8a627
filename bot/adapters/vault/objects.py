"""Where objects are: a folder of this machine, or S3, GCS and Azure through obstore. One URL says which."""

import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from bot.core.backup import BackupFailed, NotThere, StoreAway, check_key

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CHUNK: Final = 1 << 20
PART: Final = 16 << 20  # of an upload: S3 takes 10,000 of them, 160 GiB, and two are in memory at a time
PARTS_AT_A_TIME: Final = 2
SCHEMES: Final = ("s3", "gs", "az", "abfs", "abfss", "azure")
ALLOW_HTTP: Final = ("AWS_ALLOW_HTTP", "AZURE_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP")  # only where somebody said so
UNFINISHED: Final = re.compile(r"\.part-[0-9a-f]{16}")  # never a part of a key: those begin otherwise
FULL: Final = {errno.ENOSPC: "it is full", errno.EDQUOT: "its quota is used up", errno.EFBIG: "it takes no such size"}
DAMAGED: Final = (errno.EIO, errno.EUCLEAN, errno.EBADMSG)  # what could be read before cannot be read any more
ADVICE: Final = {
    **dict.fromkeys(FULL, "Make room"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Allow it"),
}


@dataclass(frozen=True)
class Object:
    key: str
    size: int
    modified: datetime


class Objects(Protocol):
    """Named bytes. Everything raises BackupFailed: `get` of what is not there NotThere, and StoreAway where nobody can
    tell what is there. `where` may be shown.
    """

    where: str

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        """All of it or nothing: when the chunks raise, nothing is left."""
        ...

    def get(self, key: str) -> Iterator[bytes]: ...
    def size(self, key: str) -> int | None: ...
    def list(self, prefix: str = "") -> Iterator[Object]: ...
    def unfinished(self) -> Iterator[Object]: ...
    def delete(self, key: str) -> None: ...
    def free_space(self) -> int | None: ...

    def without_traces(self, key: str, /) -> AbstractContextManager[None]:
        """Where an object is put and deleted in it, all that was made for the object is gone at the end."""
        ...


@dataclass(frozen=True)
class Patience:
    """How long a store may take, in seconds."""

    connect: float = 10
    request: float = 120  # one part of an upload is 16 MiB
    retries: int = 4
    retrying: float = 120


def objects(url: str, patience: Patience | None = None) -> Objects:
    """The store at `file:///…`, `s3://bucket/prefix`, `gs://…`, `az://…`; credentials from their own variables."""
    split = urlsplit(url)
    if split.scheme == "file" and split.netloc in ("", "localhost") and split.path.startswith("/"):
        return Folder(Path(unquote(split.path)))
    if split.scheme in SCHEMES and split.netloc:
        return Bucket(url, patience or Patience())
    raise BackupFailed(
        f"{_shown(url)!r} is no store for backups; use file:///folder, s3://bucket/prefix, gs://bucket/prefix or"
        " az://container/prefix."
    )


def _shown(url: str) -> str:
    """Without a password or a token that somebody may have put there."""
    split = urlsplit(url)
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{split.path}"[:200]


# ---------------------------------------------------------------- a folder


class Folder:
    """Files of mode 0600 in folders of 0700, written beside their place and moved there when they are whole."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.where = f"file://{root}"

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        with self._explained(f"{key} could not be written"):
            place = self._place(key)
            for folder in _way(self._root, place):
                folder.mkdir(mode=0o700, exist_ok=True)
            mark = hashlib.sha256(key.encode()).hexdigest()[:8]
            for left in place.parent.glob(f".part-{mark}*"):  # of a process that was killed: as large as what comes now
                left.unlink(missing_ok=True)
            unfinished = place.with_name(f".part-{mark}{secrets.token_hex(4)}")
            try:
                self._write(unfinished, chunks)
                unfinished.replace(place)
                _settle(place.parent)
            except BaseException:
                unfinished.unlink(missing_ok=True)
                raise

    def get(self, key: str) -> Iterator[bytes]:
        with self._explained(f"{key} could not be read"), self._opened(key) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def size(self, key: str) -> int | None:
        with self._explained(f"{key} could not be looked at"), suppress(FileNotFoundError):
            return self._place(key).stat().st_size
        return None

    def list(self, prefix: str = "") -> Iterator[Object]:
        for file, key in self._files(prefix):
            if not UNFINISHED.fullmatch(file.name):
                yield from self._object(file, key)

    def unfinished(self) -> Iterator[Object]:
        for file, key in self._files(""):
            if UNFINISHED.fullmatch(file.name):
                yield from self._object(file, key)

    def delete(self, key: str) -> None:
        place = self._root / key
        with self._explained(f"{key} could not be removed"):
            place.unlink(missing_ok=True)
        if place.parent != self._root:
            with suppress(OSError):  # others are in there yet
                place.parent.rmdir()

    def free_space(self) -> int | None:
        there = next(folder for folder in (self._root, *self._root.parents) if folder.exists())
        with self._explained("its free space could not be told"):
            return shutil.disk_usage(there).free

    @contextmanager
    def without_traces(self, key: str) -> Iterator[None]:
        """A folder that root made on the way would be closed to the user that opsbot runs as."""
        made = [folder for folder in _way(self._root, self._place(key)) if not os.path.lexists(folder)]
        try:
            yield
        finally:
            for folder in reversed(made):
                with suppress(OSError):  # it was not made, or others are in there already
                    folder.rmdir()

    def _opened(self, key: str) -> FileIO:
        try:
            return self._place(key).open("rb", buffering=0)
        except FileNotFoundError as error:
            raise NotThere(_absent(self.where, key)) from error

    def _place(self, key: str) -> Path:
        return self._root / check_key(key)

    def _files(self, prefix: str) -> Iterator[tuple[Path, str]]:
        top = self._root / prefix
        for folder, _, names in os.walk(top, onerror=self._unreadable):
            for name in sorted(names):
                file = Path(folder) / name
                yield file, str(file.relative_to(self._root))

    def _object(self, file: Path, key: str) -> Iterator[Object]:
        with self._explained(f"{key} could not be looked at"), suppress(FileNotFoundError):
            state = file.stat()
            yield Object(key, state.st_size, datetime.fromtimestamp(state.st_mtime, UTC))

    def _unreadable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise StoreAway(f"The store {self.where} cannot be listed: {error.strerror}.") from error

    @staticmethod
    def _write(place: Path, chunks: Iterable[bytes]) -> None:
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb", buffering=0) as file:
            for chunk in chunks:
                view = memoryview(chunk)
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except BackupFailed:
            raise
        except OSError as error:
            why = FULL.get(error.errno or 0, error.strerror or str(error))
            advice = ADVICE.get(error.errno or 0, "Look at what it lies on")
            kind = BackupFailed if error.errno in DAMAGED else StoreAway
            raise kind(f"In the store {self.where}, {what}: {why}. {advice}, then run it again.") from error


def _way(root: Path, place: Path) -> list[Path]:
    """The folders from the root to the one that a file lies in."""
    inside = place.parent.relative_to(root)
    return [root / folder for folder in reversed((inside, *inside.parents))]


def _absent(where: str, key: str) -> str:
    return f"In the store {where} there is no {key}."


def _settle(folder: Path) -> None:
    """A rename is not safe from a power cut before its folder is."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ---------------------------------------------------------------- an object store


class Bucket:
    """An object store. An upload that did not end is none: nobody can list it; its parts are the store's to drop."""

    def __init__(self, url: str, patience: Patience) -> None:
        self.where = _shown(url)
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=patience.connect),
            "timeout": timedelta(seconds=patience.request),
            "allow_http": any(os.environ.get(name, "").lower() in ("1", "true") for name in ALLOW_HTTP),
        }
        retry: RetryConfig = {
            "max_retries": patience.retries,
            "retry_timeout": timedelta(seconds=patience.retrying),
        }
        with self._explained("it cannot be opened"):
            self._store: Any = from_url(url, client_options=client, retry_config=retry)

    def put(self, key: str, chunks: Iterable[bytes]) -> None:
        with self._explained(f"{key} could not be written"):
            obstore.put(self._store, check_key(key), iter(chunks), chunk_size=PART, max_concurrency=PARTS_AT_A_TIME)

    def get(self, key: str) -> Iterator[bytes]:
        with self._explained(f"{key} could not be read"):
            if (size := self.size(key)) is None:
                raise NotThere(_absent(self.where, key))
            for start in range(0, size, PART):  # one request for all of it would have to end in the time of one part
                yield bytes(obstore.get_range(self._store, key, start=start, end=min(start + PART, size)))

    def size(self, key: str) -> int | None:
        with self._explained(f"{key} could not be looked at"), suppress(FileNotFoundError):
            return int(obstore.head(self._store, check_key(key))["size"])
        return None

    def list(self, prefix: str = "") -> Iterator[Object]:
        with self._explained("its objects could not be listed"):
            for some in obstore.list(self._store, prefix or None):
                for each in some:
                    yield Object(each["path"], each["size"], each["last_modified"])

    def unfinished(self) -> Iterator[Object]:
        yield from ()

    def delete(self, key: str) -> None:
        with self._explained(f"{key} could not be removed"), suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def free_space(self) -> int | None:
        return None

    def without_traces(self, _key: str) -> AbstractContextManager[None]:
        return nullcontext()

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except (BackupFailed, GeneratorExit, FileNotFoundError) as error:
            if isinstance(error, FileNotFoundError) and "looked at" not in what and "removed" not in what:
                raise BackupFailed(
                    f"In the store {self.where}, {what}: it is not there ({_first_line(error)})."
                ) from error
            raise
        except (BaseError, OSError, ValueError) as error:
            raise StoreAway(
                f"In the store {self.where}, {what}: {_first_line(error)}. Check its address, the credentials in"
                " opsbot's environment and what they may do, then run it again."
            ) from error


def _first_line(error: Exception) -> str:
    """What the store said, without the "Debug source" below it, which may hold a whole request."""
    line = " ".join(str(error).partition("\n\nDebug source")[0].split())
    said = re.search(r"<Code>(\w+)</Code>\s*<Message>(.*?)</Message>", line)
    line = f"{said[1]}: {said[2]}" if said else line
    return "".join(sign for sign in line if sign.isprintable())[:300].rstrip(".") or type(error).__name__
