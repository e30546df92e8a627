"""Socket Mode: connections, envelopes to a random one of them, acknowledgements, events sent again."""

import asyncio
import json
import random
import secrets
import time
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from aiohttp import WSMsgType, web

from bot.sandbox.slack.limits import RETRIED_EVENT_SECONDS
from bot.sandbox.slack.state import State
from bot.sandbox.slack.workspace import Json

DELIVERIES_KEPT = 20_000
CONNECTION_SECONDS = 18_060
ANSWERED_WITH_A_BODY = frozenset({"slash_commands", "interactive"})


@dataclass(slots=True, eq=False)
class Connection:
    """One WebSocket of the app."""

    number: int
    socket: web.WebSocketResponse
    request: web.Request


@dataclass(slots=True, eq=False)
class Delivery:
    """One envelope on its way, and how it ended. `error` is None when it was acknowledged in time."""

    kind: str
    payload: Json
    attempt: int = 0
    reason: str = ""
    envelope_id: str = field(default_factory=lambda: str(uuid4()))
    connection: int | None = None
    sent: float = 0.0
    ack_ms: float | None = None
    reply: Any = None
    error: str | None = None
    answered: asyncio.Future[None] | None = None

    def as_json(self) -> Json:
        names = ("kind", "payload", "attempt", "reason", "envelope_id", "connection", "ack_ms", "reply", "error")
        return {name: getattr(self, name) for name in names} | {"acked": self.ack_ms is not None}

    def envelope(self) -> Json:
        made = {
            "envelope_id": self.envelope_id, "type": self.kind, "payload": self.payload,
            "accepts_response_payload": self.kind in ANSWERED_WITH_A_BODY,
        }  # fmt: skip
        if self.kind == "events_api":
            made |= {"retry_attempt": self.attempt, "retry_reason": self.reason}
        return made


@dataclass(slots=True)
class SocketFaults:
    """What an administrator makes go wrong between Slack and the app."""

    delay_seconds: float = 0.0
    duplicate_next: int = 0
    ignore_acks: int = 0


