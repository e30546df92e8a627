"""One command on a machine, its output read as it comes; whole only when the machine said so behind the last byte."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event as Flag

from bot.adapters.stream.child import CHUNK, Child, Limits, start
from bot.adapters.stream.command_line import Login, words
from bot.core import wire
from bot.core.backup import BackupFailed, Source, sent
from bot.core.command import Command, Resolve, refuse_secrets

NOT_THERE = 127
PATH = "/usr/local/bin:/usr/bin:/bin"


class OpenSsh:
    """The `Streams` of commands on machines, by their targets' keys; safe to use from many threads."""

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
        assert isinstance(source.origin, Command)
        command = sent(source.origin, source.packed)
        login = self._machines.get(source.target.key)
        if login is None:
            raise BackupFailed(f"{source} cannot be streamed: opsbot does not know how to reach {source.target}.")
        nonce = secrets.token_hex(16)
        script = wire.stream_script(command, _seconds(source), nonce, self._resolve)
        child = self._start(source, login, abort)
        try:
            child.send(script)
            yield SshStream(source, tuple(command.parts()), child, nonce)
        finally:
            child.close()

    def _start(self, source: Source, login: Login, abort: Flag) -> Child:
        line = words(login, wire.SHELL, self._limits.connect, self._limits.alive, self._program)
        try:
            return Child(source, start(line, _environment()), abort, self._limits)
        except OSError as error:
            raise BackupFailed(
                f"{source} cannot be streamed: OpenSSH's client could not be started ({error.strerror}). Install it"
                " where opsbot runs (Debian, Ubuntu: openssh-client)."
            ) from error


class SshStream:
    """A `Stream` over one ssh process; `parts` are the programs that run on the machine, a packer last of all."""

    rows: Mapping[str, int] = {}

    def __init__(self, source: Source, parts: tuple[Command, ...], child: Child, nonce: str) -> None:
        self._source, self._parts, self._child, self._nonce = source, parts, child, nonce
        self._held = b""  # may be the beginning of the end
        self._ended = False
        self.warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> int:
        """Bytes that were handed on so far."""
        return self._child.passed

    def read(self, most: int = CHUNK) -> bytes:
        """Some bytes, at most that many (which are a kilobyte or more); nothing at the end."""
        while not self._ended:
            data = self._child.next(most - wire.LONGEST_END)
            if not data:
                return self._last(self._end())
            ready, self._held = (self._held, data) if len(data) >= wire.LONGEST_END else _split(self._held + data)
            if ready:
                return self._last(ready)
        return b""

    def _last(self, data: bytes) -> bytes:
        self._child.passed += len(data)
        return data

    def _end(self) -> bytes:
        """The bytes before the end; raises when it is none, or not a good one."""
        self._ended = True
        whole = wire.read_end(self._held, self._nonce)
        self._held = b""
        if whole is None:
            raise self._child.failed(self._why_lost())
        rest, statuses = whole
        self._judge(statuses)
        return rest

    def _judge(self, statuses: tuple[int, ...]) -> None:
        """By the last program that did not end well: it is the one that the others' bytes went through."""
        ended = list(zip(self._parts, statuses, strict=True))
        own = ended[:-1] if self._source.packed else ended
        program, status = next((each for each in reversed(own) if each[1]), own[-1])
        said = dict(self._source.warnings)
        if status in wire.ENDED and status not in (*self._source.fine, *said):
            raise self._child.failed(f"it did not end within {self._source.within}")
        if status not in self._source.fine and status not in said:
            raise self._child.failed(_bad_end(program, status))
        for packer, packed in ended[len(own) :]:
            if packed:
                raise self._child.failed(_bad_end(packer, packed))
        self.warnings = (said[status],) if status in said else ()

    def _why_lost(self) -> str:
        """ssh says 255 for its own failures."""
        if self._child.status() == 255 and not self._child.passed:
            return "the machine could not be reached, or the connection broke before the first byte"
        return "the connection broke, or the program on the machine was ended, so its end is missing"


def _split(data: bytes) -> tuple[bytes, bytes]:
    """What is certain, and what may be the end."""
    return data[: -wire.LONGEST_END], data[-wire.LONGEST_END :]


def _bad_end(program: Command, status: int) -> str:
    missing = ": there is no such program on the machine" if status == NOT_THERE else ""
    return f"`{program}` ended with status {status}{missing}"


def _seconds(source: Source) -> int:
    return max(1, round(source.within.total_seconds()))


def _environment() -> dict[str, str]:
    """No agent, no language; its proxy command is run by /bin/sh."""
    known = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return {"PATH": PATH, **known, "SHELL": "/bin/sh", "LC_ALL": "C"}
