"""Reads an archive to its last byte while it passes: what is not whole is noticed before it is stored."""

import gzip
import json
import secrets
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from queue import Empty, Full, Queue
from threading import Event as Flag
from threading import Thread
from typing import IO, Final

import zstandard

from bot.adapters.vault import rdb, tar
from bot.adapters.vault.chunks import Chunks
from bot.core.backup import BackupFailed, Form, Packed, Source

AHEAD: Final = 4
CHUNK: Final = 1 << 20
TICK: Final = 0.2
SMALL: Final = 16 << 20  # bytes of a JSON document that is parsed
PG_MAGIC: Final = b"PGDMP"
PG_RESTORE: Final = "pg_restore"
SQL_HEAD: Final = b"-- PostgreSQL database dump"
SQL_END: Final = b"-- PostgreSQL database dump complete"
LAST: Final = 4096

Listed = tuple[int | None, tuple[str, ...]]  # entries, and what could not be listed


class NotWhole(Exception):
    """The archive is broken, and how."""


BROKEN: Final = (NotWhole, zstandard.ZstdError, EOFError, zlib.error, gzip.BadGzipFile)  # what unpacking raises


class _Abandoned(Exception):
    """Nobody will feed the rest."""


class Listing:
    """Feed it what passes; `end` says what is in it. Raises BackupFailed for an archive that is not whole."""

    def __init__(self, source: Source) -> None:
        self._what = str(source)
        self._needless = source.form == "bytes" and not source.packed  # nothing could be found in them
        self._pipe = _Pipe()
        self._listed: Listed = (None, ())
        self._failure: Exception | None = None
        self._thread = Thread(target=self._list, args=(source.form, source.packed), name="backup-listing", daemon=True)
        self._thread.start()

    def feed(self, data: bytes) -> None:
        self._check()
        if not self._needless:
            self._pipe.feed(data)

    def end(self) -> Listed:
        self._pipe.feed(b"")
        self._thread.join()
        self._check()
        return self._listed

    def close(self) -> None:
        self._pipe.abandon()
        self._thread.join()

    def _check(self) -> None:
        if self._failure is not None:
            raise BackupFailed(
                f"{self._what} came, but it is not whole: {self._failure}. It was not kept. Run the backup again; if it"
                " says the same, look at the program that makes it."
            ) from self._failure

    def _list(self, form: Form, packed: Packed) -> None:
        try:
            plain = UNPACK[packed](self._pipe.chunks())
            self._listed = LIST[form](plain)
            while plain.some():  # to the last byte: packers have a checksum there
                pass
        except _Abandoned:
            return
        except (*BROKEN, OSError) as error:
            self._failure = error
        except Exception as error:  # what is kept unlisted has to say so
            self._listed = None, (f"its contents were not listed: {type(error).__name__}",)
        finally:
            self._pipe.drain()


class _Pipe:
    """Chunks of one thread, read by another."""

    def __init__(self) -> None:
        self._chunks: Queue[bytes] = Queue(AHEAD)
        self._gone = Flag()  # nobody reads any more
        self._left = Flag()  # nobody feeds any more

    def feed(self, data: bytes) -> None:
        taken = False
        while not taken and not self._gone.is_set():
            with suppress(Full):
                self._chunks.put(data, timeout=TICK)
                taken = True

    def abandon(self) -> None:
        self._left.set()

    def drain(self) -> None:
        self._gone.set()
        with suppress(Empty):
            while True:
                self._chunks.get_nowait()

    def chunks(self) -> Iterator[bytes]:
        while chunk := self._next():
            yield chunk

    def _next(self) -> bytes:
        while not self._left.is_set():
            with suppress(Empty):
                return self._chunks.get(timeout=TICK)
        raise _Abandoned


# ---------------------------------------------------------------- packers


# Packed, it is shorter than itself: a frame that was cut in a stored block takes ours in as it is, and shows no token.
END_TOKEN: Final = secrets.token_bytes(16) * 64
END_FRAME: Final = zstandard.ZstdCompressor().compress(END_TOKEN)


class _Ended:
    """Packed bytes with a frame of ours behind them, which comes out whole only when theirs were whole, too."""

    def __init__(self, packed: Chunks) -> None:
        self._packed = packed
        self._end = END_FRAME

    def read(self, _: int = -1) -> bytes:
        data = self._packed.some()
        if not data:
            data, self._end = self._end, b""
        return data


