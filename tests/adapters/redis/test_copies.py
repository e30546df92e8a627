"""A copy of redis as a replica gets it: whole, by every way, and not one byte of it when it ends early."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag
from threading import Timer

import pyrage
import pytest

from bot.adapters.redis import CONTAINER, DIRECT, TUNNEL, Server
from bot.adapters.redis.copies import Copies
from bot.adapters.ssh import Ssh
from bot.adapters.vault import ObjectVault, objects, rdb
from bot.core.backup import BackupFailed, BackupStopped, RedisCopy, Source, object_key
from bot.core.target import Role, Target
from tests.rigs import redis as rig
from tests.rigs.certificate import localhost
from tests.rigs.sshd import HostSpec, free_port, sshd, wait_until

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
SOURCE = Source("redis", PLATFORM, RedisCopy(), timedelta(seconds=60), "rdb")
PASSWORD = "hunter2-of-redis"
KEY = object_key("prod", "set-1", "redis", "rdb")
DISK = ("--repl-diskless-sync", "no")
DISKLESS = ("--repl-diskless-sync", "yes", "--repl-diskless-sync-delay", "0")


@pytest.fixture(scope="module")
def ssh() -> Iterator[Ssh]:
    with ExitStack() as until_the_end:
        machines = until_the_end.enter_context(sshd(HostSpec("platform-1", recorded=False)))
        made = Ssh({"prod/platform-1": machines.host("platform-1")})
        until_the_end.callback(made.close)
        yield made


def filled(server: rig.Server) -> None:
    for no in range(50):
        server.cli("SET", f"key:{no}", "x" * no * 400)
    server.cli("RPUSH", "queue:sync", "one", "two")


def read_all(copies: Copies, abort: Flag | None = None) -> bytes:
    with copies.open(SOURCE, abort or Flag()) as stream:
        return b"".join(iter(lambda: stream.read(4096), b""))


@pytest.mark.parametrize("how", [DISK, DISKLESS], ids=["disk", "diskless"])
@pytest.mark.parametrize("via", [DIRECT, TUNNEL])
def test_a_copy_starts_a_redis_with_the_same_keys(ssh: Ssh, via: str, how: tuple[str, ...], tmp_path: Path) -> None:
    """Into the store, out of it with the secret key, into an empty server."""
    identity = pyrage.x25519.Identity.generate()
    with rig.server(PASSWORD, *how) as server:
        filled(server)
        copies = Copies({"prod": Server(via, server.url)}, ssh)
        vault = ObjectVault(objects((tmp_path / "store").as_uri()), [str(identity.to_public())], copies)
        stored = vault.put(SOURCE, KEY, lambda _: None, Flag())
        wait_until(lambda: "connected_slaves:0" in server.cli("INFO", "replication"), 10)
    assert (stored.warnings, stored.rows) == ((), {})
    plain = tmp_path / "dump.rdb"
    plain.write_bytes(pyrage.decrypt(b"".join(vault.open(KEY)), [identity]))
    with plain.open("rb") as file:
        assert rdb.check(file) == ()
    with rig.server("", "--dir", str(tmp_path), "--dbfilename", "dump.rdb") as again:
        assert again.cli("DBSIZE").strip() == "51"
        assert again.cli("LRANGE", "queue:sync", "0", "-1").split() == ["one", "two"]
        assert again.cli("STRLEN", "key:49").strip() == str(49 * 400)


def test_an_empty_redis_has_a_copy_too(ssh: Ssh) -> None:
    with rig.server("", *DISKLESS) as server:
        assert read_all(Copies({"prod": Server(DIRECT, server.url)}, ssh)).startswith(b"REDIS")


def test_tls(ssh: Ssh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate, key = localhost(tmp_path)
    port = free_port("127.0.0.1")
    more = ("--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key),
            "--tls-auth-clients", "no")  # fmt: skip
    with rig.server("", *DISKLESS, *more) as server:
        filled(server)
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}"
        for via in (DIRECT, TUNNEL):
            assert read_all(Copies({"prod": Server(via, url)}, ssh)).startswith(b"REDIS")
        with pytest.raises(BackupFailed, match="its certificate is not trusted"):
            read_all(Copies({"prod": Server(DIRECT, f"rediss://localhost:{port}/0")}, ssh))


def test_a_wrong_password_is_not_told(ssh: Ssh) -> None:
    with rig.server("another one") as server:
        url = f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0"
        with pytest.raises(BackupFailed, match="refuses the user or the password") as failed:
            read_all(Copies({"prod": Server(DIRECT, url)}, ssh))
    assert PASSWORD not in str(failed.value) + repr(failed.value.__cause__)


def test_whoever_may_not_copy_hears_why(ssh: Ssh) -> None:
    with rig.server() as server:
        server.cli("ACL", "SETUSER", "reader", "on", ">secret", "~*", "+@read", "+select", "+auth")
        with pytest.raises(BackupFailed, match="NOPERM"):
            read_all(Copies({"prod": Server(DIRECT, f"redis://reader:secret@127.0.0.1:{server.port}/0")}, ssh))


@pytest.mark.parametrize("via", [DIRECT, TUNNEL])
def test_whether_one_may_copy_is_told_without_a_copy(ssh: Ssh, via: str) -> None:
    with rig.server() as server:
        for name, more in (("reader", ()), ("copier", ("+sync", "+replconf"))):
            server.cli("ACL", "SETUSER", name, "on", ">secret", "~*", "+@read", "+select", "+auth", *more)
        for login in ("", "copier:secret@"):
            Copies({"prod": Server(via, f"redis://{login}127.0.0.1:{server.port}/0")}, ssh).check(SOURCE, Flag())
        with pytest.raises(BackupFailed, match=r"NOPERM .*'sync' command; its user needs `\+sync`") as failed:
            Copies({"prod": Server(via, f"redis://reader:secret@127.0.0.1:{server.port}/0")}, ssh).check(SOURCE, Flag())
        assert "secret" not in str(failed.value)
        assert "sync_full:0" in server.cli("INFO", "stats")
        assert "rdb_bgsave_in_progress:0" in server.cli("INFO", "persistence")


def test_a_redis_that_knows_no_copies_is_told(ssh: Ssh) -> None:
    says = pytest.raises(BackupFailed, match="says: ERR unknown command 'SYNC'")
    with rig.server("", "--rename-command", "SYNC", "") as server, says:
        Copies({"prod": Server(DIRECT, server.url)}, ssh).check(SOURCE, Flag())


@pytest.mark.parametrize("server", [Server(CONTAINER), Server(DIRECT)])
def test_without_a_url_it_says_so(ssh: Ssh, server: Server) -> None:
    for known in ({}, {"prod": server}):
        with pytest.raises(BackupFailed, match="opsbot has no URL of it"):
            read_all(Copies(known, ssh))


def test_nobody_listens(ssh: Ssh) -> None:
    for via in (DIRECT, TUNNEL):
        with pytest.raises(BackupFailed, match=r"Redis on 127\.0\.0\.1:1.* cannot be reached: "):
            read_all(Copies({"prod": Server(via, "redis://127.0.0.1:1")}, ssh))


def test_a_frozen_redis_is_left_when_that_is_wanted(ssh: Ssh, monkeypatch: pytest.MonkeyPatch) -> None:
    with rig.server("", *DISKLESS[:2], "--repl-diskless-sync-delay", "30") as server:
        abort = Flag()
        Timer(0.6, lambda: os.kill(server.pid, signal.SIGSTOP)).start()
        Timer(0.9, abort.set).start()
        with pytest.raises(BackupStopped):
            read_all(Copies({"prod": Server(DIRECT, server.url)}, ssh), abort)
        os.kill(server.pid, signal.SIGCONT)
        monkeypatch.setattr("bot.adapters.redis.copies.SILENCE", 0.4)
        Timer(0.3, lambda: os.kill(server.pid, signal.SIGSTOP)).start()
        with pytest.raises(BackupFailed, match="nothing came for"):
            read_all(Copies({"prod": Server(DIRECT, server.url)}, ssh))


# ---------------------------------------------------------------- what a redis may send


@contextmanager
def saying(*parts: bytes) -> Iterator[str]:
    """A redis that answers every offer with an error, as an old one, and then says these bytes and ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while b"SYNC" not in (asked := connection.recv(4096)):
                    connection.sendall(b"-ERR unknown\r\n" * asked.count(b"*"))
                for part in parts:
                    connection.sendall(part)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(5)


