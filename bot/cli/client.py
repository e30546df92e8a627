"""Speaking to `opsbot serve` over its Unix socket: one JSON line there, JSON lines back."""

import grp
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from bot.core.errors import OpsbotError

Line = dict[str, Any]

ANSWERS_WITHIN: Final = 5.0  # seconds until somebody has to take the connection
SILENT_FOR: Final = 30.0  # seconds, longer than Slack and the database may take: `serve` gives a sign of life each 5 s
COMES_BACK_WITHIN: Final = 60.0  # seconds that a run is waited for when `serve` is started again
ALIVE: Final = {"event": "alive"}  # the sign of life, while a run has nothing to tell


class NotServing(OpsbotError):
    """Nobody answers at the socket."""


class Lost(OpsbotError):
    """`serve` went away in the middle, or fell silent; the run goes on, with whichever process takes it over."""


class Client:
    """Asks `serve`; a run that it follows survives a restart of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def say(self, text: str, played: str | None = None, detach: bool = False) -> Iterator[Line]:
        """The answer to a sentence, line by line; of a run: its story until the outcome."""
        request = {"verb": "say", "text": text, "detach": detach, **({"as": played} if played else {})}
        run, after, last = 0, 0, ""
        for line in self._ask(request):
            yield line
            last, after = line["event"], line.get("seq", after)
            run = line["run"] if last == "run" else run
        if not last:
            raise Lost(f"`opsbot serve` stopped at {self.path} before it answered; `opsbot runs` says what it took")
        if run and not detach and last in ("run", *_STORY):
            yield from self._again(run, after)

    def watch(self, run: int) -> Iterator[Line]:
        """A run's story from its beginning, until its outcome."""
        after = 0
        for line in self._ask({"verb": "watch", "run": run, "after": 0}):
            yield line
            if line["event"] not in _STORY:
                return
            after = line["seq"]
        yield from self._again(run, after)

    def _again(self, run: int, after: int) -> Iterator[Line]:
        """The rest of a story that was cut off, from whoever serves next."""
        until = time.monotonic() + COMES_BACK_WITHIN
        while time.monotonic() < until:
            time.sleep(0.5)
            try:
                for line in self._ask({"verb": "watch", "run": run, "after": after}):
                    yield line
                    if line["event"] not in _STORY:
                        return
                    after, until = line["seq"], time.monotonic() + COMES_BACK_WITHIN
            except NotServing:
                continue
        raise Lost(
            f"`opsbot serve` stopped answering at {self.path}; run {run} goes on as soon as one serves again: "
            f"`opsbot watch {run}`"
        )

    def _ask(self, request: Line) -> Iterator[Line]:
        """Every line of one answer; it ends early, without a word, when `serve` goes away."""
        with self._connected() as connection, connection.makefile("rb") as lines:
            with suppress(ConnectionError):  # one who is turned away at the door finds the reason in what comes back
                connection.sendall(json.dumps(request).encode() + b"\n")
            with suppress(ConnectionError):
                yield from self._heard(connection, lines)

    def _heard(self, connection: socket.socket, lines: IO[bytes]) -> Iterator[Line]:
        """Every whole line that tells something; raises Lost when no sign of life comes either."""
        try:
            said = (json.loads(line) for line in lines if line.endswith(b"\n"))
            yield from (line for line in said if line != ALIVE)
        except TimeoutError:
            raise Lost(self._silent(_pid_of(connection))) from None

    def _silent(self, pid: int) -> str:
        who = f"`opsbot serve` (process {pid})" if pid else "`opsbot serve`"
        cure = (
            f"it is stopped, and `kill -CONT {pid}` lets it go on" if _is_stopped(pid) else "it hangs; start it again"
        )
        return (
            f"{who} took the connection at {self.path}, and has said nothing for {SILENT_FOR:.0f} s: {cure}. "
            "What it took goes on after that; `opsbot runs` says what it was"
        )

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(ANSWERS_WITHIN)
            connection.connect(str(self.path))
            connection.settimeout(SILENT_FOR)  # between two lines; a plan waits for people as long as it takes
        except OSError as error:
            connection.close()
            raise NotServing(self._why_not(error)) from None
        return connection

    def _why_not(self, error: OSError) -> str:
        if isinstance(error, PermissionError):
            return f"you may not use the socket {self.path}: it is for {self._members()}"
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            return f"no opsbot serves at {self.path}; start one with `opsbot serve --config FILE`"
        if isinstance(error, BlockingIOError):
            return f"too many wait already for the opsbot at {self.path}, which takes nobody: start it again"
        return f"the socket {self.path} cannot be used: {error.strerror or error}"

    def _members(self) -> str:
        try:
            seen = self.path.stat()
            return f"members of the group {grp.getgrgid(seen.st_gid).gr_name}"
        except (OSError, KeyError):
            return "members of its group"


def _pid_of(connection: socket.socket) -> int:
    """The process that serves, from the kernel; 0 where it cannot be seen from here, as from another container."""
    size = struct.calcsize("3i")
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(pid)


def _is_stopped(pid: int) -> bool:
    """Whether a signal has stopped it: the state stands behind the name, which may have any character."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "Tt"
    except OSError:
        return False


_STORY: Final = (
    "look",
    "finding",
    "plan",
    "decision",
    "waiting",
    "change",
    "step",
    "verified",
    "note",
)  # no outcome yet
