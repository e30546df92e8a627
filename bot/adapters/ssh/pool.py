"""One connection per machine, kept warm and shared: many channels at a time, replaced when it died.

One login at a time to each server, so sshd's MaxStartups (10) is never in the way; machines log in side by side.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import BoundedSemaphore, Condition, Lock, Thread
from threading import Event as Flag

import paramiko
from tenacity import Retrying, retry_if_exception, sleep_using_event, stop_after_attempt, wait_random

from bot.adapters.ssh import files, login
from bot.adapters.ssh.host import Host, Limits, Unreached
from bot.adapters.ssh.login import BROKEN, TICK, Login
from bot.core.ports import NotLed
from bot.core.wire import ASK_SHELL

TRIES = 2
RESTING = 2  # shells that are kept on one connection; with the channels at work they stay within sshd's MaxSessions
BUSY = 2  # the channel open failure of a server whose MaxSessions is reached
NO_WAY = {  # why sshd opens no connection, by RFC 4254's numbers; its own words do not come through paramiko
    1: "sshd forwards nothing to there (AllowTcpForwarding, PermitOpen and the options of opsbot's key decide that)",
    2: "nothing takes connections there, or that machine knows no way to there",
}


class Connection:
    """A transport with what is known of its use; `lost` when it proved to be dead."""

    def __init__(self, transport: paramiko.Transport, where: str, limits: Limits, over: "Connection | None") -> None:
        self.transport = transport
        self.where = where
        self._used = time.monotonic()
        self._over = over  # the bastion's connection, which must not be called idle before this one
        self._limits = limits
        self._room = BoundedSemaphore(limits.channels)
        self._held = 0
        self._shells: list[Shell] = []
        self._expected = 0  # how many wait for a shell, and take one that is left rather than open another
        self._probe: _Probe | None = None
        self._lock = Lock()

    @property
    def alive(self) -> bool:
        return self.transport.is_active()

    def close(self) -> None:
        """End it now: without the shutdown, the machine would hear of it when paramiko's thread next looks up."""
        with contextlib.suppress(OSError, EOFError):
            self.transport.sock.shutdown(socket.SHUT_RDWR)
        self.transport.close()

    @contextmanager
    def channel(self, closer: "Closer", abort: Flag, command: str) -> Iterator[paramiko.Channel]:
        """A channel on which the command was asked for; nothing more was sent when this raises Unreached."""
        deadline = time.monotonic() + self._limits.open
        self._wait_for_room(deadline, abort)
        try:
            with self.held():
                channel = self._begun(closer, deadline, abort, command)
                try:
                    yield channel
                finally:
                    _close(channel)
        finally:
            self._room.release()

    @contextmanager
    def shell(self, closer: "Closer", abort: Flag, command: str) -> Iterator["Shell"]:
        """A shell that waits for a round of questions: one that is left from the last, or a new one."""
        deadline = time.monotonic() + self._limits.open
        with self._expecting():
            self._wait_for_room(deadline, abort)
            left = self._resting()
        try:
            with self.held():
                shell = left or Shell(self._begun(closer, deadline, abort, command))
                try:
                    yield shell
                finally:
                    self._put_back(shell)
        finally:
            self._room.release()

    def _begun(self, closer: "Closer", deadline: float, abort: Flag, command: str) -> paramiko.Channel:
        channel = self._open(deadline, abort)
        try:
            self._request(channel, closer, deadline, abort, command)
        except BaseException:
            _close(channel)
            raise
        return channel

    def _resting(self) -> "Shell | None":
        with self._lock:
            while self._shells:
                shell = self._shells.pop()
                if not (shell.channel.closed or shell.channel.recv_ready() or shell.channel.recv_stderr_ready()):
                    shell.reusable = False
                    return shell
                _close(shell.channel)
        return None

    def _put_back(self, shell: "Shell") -> None:
        with self._lock:
            if shell.reusable and len(self._shells) < RESTING + self._expected:
                self._shells.append(shell)
                return
        _close(shell.channel)

    @contextmanager
    def _expecting(self) -> Iterator[None]:
        """A shell that is closed counts for sshd until all of it has ended, so none is while somebody waits for one."""
        with self._lock:
            self._expected += 1
        try:
            yield
        finally:
            with self._lock:
                self._expected -= 1

    @contextmanager
    def held(self) -> Iterator[None]:
        """In use, and so is the bastion's connection below it: neither is idle meanwhile."""
        with self._over.held() if self._over is not None else contextlib.nullcontext():
            self._hold(1)
            try:
                yield
            finally:
                self._hold(-1)

    def idle_since(self, moment: float) -> bool:
        return not self._held and self._used < moment

    def _hold(self, more: int) -> None:
        with self._lock:
            self._held += more
            self._used = time.monotonic()

    def _wait_for_room(self, deadline: float, abort: Flag) -> None:
        while not self._room.acquire(timeout=TICK):
            self._give_up_when(abort, deadline)

    def _open(self, deadline: float, abort: Flag) -> paramiko.Channel:
        while True:
            self._give_up_when(abort, deadline)
            try:
                return self.transport.open_session(timeout=max(TICK, deadline - time.monotonic()))
            except paramiko.ChannelException as error:
                if error.code != BUSY:
                    raise Unreached(f"{self.where} allows no commands over SSH: {error.text}.") from error
            except BROKEN as error:
                if not self.alive or time.monotonic() > deadline:
                    self.close()
                    raise Lost(f"{self.where} lost the connection.") from error
                # Of two refusals at the same time paramiko gives the reason to one, and nothing to the other.
            if (resting := self._resting()) is not None:
                _close(resting.channel)  # it holds one of the few sessions that the server allows
            abort.wait(TICK)

    def _request(self, channel: paramiko.Channel, closer: "Closer", deadline: float, abort: Flag, command: str) -> None:
        try:
            with closer.closing(channel.close, deadline, abort):
                channel.exec_command(command)
        except BROKEN as error:
            if not self.alive:
                raise Lost(f"{self.where} lost the connection.") from error
            self._give_up_when(abort, deadline)
            raise Unreached(f"{self.where} allows no commands over SSH: it refused to run one.") from error

    def _give_up_when(self, abort: Flag, deadline: float) -> None:
        if abort.is_set():
            raise Unreached("It was stopped before anything was sent.")
        if time.monotonic() > deadline:
            raise Unreached(f"{self.where} did not start the command within {self._limits.open:g} s.")

    def check(self, silent: float) -> None:
        """Called while a program is silent: ask for a sign of life, and close the connection when none came in time."""
        if silent < self._limits.probe_every:
            return
        with self._lock:
            now = time.monotonic()
            if self._probe is None or (self._probe.answered and now > self._probe.started + self._limits.probe_every):
                self._probe = _Probe(self.transport, now)
            elif not self._probe.answered and now > self._probe.started + self._limits.probe_within:
                self.close()


