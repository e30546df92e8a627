"""GET requests to pages and to RabbitMQ's management API, and the definitions that it exports."""

import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue, SimpleQueue
from threading import Event as Flag
from threading import Thread
from typing import Final

import httpx

from bot.core.backup import BackupFailed, BackupStopped, Definitions, Source
from bot.core.ports import Asker
from bot.core.question import Answer, HttpGet, Question, Response, Unanswered
from bot.core.target import Target

BROKER: Final = "rabbitmq:"  # what stands before a path of the installation's management API
NOT_CONFIGURED: Final = "not-configured"
AWAY: Final = "rabbitmq-unreachable"  # a finding: a page may be anybody's, the broker is the installation's
NOT_SEEN: Final = "http"  # not known
AT_ONCE: Final = 16
WATCHED_EVERY: Final = 0.05  # seconds
AHEAD: Final = 8  # parts of an export that wait to be taken
READ_WITHIN: Final = 60.0  # seconds for each part of it, and for the first: RabbitMQ makes all of it before
EXPORT: Final = HttpGet(f"{BROKER}/api/definitions")
REFUSED: Final = ("[Errno 111] Connection refused", "the connection is refused")  # of httpx, and as people say it
HEADERS: Final = {"user-agent": "opsbot", "accept-encoding": "identity"}  # what is packed could unpack to anything


class Http:
    """An `Asker` of `HttpGet`; `brokers` are the management APIs by installation, with user and password in the URL.

    A question `rabbitmq:/api/overview` goes there, so that no handler and no plan sees the password.
    """

    def __init__(self, brokers: Mapping[str, str], machines: Asker, trust: ssl.SSLContext | None = None) -> None:
        self._brokers = brokers
        self._machines = machines
        self._trust = trust or ssl.create_default_context()  # the system's certificates: a company has its own

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        """One answer per question, asked side by side; redirects are answers."""

        def answer(question: Question) -> Answer | Unanswered:
            if not isinstance(question, HttpGet):
                return Unanswered(f"`{question}` is no page.", NOT_CONFIGURED)
            return self._answer(target, question, abort)

        with ThreadPoolExecutor(min(AT_ONCE, len(questions) or 1), "get") as pool:
            return list(pool.map(answer, questions))

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)

    def _answer(self, target: Target, asked: HttpGet, abort: Flag) -> Answer | Unanswered:
        try:
            url, login = self._resolved(target, asked.url)
        except (ValueError, httpx.InvalidURL) as why:
            return Unanswered(str(why), NOT_CONFIGURED)
        cause = AWAY if asked.url.startswith(BROKER) else NOT_SEEN
        return self._bounded(url, login, asked, cause, abort)

    def _resolved(self, target: Target, asked: str) -> tuple[httpx.URL, httpx.BasicAuth | None]:
        """The address without its user and password, and these apart."""
        if not asked.startswith(BROKER):
            url = httpx.URL(asked)
            if url.scheme not in ("http", "https") or not url.host or url.userinfo:
                raise ValueError(f"`{asked.partition('://')[0]}…` is no page that opsbot asks for.")
            return url, None
        return _of_broker(self._brokers, target, asked)

    def _bounded(
        self, url: httpx.URL, login: httpx.BasicAuth | None, asked: HttpGet, cause: str, abort: Flag
    ) -> Answer | Unanswered:
        """In a thread of its own: httpx bounds each read, and a server that drips would keep it for ever."""
        said: SimpleQueue[Answer | Unanswered] = SimpleQueue()
        within = asked.within.total_seconds()
        client = httpx.Client(
            auth=login, verify=self._trust, timeout=within, trust_env=False, follow_redirects=False, headers=HEADERS
        )

        def get() -> None:
            said.put(_got(client, url, asked, cause))

        Thread(target=get, name="get", daemon=True).start()
        until = time.monotonic() + within
        try:
            while time.monotonic() < until and not abort.is_set():
                with suppress(Empty):
                    return said.get(timeout=WATCHED_EVERY)
            return Unanswered(f"{_shown(asked, url)} did not answer within {within:g} s.", cause)
        finally:
            client.close()


def _of_broker(brokers: Mapping[str, str], target: Target, asked: str) -> tuple[httpx.URL, httpx.BasicAuth | None]:
    """Of a question `rabbitmq:/…`. Raises ValueError."""
    path = asked.removeprefix(BROKER)
    if (base := brokers.get(target.installation)) is None:
        raise ValueError(f"opsbot is not set up to ask the management API of {target.installation}")
    if not path.startswith("/") or path.startswith("//"):  # two would name another server
        raise ValueError(f"`{asked}` is no path of the management API.")
    known = httpx.URL(base)
    login = httpx.BasicAuth(known.username, known.password) if known.userinfo else None
    return known.copy_with(userinfo=b"", raw_path=f"{known.path.rstrip('/')}{path}".encode(), fragment=None), login


def _got(client: httpx.Client, url: httpx.URL, asked: HttpGet, cause: str) -> Answer | Unanswered:
    try:
        with client.stream("GET", url) as response:
            body = _first(response, asked.most + 1)
            cut = len(body) > asked.most
            return Response(response.status_code, _text(body[: asked.most], response), _headers(response), cut)
    except httpx.TimeoutException:
        return Unanswered(f"{_shown(asked, url)} did not answer within {asked.within.total_seconds():g} s.", cause)
    except httpx.HTTPError as error:
        return _trouble(error, _shown(asked, url), cause)
    except RuntimeError as error:  # closed by whoever waited for it
        return Unanswered(f"{_shown(asked, url)} was not answered: {error}.", cause)