def _unzstd(packed: Chunks) -> Iterator[bytes]:
    """What was packed by zstd, a megabyte at a time however small it was packed. Its library's own reader takes the end
    of the bytes for the end of what was packed.
    """
    reader = zstandard.ZstdDecompressor()
    unpacked = reader.stream_reader(_Ended(packed), read_size=CHUNK, read_across_frames=True)  # type: ignore[arg-type]
    held = b""  # ends with our token, at the end
    while data := unpacked.read(CHUNK):
        if len(data) >= len(END_TOKEN) and held:
            yield held
            held = b""
        held += data
    if not held.endswith(END_TOKEN):
        raise NotWhole("the packed bytes end in the middle")
    yield held[: -len(END_TOKEN)]


def _ungzip(packed: Chunks) -> Iterator[bytes]:
    reader = gzip.GzipFile(fileobj=packed, mode="rb")  # type: ignore[call-overload]  # it does nothing but read
    while data := reader.read(CHUNK):
        yield data


UNPACK: Mapping[Packed, Callable[[Iterator[bytes]], Chunks]] = {
    "": Chunks,
    "zstd": lambda packed: Chunks(_unzstd(Chunks(packed))),
    "gzip": lambda packed: Chunks(_ungzip(Chunks(packed))),
}


# ---------------------------------------------------------------- forms


def _list_tar(plain: Chunks) -> Listed:
    try:
        return tar.count(plain), ()
    except tar.Broken as error:
        raise NotWhole(str(error)) from error


def _list_json(plain: Chunks) -> Listed:
    text = plain.read(SMALL + 1)
    if len(text) > SMALL:
        return None, (f"it was not parsed, being longer than {SMALL >> 20} MiB",)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotWhole(f"it is no JSON ({error})") from error
    return len(document) if isinstance(document, dict | list) else 1, ()


def _list_rdb(plain: Chunks) -> Listed:
    try:
        return None, rdb.check(plain)
    except rdb.Broken as error:
        raise NotWhole(str(error)) from error


def _list_bytes(_: Chunks) -> Listed:
    return None, ("its contents were not listed: opsbot does not know its form",)


def _list_pg_dump(plain: Chunks) -> Listed:
    """pg_restore reads the table of contents of a custom dump; a dump of SQL says itself that it is complete."""
    head = plain.read(CHUNK)
    if head.startswith(PG_MAGIC):
        return _table_of_contents(head, plain)
    if SQL_HEAD not in head[:1000]:
        raise NotWhole("it does not begin as a dump of PostgreSQL does")
    last = head
    while more := plain.read(CHUNK):
        last = (last + more)[-LAST:]
    if SQL_END not in last:
        raise NotWhole("the dump does not say that it is complete")
    return None, ("its tables were not listed, because it is a dump of SQL",)


def _table_of_contents(head: bytes, plain: Chunks) -> Listed:
    program = shutil.which(PG_RESTORE)
    if program is None:
        return None, (f"its tables were not listed: there is no {PG_RESTORE} where opsbot runs",)
    with subprocess.Popen(
        [program, "--list"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        entries = _Entries(process.stdout, process.stderr)
        try:
            _pour(head, plain, process)
        except BaseException:  # of the stream: it waits for the rest, and whoever reads its words waits for it
            process.kill()
            entries.all()
            raise
        found, said = entries.all()
    if process.returncode == 0:
        return found, ()
    if "unsupported version" in said:
        return None, (f"its tables were not listed: {PG_RESTORE} here is older than the dump",)
    raise NotWhole(f"{PG_RESTORE} cannot read its table of contents ({said[:200].strip()})")


def _pour(head: bytes, plain: Chunks, process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it reads no further than it must
        process.stdin.write(head)
        while chunk := plain.read(CHUNK):
            process.stdin.write(chunk)
    with suppress(BrokenPipeError):
        process.stdin.close()


class _Entries:
    """Counts the lines of a table of contents as they come, so that nobody waits for anybody."""

    def __init__(self, out: IO[bytes] | None, err: IO[bytes] | None) -> None:
        assert out is not None
        assert err is not None
        self._out, self._err = out, err
        self._count = 0
        self._said = b""
        self._threads = [Thread(target=work, daemon=True) for work in (self._listen, self._complaints)]
        for thread in self._threads:
            thread.start()

    def all(self) -> tuple[int, str]:
        for thread in self._threads:
            thread.join()
        return self._count, self._said.decode(errors="replace")

    def _listen(self) -> None:
        self._count = sum(1 for line in self._out if line.strip() and not line.startswith(b";"))

    def _complaints(self) -> None:
        while chunk := self._err.read(4096):
            self._said = (self._said + chunk)[:4096]


LIST: Mapping[Form, Callable[[Chunks], Listed]] = {
    "tar": _list_tar,
    "pg_dump": _list_pg_dump,
    "rdb": _list_rdb,
    "json": _list_json,
    "bytes": _list_bytes,
}
