"""What tests and harnesses can ask of the local Slack besides acting as people: look, break, change.

One table of names. The same table answers `POST /_admin/NAME` and the driver in the same process.
"""

import asyncio
import base64
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from bot.sandbox.slack import payloads
from bot.sandbox.slack.people import People
from bot.sandbox.slack.socket_mode import SocketMode
from bot.sandbox.slack.state import CannotDo, SlackError, State
from bot.sandbox.slack.web_api import Fault, WebApi
from bot.sandbox.slack.workspace import Json

Action = Callable[..., Awaitable[Any]]
LONGEST_WAIT = 30.0
REFUSALS = (CannotDo, TypeError, ValueError, KeyError)  # what `run` raises when an action cannot be done as asked
TUPLES = ("members",)


class Admin:
    """The administrator's actions; `run` looks one up by its name."""

    def __init__(self, state: State, sockets: SocketMode, web_api: WebApi, people: People) -> None:
        self.state = state
        self.sockets = sockets
        self.web_api = web_api
        self.people = people
        self.of_people: dict[str, Action] = {
            "type": people.type, "slash": people.slash, "say": people.say, "click": people.click,
            "click_in_view": people.click_in_view, "click_in_home": people.click_in_home, "submit": people.submit,
            "close": people.close, "open_home": people.open_home,
        }  # fmt: skip
        own = (
            self.messages, self.ephemerals, self.notices, self.views, self.home, self.calls, self.deliveries,
            self.connections, self.wait, self.fault, self.clear_faults, self.socket_faults, self.disconnect, self.drop,
            self.deliver, self.deliver_copy, self.change_person, self.change_channel, self.change_group,
            self.change_limits, self.bot_user, self.direct_channel, self.hints, self.file, self.load, self.everything,
            self.permalink,
        )  # fmt: skip
        self.actions = self.of_people | {one.__name__: one for one in own}

    async def run(self, name: str, args: Json) -> Any:
        """Do one action; what cannot be done is a CannotDo with a sentence."""
        action = self.actions.get(name)
        if action is None:
            raise CannotDo(f"There is no action {name!r}; there are {', '.join(sorted(self.actions))}.")
        try:
            return await action(**args)
        except SlackError as error:
            raise CannotDo(f"Slack answers {error.code}.") from error

    # Looking

    async def everything(self) -> Json:
        return self.state.as_json()

    async def messages(self, channel: str, thread_ts: str | None = None) -> list[Json]:
        where = self.state.channel(channel).id
        return self.state.thread(where, thread_ts) if thread_ts else list(self.state.messages[where].values())

    async def ephemerals(self, person: str | None = None) -> list[Json]:
        wanted = self.state.person(person).id if person else None
        return [one for one in self.state.ephemerals.values() if wanted in (None, one["to"])]

    async def notices(self, person: str | None = None) -> list[Json]:
        wanted = self.state.person(person).id if person else None
        return [one for one in self.state.notices if wanted in (None, one["to"])]

    async def views(self, person: str) -> list[Json]:
        return [self.state.views[one] for one in self.state.stacks[self.state.person(person).id]]

    async def home(self, person: str) -> Json | None:
        return self.state.homes.get(self.state.person(person).id)

    async def calls(self, method: str | None = None) -> list[Json]:
        return [one for one in self.state.calls if method in (None, one["method"])]

    async def deliveries(self, kind: str | None = None) -> list[Json]:
        return [one.as_json() for one in self.sockets.deliveries if kind in (None, one.kind)]

    async def bot_user(self) -> str:
        return self.state.workspace.bot_user

    async def direct_channel(self, person: str) -> str:
        """The conversation of a person with the bot."""
        return self.state.direct_channel(self.state.person(person).id).id

    async def connections(self) -> int:
        return len(self.sockets.connections)

    async def permalink(self, channel: str, ts: str) -> str:
        return f"{self.state.base_url}/archives/{self.state.channel(channel).id}/p{ts.replace('.', '')}"

    async def file(self, file_id: str) -> Json:
        """The bytes of an uploaded file, as base64."""
        upload = self.state.uploads.get(file_id)
        if upload is None or upload.content is None:
            raise CannotDo(f"There is no file {file_id!r}.")
        return {"name": upload.name, "title": upload.title, "content": base64.b64encode(upload.content).decode()}

    async def wait(self, revision: int, seconds: float) -> int:
        """The revision, as soon as it is newer than the given one."""
        return await self.state.changed_since(revision, min(seconds, LONGEST_WAIT))

    # Breaking

    async def fault(self, **of: Any) -> None:
        self.web_api.faults.append(Fault(**of))

    async def clear_faults(self) -> None:
        self.web_api.faults.clear()
        self.sockets.faults.delay_seconds = 0.0
        self.sockets.faults.duplicate_next = self.sockets.faults.ignore_acks = 0

    async def socket_faults(self, **of: Any) -> None:
        for name, value in of.items():
            if not hasattr(self.sockets.faults, name):
                raise CannotDo(f"There is no socket fault {name!r}.")
            setattr(self.sockets.faults, name, value)

    async def disconnect(self, reason: str = "refresh_requested", close: bool = False) -> int:
        return await self.sockets.disconnect(reason, close)

    async def drop(self) -> int:
        return self.sockets.drop()

    async def deliver(self, kind: str, payload: Json) -> Json:
        """Send any payload at all, such as one of another team."""
        return (await self.sockets.deliver(kind, payload)).as_json()

    async def deliver_copy(self, envelope_id: str) -> Json:
        return (await self.sockets.deliver_copy(envelope_id)).as_json()

    # Changing

    async def change_person(self, person: str, **changes: Any) -> None:
        changed = self.state.change_person(person, **changes)
        self._tell(payloads.user_changed(self.state, changed))

    async def change_channel(self, channel: str, **changes: Any) -> None:
        self.state.change_channel(channel, **_tuples(changes))

    async def change_group(self, group: str, **changes: Any) -> None:
        before = self.state.groups[group].members
        changed = self.state.change_group(group, **_tuples(changes))
        self._tell(payloads.group_changed(self.state, changed, before))

    def _tell(self, event: Json) -> None:
        """Deliver an event about the workspace, if the app subscribed to it."""
        if event["event"]["type"] in self.state.workspace.events:
            self.sockets.spawn(self.sockets.deliver_event(event))

    async def change_limits(self, **changes: Any) -> None:
        self.state.limits = replace(self.state.limits, **changes)
        self.web_api.rates.limits = self.state.limits
        self.web_api.rates.buckets.clear()

    async def hints(self, hints: list[str]) -> None:
        self.state.hints = list(hints)
        self.state.publish("hints", hints=self.state.hints)

    # Measuring

    async def load(self, person: str, command: str, text: str, channel: str, rate: float, seconds: float) -> Json:
        """Type a command `rate` times per second for so long, whether or not answers keep up."""
        started = asyncio.get_running_loop().time()
        running: list[asyncio.Task[Json]] = []
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0.0, started + number / rate - asyncio.get_running_loop().time()))
            one = self.people.slash(person, command, text.replace("{n}", str(number)), channel)
            running.append(asyncio.create_task(one))
        ended = await asyncio.gather(*running)
        took = asyncio.get_running_loop().time() - started
        errors = [one["error"] for one in ended if one["error"]]
        return {"sent": len(ended), "seconds": took, "errors": errors, "ack_ms": [one["ack_ms"] for one in ended]}


def _tuples(changes: Json) -> Json:
    return {name: tuple(value) if name in TUPLES else value for name, value in changes.items()}
