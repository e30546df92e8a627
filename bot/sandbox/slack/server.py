"""The local Slack itself: one aiohttp server in a thread of its own, on loopback only."""

import asyncio
import ipaddress
import json
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from aiohttp import web

from bot.sandbox.slack.admin import REFUSALS, Admin
from bot.sandbox.slack.driver import Driver, Refused
from bot.sandbox.slack.limits import Limits
from bot.sandbox.slack.pages import Pages, refuse_strangers
from bot.sandbox.slack.people import People
from bot.sandbox.slack.socket_mode import SocketMode
from bot.sandbox.slack.state import State
from bot.sandbox.slack.web_api import WebApi
from bot.sandbox.slack.workspace import Json, Workspace, example

LARGEST_BODY = 64 * 1024 * 1024
START_SECONDS = 10.0
STOP_SECONDS = 10.0
IDLE_SECONDS = 3600.0  # a harness may pause for long between two questions


class PortInUse(Exception):
    """Another program listens on the port."""


class NotLoopback(Exception):
    """The local Slack was asked to listen where other machines could reach it."""


class LocalSlack:
    """A Slack for one laptop: `start()` it, point Bolt's WebClient at `api_url`, chat at `page_url`, use `driver`.

    `workspace` is a Workspace, its dict, or nothing for the example company. `clock_factor` shortens Slack's long waits
    (event retries, response URLs): 60 makes a minute a second.
    """

    def __init__(
        self,
        workspace: Workspace | Mapping[str, Any] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        clock_factor: float = 1.0,
        limits: Limits | None = None,
        hints: Sequence[str] = (),
    ) -> None:
        self.host = _loopback(host)
        self.port = port
        known = Workspace.from_dict(workspace) if isinstance(workspace, Mapping) else workspace or example()
        self._state = State(known, replace(limits or Limits(), clock_factor=clock_factor))
        self._state.hints = list(hints)
        self._sockets = SocketMode(self._state)
        self._web_api = WebApi(self._state, self._sockets)
        self._admin = Admin(self._state, self._sockets, self._web_api, People(self._state, self._sockets))
        self._pages = Pages(self._state, self._admin)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._end: asyncio.Event | None = None
        self.driver = Driver(self.call)

    def add_command(self, command: str, answer: Callable[[str], str], menu: Sequence[Json] = ()) -> None:
        """A command that is answered here, and that the app never sees; `menu` is what the page offers to type:
        `title` and `items` of each group.
        """
        self._state.own[command] = answer
        self._state.menu.extend(menu)

    # Addresses

    @property
    def base_url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def api_url(self) -> str:
        """For `WebClient(base_url=…)`."""
        return f"{self.base_url}/api/"

    @property
    def page_url(self) -> str:
        """To open in a browser; it holds the secret."""
        return f"{self.base_url}/?token={self.secret}"

    @property
    def secret(self) -> str:
        return self._pages.secret

    @property
    def address(self) -> Json:
        """What a driver in another process needs: `Driver.connect(**slack.address)`."""
        return {"base_url": self.base_url, "secret": self.secret}

    # Life

    def start(self) -> Self:
        """Listen; a port in use is refused here, in the caller's thread."""
        listening = _listen(self.host, self.port)
        self.port = listening.getsockname()[1]
        self._state.base_url = self.base_url
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening, ready), name="local-slack", daemon=True)
        self._thread.start()
        if not ready.wait(START_SECONDS):
            raise RuntimeError(f"The local Slack did not start within {START_SECONDS:.0f} seconds.")
        return self

    def stop(self) -> None:
        """Close every connection and end the thread."""
        if self._loop is None or self._thread is None or self._end is None:
            return
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError(f"The local Slack did not stop within {STOP_SECONDS:.0f} seconds.")
        self._loop = self._thread = self._end = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, name: str, args: Json, seconds: float = 120.0) -> Any:
        """Run one action of `admin` in the server's thread; the answer is a copy, as it would be over HTTP."""
        if self._loop is None:
            raise RuntimeError("The local Slack is not running.")
        running = asyncio.run_coroutine_threadsafe(self._copied(name, args), self._loop)
        try:
            return json.loads(running.result(seconds))
        except REFUSALS as error:
            raise Refused(str(error)) from error

    async def _copied(self, name: str, args: Json) -> str:
        return json.dumps(await self._admin.run(name, args))

    def _run(self, listening: socket.socket, ready: threading.Event) -> None:
        with asyncio.Runner() as runner:
            runner.run(self._serve(listening, ready))

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=1.0,
            keepalive_timeout=IDLE_SECONDS,
        )
        await runner.setup()
        await web.SockSite(runner, listening).start()
        ready.set()
        await self._end.wait()
        self._state.end_subscriptions()
        await self._sockets.close()
        await runner.cleanup()

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[refuse_strangers], client_max_size=LARGEST_BODY)
        application.add_routes(self._pages.routes())
        application.add_routes(
            [
                web.get("/link/", self._sockets.link),
                web.get("/api/{method}", self._web_api.answer),
                web.post("/api/{method}", self._web_api.answer),
            ]
        )
        return application


def _loopback(host: str) -> str:
    if host == "localhost" or ipaddress.ip_address(host).is_loopback:
        return host
    raise NotLoopback(f"The local Slack listens on this machine only, not on {host}: anybody could approve there.")


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port))
    except OSError as error:
        raise PortInUse(
            f"Port {port} on {host} cannot be used: {os.strerror(error.errno or 0).lower()}. Choose another port."
        ) from error
