"""A port on loopback whose connections are made by a machine, for services that listen there only."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread

import paramiko

from bot.adapters.ssh.host import Unreached
from bot.adapters.ssh.login import BROKEN
from bot.adapters.ssh.pool import Connection, through
from bot.core.ports import NotLed

CHUNK = 64 * 1024
WITHIN = 10.0
Close = Callable[[], None]


@contextmanager
def listening(reach: Callable[[], Connection], host: str, port: int) -> Iterator[int]:
    """Listen on a free port while the context is open.

    The first connection is made before anybody asks for it: only so it can be said why there is none. Raises Unreached
    when the machine cannot be reached at all, NotLed when it gets no connection to there.
    """
    with (
        (connection := reach()).held(),
        contextlib.closing(through(connection, host, port, WITHIN)) as first,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        door = _Door(listener, reach, host, port, first)
        door.start()
        try:
            yield listener.getsockname()[1]
        finally:
            door.shut()


class _Door(Thread):
    """Accepts, and has two threads carry each connection; `shut` ends them all."""

    def __init__(
        self, listener: socket.socket, reach: Callable[[], Connection], host: str, port: int, first: paramiko.Channel
    ) -> None:
        super().__init__(name="ssh-forward", daemon=True)
        self._listener = listener
        self._reach = reach
        self._to = (host, port)
        self._made = [first]
        self._open: set[Close] = set()
        self._lock = Lock()

    def run(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return  # shut
            Thread(target=self._carry, args=(near,), name="ssh-forward", daemon=True).start()

    def shut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        with self._lock:
            closes = list(self._open)
        for close in closes:
            close()

    def _carry(self, near: socket.socket) -> None:
        try:
            far = self._far()
        except (Unreached, NotLed):
            near.close()  # as a port where nothing listens does
            return
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def close() -> None:
            with contextlib.suppress(*BROKEN):
                near.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(*BROKEN):
                far.close()

        with self._lock:
            self._open.add(close)
        back = Thread(target=_pump, args=(far, near), name="ssh-forward", daemon=True)
        back.start()
        _pump(near, far)
        back.join()
        close()
        near.close()
        with self._lock:
            self._open.discard(close)

    def _far(self) -> paramiko.Channel:
        """The one that was made beforehand, and for each further connection a new one."""
        try:
            return self._made.pop()
        except IndexError:
            return through(self._reach(), *self._to, WITHIN)


def _pump(source: socket.socket | paramiko.Channel, sink: socket.socket | paramiko.Channel) -> None:
    """Until either side ends; then the other is told that no more will come."""
    with contextlib.suppress(*BROKEN):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with contextlib.suppress(*BROKEN):
        sink.shutdown(1)
