"""An SSH client of the simplest kind, to see the servers without our own adapter in between."""

import re
import secrets
import socket
from collections.abc import Callable
from types import TracebackType

import paramiko

from bot.core.command import Command
from bot.core.question import Output
from bot.core.wire import ASK_SHELL, SHELL, ask_round, change_script, read_answers
from bot.sandbox.installation import Running

WITHIN = 20.0


class Visitor:
    """One connection to one machine; raises when the host key is not the pinned one."""

    def __init__(self, running: Running, name: str, user: str = "ops", key: paramiko.PKey | None = None) -> None:
        server = running.servers[name]
        pinned = paramiko.HostKeys(str(running.known_hosts))
        sock = socket.create_connection((server.address, server.port), WITHIN)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = paramiko.Transport(sock)
        try:
            self.transport.start_client(timeout=WITHIN)
            shown = self.transport.get_remote_server_key()
            assert pinned.check(f"[{server.address}]:{server.port}", shown)
            self.transport.auth_publickey(user, key or paramiko.Ed25519Key.from_private_key_file(str(running.key_file)))
        except BaseException:
            self.transport.close()
            raise

    def __enter__(self) -> "Visitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.transport.close()

    def begin(self, text: str) -> paramiko.Channel:
        channel = self.transport.open_session(timeout=WITHIN)
        channel.settimeout(WITHIN)
        channel.exec_command(text)
        return channel

    def run(self, text: str) -> Output:
        return finish(self.begin(text))

    def ask(self, *commands: Command) -> list[Output | None]:
        nonce = secrets.token_hex(8)
        channel = self.begin(ASK_SHELL)
        channel.sendall(ask_round(commands, nonce, 20).encode())
        out = _until(channel.recv, nonce, len(commands))
        err = _until(channel.recv_stderr, nonce, len(commands))
        channel.close()
        return read_answers(out, err, nonce, len(commands))

    def change(self, command: Command, seconds: int = 60) -> Output:
        return finish(self.order(command, seconds))

    def order(self, command: Command, seconds: int = 60) -> paramiko.Channel:
        """Send a change and do not wait for its end."""
        channel = self.begin(SHELL)
        channel.sendall(change_script(command, seconds).encode())
        return channel


def _until(receive: Callable[[int], bytes], nonce: str, markers: int) -> str:
    said = b""
    while len(re.findall(rb"\n%s \d+\n" % nonce.encode(), said)) < markers and (more := receive(65536)):
        said += more
    return said.decode()


def finish(channel: paramiko.Channel) -> Output:
    """Both streams to their end, and the status; None when there was none."""
    out = b"".join(iter(lambda: channel.recv(65536), b""))
    err = b"".join(iter(lambda: channel.recv_stderr(65536), b""))
    channel.status_event.wait(WITHIN)
    channel.close()
    status = channel.exit_status
    return Output(status if status >= 0 else None, out.decode(), err.decode())
