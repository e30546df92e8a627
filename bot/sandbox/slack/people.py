"""What people do in Slack's client: type, press, fill in; and what the client makes of the app's acknowledgement."""

import asyncio
import json
import time
from typing import Any
from uuid import uuid4

from bot.sandbox.slack import payloads
from bot.sandbox.slack.answers import show_answer
from bot.sandbox.slack.elements import Pressed, fill_in, find_element, pressed, too_short_or_missing
from bot.sandbox.slack.methods_views import checked_view, initial_values, push_view, replace_view
from bot.sandbox.slack.socket_mode import Delivery, SocketMode
from bot.sandbox.slack.state import CannotDo, ResponseUrl, SlackError, State
from bot.sandbox.slack.workspace import Channel, Json, Person

NO_SUCH_COMMAND = (
    "{command} is not a valid command. In Slack, all messages that start with the “/” character are "
    "interpreted as commands. If you are trying to send a message and not run a command, try preceding the “/” "
    "with an empty space."
)
IN_THREAD = "{command} is not supported in threads. Sorry!"
FAILED = "{command} failed with the error “{error}”"
NO_ANSWER_TO_CLICK = "This app is not responding ({error})."
NO_ANSWER_TO_VIEW = "We had some trouble connecting. Try again? ({error})"


class People:
    """Everything that a person can do, as one coroutine each; every answer is JSON."""

    def __init__(self, state: State, sockets: SocketMode) -> None:
        self.state = state
        self.sockets = sockets

    # Typing

    async def type(self, person: str, text: str, channel: str, thread_ts: str | None = None) -> Json:
        """What the composer does: a command when it begins with `/`, else a message."""
        if not text.startswith("/"):
            return await self.say(person, text, channel, thread_ts)
        command, _, rest = text.partition(" ")
        return await self.slash(person, command, rest.strip(), channel, thread_ts)

    async def slash(
        self, person: str, command: str, text: str = "", channel: str = "", thread_ts: str | None = None
    ) -> Json:
        """Run a slash command; returns how it was acknowledged, and what Slack showed."""
        who, where = self._acting(person), self.state.channel(channel)
        self._must_be_in(who, where)
        if own := self.state.own.get(command):
            told = self._tell(who, where, await asyncio.to_thread(own, text))
            return {"acked": True, "ack_ms": None, "error": None, "reply": None} | told
        refused = self._refused_command(who, command, thread_ts)
        if refused:
            self.state.notice(who.id, where.id, refused, thread_ts=thread_ts)
            return {"acked": False, "ack_ms": None, "error": "refused", "shown": refused, "reply": None}
        escaped = self.state.workspace.commands[command].get("should_escape")
        sent = payloads.typed(self.state, text, named=True) if escaped else text
        payload = payloads.slash_command(self.state, who, where, command, sent)
        delivery = await self.sockets.deliver("slash_commands", payload)
        return self._acknowledged(delivery) | self._show_command(delivery, who, where, f"{command} {text}".strip())

    def _refused_command(self, who: Person, command: str, thread_ts: str | None) -> str:
        if command not in self.state.workspace.commands or who.team:
            return NO_SUCH_COMMAND.format(command=command)
        return IN_THREAD.format(command=command) if thread_ts else ""

    def _show_command(self, delivery: Delivery, who: Person, where: Channel, typed: str) -> Json:
        """What appears after a command: Slack's own error, or the app's reply."""
        command = typed.split(" ")[0]
        if delivery.error:
            return self._tell(who, where, FAILED.format(command=command, error=delivery.error))
        reply = {"text": delivery.reply} if isinstance(delivery.reply, str) else delivery.reply
        if not reply:
            return {"shown": None}
        if reply.get("response_type") == "in_channel":
            self.state.post(where.id, {"user": who.id, "text": payloads.escape(typed), "is_command": True})
        source = ResponseUrl(who.id, where.id, time.monotonic())
        try:
            shown = show_answer(self.state, source, reply)
        except SlackError as error:
            return self._tell(who, where, FAILED.format(command=command, error=error.code))
        return {"shown": shown.get("text") if shown else None, "message": shown}

    def _tell(self, who: Person, where: Channel, text: str) -> Json:
        self.state.notice(who.id, where.id, text)
        return {"shown": text}

    async def say(self, person: str, text: str, channel: str, thread_ts: str | None = None, wait: bool = False) -> Json:
        """Post a message; the app hears of it when it is mentioned, or in its own conversation."""
        who, where = self._acting(person, bots_too=True), self.state.channel(channel)
        self._must_be_in(who, where)
        message = self.state.post(where.id, self._said(who, where, text, thread_ts))
        delivering = self._hear(where, message)
        if delivering is None:
            return {"ts": message["ts"], "message": message, "acked": False, "ack_ms": None, "error": None}
        if wait:
            delivery = await self.sockets.deliver_event(delivering)
            return {"ts": message["ts"], "message": message} | self._acknowledged(delivery)
        self.sockets.spawn(self.sockets.deliver_event(delivering))
        return {"ts": message["ts"], "message": message, "acked": None, "ack_ms": None, "error": None}

    def _said(self, who: Person, where: Channel, text: str, thread_ts: str | None) -> Json:
        if where.archived:
            raise CannotDo(f"#{where.name} is archived.")
        if thread_ts and thread_ts not in self.state.messages[where.id]:
            raise CannotDo(f"There is no message {thread_ts} in #{where.name} to answer to.")
        if not text.strip():
            raise CannotDo("An empty message cannot be sent.")
        written = payloads.typed(self.state, text)
        said = {
            "user": who.id, "text": written, "team": self.state.team_of(who), "client_msg_id": str(uuid4()),
            "blocks": payloads.as_rich_text(written),
        }  # fmt: skip
        if who.bot:
            said |= {"bot_id": f"B{who.id[1:]}"}
        if who.team:
            said |= {"user_team": who.team, "source_team": who.team}
        return said | ({"thread_ts": thread_ts} if thread_ts else {})

    def _hear(self, where: Channel, message: Json) -> Json | None:
        """The event that the app gets for a message, if it subscribed to it and is there."""
        workspace = self.state.workspace
        if workspace.bot_user not in where.members:
            return None
        mentioned = f"<@{workspace.bot_user}>" in message["text"]
        wanted = "message.im" in workspace.events if where.kind == "im" else mentioned
        if where.kind != "im" and "app_mention" not in workspace.events:
            wanted = False
        return payloads.mention_event(self.state, where, message) if wanted else None

    # Pressing

    async def click(
        self,
        person: str,
        channel: str,
        ts: str,
        action_id: str,
        block_id: str | None = None,
        value: Any = None,
        values: Json | None = None,
    ) -> Json:
        """Press a button of a message, or choose `value` in one of its menus."""
        who, where = self._acting(person), self.state.channel(channel)
        self._must_be_in(who, where)
        message = self.state.find_message(where.id, ts)
        if message is None or message.get("to", who.id) != who.id:
            raise CannotDo(f"{who.real_name} sees no message {ts} in {where.name or where.id}.")
        what = self._pressed(message.get("blocks") or [], action_id, block_id, value)
        filled = fill_in(message.get("blocks") or [], initial_values(message.get("blocks") or []), values or {})
        payload = payloads.message_action(self.state, who, where, message, what, filled)
        delivery = await self.sockets.deliver("interactive", payload)
        if delivery.error:
            told = NO_ANSWER_TO_CLICK.format(error=delivery.error)
            self.state.notice(who.id, where.id, told, message_ts=ts, action_id=action_id)
        return self._acknowledged(delivery)

    async def click_in_view(
        self, person: str, action_id: str, block_id: str | None = None, value: Any = None, values: Json | None = None
    ) -> Json:
        """Press a button of the modal on top; what was filled in so far goes with it."""
        who = self._acting(person)
        view = self._top_view(who)
        what = self._pressed(view["blocks"], action_id, block_id, value)
        view["state"]["values"] = fill_in(view["blocks"], view["state"]["values"], values or {})
        delivery = await self.sockets.deliver("interactive", payloads.view_action(self.state, who, view, what))
        if delivery.error:
            self.state.notice(who.id, None, NO_ANSWER_TO_CLICK.format(error=delivery.error), view=view["id"])
        return self._acknowledged(delivery)

    async def click_in_home(self, person: str, action_id: str, block_id: str | None = None, value: Any = None) -> Json:
        who = self._acting(person)
        view = self.state.homes.get(who.id)
        if view is None:
            raise CannotDo(f"The app has published no home for {who.real_name}.")
        what = self._pressed(view["blocks"], action_id, block_id, value)
        delivery = await self.sockets.deliver("interactive", payloads.view_action(self.state, who, view, what))
        return self._acknowledged(delivery)

    def _pressed(self, blocks: list[Json], action_id: str, block_id: str | None, value: Any) -> Pressed:
        block, element = find_element(blocks, action_id, block_id)
        return pressed(block, element, value, self.state.next_ts())

    # Modals

    async def submit(self, person: str, values: Json | None = None) -> Json:
        """Fill in the modal on top and submit it; `errors` by block_id says what the person sees."""
        who = self._acting(person)
        view = self._top_view(who)
        if view["submit"] is None:
            raise CannotDo(f"The modal “{view['title']['text']}” has nothing to submit.")
        view["state"]["values"] = fill_in(view["blocks"], view["state"]["values"], values or {})
        missing = too_short_or_missing(view["blocks"], view["state"]["values"])
        if missing:
            self.state.publish("view_errors", person=who.id, view=view["id"], errors=missing)
            return {"acked": False, "ack_ms": None, "error": "incomplete", "errors": missing, "reply": None}
        return await self._submitted(who, json.loads(json.dumps(view)))

    async def _submitted(self, who: Person, view: Json) -> Json:
        delivery = await self.sockets.deliver("interactive", payloads.view_submission(self.state, who, view))
        ended = self._acknowledged(delivery) | {"errors": {}}
        if delivery.error:
            self._trouble(who, view, delivery.error)
            return ended
        try:
            return ended | {"errors": self._apply(who, view, delivery.reply or {})}
        except SlackError as error:
            self._trouble(who, view, error.code)
            return ended | {"error": error.code}

    def _trouble(self, who: Person, view: Json, error: str) -> None:
        self.state.notice(who.id, None, NO_ANSWER_TO_VIEW.format(error=error), view=view["id"])

    def _apply(self, who: Person, view: Json, reply: Any) -> Json:
        """Do what the answer to a submission says; returns errors to show beside the inputs."""
        action = reply.get("response_action") if isinstance(reply, dict) else None
        if action == "errors":
            return self._show_errors(who, view, reply.get("errors"))
        if action in ("update", "push"):
            checked_view(reply.get("view"))
            if action == "push":
                push_view(self.state, who.id, reply["view"])
            else:
                replace_view(self.state, self.state.views[view["id"]], reply["view"])
        elif action == "clear":
            self._leave(who, 0)
        elif action is None:
            self._leave(who, -1, view["id"])
        else:
            raise SlackError("invalid_response_action")
        return {}

    def _show_errors(self, who: Person, view: Json, errors: Any) -> Json:
        inputs = {one["block_id"] for one in view["blocks"] if one["type"] == "input"}
        if not isinstance(errors, dict) or not errors or not set(errors) <= inputs:
            raise SlackError("errors_for_unknown_blocks")
        self.state.publish("view_errors", person=who.id, view=view["id"], errors=errors)
        shown: Json = dict(errors)
        return shown

    def _leave(self, who: Person, kept: int, view: str | None = None) -> None:
        stack = self.state.stacks[who.id]
        if view is None or view in stack:
            self.state.stacks[who.id] = stack[:kept]
        self.state.show_views(who.id)

    async def close(self, person: str) -> Json:
        """Close the modal on top; the app is told when the modal asks for it."""
        who = self._acting(person)
        view = self._top_view(who)
        stack = self.state.stacks[who.id]
        cleared = bool(view["clear_on_close"])
        gone = [self.state.views[one] for one in reversed(stack)] if cleared else [view]
        self._leave(who, 0 if cleared else -1)
        for one in gone:
            if one["notify_on_close"]:
                told = payloads.view_closed(self.state, who, one, cleared)
                self.sockets.spawn(self.sockets.deliver("interactive", told))
        return {}

    async def open_home(self, person: str, tab: str = "home") -> Json:
        """Open the app's home (or its messages): the app hears `app_home_opened`."""
        who = self._acting(person)
        where = self.state.direct_channel(who.id)
        if "app_home_opened" in self.state.workspace.events:
            told = payloads.home_opened_event(self.state, who, where, tab)
            self.sockets.spawn(self.sockets.deliver_event(told))
        return {}

    # Who may do what

    def _acting(self, person: str, bots_too: bool = False) -> Person:
        who = self.state.person(person)
        if who.deactivated:
            raise CannotDo(f"{who.real_name}'s account is deactivated.")
        if who.bot and not bots_too:
            raise CannotDo(f"{who.real_name} is a bot: it can post, and nothing else.")
        return who

    def _must_be_in(self, who: Person, where: Channel) -> None:
        if who.id not in where.members:
            raise CannotDo(f"{who.real_name} is not in {'#' + where.name if where.name else where.id}.")

    def _top_view(self, who: Person) -> Json:
        view = self.state.top_view(who.id)
        if view is None:
            raise CannotDo(f"{who.real_name} has no modal open.")
        return view

    def _acknowledged(self, delivery: Delivery) -> Json:
        known = delivery.as_json()
        kept = ("acked", "ack_ms", "error", "reply", "envelope_id")
        return {name: known[name] for name in kept} | {"trigger_id": delivery.payload.get("trigger_id")}
