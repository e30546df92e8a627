"""What changes while the local Slack runs: messages, views, files, triggers; and who is told of a change.

Touched only from the server's event loop, so nothing here locks.
"""

import asyncio
import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from bot.sandbox.slack.limits import Limits
from bot.sandbox.slack.workspace import Channel, Group, Json, Person, Workspace

CALLS_KEPT = 50_000
SHORT_LIVED_KEPT = 20_000  # triggers, response URLs, private messages, notices: the oldest go first
SUBSCRIBER_BACKLOG = 10_000
PNG = b"\x89PNG\r\n\x1a\n"  # how such a file begins

T = TypeVar("T")


class SlackError(Exception):
    """An `ok: false` answer of the Web API: Slack's error code and what belongs to it."""

    def __init__(self, code: str, **more: Any) -> None:
        super().__init__(code)
        self.code = code
        self.more = more


class CannotDo(Exception):
    """Slack's own client would not let this person do this; the message says why."""


@dataclass(slots=True)
class Trigger:
    """A `trigger_id`: opens one view for one person, soon."""

    person: str
    made: float
    view: str | None = None
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """Where an app may answer an interaction a few times without posting rights."""

    person: str
    channel: str
    made: float
    thread_ts: str | None = None
    message_ts: str | None = None
    ephemeral: bool = False
    uses: int = 0


@dataclass(slots=True)
class Upload:
    """A file: announced by getUploadURLExternal, filled by a POST, shared by completeUploadExternal."""

    id: str
    name: str
    length: int
    ticket: str
    content: bytes | None = None
    title: str = ""
    alt: str = ""
    shared_in: list[str] = field(default_factory=list)

    @property
    def is_picture(self) -> bool:
        """By its bytes, whatever it is called."""
        return (self.content or b"").startswith(PNG)


def _keep(kept: dict[str, T], key: str, value: T) -> None:
    kept[key] = value
    if len(kept) > SHORT_LIVED_KEPT:
        del kept[next(iter(kept))]


