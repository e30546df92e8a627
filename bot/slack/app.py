"""The connection to Slack: Socket Mode with our own patience, and where a client may connect to at all."""

import contextlib
import logging
import re
import socket
import threading
import time
from typing import Any, Final
from urllib.parse import urlsplit

from slack_bolt import App, BoltRequest
from slack_bolt.adapter.socket_mode.internals import send_response
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.builtin import SocketModeClient
from slack_sdk.socket_mode.client import BaseSocketModeClient
from slack_sdk.socket_mode.request import SocketModeRequest

from bot.core.errors import Permanent
from bot.slack.intake import WAITED, quiet_logger

log = logging.getLogger(__name__)

SLACK: Final = "https://slack.com/api/"
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
WORKERS: Final = 50
PING: Final = 5.0  # seconds; the client reconnects when three in a row stay unanswered
LONGEST_BACK_OFF: Final = 30.0
HANG_UP: Final = 5.0  # seconds
DRAIN: Final = 2.0  # seconds that what came in gets to be acknowledged when we stop
_ENVELOPE: Final = re.compile(r'"envelope_id"\s*:\s*"([^"]{1,80})"')


def client(bot_token: str, base: str = SLACK, timeout: int = 10) -> WebClient:
    """A Web API client that sends each call once. Raises Permanent for an address that may not get this token."""
    check_address(base, bot_token, "xoxb")
    made = WebClient(token=bot_token, base_url=base, timeout=timeout, retry_handlers=[], logger=quiet_logger("web"))
    if base != SLACK:
        made.proxy = None  # slack_sdk takes HTTP_PROXY even for loopback, and knows no NO_PROXY
    return made


def check_address(base: str, token: str, kind: str) -> None:
    """Only Slack gets a real token, and only loopback gets any other address: a wrong URL would give the token away."""
    if base == SLACK:
        if not token.startswith(f"{kind}-"):
            raise Permanent(f"the Slack token must begin with `{kind}-`; this one does not")
        if token.startswith(f"{kind}-local"):
            raise Permanent(f"a token of the local Slack (`{kind}-local…`) is no token for Slack itself")
        return
    host = urlsplit(base).hostname
    if host not in LOOPBACK:
        raise Permanent(f"opsbot speaks to {SLACK} or to a simulator on this machine, not to {host or base}")
    if not token.startswith(f"{kind}-local"):
        raise Permanent(f"a simulator gets no real token: one for it begins with `{kind}-local`, this one does not")


class Connection:
    """An open Socket Mode connection, kept open until `close`."""

    def __init__(self, app: App, app_token: str, base: str, workers: int, ping: float) -> None:
        check_address(base, app_token, "xapp")
        self._app = app
        self._arrived: dict[str, float] = {}
        self._busy = 0
        self._idle = threading.Condition()
        self._stop = threading.Event()
        self._socket = SocketModeClient(
            app_token=app_token,
            web_client=app.client,
            logger=quiet_logger("socket"),
            concurrency=workers,
            ping_interval=ping,
            on_message_listeners=[self._note_arrival],
        )
        if base != SLACK:
            self._socket.proxy = None
        self._socket.socket_mode_request_listeners.append(self._handle)
        self._connector = threading.Thread(target=self._keep_connected, name="slack-connect", daemon=True)
        self._connector.start()

    @property
    def connected(self) -> bool:
        """Whether the socket is open; the client swaps its session under us while it reconnects, which reads as no."""
        try:
            return bool(self._socket.is_connected())
        except AttributeError:
            return False

    def wait(self, seconds: float) -> bool:
        """Until it is connected, or that long."""
        ends = time.monotonic() + seconds
        while not self.connected and time.monotonic() < ends:
            time.sleep(0.02)
        return self.connected

    def close(self) -> None:
        """Let what came in be acknowledged, then hang up."""
        self._stop.set()
        with self._idle:
            self._idle.wait_for(lambda: not self._busy, DRAIN)
        self._wake_the_receiver()
        self._hang_up()

    def _hang_up(self) -> None:
        """Close the client, in bounded time: a receiver that begins just now takes back the sign to end, once."""
        closing = threading.Thread(target=self._close_client, name="slack-close", daemon=True)
        closing.start()
        ends = time.monotonic() + HANG_UP
        while closing.is_alive() and time.monotonic() < ends:
            self._socket.current_session_state.terminated = True
            closing.join(0.02)

    def _close_client(self) -> None:
        self._connector.join()
        for _ in range(3):
            with contextlib.suppress(AttributeError):  # its receiver took the same socket away at the same moment
                self._socket.close()
                return

    def _wake_the_receiver(self) -> None:
        """The client's threads would sit in their receiving calls for seconds before they saw that we close."""
        self._socket.auto_reconnect_enabled, self._socket.closed = False, True
        self._socket.message_queue.put(None)
        session = self._socket.current_session
        if session is not None and session.sock is not None:
            with contextlib.suppress(OSError):
                session.sock.shutdown(socket.SHUT_RDWR)

    def _keep_connected(self) -> None:
        """Connect at the start, and again whenever the client's own reconnecting has given up."""
        failures = 0
        while not self._stop.is_set():
            if self.connected:
                if failures:
                    log.warning("connected to Slack again")
                failures = 0
            elif why := self._connect():
                failures += 1
                if failures == 1 and not self._stop.is_set():
                    log.warning("Slack cannot be reached (%s); trying again until it can", why)
            self._stop.wait(min(0.5 * 2 ** min(failures, 8), LONGEST_BACK_OFF))

    def _connect(self) -> str:
        """Why it did not work; empty when it did."""
        try:
            self._socket.connect_to_new_endpoint()
        except SlackApiError as error:
            return str(error.response.get("error"))
        except Exception as error:  # anything: a socket, TLS, a proxy, an answer that is no JSON
            return type(error).__name__
        return "" if self.connected else "no connection could be opened"  # the client keeps that error to itself

    def _note_arrival(self, message: str) -> None:
        if found := _ENVELOPE.search(message):
            self._arrived[found[1]] = time.monotonic()
            if len(self._arrived) > 10_000:
                self._arrived.pop(next(iter(self._arrived)), None)

    def _handle(self, client: BaseSocketModeClient, request: SocketModeRequest) -> None:
        with self._idle:
            self._busy += 1
        try:
            started = time.time()
            answer = self._app.dispatch(self._as_bolt_request(request))
            send_response(client, request, answer, started)
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()

    def _as_bolt_request(self, request: SocketModeRequest) -> BoltRequest:
        """With the seconds that it waited for a free worker, so that a command nobody waits for any more is not run."""
        arrived = self._arrived.pop(request.envelope_id, None)
        waited = time.monotonic() - arrived if arrived is not None else 0.0
        headers: dict[str, Any] = {WAITED: f"{waited:.3f}"}
        if request.retry_attempt:
            headers["x-slack-retry-num"] = str(request.retry_attempt)
        return BoltRequest(mode="socket_mode", body=request.payload, headers=headers)


def connect(app: App, app_token: str, base: str = SLACK, workers: int = WORKERS, ping: float = PING) -> Connection:
    """Open Socket Mode and keep it open, also when Slack is away now. Raises Permanent for a forbidden address."""
    return Connection(app, app_token, base, workers, ping)
