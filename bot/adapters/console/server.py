"""The Unix socket itself: who may connect, how much is read, and what becomes of a socket that is there already."""

import errno
import fcntl
import getpass
import json
import logging
import os
import select
import socket
import socketserver
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bot.core.errors import NotUnderstood, OpsbotError, Permanent, Refused

Line = Mapping[str, Any]
log = logging.getLogger("opsbot.console")

LONGEST_LINE: Final = 1024 * 1024  # bytes of one request
PATIENCE: Final = 10.0  # seconds for a peer to send its request, or to take a line of ours
MOST_PEERS: Final = 64
ALIVE: Final[Line] = {"event": "alive"}  # for one who waits while there is nothing to tell
ALIVE_EVERY: Final = 5.0  # seconds
_EXITS: Final = ((NotUnderstood, 2), (Refused, 6))
COULD_NOT: Final = 3  # the exit status of everything else that went wrong


class Gone:
    """Whether the peer has hung up: it sends one line and then only listens, so whatever comes is its end."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def wait(self, seconds: float) -> bool:
        """True as soon as it has hung up, False after that time."""
        ears = select.poll()  # select() cannot count past 1024 files
        ears.register(self._connection, select.POLLIN)
        if not ears.poll(seconds * 1000):
            return False
        try:
            return not self._connection.recv(4096)
        except OSError:
            return True


Answer = Callable[[Line, int, Gone], Iterator[Line]]


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers each peer in a thread of its own; raises Permanent when the socket cannot be had, with what to do."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MOST_PEERS

    def __init__(self, path: Path, answer: Answer) -> None:
        self.path = path
        self.answer = answer
        self.places = threading.BoundedSemaphore(MOST_PEERS)
        self._inode = 0
        _safe_folder(path.parent)
        super().__init__(str(path), _Handler)

    def server_bind(self) -> None:
        """Bind where nobody serves. The folder is locked meanwhile, so that two cannot find the same stale socket."""
        path = self.path
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            _clear(path)
            self.socket.bind(str(path))
            _give_to_group_of(folder, path)
            path.chmod(0o660)
            self._inode = path.stat().st_ino
            self.socket.listen(self.request_queue_size)
        except OSError as error:
            raise Permanent(f"the socket {path} cannot be made: {error.strerror}; set `socket:` to another") from error
        finally:
            os.close(folder)

    def server_activate(self) -> None:
        """It listens already: before the folder's lock is given back, a second opsbot must be able to see that."""

    def take_away(self) -> None:
        self.server_close()
        try:
            if self.path.stat().st_ino == self._inode:
                self.path.unlink()
        except FileNotFoundError:
            pass

    def handle_error(self, *_: object) -> None:
        log.error("a peer on the socket could not be served: %s", sys.exception())


class _Handler(socketserver.BaseRequestHandler):
    """One peer: its line is read, its answer written, both in bounded time."""

    server: Server
    request: socket.socket

    def handle(self) -> None:
        self.request.settimeout(PATIENCE)
        if not self.server.places.acquire(blocking=False):
            self._write(
                {"event": "error", "text": "Too many people ask at once; try again in a moment.", "exit": COULD_NOT}
            )
            return
        try:
            self._answer()
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            log.info("a peer on the socket went away or does not read")
        finally:
            self.server.places.release()

    def _answer(self) -> None:
        """Whatever goes wrong becomes a sentence: nobody at a terminal should read a traceback."""
        try:
            for line in _thinned(self.server.answer(self._read(), _uid_of(self.request), Gone(self.request))):
                self._write(line)
        except OpsbotError as error:
            self._write({"event": "error", "text": str(error), "exit": _exit_status(error)})
        except OSError:
            raise
        except Exception:
            log.exception("a request on the socket failed")
            self._write({"event": "error", "text": "opsbot could not answer; its log says why.", "exit": COULD_NOT})

    def _read(self) -> Line:
        raw = bytearray()
        until = time.monotonic() + PATIENCE
        while b"\n" not in raw:
            if not (more := self.request.recv(65536)):
                raise BrokenPipeError
            raw += more
            if len(raw) > LONGEST_LINE:
                raise NotUnderstood("a request has at most 1 MiB")
            if time.monotonic() > until:
                raise TimeoutError
        try:
            said = json.loads(raw.partition(b"\n")[0])
        except (ValueError, RecursionError):
            raise NotUnderstood("a request is one line of JSON") from None
        if not isinstance(said, dict):
            raise NotUnderstood("a request is a JSON object")
        return said

    def _write(self, line: Line) -> None:
        self.request.sendall(json.dumps(line).encode() + b"\n")


def _thinned(lines: Iterator[Line]) -> Iterator[Line]:
    """The lines, and of signs of life only what a silence needs."""
    last = time.monotonic()
    for line in lines:
        if line is ALIVE and time.monotonic() - last < ALIVE_EVERY:
            continue
        yield line
        last = time.monotonic()


def _exit_status(error: OpsbotError) -> int:
    return next((status for kind, status in _EXITS if isinstance(error, kind)), COULD_NOT)


def _uid_of(peer: socket.socket) -> int:
    """The uid of who connected, from the kernel: the peer can neither choose nor change it."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


def _safe_folder(folder: Path) -> None:
    """The folder of the socket, made when it is missing; whoever can write there could put their own socket there."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o750)
        seen = folder.stat()
    except OSError as error:
        raise Permanent(f"the folder {folder} for the socket cannot be made: {error.strerror}") from error
    if seen.st_mode & stat.S_IWOTH or seen.st_uid not in (0, os.geteuid()):
        raise Permanent(f"others can write in {folder}, so the socket is not put there; set `socket:` to another")


def _give_to_group_of(folder: int, path: Path) -> None:
    """Who may enter the folder by its group may connect; the kernel gives it the group of whoever serves."""
    try:
        os.chown(path, -1, os.fstat(folder).st_gid)
    except PermissionError:  # an ordinary user can give it to groups of their own only
        log.warning("only %s can use %s: the group of its folder is none of theirs", getpass.getuser(), path)


def _clear(path: Path) -> None:
    """Take a dead opsbot's socket away; refuse where one lives, and where something else lies."""
    if not path.exists() and not path.is_symlink():
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise Permanent(f"{path} is there already and is no socket; move it away, or set `socket:` to another")
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PATIENCE)
        state = probe.connect_ex(str(path))
    if state == errno.ECONNREFUSED:
        path.unlink()
    elif state != errno.ENOENT:
        raise Permanent(f"another opsbot serves at {path}; stop that one first, or set `socket:` to another")
