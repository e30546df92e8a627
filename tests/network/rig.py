"""Networks of our own: a namespace with an address, and questions asked in it by the same script as over SSH.

Nothing of the real machine's network is seen there, and nothing of it is changed.
"""

import secrets
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bot.core.command import Command
from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.question import Output
from bot.core.target import Role, Target
from bot.core.wire import questions_script, read_answers
from tests.rigs.sshd import NAMESPACES, ORDINARY, ROOT

WORKER = Target("worker-1", Role.WORKER, "prod", "10.5.0.1")
LIMIT = 60.0  # seconds that a whole script may take
OF_ITS_OWN = ("--net", *(ORDINARY if ROOT else ("--map-root-user", "--keep-caps")))

# Two ends of a cable: whatever is sent to an address with a made-up hardware address is heard by nobody.
CABLE = """\
set -e
ip link set lo up
ip link add cable type veth peer name other
ip address add 10.5.0.1/24 dev cable
ip link set cable up; ip link set other up
ip neighbour add 10.5.0.9 lladdr 02:00:00:00:00:09 dev cable nud permanent
ip route add unreachable 10.6.0.1; ip route add prohibit 10.6.0.2; ip route add blackhole 10.6.0.3
set +e
"""


def ask(fact: Fact[Any], before: str = "", seconds: int = 20) -> Any:
    """What the fact reads from the answer to its question, asked in a network that `before` has prepared."""
    assert isinstance(fact.question, Command)
    nonce = secrets.token_hex(8)
    script = f"export LC_ALL=C\n{before}\n{questions_script([fact.question], nonce, seconds)}\n"
    words = (*NAMESPACES, *OF_ITS_OWN) if before else ()
    done = subprocess.run([*words, "bash", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False)
    (answer,) = read_answers(done.stdout, done.stderr, nonce, 1)
    assert isinstance(answer, Output), done.stderr
    return fact.parse(answer)


def unknown(fact: Fact[Any], said: Output) -> str:
    """The sentence with which the fact refuses to read that answer."""
    try:
        value = fact.parse(said)
    except Unknown as why:
        return str(why)
    raise AssertionError(f"it was read as {value}")


@contextmanager
def listener(greeting: bytes | None, hang_up: bool = False) -> Iterator[int]:
    """A port on loopback where somebody takes every connection and says this; None for silence."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        over = threading.Event()
        thread = threading.Thread(target=_serve, args=(server, greeting, hang_up, over), daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        over.set()
        with socket.create_connection(server.getsockname(), timeout=5):
            thread.join(timeout=5)


def _serve(server: socket.socket, greeting: bytes | None, hang_up: bool, over: threading.Event) -> None:
    kept = []
    while not over.is_set():
        connection, _ = server.accept()
        kept.append(connection)
        if greeting is not None and not over.is_set():
            connection.recv(64)
            connection.sendall(greeting)
        if hang_up:
            connection.close()
    for connection in kept:
        connection.close()