class _Probe(Thread):
    """`keepalive@openssh.com`: any reply will do. The call has no timeout of its own, so it waits in a thread."""

    def __init__(self, transport: paramiko.Transport, started: float) -> None:
        super().__init__(name="ssh-probe", daemon=True)
        self.started = started
        self.answered = False
        self._transport = transport
        self.start()

    def run(self) -> None:
        with contextlib.suppress(*BROKEN):
            self._transport.global_request("keepalive@openssh.com", wait=True)
            self.answered = self._transport.is_active()


def _close(channel: paramiko.Channel) -> None:
    with contextlib.suppress(*BROKEN):
        channel.close()


@dataclass
class Shell:
    """A channel on which a shell waits for questions; `reusable` once it has answered all and said nothing more."""

    channel: paramiko.Channel
    reusable: bool = False


class Lost(Unreached):
    """A connection that was open is dead, and nothing was sent over it."""

    def __init__(self, why: str) -> None:
        super().__init__(why, passing=True)


@dataclass
class _Slot:
    lock: Lock = field(default_factory=Lock)
    connection: Connection | None = None
    failed: float = 0.0
    failure: Unreached | None = None


class Pool:
    """The connections to all machines, by how they are reached."""

    def __init__(self, limits: Limits) -> None:
        self.closer = Closer(self._sweep, limits.sweep)
        self._limits = limits
        self._keys = files.private_keys()
        self._known = files.known_hosts()
        self._slots: dict[Host, _Slot] = {}
        self._lock = Lock()
        self._closed = False

    @contextmanager
    def channel(self, who: str, host: Host, abort: Flag, command: str) -> Iterator[tuple[Connection, paramiko.Channel]]:
        """A channel that runs the command; a dead connection is replaced once. Raises Unreached: nothing was sent."""
        with contextlib.ExitStack() as stack:
            for attempt in self._tries(abort):
                with attempt:
                    connection = self.connection(who, host, abort)
                    channel = stack.enter_context(connection.channel(self.closer, abort, command))
            yield connection, channel

    @contextmanager
    def shell(self, who: str, host: Host, abort: Flag) -> Iterator[tuple[Connection, Shell]]:
        """A shell for questions; a dead connection is replaced once. Raises Unreached: nothing was asked."""
        with contextlib.ExitStack() as stack:
            for attempt in self._tries(abort):
                with attempt:
                    connection = self.connection(who, host, abort)
                    shell = stack.enter_context(connection.shell(self.closer, abort, ASK_SHELL))
            yield connection, shell

    def connection(self, who: str, host: Host, abort: Flag) -> Connection:
        """The machine's connection, logged in anew when it is dead."""
        slot, asked = self._slot(host), time.monotonic()
        while not slot.lock.acquire(timeout=TICK):
            if abort.is_set():
                raise Unreached("It was stopped before the machine was reached.")
        try:
            if slot.connection is not None and slot.connection.alive:
                return slot.connection
            if slot.failure is not None and slot.failed > asked:
                raise Unreached(str(slot.failure), slot.failure.cause)  # of the login that this call was waiting for
            slot.connection = self._log_in(who, host, abort)
            return slot.connection
        except Unreached as error:
            slot.failed, slot.failure = time.monotonic(), None if abort.is_set() else error
            raise
        finally:
            slot.lock.release()

    def pins(self, host: Host) -> list[str]:
        return self._known(host.known_hosts).of(host.host, host.port).fingerprints

    def close(self) -> None:
        """Close every connection; what is asked afterwards is not sent."""
        with self._lock:
            self._closed = True
            slots = list(self._slots.values())
        self.closer.stop()
        for slot in slots:
            if slot.connection is not None:
                slot.connection.close()

    def _tries(self, abort: Flag) -> Retrying:
        return Retrying(
            stop=stop_after_attempt(TRIES),
            wait=wait_random(0.1, 0.4),
            retry=retry_if_exception(lambda error: isinstance(error, Unreached) and error.passing),
            sleep=sleep_using_event(abort),
            reraise=True,
        )

    def _slot(self, host: Host) -> _Slot:
        with self._lock:
            if self._closed:
                raise Unreached("opsbot is shutting down.")
            return self._slots.setdefault(host, _Slot())

    def _log_in(self, who: str, host: Host, abort: Flag) -> Connection:
        pins = self._known(host.known_hosts).of(host.host, host.port)
        wanted = Login(who, host, pins, self._keys(host.key_file), self._limits)
        below = self.connection(f"the jump host of {who}", host.jump, abort) if host.jump else None
        try:
            transport = login.log_in(wanted, self._socket(wanted, below, abort), abort)
        except login.Incompatible:
            if not pins.keys:
                raise
            # It has no key of the pinned types any more: look at the one it has, to be able to say which.
            transport = login.log_in(replace(wanted, any_key=True), self._socket(wanted, below, abort), abort)
        return Connection(transport, wanted.where, self._limits, below)

    def _socket(self, wanted: Login, below: Connection | None, abort: Flag) -> socket.socket | paramiko.Channel:
        if below is None:
            return login.connect(wanted, abort)
        host, port = wanted.host.host, wanted.host.port
        try:
            return through(below, host, port, self._limits.connect)
        except NotLed as why:
            raise Unreached(f"{below.where} cannot connect to {host}:{port}: {why}.") from why

    def _sweep(self) -> None:
        oldest = time.monotonic() - self._limits.idle
        with self._lock:
            slots = list(self._slots.values())
        for slot in slots:
            if slot.lock.acquire(blocking=False):
                try:
                    if slot.connection is not None and slot.connection.idle_since(oldest):
                        slot.connection.close()
                        slot.connection = None
                finally:
                    slot.lock.release()


