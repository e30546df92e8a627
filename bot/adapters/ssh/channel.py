"""One exec on a channel: both streams read at once, with caps and a deadline, until the machine says how it ended."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from threading import Event as Flag

import paramiko

from bot.adapters.ssh.login import BROKEN, TICK

CHUNK = 1 << 20
NAP = 1 / 16  # of the time so far: a wakeful thread costs more than the packets that it waits for
LINGER = 0.3  # seconds of silence after the exit status: something in the background may hold the stream open


class End(Enum):
    """How a conversation ended: all was said, the machine told a status, we stopped it, its time was over, or the
    connection died.
    """

    SAID = "said"
    EXITED = "exited"
    STOPPED = "stopped"
    LATE = "late"
    TOO_MUCH = "too much"
    LOST = "lost"


class Capped:
    """The first bytes of a stream; the rest is counted and forgotten."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._kept = bytearray()
        self.read = 0

    def feed(self, data: bytes) -> None:
        self.read += len(data)
        self._kept += data[: max(0, self._keep - len(self._kept))]

    @property
    def truncated(self) -> bool:
        return self.read > len(self._kept)

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")


class Answers:
    """A stream of answers, each ended by its marker and capped for itself: a long one costs no other."""

    def __init__(self, keep: int, nonce: str) -> None:
        self._keep = keep
        self._marker = b"\n%s " % nonce.encode()
        self._longest = len(nonce) + 8
        self._tail = b""
        self._done: list[tuple[Capped, bytes]] = []
        self._now = Capped(keep)
        self.read = 0

    def feed(self, data: bytes) -> None:
        self.read += len(data)
        rest = self._tail + data
        while (at := rest.find(self._marker)) >= 0 and (end := rest.find(b"\n", at + 1)) >= 0:
            self._now.feed(rest[:at])
            self._done.append((self._now, rest[at : end + 1]))
            self._now = Capped(self._keep)
            rest = rest[end + 1 :]
        sure = max(0, len(rest) - self._longest)  # what comes after may be the beginning of a marker
        self._now.feed(rest[:sure])
        self._tail = rest[sure:]

    @property
    def text(self) -> str:
        """The answers that came to their end, with their markers."""
        return "".join(f"{answer.text}{marker.decode()}" for answer, marker in self._done)

    @property
    def count(self) -> int:
        return len(self._done)

    @property
    def rest(self) -> bool:
        """Whether something stands behind the last marker."""
        return bool(self._tail) or self._now.read > 0

    @property
    def truncated(self) -> list[bool]:
        return [answer.truncated for answer, _ in self._done]


class Wake(Flag):
    """Set when either stream has something; paramiko clears it per stream, so only `rearm` does."""

    def set(self) -> None:
        """With each packet, and mostly it is set already."""
        if not self.is_set():
            super().set()

    def clear(self) -> None:
        """Not while the other stream may have data."""

    def rearm(self) -> None:
        super().clear()


Sink = Capped | Answers


@dataclass(frozen=True)
class Ending:
    how: End
    exit: int | None = None


@dataclass
class Conversation:
    """A running exec: `listen` until it ended, or until `complete` finds that all was said. `silent` is called while
    nothing comes, to see whether anybody lives.
    """

    channel: paramiko.Channel
    out: Sink
    err: Sink
    most: int
    silent: Callable[[float], None]
    complete: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._wake = Wake()
        self.channel.in_buffer.set_event(self._wake)
        self.channel.in_stderr_buffer.set_event(self._wake)

    def listen(self, deadline: float, abort: Flag) -> Ending:
        try:
            return self._listen(deadline, abort)
        except BROKEN:
            return Ending(End.LOST)

    def hang_up(self) -> None:
        """Tell the machine that nothing more will come: what it runs for us ends."""
        with contextlib.suppress(*BROKEN):
            self.channel.shutdown_write()

    def _listen(self, deadline: float, abort: Flag) -> Ending:
        began = heard = time.monotonic()
        while True:
            self._wake.rearm()
            if self._drain():
                heard = time.monotonic()
                if self.complete():
                    return Ending(End.SAID)
            elif self._over(time.monotonic() - heard):
                return self._ending()
            else:
                self.silent(time.monotonic() - heard)
                if self._wake.wait(TICK):
                    time.sleep(min(TICK, (time.monotonic() - began) * NAP))
            if stopped := self._stopped(deadline, abort):
                return Ending(stopped)

    def _stopped(self, deadline: float, abort: Flag) -> End | None:
        if abort.is_set():
            return End.STOPPED
        if max(self.out.read, self.err.read) > self.most:
            return End.TOO_MUCH
        return End.LATE if time.monotonic() > deadline else None

    def _drain(self) -> bool:
        some = False
        while self.channel.recv_ready():
            self.out.feed(self.channel.recv(CHUNK))
            some = True
        while self.channel.recv_stderr_ready():
            self.err.feed(self.channel.recv_stderr(CHUNK))
            some = True
        return some

    def _over(self, quiet: float) -> bool:
        if self.channel.closed:
            return not (self.channel.recv_ready() or self.channel.recv_stderr_ready())
        return self.channel.exit_status_ready() and (bool(self.channel.eof_received) or quiet > LINGER)

    def _ending(self) -> Ending:
        status = self.channel.exit_status
        return Ending(End.LOST) if status < 0 else Ending(End.EXITED, status)


def send_all(channel: paramiko.Channel, data: bytes, deadline: float, abort: Flag) -> bool:
    """Everything into the channel, or False: the connection died, or it was stopped half-way."""
    channel.settimeout(TICK)
    while data:
        if abort.is_set() or time.monotonic() > deadline:
            return False
        try:
            data = data[channel.send(data) :]
        except TimeoutError:
            continue
        except BROKEN:
            return False
    return True