MARK = b"m" * 40
Says = Callable[[bytes], tuple[bytes, ...]]


@pytest.mark.parametrize(
    "parts",
    [
        (b"$5\r\nhello",), (b"\n\n\n", b"\n$5\r", b"\nhe", b"llo and more"), (b"$EOF:" + MARK + b"\r\nhello" + MARK,),
        (b"$EOF:" + MARK + b"\r\n", b"hel", b"lo" + MARK[:7], MARK[7:]),
    ],
)  # fmt: skip
def test_however_it_comes(ssh: Ssh, parts: tuple[bytes, ...]) -> None:
    with saying(*parts) as url:
        assert read_all(Copies({"prod": Server(DIRECT, url)}, ssh)) == b"hello"


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((b"$5\r\nhell",), "ended before"), ((b"$EOF:" + MARK + b"\r\nhello" + MARK[:39],), "ended before"),
        ((), "ended before"), ((b"-NOMASTERLINK no\r\n",), "it says: NOMASTERLINK no"), ((b"x" * 5000,), "is no copy"),
        ((b"$EOF:short\r\nhello",), "it says"),
    ],
)  # fmt: skip
def test_what_is_no_copy_is_a_failure(ssh: Ssh, parts: tuple[bytes, ...], why: str) -> None:
    with saying(*parts) as url, pytest.raises(BackupFailed, match=why):
        read_all(Copies({"prod": Server(DIRECT, url)}, ssh))
