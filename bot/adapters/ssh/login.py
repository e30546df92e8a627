"""One login: TCP, key exchange, the pinned host key, our key. Each step ends in time, or when nobody wants it."""

import errno
import logging
import select
import socket
import time
from dataclasses import dataclass
from threading import Event as Flag

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from bot.adapters.ssh.host import Host, Limits, Unreached
from bot.adapters.ssh.hostkeys import Pins, fingerprint

TICK = 0.1  # seconds between looks at the abort flag
BROKEN = (paramiko.SSHException, EOFError, OSError)  # what paramiko raises when a connection is gone
PACKET = 256 * 1024  # bytes; the window stays 2 MiB: a larger one made paramiko three times slower

logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs a traceback for what we say in a sentence


class Tuned(paramiko.Transport):
    """AES-GCM first (paramiko has it last), fast key exchanges before slow ones, no SHA-1."""

    _preferred_ciphers = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes256-ctr")
    _preferred_macs = (
        "hmac-sha2-256-etm@openssh.com",
        "hmac-sha2-512-etm@openssh.com",
        "hmac-sha2-256",
        "hmac-sha2-512",
    )

    def _log(self, *_: object) -> None:
        """Nobody reads it, and every list of algorithms would be written down for it."""

    def _parse_debug(self, _: paramiko.Message) -> None:
        """OpenSSH says with each login what the line of the key allows."""


@dataclass(frozen=True)
class Login:
    """What a login needs to know; `who` is the machine as people call it."""

    who: str
    host: Host
    pins: Pins
    key: paramiko.PKey
    limits: Limits
    any_key: bool = False  # negotiate any type of host key, to be able to say which one is shown

    @property
    def where(self) -> str:
        return f"{self.who} ({self.host})"