def _shown(asked: HttpGet, url: httpx.URL) -> str:
    """What was asked, and of the broker also where: a question says no more of it than `rabbitmq:`."""
    if not asked.url.startswith(BROKER):
        return str(asked)
    port = url.port or (443 if url.scheme == "https" else 80)
    return f"GET {url.path} of RabbitMQ's management API on {url.host}:{port}"


def _trouble(error: httpx.HTTPError, asked: str, cause: str) -> Unanswered:
    said = (str(error).replace(*REFUSED).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    if "CERTIFICATE_VERIFY_FAILED" in said or "certificate verify failed" in said:
        why = said.partition("certificate verify failed: ")[2] or said
        return Unanswered(f"{asked} was not asked: the certificate there is not trusted ({why}).", NOT_SEEN)
    return Unanswered(f"{asked} was not answered: {said}.", cause)


def _first(response: httpx.Response, most: int) -> bytes:
    body = bytearray()
    for part in response.iter_raw():
        body += part
        if len(body) >= most:
            break
    return bytes(body[:most])


def _text(body: bytes, response: httpx.Response) -> str:
    try:
        return body.decode(response.charset_encoding or "utf-8", errors="replace")
    except LookupError:  # a charset that nobody knows
        return body.decode(errors="replace")


def _headers(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


# ---------------------------------------------------------------- what RabbitMQ exports


class Exports:
    """The `Streams` of `Definitions`; `brokers` as for questions."""

    def __init__(self, brokers: Mapping[str, str], trust: ssl.SSLContext | None = None) -> None:
        self._brokers = brokers
        self._trust = trust or ssl.create_default_context()

    @contextmanager
    def open(self, source: Source, abort: Flag) -> Iterator["Download"]:
        assert isinstance(source.origin, Definitions)
        try:
            url, login = _of_broker(self._brokers, source.target, EXPORT.url)
        except (ValueError, httpx.InvalidURL) as why:
            raise BackupFailed(f"{source} was not taken: {str(why).rstrip('.')}.") from None
        client = httpx.Client(
            auth=login, verify=self._trust, timeout=READ_WITHIN, trust_env=False, follow_redirects=False,
            headers=HEADERS,
        )  # fmt: skip
        download = Download(source, client, url, abort)
        try:
            yield download
        finally:
            download.close()

    def check(self, source: Source, abort: Flag) -> None:
        """Raises BackupFailed where nothing would come; only the beginning is waited for."""
        with self.open(source, abort) as download:
            download.read(1)


class Download:
    """A `Stream` of a page. It comes in a thread of its own, so that whoever waits can still be stopped."""

    warnings: tuple[str, ...] = ()
    rows: Mapping[str, int] = {}

    def __init__(self, source: Source, client: httpx.Client, url: httpx.URL, abort: Flag) -> None:
        self._source, self._client, self._abort = source, client, abort
        self._parts: Queue[bytes | BackupFailed] = Queue(AHEAD)
        self._unwanted = Flag()
        self._held: bytes = b""
        self._ended = False
        self._deadline = time.monotonic() + source.within.total_seconds()
        Thread(target=self._come, args=(url,), name="export", daemon=True).start()

    def read(self, most: int) -> bytes:
        """Some bytes; nothing at the end. Raises BackupFailed when the page does not end well."""
        if not self._held and not self._ended:
            self._held = self._next()
            self._ended = not self._held
        part, self._held = self._held[:most], self._held[most:]
        return part

    def close(self) -> None:
        self._unwanted.set()
        self._client.close()

    def _next(self) -> bytes:
        while True:
            if self._abort.is_set():
                raise BackupStopped(f"{self._source} was stopped; nothing of it was kept.")
            if time.monotonic() > self._deadline:
                raise BackupFailed(f"{self._source} was not taken: it did not end within {self._source.within}.")
            with suppress(Empty):
                came = self._parts.get(timeout=WATCHED_EVERY)
                if isinstance(came, BackupFailed):
                    raise came
                return came

    def _come(self, url: httpx.URL) -> None:
        """All parts, then an empty one; or why there are no more."""
        try:
            with self._client.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    return self._hand(self._failed(_refusal(response.status_code)))
                for part in response.iter_raw():
                    if part:
                        self._hand(part)
            self._hand(b"")
        except httpx.HTTPError as error:
            self._hand(self._failed(_trouble(error, _shown(EXPORT, url), AWAY).why))
        except RuntimeError as error:  # closed by whoever wanted no more
            self._hand(self._failed(f"{_shown(EXPORT, url)} was not answered: {error}."))

    def _hand(self, part: bytes | BackupFailed) -> None:
        taken = False
        while not taken and not self._unwanted.is_set():
            with suppress(Full):
                self._parts.put(part, timeout=WATCHED_EVERY)
                taken = True

    def _failed(self, why: str) -> BackupFailed:
        return BackupFailed(f"{self._source} was not taken: {why} Nothing of it was kept.")


def _refusal(status: int) -> str:
    """RabbitMQ says 401 also to a user who may log in and not export."""
    needs = "; its user needs the tag `administrator`" if status in (401, 403) else ""
    return f"{EXPORT} was answered with HTTP status {status}{needs}."