def through(connection: Connection, host: str, port: int, within: float) -> paramiko.Channel:
    """A TCP connection made by the machine at the other end. Raises NotLed when it gets none."""
    try:
        return connection.transport.open_channel("direct-tcpip", (host, port), ("127.0.0.1", 0), timeout=within)
    except paramiko.ChannelException as error:
        raise NotLed(NO_WAY.get(error.code, error.text)) from error
    except BROKEN as error:
        if not connection.alive:
            raise Unreached(f"{connection.where} ended the connection.") from error
        raise NotLed(f"there was no connection within {within:g} s") from error


class Closer:
    """One thread that closes what takes too long or is wanted no more: some calls of paramiko have no timeout."""

    def __init__(self, now_and_then: Callable[[], None], every: float) -> None:
        self._watched: dict[object, tuple[Callable[[], None], float, Flag]] = {}
        self._now_and_then = now_and_then
        self._every = every
        self._changed = Condition()
        self._thread: Thread | None = None
        self._stopped = False

    @contextmanager
    def closing(self, close: Callable[[], None], deadline: float, abort: Flag) -> Iterator[None]:
        entry = object()
        with self._changed:
            self._watched[entry] = (close, deadline, abort)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="ssh-closer", daemon=True)
                self._thread.start()
            if len(self._watched) == 1:
                self._changed.notify()
        try:
            yield
        finally:
            with self._changed:
                del self._watched[entry]

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def _run(self) -> None:
        swept = time.monotonic()
        while True:
            with self._changed:
                self._changed.wait(TICK if self._watched else self._every)
                if self._stopped:
                    return
                watched = list(self._watched.values())
            now = time.monotonic()
            for close, deadline, abort in watched:
                if now > deadline or abort.is_set():
                    close()
            if now - swept > self._every:
                swept = now
                self._now_and_then()
