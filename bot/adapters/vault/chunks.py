"""Bytes that come in chunks, read like a file."""

from collections.abc import Iterator


class Chunks:
    """A `Readable` over chunks. An empty one is the end of them."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._chunk = b""
        self._at = 0

    def read(self, most: int, /) -> bytes:
        """As many bytes as that, fewer at the end alone."""
        part = self._chunk[self._at : self._at + most]
        self._at += len(part)
        return part if len(part) == most else self._across(part, most)

    def some(self) -> bytes:
        """What came together, without a copy where nothing of it was read; nothing at the end."""
        part = self._chunk[self._at :] or self._next()
        self._at = len(self._chunk)
        return part

    def skip(self, size: int) -> bool:
        """Whether there were that many; nothing of them is copied."""
        self._at += size
        while self._at > (length := len(self._chunk)):
            behind = self._at - length
            if not self._next():
                return False
            self._at = behind
        return True

    def _across(self, part: bytes, most: int) -> bytes:
        parts, missing = [part], most - len(part)
        while missing and self._next():
            parts.append(self._chunk[:missing])
            self._at = len(parts[-1])
            missing -= self._at
        return b"".join(parts)

    def _next(self) -> bytes:
        self._chunk, self._at = next(self._chunks, b""), 0
        return self._chunk
