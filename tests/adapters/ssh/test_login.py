"""Logging in: only to pinned keys, only with our own, and each failure says what to do."""

import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from threading import Thread, Timer

import pytest

from bot.adapters.ssh import Host, Limits, Ssh
from bot.adapters.ssh.hostkeys import fingerprint
from bot.adapters.ssh.pool import Pool
from bot.core.command import sh
from bot.core.question import Output, Unanswered
from tests.adapters.ssh.fleet import MACHINES, Reach, only, target
from tests.rigs.sshd import KEY_TYPES, HostSpec, Rig, sshd

MACHINE = MACHINES[0]
OTHER = base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + b"x" * 32).decode()
Pin = Callable[..., Host]


def new_key(folder: Path, kind: tuple[str, ...]) -> Path:
    file = folder / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", *kind, "-N", "", "-f", str(file)], check=True, timeout=30)
    return file


def encrypt(file: Path) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-N", "secret", "-f", str(file)], check=True, capture_output=True, timeout=20
    )


@pytest.fixture
def pin(rig: Rig, tmp_path: Path) -> Pin:
    """The machine, with other lines pinned for it; `{at}` is its name there."""

    def make(*lines: str) -> Host:
        host = rig.hosts[MACHINE]
        file = tmp_path / "known_hosts"
        file.write_text("".join(f"{line.format(at=f'[{host.host}]:{host.port}')}\n" for line in lines))
        return replace(host, known_hosts=file)

    return make


def asked(reach: Reach, host: Host, **limits: float) -> Unanswered:
    answer = only(reach({"worker-1": host}, **limits).ask(target("worker-1"), [sh("id")], Flag()))
    assert isinstance(answer, Unanswered)
    return answer


def reached(reach: Reach, host: Host) -> None:
    assert only(reach({"worker-1": host}).ask(target("worker-1"), [sh("echo", "hi")], Flag())) == Output(0, "hi\n")


# ---------------------------------------------------------------- the machine's key


@pytest.mark.parametrize("kind", KEY_TYPES)
def test_each_type_of_pinned_key_is_enough_by_itself(rig: Rig, reach: Reach, pin: Pin, kind: str) -> None:
    reached(reach, pin(f"{{at}} {rig.host_key(kind)}"))


def test_hashed_entries_are_enough(rig: Rig, reach: Reach, pin: Pin) -> None:
    host = pin(f"{{at}} {rig.host_key()}")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(host.known_hosts)], check=True, capture_output=True, timeout=20)
    assert host.host not in host.known_hosts.read_text()
    reached(reach, host)


def test_a_changed_key_is_refused_with_both_fingerprints(rig: Rig, reach: Reach, pin: Pin) -> None:
    answer = asked(reach, pin(f"{{at}} ssh-ed25519 {OTHER}"))
    assert answer.cause == "host-key-changed"
    assert fingerprint(OTHER) in answer.why
    assert fingerprint(rig.host_key().split()[1]) in answer.why
    assert "worker-1 (127.0.0.1:" in answer.why


def test_a_server_without_the_pinned_type_is_refused_with_both_fingerprints(reach: Reach, tmp_path: Path) -> None:
    with sshd(HostSpec("worker-1", host_keys=("ecdsa",))) as rig:
        reached(reach, rig.hosts["worker-1"])  # for which both types are pinned
        file = tmp_path / "known_hosts"
        host = rig.hosts["worker-1"]
        file.write_text(f"[{host.host}]:{host.port} {rig.host_key('ed25519')}\n")
        answer = asked(reach, replace(host, known_hosts=file))
        assert answer.cause == "host-key-changed"
        for kind in ("ed25519", "ecdsa"):
            assert fingerprint(rig.host_key(kind).split()[1]) in answer.why


def test_an_unknown_key_is_refused_and_the_sentence_says_how_to_compare(rig: Rig, reach: Reach, pin: Pin) -> None:
    answer = asked(
        reach, pin(f"* {rig.host_key()}", f"other {rig.host_key()}", f"@cert-authority {{at}} {rig.host_key()}")
    )
    assert answer.cause == "host-key-unknown"
    assert any(fingerprint(rig.host_key(kind).split()[1]) in answer.why for kind in KEY_TYPES)
    assert "ssh-keygen -lf" in answer.why


def test_a_revoked_key_is_refused(rig: Rig, reach: Reach, pin: Pin) -> None:
    answer = asked(reach, pin(f"{{at}} {rig.host_key()}", f"@revoked {{at}} {rig.host_key()}"))
    assert answer.cause == "host-key-changed"
    assert "revokes" in answer.why


def test_nobody_logs_in_to_a_machine_whose_key_is_refused(rig: Rig, reach: Reach, pin: Pin) -> None:
    before = rig.said(MACHINE).count("Accepted publickey")
    asked(reach, pin(f"{{at}} ssh-ed25519 {OTHER}"))
    asked(reach, pin())
    assert rig.said(MACHINE).count("Accepted publickey") == before


def test_a_corrected_file_is_read_without_a_restart(rig: Rig, reach: Reach, pin: Pin) -> None:
    ssh = reach({"worker-1": pin()})
    assert isinstance(only(ssh.ask(target("worker-1"), [sh("id")], Flag())), Unanswered)
    pin(f"{{at}} {rig.host_key()}")
    assert only(ssh.ask(target("worker-1"), [sh("echo", "hi")], Flag())) == Output(0, "hi\n")


def test_a_missing_file_of_pins_is_named(rig: Rig, reach: Reach, tmp_path: Path) -> None:
    answer = asked(reach, replace(rig.hosts[MACHINE], known_hosts=tmp_path / "nowhere"))
    assert answer.cause == "host-key-unknown"
    assert str(tmp_path / "nowhere") in answer.why


def test_the_identity_is_address_and_pinned_key(rig: Rig, reach: Reach, pin: Pin) -> None:
    host = rig.hosts[MACHINE]
    key = fingerprint(rig.host_key("ed25519").split()[1])
    assert reach({"worker-1": host}).identity(target("worker-1")) == f"{host.host}:{host.port} {key}"
    assert reach({"worker-1": pin()}).identity(target("worker-1")).endswith("(no pinned host key)")


# ---------------------------------------------------------------- our key


@pytest.mark.parametrize("kind", [("rsa", "-b", "2048"), ("rsa", "-b", "2048", "-m", "PEM"), ("ecdsa",), ("ed25519",)])
def test_each_type_of_our_key_is_accepted(reach: Reach, tmp_path: Path, kind: tuple[str, ...]) -> None:
    file = new_key(tmp_path, kind)
    with sshd(HostSpec("worker-1")) as rig:
        rig.authorize(file.with_suffix(".pub").read_text())
        reached(reach, replace(rig.hosts["worker-1"], key_file=file))


def test_a_key_that_is_not_accepted_is_named_with_its_user(rig: Rig, reach: Reach, tmp_path: Path) -> None:
    file = new_key(tmp_path, ("ed25519",))
    answer = asked(reach, replace(rig.hosts[MACHINE], key_file=file))
    assert answer.cause == "auth"
    assert str(file) in answer.why
    assert fingerprint(file.with_suffix(".pub").read_text().split()[1]) in answer.why
    assert "authorized_keys" in answer.why


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda file: file.unlink(), "cannot be read: No such file or directory. Let opsbot read it, or"),
        (lambda file: file.chmod(0o644), "can be read by others (mode 0644): `chmod 600` it"),
        (
            lambda file: file.write_text("nothing of the kind"),
            "(Unable to load PEM file); `ssh-keygen -t ed25519 -N '' -f FILE`",
        ),
        (encrypt, "has a passphrase, and nobody is there to type it; `ssh-keygen -p -f "),
    ],
)
def test_a_key_file_that_cannot_be_used_is_named(
    rig: Rig, reach: Reach, tmp_path: Path, spoil: Callable[[Path], object], why: str
) -> None:
    file = new_key(tmp_path, ("ed25519",))
    spoil(file)
    answer = asked(reach, replace(rig.hosts[MACHINE], key_file=file))
    assert answer.cause == "auth"
    assert str(file) in answer.why
    assert why in answer.why


