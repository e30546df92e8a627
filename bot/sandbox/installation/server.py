"""Real SSH servers in front of simulated machines: keys, sessions, streams and statuses are real, programs are not."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace

import paramiko
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_FAILED_CONNECT_FAILED, OPEN_SUCCEEDED

from bot.core.wire import ASK_SHELL, SHELL, read_change, read_round, read_stream, stream_end
from bot.sandbox.installation.execution import execute, execute_stream
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.programs import Context, Reply, Sent
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.timeline import Ended

MAX_SESSIONS = 10  # OpenSSH's own default
LONGEST_SCRIPT = 1 << 20
PIECE = 1 << 15  # bytes of a stream that are read and sent at a time
CUT_SHORT = 143  # how a script ends whose standard input has ended
USER = "ops"
_LOGGER = logging.getLogger("opsbot.installation.ssh")
_LOGGER.addHandler(logging.NullHandler())
_LOGGER.propagate = False  # clients that hang up are the normal case here


@dataclass(frozen=True)
class Pair:
    """The host key of a machine, and the one key that may log in."""

    host: paramiko.PKey
    client: paramiko.PKey


class Transport(paramiko.Transport):
    """A connection that begins to run a command only after it has said that it will.

    Otherwise a quick command could be over, and its channel closed, before the client hears that it was accepted.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.waiting: list[threading.Thread] = []
        # A renewal of keys while channels close can stop both sides; OpenSSH's own limits are as far away.
        self.packetizer.REKEY_BYTES = 1 << 36
        self.packetizer.REKEY_PACKETS = 1 << 31

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]
        while self.waiting and threading.current_thread() is self:
            self.waiting.pop().start()