class SocketMode:
    """The app's open connections, and what is being delivered over them."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.faults = SocketFaults()
        self.connections: list[Connection] = []
        self.deliveries: deque[Delivery] = deque(maxlen=DELIVERIES_KEPT)
        self._open: dict[str, Delivery] = {}
        self._tickets: set[str] = set()
        self._count = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    # Connecting

    def new_ticket(self) -> str:
        ticket = secrets.token_urlsafe(24)
        self._tickets.add(ticket)
        return ticket

    async def link(self, request: web.Request) -> web.StreamResponse:
        """Answer `GET /link/`: one WebSocket for one ticket."""
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=403, text="This connection URL was used already, or was never given out.")
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse(heartbeat=15, compress=False)
        await socket.prepare(request)
        if len(self.connections) >= self.state.limits.connections:
            await socket.send_json({"type": "disconnect", "reason": "too_many_websockets"})
            await socket.close()
            return socket
        await self._serve(socket, request)
        return socket

    async def _serve(self, socket: web.WebSocketResponse, request: web.Request) -> None:
        self._count += 1
        connection = Connection(self._count, socket, request)
        self.connections.append(connection)
        await socket.send_json(self._hello())
        self._count_connections()
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    self._acknowledge(message.data)
        finally:
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
        self._count_connections()

    def _count_connections(self) -> None:
        self.state.connections = len(self.connections)
        self.state.publish("connections", count=self.state.connections)

    def _hello(self) -> Json:
        debug = {
            "host": "applink-local", "build_number": 1, "approximate_connection_time": CONNECTION_SECONDS,
        }  # fmt: skip
        app = {"app_id": self.state.workspace.app}
        return {
            "type": "hello", "num_connections": len(self.connections), "debug_info": debug, "connection_info": app,
        }  # fmt: skip

    # Delivering

    async def deliver(self, kind: str, payload: Json, attempt: int = 0, reason: str = "") -> Delivery:
        """Send one envelope and wait for its acknowledgement, at most 3 seconds."""
        if self.faults.delay_seconds:
            await asyncio.sleep(self.faults.delay_seconds)
        delivery = Delivery(kind, payload, attempt, reason)
        if self.faults.duplicate_next > 0:
            self.faults.duplicate_next -= 1
            self.spawn(self._send_and_wait(Delivery(kind, payload, attempt, reason)))
        await self._send_and_wait(delivery)
        return delivery

    async def _send_and_wait(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        delivery.answered = asyncio.get_running_loop().create_future()
        self._open[delivery.envelope_id] = delivery
        if not await self._send(delivery):
            delivery.error = "dispatch_failed"
            return
        await asyncio.wait((delivery.answered,), timeout=self.state.limits.ack_seconds)
        if delivery.ack_ms is None:
            delivery.error = "operation_timeout"
            self.state.publish("unacknowledged", envelope_id=delivery.envelope_id)

    async def _send(self, delivery: Delivery) -> bool:
        """Over one of the connections, at random: Slack promises no affinity."""
        text = json.dumps(delivery.envelope())
        for connection in random.sample(self.connections, len(self.connections)):
            delivery.connection, delivery.sent = connection.number, time.perf_counter()
            try:
                await connection.socket.send_str(text)
            except (ConnectionError, RuntimeError):  # it closed just now: another may be open
                continue
            return True
        return False

    def _acknowledge(self, text: str) -> None:
        """An acknowledgement counts over whichever connection it comes."""
        try:
            said = json.loads(text)
        except ValueError:
            return
        delivery = self._open.get(said.get("envelope_id", "")) if isinstance(said, dict) else None
        if delivery is None or delivery.answered is None or self._ignored():
            return
        del self._open[delivery.envelope_id]
        delivery.ack_ms = (time.perf_counter() - delivery.sent) * 1000
        delivery.reply = said.get("payload")
        if not delivery.answered.done():
            delivery.answered.set_result(None)

    def _ignored(self) -> bool:
        if self.faults.ignore_acks <= 0:
            return False
        self.faults.ignore_acks -= 1
        return True

    async def deliver_event(self, payload: Json) -> Delivery:
        """Deliver an event; the first attempt's end is returned, later attempts go on by themselves."""
        first = await self.deliver("events_api", payload)
        if first.error:
            self.spawn(self._deliver_again(payload, _reason(first)))
        return first

    async def _deliver_again(self, payload: Json, reason: str) -> None:
        for attempt, seconds in enumerate(RETRIED_EVENT_SECONDS, start=1):
            await asyncio.sleep(self.state.limits.scaled(seconds))
            again = await self.deliver("events_api", payload, attempt, reason)
            if not again.error:
                return
            reason = _reason(again)

    async def deliver_copy(self, envelope_id: str) -> Delivery:
        """Send the payload of an earlier envelope once more, under a new envelope id."""
        earlier = next(one for one in reversed(self.deliveries) if one.envelope_id == envelope_id)
        return await self.deliver(earlier.kind, earlier.payload, earlier.attempt, earlier.reason)

    # Breaking

    async def disconnect(self, reason: str, close: bool = False) -> int:
        """Tell every connection to go (`warning`, `refresh_requested`, `link_disabled`); returns how many were told."""
        told = list(self.connections)
        debug = {"host": "applink-local"}
        for one in told:
            await one.socket.send_json({"type": "disconnect", "reason": reason, "debug_info": debug})
            if close:
                self.spawn(one.socket.close())
        return len(told)

    def drop(self) -> int:
        """Cut the TCP connections without a word."""
        cut = list(self.connections)
        for one in cut:
            if one.request.transport is not None:
                one.request.transport.abort()
            self._forget(one)
        return len(cut)

    # Ending

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for one in list(self.connections):
            await one.socket.close(code=1001)


def _reason(failed: Delivery) -> str:
    return "connection_failed" if failed.error == "dispatch_failed" else "timeout"
