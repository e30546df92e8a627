"""Streams for every origin: each goes to the adapter that knows how to reach it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event as Flag

from bot.core.backup import BackupFailed, Origin, Source, Stream, Streams


class Origins:
    """A `Streams` made of several, by the type of a source's origin."""

    def __init__(self, streams: Mapping[type[Origin], Streams]) -> None:
        self._streams = streams

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator[Stream]:
        if (streams := self._streams.get(type(source.origin))) is None:
            raise BackupFailed(f"{source} cannot be streamed: opsbot is not set up to reach it.")
        with streams.open(source, abort) as stream:
            yield stream