def connect(login: Login, abort: Flag) -> socket.socket:
    """A TCP connection to the machine."""
    deadline = time.monotonic() + login.limits.connect
    try:
        found = socket.getaddrinfo(login.host.host, login.host.port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise Unreached(f"The name of {login.where} cannot be resolved: {error.strerror}.") from error
    failure: Unreached | None = None
    for family, kind, protocol, _, address in found:
        sock = socket.socket(family, kind, protocol)
        try:
            return _opened(sock, address, login, deadline, abort)
        except Unreached as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or Unreached(f"The name of {login.where} has no address.")


def _opened(sock: socket.socket, address: object, login: Login, deadline: float, abort: Flag) -> socket.socket:
    sock.setblocking(False)
    state = sock.connect_ex(address)  # type: ignore[arg-type]  # whatever getaddrinfo gave
    waiting = select.poll()
    waiting.register(sock, select.POLLOUT)
    while state == errno.EINPROGRESS:
        _give_up_when(abort)
        if time.monotonic() > deadline:
            raise Unreached(
                f"{login.where} did not answer within {login.limits.connect:g} s: is it up, and no firewall between?"
            )
        if waiting.poll(TICK * 1000):
            state = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if state:
        raise Unreached(_refusal(login.where, state), passing=True)
    sock.setblocking(True)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # without: 40 ms for each command, Nagle
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return sock


def _refusal(where: str, state: int) -> str:
    if state == errno.ECONNREFUSED:
        return f"{where} refused the connection: no SSH server listens there."
    return f"{where} cannot be reached: {errno.errorcode.get(state, str(state))}."


def log_in(login: Login, sock: socket.socket | paramiko.Channel, abort: Flag) -> paramiko.Transport:
    """An authenticated transport over the socket, or Unreached; the socket is closed then."""
    transport = Tuned(sock, default_max_packet_size=PACKET)
    try:
        _set_up(transport, login)
        _negotiate(transport, login, abort)
        _check_host_key(transport, login)
        _authenticate(transport, login, abort)
    except BaseException:
        transport.close()
        raise
    sock.settimeout(login.limits.probe_every)  # was 0.1: each connection woke ten times a second
    return transport


def _set_up(transport: paramiko.Transport, login: Login) -> None:
    # A rekey that meets the end of a channel blocks paramiko's thread for ever; 2^36 bytes is OpenSSH's own limit.
    transport.packetizer.REKEY_BYTES = 1 << 36
    transport.packetizer.REKEY_PACKETS = 1 << 31
    # It starts a thread for each login, only to bound it; `_wait` does.
    transport.packetizer.start_handshake = _not_bound_here  # type: ignore[method-assign]
    transport.banner_timeout = transport.auth_timeout = login.limits.login + 5  # ours comes first
    if login.pins.keys and not login.any_key:
        transport.get_security_options().key_types = login.pins.algorithms


def _not_bound_here(timeout: float) -> None:
    pass


def _negotiate(transport: paramiko.Transport, login: Login, abort: Flag) -> None:
    done = Flag()
    transport.start_client(event=done)
    _wait(done, transport, login, abort)
    if transport.is_active():
        return
    error = transport.get_exception()
    if isinstance(error, IncompatiblePeer):
        raise Incompatible(f"{login.where} and opsbot have no way of talking in common: {error}.") from error
    raise Unreached(
        f"{login.where} closed the connection before the login ({error or 'without a word'}): too many logins at once,"
        " or something else than an SSH server listens there.",
        passing=True,
    ) from error


class Incompatible(Unreached):
    """No algorithm in common; when host keys are pinned, perhaps only because the server has others now."""


def _check_host_key(transport: paramiko.Transport, login: Login) -> None:
    shown = transport.get_remote_server_key()
    kind, key = shown.get_name(), shown.get_base64()
    if not login.pins.accept(kind, key):
        raise refusal(login, kind, key)


def refusal(login: Login, kind: str, key: str) -> Unreached:
    """Why that key is not the machine's, with both fingerprints, and what to do."""
    shown = f"{login.where} shows the host key {fingerprint(key)} ({kind})"
    file = login.host.known_hosts
    if key in login.pins.revoked:
        return Unreached(f"{shown}, which {file} revokes. opsbot did not log in.", "host-key-changed")
    if login.pins.keys:
        pinned = " or ".join(login.pins.fingerprints)
        return Unreached(
            f"{shown}, but {pinned} is pinned in {file}. Somebody may be in between, so opsbot did not log in. If the"
            " machine was installed anew, compare the key on its console and replace the line.",
            "host-key-changed",
        )
    return Unreached(
        f"{shown}, and none is pinned for it in {file}, so opsbot did not log in. Compare it on the machine's console"
        " (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then add it.",
        "host-key-unknown",
    )


def _authenticate(transport: paramiko.Transport, login: Login, abort: Flag) -> None:
    done = Flag()
    try:
        transport.auth_publickey(login.host.user, login.key, done)
    except paramiko.SSHException as closed:
        raise Unreached(f"{login.where} closed the connection during the login.", passing=True) from closed
    _wait(done, transport, login, abort)
    if transport.is_authenticated():
        return
    error = transport.get_exception()
    if not transport.is_active() and not isinstance(error, paramiko.AuthenticationException):
        raise Unreached(f"{login.where} closed the connection during the login.", passing=True) from error
    raise Unreached(
        f"{login.where} did not accept the key {login.host.key_file} ({fingerprint(login.key.get_base64())}) for"
        f" {login.host.user}: is it in that user's authorized_keys?",
        "auth",
    ) from error


def _wait(done: Flag, transport: paramiko.Transport, login: Login, abort: Flag) -> None:
    deadline = time.monotonic() + login.limits.login
    while not done.wait(TICK):
        _give_up_when(abort)
        if not transport.is_active():
            return
        if time.monotonic() > deadline:
            raise Unreached(
                f"{login.where} accepted the connection, but the login took more than {login.limits.login:g} s."
            )


def _give_up_when(abort: Flag) -> None:
    if abort.is_set():
        raise Unreached("It was stopped before the machine was reached.")
