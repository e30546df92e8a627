"""The page to chat in, its live updates, files; and who may ask for anything at all.

Everything is refused that does not name this machine as its host (a foreign site whose name points at 127.0.0.1), and
everything that a foreign page sends (`Origin`). The page also needs the secret of its start-up address.
"""

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from bot.sandbox.slack import methods_files
from bot.sandbox.slack.admin import REFUSALS, Admin
from bot.sandbox.slack.answers import use_response_url
from bot.sandbox.slack.state import State
from bot.sandbox.slack.workspace import Json

PAGE = Path(__file__).parent / "page"
KINDS = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
SHIPPED = {one.name: KINDS[one.suffix] for one in PAGE.iterdir() if one.suffix in KINDS}
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
REFUSED_HOST = "This server answers only to this machine's own address."
REFUSED_ORIGIN = "This request comes from another page."
REFUSED_SECRET = "This page needs the address that was printed when the local Slack started."
KEEP_ALIVE_SECONDS = 15.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Pages:
    """Routes for people's browsers and for drivers in other processes."""

    def __init__(self, state: State, admin: Admin) -> None:
        self.state = state
        self.admin = admin
        self.secret = secrets.token_urlsafe(24)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/", self.index),
            web.get("/page/{name}", self.shipped),
            web.get("/_page/state", self.read_state),
            web.get("/_page/events", self.events),
            web.post("/_page/act/{name}", self.act),
            web.post("/_admin/{name}", self.administer),
            web.get("/files/{id}", self.file),
            web.get("/archives/{channel}/{message}", self.permalink),
            web.post("/upload/{id}/{ticket}", self.upload),
            web.post("/response/{path:.+}", self.respond),
        ]

    # The page

    async def index(self, request: web.Request) -> web.StreamResponse:
        """The page; the secret in the address becomes a cookie and leaves the address."""
        if _same(request.query.get("token", ""), self.secret):
            seen = web.Response(status=303, headers=HEADERS | {"Location": "/"})
            seen.set_cookie(self._cookie(), self.secret, httponly=True, samesite="Lax", path="/")
            return seen
        self._need_cookie(request)
        return _shipped("index.html", "text/html")

    async def shipped(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        if name not in SHIPPED:
            raise web.HTTPNotFound(text=f"There is no {name}.")
        return _shipped(name, SHIPPED[name])

    async def read_state(self, request: web.Request) -> web.StreamResponse:
        self._need_cookie(request)
        return web.json_response(self.state.as_json(), headers=HEADERS)

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: everything that happens, as it happens."""
        self._need_cookie(request)
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "text/event-stream"})
        queue = self.state.subscribe()
        try:
            await response.prepare(request)
            await response.write(b"retry: 500\n\n")
            await self._stream(response, queue)
        except ConnectionError:
            pass  # the browser went away
        finally:
            self.state.unsubscribe(queue)
        return response

    async def _stream(self, response: web.StreamResponse, queue: asyncio.Queue[Json | None]) -> None:
        while True:
            try:
                event = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
            except TimeoutError:
                await response.write(b": still here\n\n")
                continue
            if event is None:
                return
            await response.write(f"data: {json.dumps(event)}\n\n".encode())

    async def act(self, request: web.Request) -> web.StreamResponse:
        """What a person does in the page."""
        self._need_cookie(request)
        if "Origin" not in request.headers:
            raise web.HTTPForbidden(text=REFUSED_ORIGIN)
        name = request.match_info["name"]
        if name not in self.admin.of_people:
            raise web.HTTPNotFound(text=f"People cannot {name}.")
        return await self._run(name, request)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """An uploaded file: a PNG as the picture that it is, anything else as plain text, never as a page."""
        self._need_cookie(request)
        upload = self.state.uploads.get(request.match_info["id"])
        if upload is None or upload.content is None:
            raise web.HTTPNotFound(text="There is no such file.")
        shown = {"Content-Type": "image/png" if upload.is_picture else "text/plain; charset=utf-8"}
        if request.query.get("download"):
            safe = "".join(one if one.isascii() and (one.isalnum() or one in "._-") else "_" for one in upload.name)
            shown["Content-Disposition"] = f'attachment; filename="{safe}"'
        return web.Response(body=upload.content, headers=HEADERS | shown)

    async def permalink(self, request: web.Request) -> web.StreamResponse:
        self._need_cookie(request)
        digits = request.match_info["message"].removeprefix("p")
        ts = f"{digits[:-6]}.{digits[-6:]}"
        target = f"/#channel={request.match_info['channel']}&message={ts}"
        return web.Response(status=303, headers=HEADERS | {"Location": target})

    # The app's side that is not the Web API

    async def upload(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        wrong = methods_files.receive(self.state, request.match_info["id"], request.match_info["ticket"], content)
        return web.Response(status=400 if wrong else 200, text=wrong or f"OK - {len(content)}")

    async def respond(self, request: web.Request) -> web.StreamResponse:
        answer = await _body(request)
        self.state.calls.append({"method": "response_url", "args": answer, "error": None, "at": 0.0, "token": ""})
        error = use_response_url(self.state, request.match_info["path"], answer)
        if error is None:
            return web.Response(text="ok")
        self.state.calls[-1]["error"] = error
        return web.json_response({"ok": False, "error": error}, status=404)

    # Drivers

    async def administer(self, request: web.Request) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not _same(given, self.secret):
            raise web.HTTPForbidden(text="The administrator's secret is missing or wrong.")
        return await self._run(request.match_info["name"], request)

    async def _run(self, name: str, request: web.Request) -> web.StreamResponse:
        try:
            result = await self.admin.run(name, await _body(request))
        except REFUSALS as error:
            return web.json_response({"error": str(error)}, status=409, headers=HEADERS)
        return web.json_response({"result": result}, headers=HEADERS)

    # Secrets

    def _cookie(self) -> str:
        """Cookies know no ports: two local Slacks must not overwrite each other's."""
        return f"local_slack_{self.state.base_url.rpartition(':')[2]}"

    def _need_cookie(self, request: web.Request) -> None:
        if not _same(request.cookies.get(self._cookie(), ""), self.secret):
            raise web.HTTPForbidden(text=REFUSED_SECRET, headers=HEADERS)


@web.middleware
async def refuse_strangers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only this machine's own names as host, and no request that a foreign page caused."""
    name = request.headers.get("Host", "").lower()
    host = name if name.endswith("]") else name.rpartition(":")[0] or name
    if host not in LOOPBACK_NAMES:
        return web.Response(status=403, text=REFUSED_HOST)
    origin = request.headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{name}":
        return web.Response(status=403, text=REFUSED_ORIGIN)
    return await handler(request)


def _same(given: str, secret: str) -> bool:
    return secrets.compare_digest(given.encode(), secret.encode())


def _shipped(name: str, kind: str) -> web.Response:
    return web.Response(text=(PAGE / name).read_text("utf-8"), content_type=kind, charset="utf-8", headers=HEADERS)


async def _body(request: web.Request) -> Any:
    try:
        return json.loads(await request.text() or "{}")
    except ValueError:
        raise web.HTTPBadRequest(text="The body is not JSON.") from None
