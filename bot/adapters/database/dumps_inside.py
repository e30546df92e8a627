"""Dumps of databases in the platform's container: a machine's stream, in which the rows and the versions come first,
and how it ended comes last.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from threading import Event as Flag
from typing import Final

from bot.core import dump as counting
from bot.core.backup import BackupFailed, DumpInside, Source, Stream, Streams

CHUNK: Final = 1 << 16
_REMEDY: Final = "Install a newer postgresql-client in the container, or reach the database by `via: tunnel`."


class DumpsInside:
    """The `Streams` of `DumpInside`s, made of what `machines` stream."""

    def __init__(self, machines: Streams) -> None:
        self._machines = machines

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["FramedStream"]:
        dump = source.origin
        assert isinstance(dump, DumpInside)
        with self._machines.open(replace(source, origin=counting.inside(dump)), abort) as stream:
            yield FramedStream(source, stream)

    def check(self, source: Source, abort: Flag) -> None:
        """Raises BackupFailed where no dump would come: the way to it, its pg_dump, and the rights of its user."""
        dump = source.origin
        assert isinstance(dump, DumpInside)
        with self._machines.open(replace(source, origin=counting.check_inside(dump)), abort) as stream:
            came = b"".join(iter(lambda: stream.read(CHUNK), b""))
        counting.refuse_checked(str(source), came, _REMEDY)


class FramedStream:
    """The dump without what stands around it."""

    def __init__(self, source: Source, stream: Stream) -> None:
        self._source, self._stream = source, stream
        self._begun = self._ended = False
        self._held = b""  # the beginning, and later what may be the end
        self.rows: Mapping[str, int] = {}

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._stream.warnings

    def read(self, most: int) -> bytes:
        """Some bytes of the dump; nothing at its end. Raises BackupFailed when that is not a good one."""
        while not self._ended:
            came = self._stream.read(most)
            self._held += came
            if not came:
                return self._end()
            if self._begun or self._begin():
                ready, self._held = self._held[: -counting.LONGEST_END], self._held[-counting.LONGEST_END :]
                if ready:
                    return ready
        return b""

    def _begin(self) -> bool:
        """Whether all that stands before the dump is there; raises when pg_dump is too old for the server."""
        whole = counting.head_of(self._held)
        if whole is None:
            if len(self._held) > counting.LONGEST_HEAD:
                raise self._odd("what stands before it has no end")
            return False
        (server, rows, client), self._held = whole
        try:
            self.rows = counting.rows_of(rows)
            newest = counting.server_version(int(server))
        except ValueError:
            raise self._odd("what stands before it cannot be read") from None
        counting.refuse_older(str(self._source), counting.client_version(client), newest, _REMEDY)
        self._begun = True
        return True

    def _end(self) -> bytes:
        self._ended = True
        whole = counting.end_of(self._held)
        if whole is None or whole[1] or not self._begun:
            raise self._odd("its end is missing, so the program in the container was ended")
        return whole[0]

    def _odd(self, why: str) -> BackupFailed:
        return BackupFailed(f"{self._source} could not be streamed: {why}. Nothing of it was kept; run it again.")
