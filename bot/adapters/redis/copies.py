"""A copy of a redis as a replica gets it: asked for over the connection that is used for every other question.

`redis-cli --rdb -` would do the same where it is installed, built with TLS, and knows the way that the tunnel takes;
the handshake is two commands. docs/decisions/backup-streams.md
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from socket import socket
from threading import Event as Flag
from typing import Final, cast

import redis
from redis.connection import Connection

from bot.adapters.redis.connection import reached, trouble
from bot.adapters.redis.server import CONTAINER, Server
from bot.core.backup import BackupFailed, BackupStopped, RedisCopy, Source
from bot.core.ports import Machines, NotLed, Unreached

WITHIN: Final = 10.0  # seconds for the answers before the copy
SILENCE: Final = 60.0  # seconds without one byte; while it makes the copy, redis sends a line end every second
TICK: Final = 0.2  # seconds between looks at the abort flag
CHUNK: Final = 1 << 20
LONGEST_HEAD: Final = 4096  # bytes of an error, or of how long the copy will be
MARK: Final = 40  # bytes, which end a copy whose length is not known before
# What redis 7 needs to write it into the connection, without a file on its disk, and to send nothing behind it.
OFFERS: Final = (("REPLCONF", "rdb-only", "1"), ("REPLCONF", "capa", "eof"))
_UNANSWERED: Final = re.compile(rb"pending (out|in)put")
_HEAD: Final = re.compile(rb"\$(?:(\d+)|EOF:(.{40}))\Z", re.S)


class Copies:
    """The `Streams` of `RedisCopy`; `servers` by installation."""

    def __init__(self, servers: Mapping[str, Server], machines: Machines) -> None:
        self._servers = servers
        self._machines = machines

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["CopyStream"]:
        """Leaving before the end breaks the connection, and redis makes no more of it."""
        server = self._server(source)
        with ExitStack() as held:
            with self._explained(source, server):
                connection = held.enter_context(reached(server, source.target, self._machines, WITHIN))
                _ask(connection)
            yield CopyStream(source, connection, server.shown(source.target), abort)

    def check(self, source: Source, _abort: Flag) -> None:
        """Raises BackupFailed where redis would refuse a copy. None is begun."""
        server = self._server(source)
        with (
            self._explained(source, server),
            reached(server, source.target, self._machines, WITHIN) as connection,
        ):
            refusal = _refusal(connection)
        if refusal:
            needs = "; its user needs `+sync`" if refusal.startswith("NOPERM") else ""
            raise BackupFailed(f"{source} was not taken: redis {server.shown(source.target)} says: {refusal}{needs}.")

    def _server(self, source: Source) -> Server:
        assert isinstance(source.origin, RedisCopy)
        server = self._servers.get(source.target.installation)
        if server is None or server.via == CONTAINER or not server.url:
            raise BackupFailed(f"{source} was not taken: opsbot has no URL of it; `url_env` names its variable.")
        return server

    @contextmanager
    def _explained(self, source: Source, server: Server) -> Iterator[None]:
        try:
            yield
        except Unreached as why:
            raise BackupFailed(f"{source} was not taken: {why}") from why
        except (NotLed, redis.RedisError, OSError, ValueError) as error:
            raise BackupFailed(f"{source} was not taken: {trouble(error, server.shown(source.target)).why}") from None


def _ask(connection: Connection) -> None:
    """From now on a copy comes over the connection."""
    for offer in OFFERS:
        connection.send_command(*offer)  # type: ignore[no-untyped-call]
        with suppress(redis.ResponseError):  # an older one, which knows no such thing and needs none
            connection.read_response()
    connection.send_command("SYNC")  # type: ignore[no-untyped-call]


def _refusal(connection: Connection) -> str:
    """Why it would give no copy; nothing where it would.

    `ACL DRYRUN` is redis 7's, and for administrators alone. A SYNC that comes with a question whose answer is still to
    be written is refused for that, and begins nothing; but first redis looks at the rights.
    """
    connection.send_packed_command(connection.pack_commands([("PING",), ("SYNC",)]))  # type: ignore[no-untyped-call]
    wire, said = cast("socket", connection._sock), b""  # past its parser, which would read a whole copy
    while said.count(b"\n") < 2 and len(said) < LONGEST_HEAD and (came := wire.recv(CHUNK)):
        said += came
    answer = said.partition(b"\n")[2].strip()
    if not answer.startswith(b"-") or _UNANSWERED.search(answer):
        return ""
    return answer[1:200].decode(errors="replace").rstrip(".")


class CopyStream:
    """The copy alone: without what redis says before it, and the mark behind it."""

    warnings: tuple[str, ...] = ()
    rows: Mapping[str, int] = {}

    def __init__(self, source: Source, connection: Connection, where: str, abort: Flag) -> None:
        self._source, self._where, self._abort = source, where, abort
        self._wire = cast("socket", connection._sock)  # past its parser, which would keep all of it in memory
        self._wire.settimeout(TICK)
        self._deadline = time.monotonic() + source.within.total_seconds()
        self._held = b""
        self._left: int | None = None  # bytes that are still to come, where redis said how many
        self._mark = b""
        self._begun = self._ended = False
        self._passed = 0

    def read(self, most: int) -> bytes:
        """Some bytes; nothing at the end. Raises BackupFailed when the connection ends before."""
        if not self._begun:
            self._begin()
        while not self._ended:
            if part := self._next(most):
                self._passed += len(part)
                return part
        return b""

    def _next(self, most: int) -> bytes:
        """What is surely of the copy; perhaps nothing yet."""
        if len(self._held) <= len(self._mark):
            self._held += self._received()
        certain = max(0, len(self._held) - len(self._mark))
        take = min(most, certain) if self._left is None else min(most, certain, self._left)
        part, self._held = self._held[:take], self._held[take:]
        if self._left is not None:
            self._left -= take
        self._ended = self._left == 0 if self._left is not None else self._held == self._mark
        return part

    def _begin(self) -> None:
        """Read how long it will be; raises with what redis says instead."""
        while b"\r\n" not in self._held:
            self._held = (self._held + self._received()).lstrip(b"\n")
            if len(self._held) > LONGEST_HEAD and b"\r\n" not in self._held[:LONGEST_HEAD]:
                raise self._failed("what it says is no copy")
        head, _, self._held = self._held.partition(b"\r\n")
        if (found := _HEAD.match(head)) is None:
            raise self._failed(f"it says: {head[1:200].decode(errors='replace')}")
        self._left = int(found[1]) if found[1] else None
        self._mark = found[2] or b""
        self._begun, self._ended = True, self._left == 0

    def _received(self) -> bytes:
        heard = time.monotonic()
        while True:
            if self._abort.is_set():
                raise BackupStopped(f"{self._source} was stopped after {self._passed} bytes; nothing of it was kept.")
            if time.monotonic() > self._deadline:
                raise self._failed(f"it did not end within {self._source.within}")
            if time.monotonic() - heard > SILENCE:
                raise self._failed(f"nothing came for {SILENCE:g} s")
            with suppress(TimeoutError):
                return self._some()

    def _some(self) -> bytes:
        try:
            came = self._wire.recv(CHUNK)
        except TimeoutError:
            raise
        except OSError as error:
            raise self._failed(f"the connection was lost ({error.strerror or error})") from error
        if not came:
            raise self._failed("the connection ended before the copy did")
        return came

    def _failed(self, why: str) -> BackupFailed:
        return BackupFailed(
            f"{self._source} could not be copied: redis {self._where}: {why}. {self._passed} bytes had come, and"
            " nothing of them was kept. Run the backup again when that is removed."
        )