class State:
    """The living workspace."""

    def __init__(self, workspace: Workspace, limits: Limits) -> None:
        self.workspace = workspace
        self.limits = limits
        self.base_url = ""
        self.people = {one.id: one for one in workspace.people}
        self.channels = {one.id: one for one in workspace.channels}
        self.groups = {one.id: one for one in workspace.groups}
        self.messages: dict[str, dict[str, Json]] = {one: {} for one in self.channels}
        self.ephemerals: dict[str, Json] = {}
        self.notices: deque[Json] = deque(maxlen=SHORT_LIVED_KEPT)
        self.views: dict[str, Json] = {}
        self.stacks: dict[str, list[str]] = {one: [] for one in self.people}
        self.homes: dict[str, Json] = {}
        self.uploads: dict[str, Upload] = {}
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.calls: deque[Json] = deque(maxlen=CALLS_KEPT)
        self.hints: list[str] = []
        self.own: dict[str, Callable[[str], str]] = {}  # commands of the surroundings, which the app never sees
        self.menu: list[Json] = []
        self.connections = 0
        self.revision = 0
        self._last_ts = 0
        self._numbers = itertools.count(1)
        self._subscribers: set[asyncio.Queue[Json | None]] = set()
        self._waiting: list[asyncio.Future[None]] = []

    # Names and times

    def next_ts(self) -> str:
        """A message time stamp: microseconds, unique, ever growing."""
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        return f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06d}"

    def next_id(self, letter: str) -> str:
        return f"{letter}0{next(self._numbers):06X}{secrets.token_hex(2).upper()}"

    def person(self, given: str) -> Person:
        """By id or by name."""
        found = self.people.get(given) or next((one for one in self.people.values() if one.name == given), None)
        if found is None:
            raise CannotDo(f"There is nobody called {given!r}; there are {', '.join(self.people)}.")
        return found

    def channel(self, given: str) -> Channel:
        """By id or by name, with or without `#`."""
        name = given.removeprefix("#")
        found = self.channels.get(given) or next((one for one in self.channels.values() if one.name == name), None)
        if found is None or not name:
            raise CannotDo(f"There is no channel {given!r}; there are {', '.join(self.channels)}.")
        return found

    def require_scope(self, scope: str) -> None:
        provided = self.workspace.scopes
        if scope not in provided:
            raise SlackError("missing_scope", needed=scope, provided=",".join(provided))

    def team_of(self, person: Person) -> str:
        return person.team or self.workspace.team

    # Changes that an administrator makes while everything runs

    def change_person(self, person: str, **changes: Any) -> Person:
        changed = replace(self.person(person), **changes)
        self.people[changed.id] = changed
        self.publish("person", id=changed.id)
        return changed

    def change_channel(self, channel: str, **changes: Any) -> Channel:
        changed = replace(self.channel(channel), **changes)
        self.channels[changed.id] = changed
        self.publish("channel", id=changed.id)
        return changed

    def change_group(self, group: str, **changes: Any) -> Group:
        changed = replace(self.groups[group], **changes)
        self.groups[group] = changed
        self.publish("group", id=group)
        return changed

    def direct_channel(self, person: str) -> Channel:
        """The conversation between a person and the bot, made when it is first needed."""
        both = {person, self.workspace.bot_user}
        for one in self.channels.values():
            if one.kind == "im" and set(one.members) == both:
                return one
        made = Channel(f"D{person[1:]}", "", "im", (person, self.workspace.bot_user))
        self.channels[made.id] = made
        self.messages[made.id] = {}
        self.publish("channel", id=made.id)
        return made

    # Messages

    def post(self, channel: str, message: Json) -> Json:
        """Keep a new message, and count it at its thread's parent."""
        message = {"type": "message", "ts": self.next_ts(), "team": self.workspace.team} | message
        self.messages[channel][message["ts"]] = message
        thread_ts = message.get("thread_ts")
        if thread_ts and thread_ts != message["ts"]:
            self._count_reply(channel, thread_ts, message)
        self.publish("message", channel=channel, message=message)
        return message

    def _count_reply(self, channel: str, thread_ts: str, reply: Json) -> None:
        parent = self.messages[channel].get(thread_ts)
        if parent is None:
            return
        reply["parent_user_id"] = parent["user"]
        parent["thread_ts"] = thread_ts
        parent["reply_count"] = parent.get("reply_count", 0) + 1
        parent["reply_users"] = sorted({*parent.get("reply_users", ()), reply["user"]})
        parent["reply_users_count"] = len(parent["reply_users"])
        parent["latest_reply"] = reply["ts"]
        self.publish("message", channel=channel, message=parent)

    def find_message(self, channel: str, ts: str) -> Json | None:
        """A message, also one that only one person saw."""
        kept = self.messages.get(channel, {}).get(ts)
        if kept is not None:
            return kept
        private = self.ephemerals.get(ts)
        return private if private and private["channel"] == channel else None

    def replace_message(self, channel: str, ts: str, changes: Json) -> Json:
        message = self.find_message(channel, ts)
        if message is None:
            raise SlackError("message_not_found")
        message.update(changes)
        kind = "ephemeral" if message.get("is_ephemeral") else "message"
        self.publish(kind, channel=channel, message=message)
        return message

    def delete_message(self, channel: str, ts: str) -> None:
        """A parent with replies leaves a tombstone, as in Slack."""
        message = self.messages[channel].get(ts)
        if message and message.get("reply_count"):
            gone = {"subtype": "tombstone", "text": "This message was deleted.", "blocks": [], "files": []}
            self.replace_message(channel, ts, gone)
            return
        self.messages[channel].pop(ts, None)
        self.ephemerals.pop(ts, None)
        self.publish("deleted", channel=channel, ts=ts)

    def whisper(self, channel: str, person: str, message: Json) -> Json:
        """Show a message to one person; it is gone when the page is reloaded."""
        private: Json = {"type": "message", "ts": self.next_ts(), "is_ephemeral": True}
        private |= {"to": person, "channel": channel}
        private |= message
        _keep(self.ephemerals, private["ts"], private)
        self.publish("ephemeral", channel=channel, message=private)
        return private

    def notice(self, person: str, channel: str | None, text: str, **more: Any) -> None:
        """What Slack's client itself tells a person, such as that an app did not answer."""
        told = {"ts": self.next_ts(), "to": person, "channel": channel, "text": text} | more
        self.notices.append(told)
        self.publish("notice", **told)

    def thread(self, channel: str, thread_ts: str) -> list[Json]:
        return [one for one in self.messages[channel].values() if thread_ts in (one["ts"], one.get("thread_ts"))]

    # Views

    def top_view(self, person: str) -> Json | None:
        stack = self.stacks[person]
        return self.views[stack[-1]] if stack else None

    def show_views(self, person: str) -> None:
        self.publish("views", person=person, views=[self.views[one] for one in self.stacks[person]])

    def new_trigger(self, person: str, view: str | None = None) -> str:
        trigger = f"{next(self._numbers)}.{time.time_ns() // 1_000_000}.{secrets.token_hex(16)}"
        _keep(self.triggers, trigger, Trigger(person, time.monotonic(), view))
        return trigger

    def new_response_url(self, answer_to: ResponseUrl) -> str:
        path = f"{self.workspace.team}/{next(self._numbers)}/{secrets.token_urlsafe(18)}"
        _keep(self.response_urls, path, answer_to)
        return f"{self.base_url}/response/{path}"

    # Who is told

    def publish(self, kind: str, **facts: Any) -> None:
        self.revision += 1
        event = {"kind": kind, "revision": self.revision} | facts
        for queue in list(self._subscribers):
            self._hand(queue, event)
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if not one.done():
                one.set_result(None)

    def _hand(self, queue: asyncio.Queue[Json | None], event: Json) -> None:
        if queue.qsize() >= SUBSCRIBER_BACKLOG:  # a page that sleeps: it reads everything anew when it is back
            self._subscribers.discard(queue)
            queue.put_nowait(None)
            return
        queue.put_nowait(event)

    def subscribe(self) -> asyncio.Queue[Json | None]:
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        self._subscribers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Json | None]) -> None:
        self._subscribers.discard(queue)

    def end_subscriptions(self) -> None:
        for queue in self._subscribers:
            queue.put_nowait(None)
        self._subscribers.clear()

    async def changed_since(self, revision: int, seconds: float) -> int:
        """Wait until something is newer than `revision`, or for so long."""
        if self.revision <= revision:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await asyncio.wait((waiter,), timeout=seconds)
        return self.revision

    def as_json(self) -> Json:
        """Everything that can be seen, for the page and for tests; not the private messages."""
        return {
            "revision": self.revision,
            "workspace": {"name": self.workspace.name, "team": self.workspace.team, "domain": self.workspace.domain},
            "bot": {"user": self.workspace.bot_user, "name": self.workspace.bot_name, "app": self.workspace.app},
            "commands": [dict(one) for one in self.workspace.commands.values()],
            "people": [asdict(one) for one in self.people.values()],
            "channels": [asdict(one) for one in self.channels.values()],
            "groups": [asdict(one) for one in self.groups.values()],
            "messages": {channel: list(kept.values()) for channel, kept in self.messages.items()},
            "views": {who: [self.views[one] for one in stack] for who, stack in self.stacks.items() if stack},
            "homes": dict(self.homes),
            "hints": list(self.hints),
            "menu": list(self.menu),
            "connections": self.connections,
        }