@dataclass(eq=False)
class Door(paramiko.ServerInterface):
    """What one connection may do: one user, one key, programs, nothing else."""

    server: "MachineServer"
    transport: Transport
    channels: list[paramiko.Channel] = field(default_factory=list)

    def get_allowed_auths(self, _username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        good = username == USER and key.asbytes() == self.server.keys.client.asbytes()
        return AUTH_SUCCESSFUL if good else AUTH_FAILED

    def check_channel_request(self, kind: str, _chanid: int) -> int:
        self.channels = [channel for channel in self.channels if not channel.closed]
        if kind != "session" or len(self.channels) >= MAX_SESSIONS:
            return OPEN_FAILED_CONNECT_FAILED
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self.channels.append(channel)
        text = command.decode(errors="surrogateescape")
        session = Session(self.server, self.transport, channel, text)
        self.transport.waiting.append(threading.Thread(target=session.run, daemon=True))
        return True

    def check_channel_env_request(self, _channel: paramiko.Channel, _name: bytes, _value: bytes) -> bool:
        return False


@dataclass(eq=False)
class Session:
    """One command on one channel."""

    server: "MachineServer"
    transport: Transport
    channel: paramiko.Channel
    text: str
    script: str = ""
    watched: bool = False

    def run(self) -> None:
        with suppress(OSError, EOFError):
            try:
                status = self._status()
            except Ended:
                status = CUT_SHORT
            if status is not None and self.server.machine.up:
                self.channel.send_exit_status(status)
            self.channel.close()

    def _status(self) -> int | None:
        if self.text == ASK_SHELL:
            self.watched = True
            return self._rounds()
        if self.text == SHELL:
            line = self._change()
            self.watched = True
            if stream := read_stream(self.script):
                return self._stream(*stream)
            return None if line is None else self._execute(line, secret="\ns0=" in self.script)
        return self._execute(self.text)

    def _rounds(self) -> int:
        """Rounds of questions, one after the other, until nothing more can come."""
        read = b""
        while True:
            while (found := read_round(read.decode(errors="surrogateescape"))) is None:
                more = self.channel.recv(65536)
                if not more or len(read) > LONGEST_SCRIPT:
                    return CUT_SHORT
                read += more
            script, rest = found
            read = rest.encode(errors="surrogateescape")
            self._execute(script)

    def _change(self) -> str | None:
        """The change that arrives on standard input; None when it ends before it is whole, and then nothing is done."""
        read = b""
        while (line := read_change(self.script)) is None:
            more = self.channel.recv(65536)
            if not more or len(read) > LONGEST_SCRIPT:
                return None
            read += more
            self.script = read.decode(errors="surrogateescape")
        return line

    def _stream(self, line: str, nonce: str) -> int:
        """What the line writes, and behind it how each of its programs ended."""
        context = Context(self.server.installation, self.server.machine, _NOTHING, USER, ended=self._ended)
        with self._process(line):
            statuses = execute_stream(context, line, self._say_in_time, self.server.write)
            self.channel.sendall(stream_end(statuses, nonce))
        return 0

    @contextmanager
    def _process(self, line: str) -> Iterator[None]:
        """The machine has it among its processes while it writes."""
        machine = self.server.machine
        with machine.timeline.held():
            process = machine.spawn("bash", line, USER)
        try:
            yield
        finally:
            with machine.timeline.held():
                machine.end(process)

    def _say_in_time(self, reply: Reply) -> None:
        """As fast as the machine's disk can be read; raises Ended when nobody listens any more."""
        machine, out = self.server.machine, reply.out.encode(errors="surrogateescape")
        for at in range(0, len(out), PIECE):
            piece = out[at : at + PIECE]
            with machine.timeline.held():
                machine.timeline.pause(len(piece) / machine.reads, lambda: self._ended() or not machine.up)
            self.channel.sendall(piece)
        self._say(replace(reply, out=""))

    def _execute(self, script: str, secret: bool = False) -> int:
        context = Context(self.server.installation, self.server.machine, _NOTHING, USER, ended=self._ended)
        return execute(context, script, self._say, self.server.write, secret=secret)

    def _ended(self) -> bool:
        """A watched program ends with its standard input, any other with its connection."""
        gone = self.channel.closed or not self.transport.is_active()
        return gone or (self.watched and bool(self.channel.eof_received))

    def _say(self, reply: Reply) -> None:
        if reply.out:
            self.channel.sendall(reply.out.encode(errors="surrogateescape"))
        if reply.err:
            self.channel.sendall_stderr(reply.err.encode(errors="surrogateescape"))


_NOTHING = Sent("", "", lambda _sent: None, written=True)


class MachineServer:
    """The SSH server of one machine, at the machine's own address where the host has it.

    While the machine is down its port refuses, as that of a booting machine does.
    """

    def __init__(self, installation: Installation, machine: Machine, keys: Pair, write: Callable[[Sent], None]) -> None:
        self.installation, self.machine, self.keys, self.write = installation, machine, keys, write
        # Bound and never listening: it keeps the port ours while the real listener is closed.
        self._place = _anywhere(machine.address)
        self.address, self.port = self._place.getsockname()
        self._listener: socket.socket | None = None
        self._connections: list[tuple[socket.socket, Transport]] = []
        self._lock = threading.Lock()
        machine.on_power.append(self.power)
        self.power()

    def power(self) -> None:
        """The machine went down or came up."""
        if self.machine.up:
            self._open()
        else:
            self._close()

    def stop(self) -> None:
        self.machine.on_power.remove(self.power)
        self._close()
        self._place.close()

    def _open(self) -> None:
        with self._lock:
            if self._listener is None:
                self._listener = _bound(self.address, self.port)
                self._listener.listen(128)
                name = f"sshd {self.machine.name}"
                threading.Thread(target=self._accept, args=(self._listener,), name=name, daemon=True).start()

    def _close(self) -> None:
        with self._lock:
            listener, self._listener = self._listener, None
            connections, self._connections = self._connections, []
        for sock in [listener, *(sock for sock, _ in connections)]:
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)  # the transport closes its socket itself when it hears of it
        if listener is not None:
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._greet(sock, listener)

    def _greet(self, sock: socket.socket, listener: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport = Transport(sock)
        transport.set_log_channel(_LOGGER.name)
        transport.local_version = "SSH-2.0-opsbot_simulated"
        transport.add_server_key(paramiko.ECDSAKey.generate() if self.machine.rekeyed else self.keys.host)
        with self._lock:
            if self._listener is not listener:
                sock.close()
                return
            self._connections = [(s, t) for s, t in self._connections if t.is_alive() or not t.ident]
            self._connections.append((sock, transport))
        with suppress(paramiko.SSHException):
            transport.start_server(threading.Event(), Door(self, transport))


def _anywhere(address: str) -> socket.socket:
    """Linux has all of 127.0.0.0/8; where there is only 127.0.0.1, the ports alone tell the machines apart."""
    try:
        return _bound(address, 0)
    except OSError:
        return _bound("127.0.0.1", 0)


def _bound(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock
