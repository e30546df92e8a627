"""The file of pinned host keys, as ssh-keygen writes it and as people do."""

import base64
import subprocess
from pathlib import Path

import pytest

from bot.adapters.ssh.hostkeys import HostKeys, fingerprint


def key(no: int) -> str:
    return base64.b64encode(b"\0\0\0\x0bssh-ed25519\0\0\0 " + no.to_bytes(32, "big")).decode()


ONE, TWO, THREE = key(1), key(2), key(3)


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        (f"worker-1 ssh-ed25519 {ONE}", "worker-1", 22),
        (f"worker-1,10.0.0.11 ssh-ed25519 {ONE} a comment", "10.0.0.11", 22),
        (f"Worker-1.Example.COM ssh-ed25519 {ONE}", "worker-1.example.com", 22),
        (f"worker-1 ssh-ed25519 {ONE}", "WORKER-1", 22),
        (f"[worker-1]:2222 ssh-ed25519 {ONE}", "worker-1", 2222),
        (f"2001:db8::1 ssh-ed25519 {ONE}", "2001:db8::1", 22),
        (f"  worker-1\tssh-ed25519   {ONE}  ", "worker-1", 22),
    ],
)
def test_a_plain_entry_is_found(line: str, host: str, port: int) -> None:
    assert HostKeys([line]).of(host, port).accept("ssh-ed25519", ONE)


@pytest.mark.parametrize(
    ("line", "host", "port"),
    [
        (f"worker-1 ssh-ed25519 {ONE}", "worker-2", 22),
        (f"worker-1 ssh-ed25519 {ONE}", "worker-1", 2222),
        (f"[worker-1]:2222 ssh-ed25519 {ONE}", "worker-1", 22),
        (f"# worker-1 ssh-ed25519 {ONE}", "worker-1", 22),
        (f"#worker-1 ssh-ed25519 {ONE}", "#worker-1", 22),
        (f"* ssh-ed25519 {ONE}", "worker-1", 22),
        (f"worker-? ssh-ed25519 {ONE}", "worker-?", 22),
        (f"!worker-1 ssh-ed25519 {ONE}", "!worker-1", 22),
        (f"@cert-authority worker-1 ssh-ed25519 {ONE}", "worker-1", 22),
        (f"worker-1 ssh-dss {ONE}", "worker-1", 22),
        ("worker-1 ssh-ed25519", "worker-1", 22),
        ("worker-1 ssh-ed25519 not!base64", "worker-1", 22),
        ("", "", 22),
        (f"|1|broken ssh-ed25519 {ONE}", "worker-1", 22),
    ],
)
def test_nothing_else_pins_a_key(line: str, host: str, port: int) -> None:
    pins = HostKeys([line]).of(host, port)
    assert pins.keys == {}
    assert not pins.accept("ssh-ed25519", ONE)


def test_a_host_may_have_several_keys_and_only_their_types_are_negotiated() -> None:
    pins = HostKeys([f"h ssh-rsa {THREE}", f"h ssh-ed25519 {ONE}", f"h,i ssh-ed25519 {TWO}"]).of("h", 22)
    assert pins.algorithms == ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")
    assert pins.accept("ssh-ed25519", ONE)
    assert pins.accept("ssh-ed25519", TWO)
    assert not pins.accept("ssh-ed25519", THREE)
    assert not pins.accept("ssh-rsa", ONE)
    assert pins.fingerprints[-1] == fingerprint(THREE)


def test_a_revoked_key_is_never_accepted() -> None:
    pins = HostKeys([f"h ssh-ed25519 {ONE}", f"@revoked h ssh-ed25519 {ONE}"]).of("h", 22)
    assert not pins.accept("ssh-ed25519", ONE)


@pytest.fixture
def hashed(tmp_path: Path) -> HostKeys:
    """5,000 entries of 2,500 hosts, hashed by ssh-keygen, on ports 22 and 2222."""
    file = tmp_path / "known_hosts"
    lines = (f"host-{no} ssh-ed25519 {key(no)}\n[host-{no}]:2222 ssh-ed25519 {key(no + 9000)}\n" for no in range(2500))
    file.write_text("".join(lines))
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(file)], check=True, capture_output=True, timeout=60)
    assert "host-" not in file.read_text()
    return HostKeys(file.read_text().splitlines())


def test_hashed_entries_are_found_among_thousands(hashed: HostKeys) -> None:
    for no in (0, 1, 1234, 2499):
        assert hashed.of(f"host-{no}", 22).keys == {"ssh-ed25519": {key(no)}}
        assert hashed.of(f"Host-{no}", 2222).keys == {"ssh-ed25519": {key(no + 9000)}}
    assert hashed.of("host-2500", 22).keys == {}


def test_thousands_of_plain_entries_keep_their_own_keys() -> None:
    keys = HostKeys(f"host-{no},10.0.{no // 256}.{no % 256} ssh-ed25519 {key(no)}" for no in range(5000))
    assert all(keys.of(f"host-{no}", 22).keys == {"ssh-ed25519": {key(no)}} for no in range(5000))
    assert keys.of("10.0.19.135", 22).accept("ssh-ed25519", key(4999))


def test_fingerprints_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True, timeout=20)
    shown = subprocess.run(
        ["ssh-keygen", "-lf", str(file)], check=True, capture_output=True, text=True, timeout=20
    ).stdout
    assert fingerprint(file.with_suffix(".pub").read_text().split()[1]) == shown.split()[1]
