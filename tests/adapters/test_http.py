"""Pages on loopback: what comes back, how much of it, and who is told the password."""

import base64
import ssl
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event as Flag
from typing import ClassVar

import pytest

from bot.adapters.http import Http
from bot.core.question import Answer, HttpGet, Response, Unanswered
from bot.core.target import Role, Target
from tests.engine.machines import Machines
from tests.rigs.certificate import localhost

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
SHORT = timedelta(seconds=0.5)
LOGIN = "Basic " + base64.b64encode(b"monitor:hunter2@").decode()


class Pages(BaseHTTPRequestHandler):
    """Answers by the path; `seen` is who asked for what."""

    seen: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        verb = self.path.strip("/").split("/")[0]
        {"long": self._long, "drip": self._drip, "silent": self._silent, "moved": self._moved}.get(verb, self._plain)()

    def _say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _plain(self) -> None:
        status = {"api": 200, "missing": 404, "broken": 503}.get(self.path.strip("/").split("/")[0], 200)
        self._say(status, b'{"ok": "\xc3\xbc"}', Content_Type="application/json", X_Request_Id="r-1")

    def _long(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000000")
        self.end_headers()
        self.wfile.write(b"x" * 200_000)
        time.sleep(2)  # whoever wants the rest waits

    def _moved(self) -> None:
        self._say(302, b"", Location="http://127.0.0.1:1/elsewhere")

    def _silent(self) -> None:
        time.sleep(3)

    def _drip(self) -> None:
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def log_message(self, *_words: object) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_words: object) -> None:
        """The other side has gone: that is what some of these tests do."""

    @property
    def url(self) -> str:
        return f"127.0.0.1:{self.server_port}"


@pytest.fixture
def pages() -> Iterator[Server]:
    yield from serving(Server(("127.0.0.1", 0), Pages))


def serving(server: Server) -> Iterator[Server]:
    Pages.seen.clear()
    thread = threading.Thread(target=server.serve_forever, args=[0.02], daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def get(
    *urls: str, within: timedelta = timedelta(seconds=5), broker: str = "", http: Http | None = None
) -> list[Answer | Unanswered]:
    asker = http or Http({"prod": broker} if broker else {}, Machines())
    return asker.ask(PLATFORM, [HttpGet(url, within) for url in urls], Flag())


def test_what_a_page_says(pages: Server) -> None:
    found, missing, broken, moved = get(
        *(f"http://{pages.url}/{path}" for path in ("api", "missing", "broken", "moved"))
    )
    assert isinstance(found, Response)
    assert (found.status, found.body, found.headers["x-request-id"]) == (200, '{"ok": "ü"}', "r-1")
    assert [each.status for each in (missing, broken) if isinstance(each, Response)] == [404, 503]
    assert isinstance(moved, Response)
    assert (moved.status, moved.headers["location"]) == (302, "http://127.0.0.1:1/elsewhere"), "redirects are answers"


def test_only_the_first_part_is_read(pages: Server) -> None:
    (said,) = get(f"http://{pages.url}/long", within=timedelta(seconds=1))
    assert isinstance(said, Response)
    assert (said.body, said.truncated) == ("x" * 65536, True)


def test_a_question_says_how_much_it_wants(pages: Server) -> None:
    def read(most: int) -> Response:
        asked = HttpGet(f"http://{pages.url}/api", most=most)
        (said,) = Http({}, Machines()).ask(PLATFORM, [asked], Flag())
        assert isinstance(said, Response)
        return said

    whole = len(read(1000).body.encode())
    assert not read(whole).truncated, "all of it, to the last byte"
    assert (len(read(whole - 1).body.encode()), read(whole - 1).truncated) == (whole - 1, True)


def test_nobody_waits_for_a_server_that_does_not_end(pages: Server) -> None:
    started = time.monotonic()
    for said in get(f"http://{pages.url}/silent", f"http://{pages.url}/drip", within=SHORT):
        assert isinstance(said, Unanswered)
        assert (said.cause, "did not answer within 0.5 s" in said.why) == ("http", True)
    assert time.monotonic() - started < 1.5, "side by side"


def test_a_stopped_run_asks_no_longer(pages: Server) -> None:
    abort = Flag()
    threading.Timer(0.2, abort.set).start()
    started = time.monotonic()
    Http({}, Machines()).ask(PLATFORM, [HttpGet(f"http://{pages.url}/silent")], abort)
    assert time.monotonic() - started < 1


def test_the_management_api_is_asked_by_its_path(pages: Server) -> None:
    for base in (f"http://monitor:hunter2%40@{pages.url}", f"http://monitor:hunter2%40@{pages.url}/broker/"):
        (said,) = get("rabbitmq:/api/queues/travis%2Fx?columns=name", broker=base)
        assert isinstance(said, Response)
    assert Pages.seen == [
        ("/api/queues/travis%2Fx?columns=name", LOGIN),
        ("/broker/api/queues/travis%2Fx?columns=name", LOGIN),
    ]
    assert "hunter2" not in str(HttpGet("rabbitmq:/api/overview"))


def test_the_password_goes_nowhere_else(pages: Server) -> None:
    broker = f"http://monitor:hunter2%40@{pages.url}"
    answers = get(
        f"http://{pages.url}/page", "rabbitmq:/moved", f"rabbitmq://{pages.url}/page", f"rabbitmq:@{pages.url}/page",
        broker=broker,
    )  # fmt: skip
    assert [type(each) for each in answers] == [Response, Response, Unanswered, Unanswered]
    assert sorted(Pages.seen) == [("/moved", LOGIN), ("/page", "")]


def test_a_broker_that_is_away_is_a_finding_and_a_page_is_not(pages: Server) -> None:
    broker, page = get("rabbitmq:/api/overview", "http://127.0.0.1:1/page", broker="http://monitor:hunter2@127.0.0.1:1")
    assert isinstance(broker, Unanswered)
    assert isinstance(page, Unanswered)
    assert (broker.cause, page.cause) == ("rabbitmq-unreachable", "http")
    assert "hunter2" not in broker.why
    where = "GET /api/overview of RabbitMQ's management API on 127.0.0.1:1"
    assert broker.why == f"{where} was not answered: the connection is refused."


def test_what_is_no_page() -> None:
    for url in (
        "ftp://127.0.0.1/x",
        "file:///etc/passwd",
        "http://user:hunter2@127.0.0.1/",
        "http://",
        "nonsense",
    ):
        (said,) = get(url)
        assert isinstance(said, Unanswered), url
        assert (said.cause, "hunter2" in said.why) == ("not-configured", False)
    assert get("rabbitmq:/api/overview") == [
        Unanswered("opsbot is not set up to ask the management API of prod", "not-configured")
    ]


def test_a_certificate_that_nobody_trusts_is_said(tmp_path: Path) -> None:
    certificate, key = localhost(tmp_path)
    server = Server(("127.0.0.1", 0), Pages)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    for running in serving(server):
        trusting = Http({}, Machines(), ssl.create_default_context(cafile=str(certificate)))
        address = f"https://localhost:{running.server_port}/page"
        (known,) = get(address, http=trusting)
        (unknown,) = get(address)
        (elsewhere,) = get(f"https://{running.url}/page", http=trusting)
    assert isinstance(known, Response)
    for said in (unknown, elsewhere):
        assert isinstance(said, Unanswered)
        assert (said.cause, "the certificate there is not trusted" in said.why) == ("http", True), said
