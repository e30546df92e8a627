"""One program where opsbot itself runs, its output read as it comes; it never outlives opsbot, however that ends."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag

from bot.adapters.stream.child import CHUNK, Child, Limits, start
from bot.core.backup import BackupFailed, Local, Source

# The shell's input is a pipe of which opsbot alone has the other end: it ends with opsbot, of kill -9 too, and what
# waits for that ends the program. The kernel's own way (PR_SET_PDEATHSIG) asks for code between fork and exec, which
# may hang in a process of many threads, and follows the thread that forked rather than the process.
WATCHED = (
    'exec 3<&0 </dev/null; "$@" 3<&- & p=$!; { read -r _ <&3; kill $p; } >/dev/null 2>&1 & w=$!; '
    "exec 3<&-; wait $p; r=$?; { kill $w; wait $w; } 2>/dev/null; exit $r"
)
PATH = "/usr/local/bin:/usr/bin:/bin"


class Programs:
    """The `Streams` of programs on opsbot's own host."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["LocalStream"]:
        """Starts it; leaving before its end ends it."""
        assert isinstance(source.origin, Local)
        words = ("/bin/sh", "-c", WATCHED, "opsbot", *source.origin.words)
        try:
            child = Child(source, start(words, _environment(source.origin.env)), abort, self._limits)
        except OSError as error:
            raise BackupFailed(f"{source} cannot be streamed: no shell could be started ({error.strerror}).") from error
        try:
            yield LocalStream(child, Path(source.origin.words[0]).name)
        finally:
            child.close()


class LocalStream:
    """A `Stream` over one program: its status comes after its last byte, and says whether that was its end."""

    rows: Mapping[str, int] = {}
    warnings: tuple[str, ...] = ()

    def __init__(self, child: Child, program: str) -> None:
        self._child, self._program = child, program
        self._ended = False

    def read(self, most: int = CHUNK) -> bytes:
        data = b"" if self._ended else self._child.next(most)
        self._child.passed += len(data)
        if not data and not self._ended:
            self._ended = True
            self._judge(self._child.status())
        return data

    def _judge(self, status: int | None) -> None:
        if status is None:
            raise self._child.failed(f"{self._program} has closed its output, and does not end")
        if status:
            raise self._child.failed(f"{self._program} ended with status {status}")


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": PATH, **known, "LC_ALL": "C", **more}
