"""The Web API's front: tokens, scopes, rate limits, injected faults, arguments; the methods are in `methods_*`."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from bot.sandbox.slack import methods_chat, methods_files, methods_people, methods_views
from bot.sandbox.slack.limits import RateLimits
from bot.sandbox.slack.socket_mode import SocketMode
from bot.sandbox.slack.state import SlackError, State
from bot.sandbox.slack.workspace import Json

BOT_TOKEN, APP_TOKEN = "xoxb-local", "xapp-local"
# Arguments that a form carries as JSON text, and that a JSON body may carry so too.
STRUCTURED = ("blocks", "attachments", "view", "files", "metadata")
ANY = "*"


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the Web API: what it does, and which scopes the token needs for it."""

    call: Callable[[State, Json], Json]
    scopes: tuple[str, ...] = ()


METHODS: dict[str, Method] = {
    "auth.test": Method(methods_people.auth_test),
    "chat.delete": Method(methods_chat.delete, ("chat:write",)),
    "chat.getPermalink": Method(methods_chat.get_permalink),
    "chat.postEphemeral": Method(methods_chat.post_ephemeral, ("chat:write",)),
    "chat.postMessage": Method(methods_chat.post_message, ("chat:write",)),
    "chat.update": Method(methods_chat.update, ("chat:write",)),
    "conversations.history": Method(methods_people.conversations_history),
    "conversations.info": Method(methods_people.conversations_info),
    "conversations.list": Method(methods_people.conversations_list),
    "conversations.members": Method(methods_people.conversations_members),
    "conversations.open": Method(methods_people.conversations_open, ("im:write",)),
    "conversations.replies": Method(methods_people.conversations_replies),
    "files.completeUploadExternal": Method(methods_files.complete_upload, ("files:write",)),
    "files.getUploadURLExternal": Method(methods_files.get_upload_url, ("files:write",)),
    "reactions.add": Method(methods_chat.add_reaction, ("reactions:write",)),
    "team.info": Method(methods_people.team_info, ("team:read",)),
    "usergroups.list": Method(methods_people.usergroups_list, ("usergroups:read",)),
    "usergroups.users.list": Method(methods_people.usergroups_users_list, ("usergroups:read",)),
    "users.info": Method(methods_people.users_info, ("users:read",)),
    "users.list": Method(methods_people.users_list, ("users:read",)),
    "views.open": Method(methods_views.open_view),
    "views.publish": Method(methods_views.publish),
    "views.push": Method(methods_views.push),
    "views.update": Method(methods_views.update),
}


@dataclass(slots=True)
class Fault:
    """Something that goes wrong with the next `times` calls of `method` (`*`: of any).

    `status` 429 or 500 answers so; `error` answers `ok: false`; `drop` cuts the connection `before` the call has its
    effect or `after` it; `seconds` makes the answer late, and alone does nothing else.
    """

    method: str = ANY
    times: int = 1
    status: int | None = None
    retry_after: int = 1
    error: str | None = None
    seconds: float = 0.0
    drop: str | None = None

    def __post_init__(self) -> None:
        if self.drop not in (None, "before", "after"):
            raise ValueError(f"A connection can be dropped 'before' or 'after' a call, not {self.drop!r}.")
        if self.status not in (None, 429, 500, 503):
            raise ValueError(f"A fault can answer 429, 500 or 503, not {self.status!r}.")


@dataclass(slots=True)
class Call:
    """One call of the Web API as it is answered."""

    method: str
    args: Json
    token: str
    at: float = field(default_factory=time.time)


