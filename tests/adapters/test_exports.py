"""What RabbitMQ's management API exports: all of it or nothing, and its password is told nobody."""

import json
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as Flag
from threading import Thread, Timer
from typing import ClassVar

import httpx
import pyrage
import pytest

from bot.adapters.http import Exports
from bot.adapters.vault import ObjectVault, objects
from bot.core.backup import BackupFailed, BackupStopped, Definitions, Source, object_key
from bot.core.target import Role, Target
from tests.rigs import rabbitmq

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
SOURCE = Source("rabbitmq", PLATFORM, Definitions(), timedelta(seconds=30), "json")
KEY = object_key("prod", "set-1", "rabbitmq", "json")


def read_all(url: str, abort: Flag | None = None) -> bytes:
    with Exports({"prod": url}).open(SOURCE, abort or Flag()) as stream:
        return b"".join(iter(lambda: stream.read(1000), b""))


PUT = {
    "users/worker": {"password": "its-own-password", "tags": "management"},
    "permissions/travis/worker": {"configure": "", "write": ".*", "read": ".*"},
    "policies/travis/expire": {"pattern": "^short", "definition": {"expires": 1000}, "apply-to": "queues"},
    "queues/travis/builds.trusty": {"durable": True},
}
PARTS = ("users", "vhosts", "permissions", "policies", "queues")


@pytest.mark.timeout(300)  # two brokers, one after the other
def test_definitions_fill_another_broker(tmp_path: Path) -> None:
    """Into the store, out of it with the secret key, into an empty broker."""
    identity = pyrage.x25519.Identity.generate()
    with rabbitmq.broker(management=True) as broker, httpx.Client(base_url=f"{broker.api_url}/api/") as api:
        for path, body in PUT.items():
            assert api.put(path, json=body).is_success, path
        store = objects((tmp_path / "store").as_uri())
        vault = ObjectVault(store, [str(identity.to_public())], Exports({"prod": broker.api_url}))
        stored = vault.put(SOURCE, KEY, lambda _: None, Flag())
        assert (stored.warnings, stored.form) == ((), "json")
        with pytest.raises(BackupFailed, match="HTTP status 401; its user needs the tag `administrator`") as failed:
            read_all(broker.api_url.replace("travis:only-for-tests", "worker:its-own-password"))
        Exports({"prod": broker.api_url}).check(SOURCE, Flag())
        with pytest.raises(BackupFailed, match="its user needs the tag `administrator`"):
            Exports({"prod": broker.api}).check(SOURCE, Flag())
        assert "its-own-password" not in str(failed.value)
    plain = pyrage.decrypt(b"".join(vault.open(KEY)), [identity])
    with rabbitmq.broker(management=True) as empty, httpx.Client(base_url=f"{empty.api_url}/api/") as api:
        assert api.post("definitions", content=plain, headers={"content-type": "application/json"}).is_success
        there, had = json.loads(read_all(empty.api_url)), json.loads(plain)
        for part in PARTS:
            assert sorted(there[part], key=str) == sorted(had[part], key=str) != [], part
        assert api.get("whoami", auth=("worker", "its-own-password")).is_success


class Page(BaseHTTPRequestHandler):
    """A management API that says what a test wants."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("authorization", "")))
        kind = self.path.split("/")[1]
        if kind == "moved":
            self.send_response(302)
            self.send_header("location", "/api/definitions")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-length", "100" if kind in ("cut", "stuck") else "10")
        self.end_headers()
        self.wfile.write(b'{"users":0' if kind in ("cut", "stuck") else b'{"users":0}'[:10])
        if kind == "stuck":
            self.wfile.flush()
            self.server.over.wait(20)  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the tests' output."""


@pytest.fixture
def pages() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    server.over = Flag()  # type: ignore[attr-defined]
    Page.asked.clear()
    Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://user:hunter2@127.0.0.1:{server.server_port}"
    server.over.set()  # type: ignore[attr-defined]
    server.shutdown()
    server.server_close()


def test_a_page_that_is_cut_off_is_a_failure(pages: str) -> None:
    assert read_all(f"{pages}/whole") == b'{"users":0'
    with pytest.raises(BackupFailed, match="peer closed connection") as failed:
        read_all(f"{pages}/cut")
    assert "hunter2" not in str(failed.value)
    assert [path for path, _ in Page.asked] == ["/whole/api/definitions", "/cut/api/definitions"]
    assert all(login.startswith("Basic ") for _, login in Page.asked)


def test_no_other_page_is_followed(pages: str) -> None:
    with pytest.raises(BackupFailed, match="HTTP status 302"):
        read_all(f"{pages}/moved")
    assert len(Page.asked) == 1


def test_a_page_that_gets_stuck_can_be_left(pages: str) -> None:
    abort = Flag()
    Timer(0.5, abort.set).start()
    with pytest.raises(BackupStopped):
        read_all(f"{pages}/stuck", abort)


def test_nobody_answers() -> None:
    with pytest.raises(
        BackupFailed, match=r"management API on 127\.0\.0\.1:1 was not answered: the connection is refused\."
    ) as failed:
        read_all("http://user:hunter2@127.0.0.1:1")
    assert "hunter2" not in str(failed.value)


def test_without_a_url_it_says_so() -> None:
    with (
        pytest.raises(BackupFailed, match="not set up to ask the management API of prod"),
        Exports({}).open(SOURCE, Flag()),
    ):
        raise AssertionError("nothing is opened")
