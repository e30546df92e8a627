"""A process of ours whose output is read as it comes: bounded in time, ended when nobody wants more of it."""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread
from typing import IO

from bot.core.backup import BackupFailed, BackupStopped, Source

PIPE = 1 << 20  # bytes that wait in the kernel for us
CHUNK = 1 << 20
TICK = 100  # milliseconds between looks at the abort flag
QUOTED = 400  # characters of what it complained of


@dataclass(frozen=True)
class Limits:
    """Seconds; the defaults fit machines far away, tests use shorter ones."""

    connect: float = 10
    alive: tuple[int, int] = (5, 3)  # seconds between probes of the machine, and how many may go unanswered
    late: float = 30  # after the machine should have ended it by itself
    grace: float = 5  # for the machine to end what ran there, when we want no more


def start(words: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own, with a pipe at each end. Raises OSError."""
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=env)


class Child:
    """It gets no more input than `send` gives, and ends when its input does."""

    def __init__(self, source: Source, process: subprocess.Popen[bytes], abort: Flag, limits: Limits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._source, self._process, self._abort, self._limits = source, process, abort, limits
        self._stdin, self._out = process.stdin, process.stdout
        self._complaints = _Complaints(process.stderr)
        self._deadline = time.monotonic() + limits.connect + source.within.total_seconds() + limits.late
        self._ready = select.poll()
        self._ready.register(self._out, select.POLLIN)
        self.passed = 0  # bytes that were handed on
        with contextlib.suppress(OSError):  # more than the system allows, or no such call
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE)

    def send(self, script: str) -> None:
        """Its standard input stays open."""
        with contextlib.suppress(BrokenPipeError):  # it says why on its way out
            self._stdin.write(script.encode())

    def next(self, most: int) -> bytes:
        """What came, or nothing when the pipe has ended."""
        while True:
            if self._abort.is_set():
                raise BackupStopped(f"{self._source} was stopped after {self.passed} bytes; nothing of it was kept.")
            if time.monotonic() > self._deadline:
                raise self.failed(f"it did not end within {self._source.within}")
            if self._ready.poll(TICK):
                return os.read(self._out.fileno(), most)

    def status(self) -> int | None:
        """How it ended; None when it does not, though its output has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._limits.grace)
        return self._process.returncode

    def close(self) -> None:
        """Whoever wants no more waits until it has ended, for a while."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        until = time.monotonic() + self._limits.grace
        while self._process.poll() is None and time.monotonic() < until:
            if self._ready.poll(TICK) and not os.read(self._out.fileno(), CHUNK):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(max(0.0, until - time.monotonic()))
                break
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
        self._process.wait()
        self._out.close()
        self._complaints.close()

    def failed(self, why: str) -> BackupFailed:
        said = self._complaints.text
        complaint = f" It said: {said}." if said else ""
        return BackupFailed(
            f"{self._source} could not be streamed: {why}.{complaint} {self.passed} bytes had come, and nothing of"
            " them was kept. Run the backup again when that is removed."
        )


class _Complaints:
    """What it says beside the stream: read all the time, or it would block; the end of it is kept."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._kept = b""
        self._thread = Thread(target=self._listen, name="stream-complaints", daemon=True)
        self._thread.start()

    @property
    def text(self) -> str:
        """On one line, without what a terminal would obey."""
        self._thread.join(0.5)  # they come by another way than the end of the stream
        text = " / ".join(line.strip() for line in self._kept.decode(errors="replace").splitlines() if line.strip())
        return "".join(sign if sign.isprintable() else "�" for sign in text)[-QUOTED:].rstrip(".")

    def close(self) -> None:
        self._thread.join(1)
        self._stream.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._stream.fileno(), 4096):
                self._kept = (self._kept + data)[-4 * QUOTED :]
