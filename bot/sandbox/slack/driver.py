"""Drive the local Slack from a test or a harness, in the same process or in another one.

    slack = local_slack.driver                      # the same process
    slack = Driver.connect(base_url, secret)        # another process: LocalSlack.address has both
    ana = slack.person("ana")
    ack = ana.slash("/travis", "diagnose builds not starting", channel="ops")
    report = slack.wait_for(lambda s: s.find(channel="ops", containing="Builds are not starting"), 5)
    slack.person("bo").click(report, "approve")

Every answer is a copy. Every wait is bounded.
"""

import base64
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from bot.sandbox.slack.blocks_check import interactive
from bot.sandbox.slack.workspace import Json

T = TypeVar("T")
HTTP_SECONDS = 150.0
LONGEST_POLL = 0.25  # a predicate may look at more than the local Slack


class Refused(Exception):
    """The local Slack would not do this; the message says why."""


class NotSeen(Exception):
    """What was waited for did not come in time; the message shows what was there instead."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message, with what a test asks most often."""

    raw: Json
    channel: str

    @property
    def ts(self) -> str:
        return str(self.raw["ts"])

    @property
    def thread_ts(self) -> str | None:
        found: str | None = self.raw.get("thread_ts")
        return found

    @property
    def user(self) -> str:
        return str(self.raw.get("user", ""))

    @property
    def text(self) -> str:
        return str(self.raw.get("text", ""))

    @property
    def blocks(self) -> list[Json]:
        return self.raw.get("blocks") or []

    @property
    def files(self) -> list[Json]:
        return self.raw.get("files") or []

    @property
    def edited(self) -> bool:
        return "edited" in self.raw

    @property
    def actions(self) -> list[str]:
        """The action_ids of everything that can be pressed."""
        return [one["action_id"] for block in self.blocks for one in interactive(block)]

    @property
    def all_text(self) -> str:
        """Text and every text of every block, a line each."""
        return "\n".join([self.text, *_texts(self.blocks)])


