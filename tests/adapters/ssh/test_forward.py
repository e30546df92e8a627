"""A port on loopback that leads to a service as the machine sees it."""

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Thread

import pytest

from bot.adapters.ssh import Ssh
from bot.adapters.ssh.host import Unreached
from bot.core.ports import NotLed
from tests.adapters.ssh.fleet import MACHINES, Reach, target
from tests.rigs.sshd import HostSpec, Rig, sshd, wait_until

MACHINE = target(MACHINES[0])


@pytest.fixture
def echo() -> Iterator[int]:
    """A service that says in capitals what it was told, until it is told no more."""

    def serve(far: socket.socket) -> None:
        with far:
            while data := far.recv(65536):
                far.sendall(data.upper())
            far.sendall(b" BYE")

    def accept(listener: socket.socket) -> None:
        while True:
            try:
                far, _ = listener.accept()
            except OSError:
                return
            Thread(target=serve, args=(far,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=accept, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


@contextmanager
def opened(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as near:
        yield near


def told(port: int, text: bytes) -> bytes:
    """What the service answers when it is told that, and then no more."""

    def tell(near: socket.socket) -> None:
        near.sendall(text)
        near.shutdown(socket.SHUT_WR)

    with opened(port) as near, ThreadPoolExecutor(1) as thread:
        telling = thread.submit(tell, near)
        said = b"".join(iter(lambda: near.recv(65536), b""))
        telling.result(timeout=10)
        return said


def test_bytes_go_there_and_back_and_so_does_their_end(ssh: Ssh, echo: int) -> None:
    with ssh.forward(MACHINE, "127.0.0.1", echo) as port:
        assert port != echo
        assert told(port, b"hello") == b"HELLO BYE"
        assert told(port, b"x" * 3_000_000) == b"X" * 3_000_000 + b" BYE"


def test_connections_are_carried_side_by_side(ssh: Ssh, echo: int) -> None:
    with ssh.forward(MACHINE, "127.0.0.1", echo) as port, opened(port) as one, opened(port) as two:
        two.sendall(b"two")
        assert two.recv(9) == b"TWO"
        one.sendall(b"one")
        assert one.recv(9) == b"ONE"


def test_afterwards_nothing_listens_and_open_connections_are_closed(ssh: Ssh, echo: int) -> None:
    with ssh.forward(MACHINE, "127.0.0.1", echo) as port:
        near = socket.create_connection(("127.0.0.1", port), timeout=10)
        near.sendall(b"hi")
        assert near.recv(9) == b"HI"
    with near:
        assert near.recv(9) in (b"", b" BYE")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_service_that_does_not_listen_is_said_before_the_port_opens(ssh: Ssh) -> None:
    with pytest.raises(NotLed, match="nothing takes connections there"), ssh.forward(MACHINE, "127.0.0.1", 1):
        raise AssertionError("it opened")


def test_a_service_that_ends_in_between_closes_the_connection(ssh: Ssh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ssh.forward(MACHINE, *listener.getsockname()) as port:
        with opened(port) as near, listener.accept()[0] as far:
            far.sendall(b"first")
            assert near.recv(9) == b"first"
        listener.close()
        with opened(port) as near:
            assert near.recv(9) == b""


def test_the_first_connection_is_not_made_twice(ssh: Ssh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        with ssh.forward(MACHINE, *listener.getsockname()) as port:
            with opened(port) as near, listener.accept()[0] as far:
                near.sendall(b"a")
                assert far.recv(9) == b"a"
            listener.settimeout(0.3)
            with pytest.raises(TimeoutError):
                listener.accept()


def test_a_connection_that_nobody_took_is_closed(ssh: Ssh) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        with ssh.forward(MACHINE, *listener.getsockname()):
            far, _ = listener.accept()
        with far:
            far.settimeout(10)
            assert far.recv(9) == b""


def test_an_sshd_that_forwards_nothing_is_said_with_the_setting(reach: Reach, echo: int) -> None:
    closed = HostSpec("worker-1", config="AllowTcpForwarding no")
    with sshd(closed) as rig, pytest.raises(NotLed, match="AllowTcpForwarding"):
        reach(rig.hosts).forward(target("worker-1"), "127.0.0.1", echo).__enter__()


def test_a_machine_that_cannot_be_reached_is_said_before_the_port_opens(ssh: Ssh) -> None:
    with pytest.raises(Unreached, match="no SSH address"), ssh.forward(target("nowhere"), "127.0.0.1", 5432):
        raise AssertionError("it opened")


def test_a_new_connection_is_made_when_the_old_one_died(reach: Reach, echo: int) -> None:
    with sshd(HostSpec("worker-1")) as rig, reach(rig.hosts).forward(target("worker-1"), "127.0.0.1", echo) as port:
        assert told(port, b"a") == b"A BYE"
        rig.drop_connections("worker-1")
        wait_until(lambda: answers(port))


def answers(port: int) -> bool:
    try:
        return told(port, b"b") == b"B BYE"
    except OSError:
        return False


def test_a_forwarded_port_keeps_its_connection_from_being_idle(reach: Reach, rig: Rig, echo: int) -> None:
    ssh = reach(rig.hosts, idle=0.1, sweep=0.1)
    with ssh.forward(MACHINE, "127.0.0.1", echo) as port, opened(port) as near:
        for _ in range(5):
            near.sendall(b"a")
            assert near.recv(9) == b"A"
            time.sleep(0.15)
