"""A redis-server that loads a dump for a try. The dump goes through a pipe that has a name, and touches no disk.

The server listens on a socket in a folder that only we can enter, writes nothing, and ends with us, however we end: a
shell beside it waits for the end of a pipe that we hold.
"""

import errno
import os
import re
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from bot.core.backup import BackupFailed, Readable
from bot.core.drill import Loaded
from bot.core.errors import Permanent

PROGRAMS: Final = ("redis-server", "valkey-server")
DUMP, SOCKET, LOG = "dump.rdb", "socket", "log"
CHUNK: Final = 1 << 20
START_WITHIN: Final = 30.0  # seconds
LOAD_WITHIN: Final = 3600.0  # for each piece of the dump, and after the last byte
TICK: Final = 0.05
QUOTED: Final = 300
LAST: Final = 2  # lines that say why
TOO_NEW: Final = "Can't handle RDB format version"
SETTINGS: Final = {
    "--port": "0",
    "--unixsocket": SOCKET,
    "--unixsocketperm": "700",
    "--dbfilename": DUMP,
    "--logfile": LOG,
    "--save": "",
    "--appendonly": "no",
    "--daemonize": "no",
}
ENDS_WITH_US: Final = 'exec 3<&0; { read -r _ <&3; kill -KILL $$; } & exec 3<&-; exec "$@" </dev/null'


class TooNew(Exception):
    """The dump is of a newer redis than the one here: nothing is wrong with it."""


def program() -> str | None:
    """The redis-server of this machine, where one is installed."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


def load(plain: Readable, folder: Path, program: str) -> Loaded:
    """All of the dump into a server in the empty folder; raises BackupFailed when redis refuses it, or TooNew."""
    os.mkfifo(folder / DUMP, 0o600)
    with _started(program, folder) as server:
        server.pour(plain)
        server.wait()
        return Loaded(server.keys(), Path(program).name)


@contextmanager
def _started(program: str, folder: Path) -> Iterator["_Server"]:
    settings = {"--dir": str(folder), **SETTINGS}
    words = ["/bin/sh", "-c", ENDS_WITH_US, "sh", program, *(word for pair in settings.items() for word in pair)]
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
            env={"PATH": os.defpath}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise Permanent(f"{program} cannot be run: {error.strerror}.") from error
    try:
        yield _Server(process, folder)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.communicate()


@dataclass
class _Server:
    process: subprocess.Popen[bytes]
    folder: Path

    def pour(self, plain: Readable) -> None:
        """A server that wants no more has read its end mark, or ended; `wait` tells which."""
        with suppress(BrokenPipeError), self._opened() as pipe:
            while chunk := plain.read(CHUNK):
                self._give(chunk, pipe.fileno())

    def _give(self, chunk: bytes, pipe: int) -> None:
        """The pipe does not block: a server that takes nothing is watched, as one that is loading."""
        ready = select.poll()
        ready.register(pipe, select.POLLOUT)
        rest, deadline = memoryview(chunk), time.monotonic() + LOAD_WITHIN
        while rest:
            if ready.poll(TICK * 1000):
                with suppress(BlockingIOError):
                    rest = rest[os.write(pipe, rest) :]
            else:
                self._check(deadline)

    def _opened(self) -> IO[bytes]:
        deadline = time.monotonic() + START_WITHIN
        while True:
            try:
                handle = os.open(self.folder / DUMP, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                break
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
            self._check(deadline)
        (self.folder / DUMP).unlink()  # one that finds a fault would begin again, and wait for another writer
        return os.fdopen(handle, "wb", buffering=0)

    def wait(self) -> None:
        deadline = time.monotonic() + LOAD_WITHIN
        while not self._ask("PING").startswith(b"+PONG"):
            self._check(deadline)

    def keys(self) -> int:
        found = re.findall(rb"^db\d+:keys=(\d+)", self._ask("INFO keyspace"), re.M)
        return sum(int(each) for each in found)

    def _ask(self, words: str) -> bytes:
        """What it says at once; nothing while nobody answers."""
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with socket.socket(socket.AF_UNIX) as asked:
                asked.settimeout(5)
                asked.connect(f"/proc/self/fd/{folder}/{SOCKET}")  # short: a socket's path is at most 107 characters
                asked.sendall(f"{words}\r\nQUIT\r\n".encode())
                return b"".join(iter(lambda: asked.recv(1 << 16), b""))
        except OSError:
            return b""
        finally:
            os.close(folder)

    def _check(self, deadline: float) -> None:
        if self.process.poll() is not None:
            said = self._warnings()
            if any(TOO_NEW in each for each in said):
                raise TooNew(said[-1])
            raise BackupFailed(f"redis-server did not load it: {_sentence(said)}.")
        if time.monotonic() > deadline:
            raise BackupFailed(f"redis-server did not load it in time: {_sentence(self._warnings())}.")
        time.sleep(TICK)

    def _warnings(self) -> list[str]:
        """The lines that it marks so, without the time before them."""
        with suppress(OSError):
            lines = (self.folder / LOG).read_text(errors="replace").splitlines()[-200:]
            return [line.partition(" # ")[2] for line in lines if " # " in line]
        return []


def _sentence(said: list[str]) -> str:
    return " ".join(" ".join(said[-LAST:]).split())[:QUOTED].rstrip(".") or "it said nothing"