@dataclass(frozen=True, slots=True)
class Ack:
    """How an envelope was acknowledged. `ms` is None when it was not, and then `error` says so."""

    acked: bool
    ms: float | None
    error: str | None
    reply: Any
    shown: str | None
    envelope_id: str | None
    trigger_id: str | None
    errors: Json
    ts: str | None

    @classmethod
    def of(cls, answer: Json) -> Self:
        return cls(
            bool(answer.get("acked")), answer.get("ack_ms"), answer.get("error"), answer.get("reply"),
            answer.get("shown"), answer.get("envelope_id"), answer.get("trigger_id"), answer.get("errors") or {},
            answer.get("ts"),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """What a stretch of commands at a steady rate showed; latencies in milliseconds until the acknowledgement."""

    sent: int
    seconds: float
    errors: tuple[str, ...]
    ack_ms: tuple[float, ...]

    def percentile(self, share: float) -> float:
        """The latency that this share (0..1) of the acknowledged commands stayed within."""
        if not self.ack_ms:
            raise ValueError("No command was acknowledged.")
        return sorted(self.ack_ms)[min(len(self.ack_ms) - 1, int(share * len(self.ack_ms)))]


class Driver:
    """The whole local Slack, seen from outside."""

    def __init__(self, ask: Callable[[str, Json], Any], close: Callable[[], None] = lambda: None) -> None:
        self._ask = ask
        self.close = close

    @classmethod
    def connect(cls, base_url: str, secret: str) -> Self:
        """Drive a local Slack in another process."""
        remote = _Remote(base_url, secret)
        return cls(remote.ask, remote.close)

    def ask(self, action: str, **args: Any) -> Any:
        """Any action of `admin` by its name."""
        return self._ask(action, args)

    def person(self, person: str) -> "Person":
        """Somebody, by id or by name."""
        return Person(self, person)

    # Looking

    def messages(self, channel: str, thread_ts: str | None = None) -> list[Message]:
        """All messages of a channel (in threads too), or of one thread with its parent."""
        found = self.ask("messages", channel=channel, thread_ts=thread_ts)
        return [Message(one, channel) for one in found]

    def thread(self, parent: Message) -> list[Message]:
        return self.messages(parent.channel, parent.thread_ts or parent.ts)

    def find(self, channel: str, containing: str, thread_ts: str | None = None) -> Message | None:
        """The newest message whose text or blocks contain this."""
        found = [one for one in self.messages(channel, thread_ts) if containing in one.all_text]
        return found[-1] if found else None

    def ephemerals(self, person: str | None = None) -> list[Message]:
        """Messages that only one person saw."""
        return [Message(one, one["channel"]) for one in self.ask("ephemerals", person=person)]

    def notices(self, person: str | None = None) -> list[str]:
        """What Slack itself told people, such as that the app did not answer."""
        return [one["text"] for one in self.ask("notices", person=person)]

    def views(self, person: str) -> list[Json]:
        """The stack of open modals, the top one last."""
        found: list[Json] = self.ask("views", person=person)
        return found

    def view(self, person: str) -> Json | None:
        """The modal on top."""
        stack = self.views(person)
        return stack[-1] if stack else None

    def home(self, person: str) -> Json | None:
        found: Json | None = self.ask("home", person=person)
        return found

    def calls(self, method: str | None = None) -> list[Json]:
        """Web API calls as they came: method, args, error (None when ok), at, token."""
        found: list[Json] = self.ask("calls", method=method)
        return found

    def deliveries(self, kind: str | None = None) -> list[Json]:
        """Envelopes as they were sent: kind, payload, attempt, acked, ack_ms, reply, error."""
        found: list[Json] = self.ask("deliveries", kind=kind)
        return found

    def file(self, file_id: str) -> bytes:
        return base64.b64decode(self.ask("file", file_id=file_id)["content"])

    def connections(self) -> int:
        """How many WebSockets the app has open."""
        return int(self.ask("connections"))

    def wait_for(self, predicate: Callable[["Driver"], T | None], timeout: float = 10.0) -> T:
        """The first truthy value of `predicate(driver)`, asked again after each change; NotSeen when time is up."""
        ends = time.monotonic() + timeout
        revision = int(self.ask("wait", revision=-1, seconds=0))
        while True:
            found = predicate(self)
            if found:
                return found
            left = ends - time.monotonic()
            if left <= 0:
                raise NotSeen(f"Not seen within {timeout:g} s. Last: {self._last_seen()}")
            revision = int(self.ask("wait", revision=revision, seconds=min(left, LONGEST_POLL)))

    def wait_for_connection(self, timeout: float = 10.0, at_least: int = 1) -> int:
        return self.wait_for(lambda slack: slack.connections() >= at_least and slack.connections(), timeout)

    def _last_seen(self) -> str:
        every = [one for kept in self.ask("everything")["messages"].values() for one in kept]
        latest = sorted(every, key=lambda one: str(one["ts"]))[-3:]
        return " | ".join(f"{one.get('user')}: {one.get('text', '')[:120]}" for one in latest) or "no message at all"

    # Breaking

    def fault(self, method: str = "*", **of: Any) -> None:
        """The next `times` calls of `method` fail: see `web_api.Fault`."""
        self.ask("fault", method=method, **of)

    def socket_faults(self, **of: Any) -> None:
        """`delay_seconds` before each envelope, `duplicate_next` envelopes twice, `ignore_acks` of the next ones."""
        self.ask("socket_faults", **of)

    def clear_faults(self) -> None:
        self.ask("clear_faults")

    def disconnect(self, reason: str = "refresh_requested", close: bool = False) -> int:
        return int(self.ask("disconnect", reason=reason, close=close))

    def drop_connections(self) -> int:
        return int(self.ask("drop"))

    def deliver(self, kind: str, payload: Json) -> Ack:
        """Send any payload at all over Socket Mode."""
        return Ack.of(self.ask("deliver", kind=kind, payload=payload))

    def deliver_again(self, envelope_id: str) -> Ack:
        return Ack.of(self.ask("deliver_copy", envelope_id=envelope_id))

    # Changing

    def change_person(self, person: str, **changes: Any) -> None:
        """Such as `deactivated=True`."""
        self.ask("change_person", person=person, **changes)

    def change_channel(self, channel: str, **changes: Any) -> None:
        self.ask("change_channel", channel=channel, **changes)

    def change_group(self, group: str, **changes: Any) -> None:
        self.ask("change_group", group=group, **changes)

    def change_limits(self, **changes: Any) -> None:
        self.ask("change_limits", **changes)

    def set_hints(self, hints: list[str]) -> None:
        self.ask("hints", hints=hints)

    # Measuring

    def load(self, person: str, command: str, text: str, channel: str, rate: float, seconds: float) -> Load:
        """Commands at a steady rate, started and measured inside the server; `{n}` in `text` is the number of each."""
        found = self.ask("load", person=person, command=command, text=text, channel=channel, rate=rate, seconds=seconds)
        latencies = tuple(one for one in found["ack_ms"] if one is not None)
        return Load(found["sent"], found["seconds"], tuple(found["errors"]), latencies)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody at the keyboard."""

    slack: Driver
    name: str

    def slash(self, command: str, text: str = "", channel: str = "ops", thread_ts: str | None = None) -> Ack:
        """Run a slash command; `shown` is what Slack shows for it."""
        return self._do("slash", command=command, text=text, channel=channel, thread_ts=thread_ts)

    def say(self, text: str, channel: str = "ops", thread_ts: str | None = None, wait: bool = False) -> Ack:
        """Post a message; `@names` are resolved. With `wait`, the event's acknowledgement is waited for."""
        return self._do("say", text=text, channel=channel, thread_ts=thread_ts, wait=wait)

    def mention(self, text: str, channel: str = "ops", thread_ts: str | None = None, wait: bool = True) -> Ack:
        """Say something to the bot."""
        return self.say(f"<@{self.slack.ask('bot_user')}> {text}", channel, thread_ts, wait)

    def tell(self, text: str, wait: bool = True) -> Ack:
        """Say something in the conversation with the bot."""
        return self.say(text, self.slack.ask("direct_channel", person=self.name), None, wait)

    def click(
        self,
        message: Message,
        action_id: str,
        block_id: str | None = None,
        value: Any = None,
        values: Json | None = None,
    ) -> Ack:
        """Press a button of a message, or choose `value` in a menu of it."""
        return self._do(
            "click", channel=message.channel, ts=message.ts, action_id=action_id, block_id=block_id, value=value,
            values=values,
        )  # fmt: skip

    def click_in_view(
        self, action_id: str, block_id: str | None = None, value: Any = None, values: Json | None = None
    ) -> Ack:
        return self._do("click_in_view", action_id=action_id, block_id=block_id, value=value, values=values)

    def submit(self, values: Json | None = None) -> Ack:
        """Fill in the modal on top (by action_id or block_id) and submit; `errors` is what the person sees."""
        return self._do("submit", values=values)

    def close(self) -> None:
        """Close the modal on top."""
        self.slack.ask("close", person=self.name)

    def open_home(self) -> None:
        self.slack.ask("open_home", person=self.name)

    def view(self, timeout: float = 5.0) -> Json:
        """The modal on top, as soon as there is one."""
        return self.slack.wait_for(lambda slack: slack.view(self.name), timeout)

    def _do(self, action: str, **args: Any) -> Ack:
        return Ack.of(self.slack.ask(action, person=self.name, **args))


class _Remote:
    """Actions over HTTP, one kept connection per thread: hundreds of commands a second."""

    def __init__(self, base_url: str, secret: str) -> None:
        parts = urlsplit(base_url)
        self._host, self._port = str(parts.hostname), parts.port
        self._headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
        self._kept = threading.local()
        self._all: list[http.client.HTTPConnection] = []

    def close(self) -> None:
        """Close the connections of all threads; the next question opens new ones."""
        self._kept = threading.local()
        while self._all:
            self._all.pop().close()

    def ask(self, action: str, args: Json) -> Any:
        status, text = self._post(f"/_admin/{action}", json.dumps(args))
        if status != 200:
            raise Refused(_sentence(text))
        return json.loads(text)["result"]

    def _post(self, path: str, body: str) -> tuple[int, str]:
        connection = getattr(self._kept, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=HTTP_SECONDS)
            self._kept.connection = connection
            self._all.append(connection)
        try:
            connection.request("POST", path, body, self._headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException):
            connection.close()
            self._kept.connection = None
            raise


def _sentence(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, one in value.items():
            if name == "text" and isinstance(one, str):
                yield one
            else:
                yield from _texts(one)
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