# ---------------------------------------------------------------- the network


def test_a_connection_is_tuned_as_measured(rig: Rig) -> None:
    pool = Pool(Limits())
    try:
        transport = pool.connection("worker-1", rig.hosts[MACHINE], Flag()).transport
        assert transport.remote_cipher == "aes128-gcm@openssh.com"  # type: ignore[attr-defined]
        assert transport.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)  # type: ignore[union-attr]
        assert transport.packetizer.REKEY_BYTES == 1 << 36
        assert transport.sock.gettimeout() == Limits().probe_every
    finally:
        pool.close()


@contextmanager
def server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Something that listens on loopback and is no SSH server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=serve, args=(listener,), daemon=True).start()
        yield listener.getsockname()[1]


def hang_up(listener: socket.socket) -> None:
    while True:
        try:
            listener.accept()[0].close()
        except OSError:
            return


def test_a_port_where_nothing_listens_is_said_to_be_so(rig: Rig, reach: Reach) -> None:
    answer = asked(reach, replace(rig.hosts[MACHINE], port=1))
    assert answer == Unanswered("worker-1 (127.0.0.1:1) refused the connection: no SSH server listens there.")


def test_a_server_that_hangs_up_is_tried_twice(rig: Rig, reach: Reach) -> None:
    calls: list[int] = []

    def count(listener: socket.socket) -> None:
        while True:
            try:
                listener.accept()[0].close()
            except OSError:
                return
            calls.append(1)

    with server(count) as port:
        answer = asked(reach, replace(rig.hosts[MACHINE], port=port))
    assert answer.cause == "unreachable"
    assert "closed the connection before the login" in answer.why
    assert len(calls) == 2


def test_a_server_that_says_nothing_is_not_waited_for_long(rig: Rig, reach: Reach) -> None:
    with server(lambda listener: None) as port:
        began = time.monotonic()
        answer = asked(reach, replace(rig.hosts[MACHINE], port=port), login=0.5)
    assert "took more than 0.5 s" in answer.why
    assert time.monotonic() - began < 2


def test_those_who_wait_for_a_login_learn_of_its_failure_at_once(rig: Rig, reach: Reach) -> None:
    with server(lambda listener: None) as port, ThreadPoolExecutor(6) as threads:
        ssh = reach({"worker-1": replace(rig.hosts[MACHINE], port=port)}, login=0.5)
        began = time.monotonic()
        answers = list(threads.map(lambda _: only(ssh.ask(target("worker-1"), [sh("id")], Flag())), range(6)))
        assert time.monotonic() - began < 1.5
    assert all(isinstance(answer, Unanswered) and "took more than 0.5 s" in answer.why for answer in answers)


def test_stopping_ends_a_login_at_once(rig: Rig, reach: Reach) -> None:
    with server(lambda listener: None) as port:
        stop = Flag()
        Timer(0.3, stop.set).start()
        began = time.monotonic()
        ssh = reach({"worker-1": replace(rig.hosts[MACHINE], port=port)})
        answer = only(ssh.ask(target("worker-1"), [sh("id")], stop))
    assert time.monotonic() - began < 0.3 + 0.4
    assert isinstance(answer, Unanswered)
    assert "stopped" in answer.why


def test_a_name_without_an_address_is_said_to_be_so(rig: Rig, reach: Reach) -> None:
    answer = asked(reach, replace(rig.hosts[MACHINE], host="no-such-name.invalid"))
    assert "cannot be resolved" in answer.why
    assert answer.cause == "unreachable"


def test_a_closed_adapter_reaches_nobody(rig: Rig, reach: Reach) -> None:
    ssh: Ssh = reach(rig.hosts)
    ssh.close()
    assert only(ssh.ask(target(MACHINE), [sh("id")], Flag())) == Unanswered("opsbot is shutting down.")