class WebApi:
    """Answers `POST /api/METHOD`."""

    def __init__(self, state: State, sockets: SocketMode) -> None:
        self.state = state
        self.sockets = sockets
        self.rates = RateLimits(state.limits)
        self.faults: list[Fault] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        call = Call(request.match_info["method"], {}, _token(request))
        fault = self._fault_for(call.method)
        if fault and fault.seconds:
            await asyncio.sleep(fault.seconds)
        if fault and fault.drop == "before":
            return self._cut(request, call, "dropped before")
        if fault and fault.status:
            return self._log(call, _http_error(fault.status, fault.retry_after), f"http_{fault.status}")
        try:
            call.args |= await read_arguments(request)
            response = self._respond(call, fault)
        except SlackError as error:
            response = self._log(call, _refusal(error), error.code)
        if fault and fault.drop == "after":
            return self._cut(request, call, None)
        return response

    def _respond(self, call: Call, fault: Fault | None) -> web.Response:
        if fault and fault.error:
            raise SlackError(fault.error)
        if call.method == "apps.connections.open":
            result = self._open_connection(call.token)
        else:
            method = self._method(call)
            retry_after = self.rates.retry_after(call.method, call.args.get("channel"))
            if retry_after:
                return self._log(call, _http_error(429, retry_after), "ratelimited")
            result = method.call(self.state, call.args)
        return self._log(call, web.json_response({"ok": True} | result, headers=self._scope_headers()), None)

    def _method(self, call: Call) -> Method:
        method = METHODS.get(call.method)
        if method is None:
            raise SlackError("unknown_method", req_method=call.method)
        if call.token.startswith(APP_TOKEN):
            raise SlackError("not_allowed_token_type")
        _refuse_token(call.token, BOT_TOKEN)
        for scope in method.scopes:
            self.state.require_scope(scope)
        return method

    def _open_connection(self, token: str) -> Json:
        if token.startswith(BOT_TOKEN):
            raise SlackError("not_allowed_token_type")
        _refuse_token(token, APP_TOKEN)
        address = self.state.base_url.replace("http://", "ws://", 1)
        return {"url": f"{address}/link/?ticket={self.sockets.new_ticket()}&app_id={self.state.workspace.app}"}

    def _scope_headers(self) -> dict[str, str]:
        return {"x-oauth-scopes": ",".join(self.state.workspace.scopes)}

    def _fault_for(self, method: str) -> Fault | None:
        for fault in self.faults:
            if fault.method in (ANY, method):
                fault.times -= 1
                if fault.times <= 0:
                    self.faults.remove(fault)
                return fault
        return None

    def _log(self, call: Call, response: web.Response, error: str | None) -> web.Response:
        record = {"method": call.method, "args": call.args, "error": error, "at": call.at}
        self.state.calls.append(record | {"token": call.token.split("-")[0]})
        return response

    def _cut(self, request: web.Request, call: Call, error: str | None) -> web.Response:
        if error:
            self._log(call, web.Response(), error)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


def _token(request: web.Request) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _refuse_token(token: str, prefix: str) -> None:
    if not token:
        raise SlackError("not_authed")
    if not token.startswith(prefix):
        raise SlackError("invalid_auth")


def _http_error(status: int, retry_after: int) -> web.Response:
    if status == 429:
        headers = {"Retry-After": str(retry_after)}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)
    return web.Response(status=status, text="Slack is having trouble (injected).")


def _refusal(error: SlackError) -> web.Response:
    return web.json_response({"ok": False, "error": error.code} | error.more)


async def read_arguments(request: web.Request) -> Json:
    """Arguments of a call, from the query, a form or a JSON body; what is structured is parsed."""
    args: Json = dict(request.query)
    if request.content_type == "application/json":
        args |= _json_object(await request.text())
    elif request.can_read_body:
        args |= {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
    for name in STRUCTURED:
        if isinstance(args.get(name), str):
            args[name] = _structured(name, args[name])
    return {name: value for name, value in args.items() if value is not None and name != "token"}


def _json_object(text: str) -> Json:
    try:
        body = json.loads(text or "{}")
    except ValueError:
        raise SlackError("invalid_json") from None
    if not isinstance(body, dict):
        raise SlackError("json_not_object")
    return body


def _structured(name: str, text: str) -> Any:
    if not text:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise SlackError(f"invalid_{name}" if name == "blocks" else "invalid_arguments") from None
