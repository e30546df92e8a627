"""One command on a machine, its output read as it comes; whole only when the machine said so behind the last byte."""

import contextlib
import fcntl
import os
import secrets
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event as Flag
from threading import Thread
from typing import IO

from bot.adapters.stream.command_line import Login, words
from bot.core import wire
from bot.core.backup import PACKERS, BackupFailed, BackupStopped, Source
from bot.core.command import Resolve, refuse_secrets

PIPE = 1 << 20  # bytes that wait in the kernel for us
CHUNK = 1 << 20
TICK = 100  # milliseconds between looks at the abort flag
QUOTED = 400  # characters of what a machine complained of
NOT_THERE = 127
PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Limits:
    """Seconds; the defaults fit machines far away, tests use shorter ones."""

    connect: float = 10
    alive: tuple[int, int] = (5, 3)  # seconds between probes of the machine, and how many may go unanswered
    late: float = 30  # after the machine should have ended it by itself
    grace: float = 5  # for the machine to end what ran there, when we want no more


class OpenSsh:
    """The `Streams` of machines, by their targets' keys; safe to use from many threads."""

    def __init__(
        self,
        machines: Mapping[str, Login],
        resolve: Resolve = refuse_secrets,
        limits: Limits | None = None,
        program: str = "ssh",
    ) -> None:
        self._machines = machines
        self._resolve = resolve
        self._limits = limits or Limits()
        self._program = program

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["SshStream"]:
        """Starts the command; leaving before the end ends it on the machine, too."""
        login = self._machines.get(source.target.key)
        if login is None:
            raise BackupFailed(f"{source} cannot be streamed: opsbot does not know how to reach {source.target}.")
        nonce = secrets.token_hex(16)
        script = wire.stream_script(source.sent, _seconds(source), nonce, self._resolve)
        stream = SshStream(source, self._start(source, login), nonce, abort, self._limits)
        try:
            stream.send(script)
            yield stream
        finally:
            stream.close()

    def _start(self, source: Source, login: Login) -> subprocess.Popen[bytes]:
        line = words(login, wire.SHELL, self._limits.connect, self._limits.alive, self._program)
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(
                line, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0, start_new_session=True, env=_environment()
            )
        except OSError as error:
            raise BackupFailed(
                f"{source} cannot be streamed: OpenSSH's client could not be started ({error.strerror}). Install it"
                " where opsbot runs (Debian, Ubuntu: openssh-client)."
            ) from error


class SshStream:
    """A `Stream` over one ssh process."""

    def __init__(
        self, source: Source, process: subprocess.Popen[bytes], nonce: str, abort: Flag, limits: Limits
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._source, self._process, self._nonce, self._abort, self._limits = source, process, nonce, abort, limits
        self._stdin, self._out = process.stdin, process.stdout
        self._complaints = _Complaints(process.stderr)
        self._deadline = time.monotonic() + limits.connect + source.within.total_seconds() + limits.late
        self._held = b""  # may be the beginning of the end
        self._ready = select.poll()
        self._ready.register(self._out, select.POLLIN)
        self._ended = False
        self.passed = 0
        self.warnings: tuple[str, ...] = ()
        with contextlib.suppress(OSError):  # more than the system allows, or no such call
            fcntl.fcntl(self._out, fcntl.F_SETPIPE_SZ, PIPE)

    def send(self, script: str) -> None:
        """Its standard input stays open: when that ends, so does what runs on the machine."""
        with contextlib.suppress(BrokenPipeError):  # ssh says why on its way out
            self._stdin.write(script.encode())

    def read(self, most: int = CHUNK) -> bytes:
        """Some bytes, at most that many (which are a kilobyte or more); nothing at the end."""
        while not self._ended:
            data = self._next(most - wire.LONGEST_END)
            if not data:
                return self._last(self._end())
            ready, self._held = (self._held, data) if len(data) >= wire.LONGEST_END else _split(self._held + data)
            if ready:
                return self._last(ready)
        return b""

    def close(self) -> None:
        """Whoever wants no more waits until the machine has ended it, for a while."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        until = time.monotonic() + self._limits.grace
        while self._process.poll() is None and time.monotonic() < until:
            if self._ready.poll(TICK) and not os.read(self._out.fileno(), CHUNK):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(max(0.0, until - time.monotonic()))
                break
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._out.close()
        self._complaints.close()

    def _last(self, data: bytes) -> bytes:
        self.passed += len(data)
        return data

    def _next(self, most: int) -> bytes:
        """What came, or nothing when the pipe has ended."""
        while True:
            if self._abort.is_set():
                raise BackupStopped(f"{self._source} was stopped after {self.passed} bytes; nothing of it was kept.")
            if time.monotonic() > self._deadline:
                raise self._failed(f"it did not end within {self._source.within}")
            if self._ready.poll(TICK):
                return os.read(self._out.fileno(), most)

    def _end(self) -> bytes:
        """The bytes before the end; raises when it is none, or not a good one."""
        self._ended = True
        whole = wire.read_end(self._held, self._nonce)
        self._held = b""
        if whole is None:
            raise self._failed(self._why_lost())
        rest, statuses = whole
        self._judge(statuses)
        return rest

    def _judge(self, statuses: tuple[int, ...]) -> None:
        packers = 1 if self._source.packed else 0
        own, packed = statuses[: len(statuses) - packers], statuses[len(statuses) - packers :]
        status = next((each for each in reversed(own) if each), 0)
        said = dict(self._source.warnings)
        if status in wire.ENDED and status not in (*self._source.fine, *said):
            raise self._failed(f"it did not end within {self._source.within}")
        if status not in self._source.fine and status not in said:
            raise self._failed(f"`{self._source.command}` ended with status {status}{_missing(status)}")
        if any(packed):
            raise self._failed(f"`{PACKERS[self._source.packed]}` ended with status {packed[0]}{_missing(packed[0])}")
        self.warnings = (said[status],) if status in said else ()

    def _why_lost(self) -> str:
        """ssh says 255 for its own failures."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(self._limits.grace)
        if self._process.returncode == 255 and not self.passed:
            return "the machine could not be reached, or the connection broke before the first byte"
        return "the connection broke, or the program on the machine was ended, so its end is missing"

    def _failed(self, why: str) -> BackupFailed:
        source, said = self._source, self._complaints.text
        complaint = f" It said: {said}." if said else ""
        return BackupFailed(
            f"{source} could not be streamed: {why}.{complaint} {self.passed} bytes had come, and nothing of them was"
            " kept. Run the backup again when that is removed."
        )


class _Complaints:
    """What the machine says beside the stream: read all the time, or it would block; the end of it is kept."""

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


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What is certain, and what may be the end."""
    return data[: -wire.LONGEST_END], data[-wire.LONGEST_END :]


def _missing(status: int) -> str:
    return ": there is no such program on the machine" if status == NOT_THERE else ""


def _seconds(source: Source) -> int:
    return max(1, round(source.within.total_seconds()))


def _environment() -> dict[str, str]:
    """No agent, no language; its proxy command is run by /bin/sh."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": PATH, **known, "SHELL": "/bin/sh", "LC_ALL": "C"}
