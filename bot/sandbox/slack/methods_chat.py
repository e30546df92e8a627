"""chat.* and reactions.add: what the app says."""

import json
from typing import Any
from uuid import uuid4

from bot.sandbox.slack import payloads
from bot.sandbox.slack.blocks_check import Problem, check_blocks, too_long_together
from bot.sandbox.slack.limits import METADATA_BYTES, TEXT_POSTED, TEXT_UPDATED
from bot.sandbox.slack.state import SlackError, State
from bot.sandbox.slack.workspace import Channel, Json

TRUE_FORMS = (True, "true", "True", "1", 1)
KEPT_IN_MESSAGE = ("blocks", "attachments", "metadata")


def post_message(state: State, args: Json) -> Json:
    where = writable_channel(state, args)
    content = _content(args)
    thread_ts = _thread(state, where, args)
    if thread_ts:
        content["thread_ts"] = thread_ts
        if args.get("reply_broadcast") in TRUE_FORMS:
            content["subtype"] = "thread_broadcast"
    message = state.post(where.id, payloads.bot_message(state) | content)
    return {"channel": where.id, "ts": message["ts"], "message": message} | _warnings(args)


def update(state: State, args: Json) -> Json:
    where = readable_channel(state, args)
    message = _own_message(state, where, args, "cant_update_message")
    if len(str(args.get("text") or "")) > TEXT_UPDATED:
        raise SlackError("msg_too_long")
    if not any(name in args for name in ("text", *KEPT_IN_MESSAGE)):
        raise SlackError("no_text")
    changes = _content(args, message.get("blocks"))
    if _shown(message) != _shown(message | changes):
        changes["edited"] = {"user": state.workspace.bot_user, "ts": state.next_ts()}
    changed = state.replace_message(where.id, message["ts"], changes)
    return {"channel": where.id, "ts": changed["ts"], "text": changed.get("text", ""), "message": changed}


def _shown(message: Json) -> tuple[Any, ...]:
    return message.get("text"), json.dumps(message.get("blocks") or [], sort_keys=True)


def delete(state: State, args: Json) -> Json:
    where = readable_channel(state, args)
    message = _own_message(state, where, args, "cant_delete_message")
    state.delete_message(where.id, message["ts"])
    return {"channel": where.id, "ts": message["ts"]}


def post_ephemeral(state: State, args: Json) -> Json:
    where = writable_channel(state, args)
    person = str(args.get("user") or "")
    if person not in where.members:
        raise SlackError("user_not_in_channel")
    content = _content(args)
    thread_ts = _thread(state, where, args)
    if thread_ts:
        content["thread_ts"] = thread_ts
    if thread_ts and len(state.thread(where.id, thread_ts)) < 2:
        return {"message_ts": state.next_ts()}  # "only shown if there is already an active thread", and no error
    message = state.whisper(where.id, person, payloads.bot_message(state) | content)
    return {"message_ts": message["ts"]}


def get_permalink(state: State, args: Json) -> Json:
    where = readable_channel(state, args)
    ts = str(args.get("message_ts") or "")
    message = state.messages[where.id].get(ts)
    if message is None:
        raise SlackError("message_not_found")
    link = f"{state.base_url}/archives/{where.id}/p{ts.replace('.', '')}"
    thread_ts = message.get("thread_ts")
    if thread_ts and thread_ts != ts:
        link += f"?thread_ts={thread_ts}&cid={where.id}"
    return {"channel": where.id, "permalink": link}


def add_reaction(state: State, args: Json) -> Json:
    where = writable_channel(state, args)
    message = state.messages[where.id].get(str(args.get("timestamp") or ""))
    if message is None:
        raise SlackError("message_not_found")
    name, who = str(args.get("name") or "").strip(":"), state.workspace.bot_user
    if not name:
        raise SlackError("invalid_name")
    reactions: list[Json] = message.setdefault("reactions", [])
    mine = next((one for one in reactions if one["name"] == name), None)
    if mine and who in mine["users"]:
        raise SlackError("already_reacted")
    if mine is None:
        mine = {"name": name, "users": [], "count": 0}
        reactions.append(mine)
    mine["users"].append(who)
    mine["count"] += 1
    state.publish("message", channel=where.id, message=message)
    return {}


# What a message may be


def _content(args: Json, blocks_before: Any = None) -> Json:
    """Text and blocks of a message after Slack's checks; blocks that are not given stay as they were."""
    content: Json = {name: args[name] for name in KEPT_IN_MESSAGE if name in args}
    content["text"] = str(args.get("text") or "")[:TEXT_POSTED]
    if "blocks" in content:
        content["blocks"] = checked_blocks(content["blocks"])
    elif blocks_before:
        content["blocks"] = blocks_before
    if len(json.dumps(content.get("metadata", {}))) > METADATA_BYTES:
        raise SlackError("metadata_too_large")
    if not content["text"] and not content.get("blocks") and not content.get("attachments"):
        raise SlackError("no_text")
    return content


def checked_blocks(blocks: Any) -> list[Json]:
    """Blocks with ids filled in; refused as Slack would."""
    problems = check_blocks(blocks, "message")
    if problems:
        raise refuse("invalid_blocks", problems)
    if too_long_together(blocks):
        raise SlackError("msg_blocks_too_long")
    return named_blocks(blocks)


def named_blocks(blocks: list[Json]) -> list[Json]:
    """Slack gives a block_id and action_ids to what came without."""
    copied: list[Json] = json.loads(json.dumps(blocks))
    for block in copied:
        block.setdefault("block_id", uuid4().hex[:5])
        for element in (*block.get("elements", ()), block.get("element"), block.get("accessory")):
            if block["type"] in ("actions", "input", "section") and element and element["type"] != "image":
                element.setdefault("action_id", uuid4().hex[:5])
    return copied


def refuse(code: str, problems: list[Problem]) -> SlackError:
    told = [str(one) for one in problems]
    return SlackError(code, errors=told, response_metadata={"messages": [f"[ERROR] {one}" for one in told]})


def _warnings(args: Json) -> Json:
    if "text" in args:
        return {}
    return {"warning": "missing_text_in_message"}


# Where it may be said


def readable_channel(state: State, args: Json) -> Channel:
    """The channel of a call, as far as the app can see it."""
    given = str(args.get("channel") or "")
    found = state.channels.get(given)
    if found is None and given:
        found = next((one for one in state.channels.values() if one.name == given.removeprefix("#")), None)
    if found is None or (found.kind != "public" and state.workspace.bot_user not in found.members):
        raise SlackError("channel_not_found")
    return found


def writable_channel(state: State, args: Json) -> Channel:
    given = str(args.get("channel") or "")
    if given in state.people:
        return _direct(state, given)
    where = readable_channel(state, args)
    if where.archived:
        raise SlackError("is_archived")
    if state.workspace.bot_user not in where.members and "chat:write.public" not in state.workspace.scopes:
        raise SlackError("not_in_channel")
    return where


def _direct(state: State, person: str) -> Channel:
    if state.people[person].deactivated:
        raise SlackError("user_disabled")
    return state.direct_channel(person)


def _thread(state: State, where: Channel, args: Json) -> str | None:
    """The thread to answer in; an answer to a reply joins the reply's thread."""
    given = args.get("thread_ts")
    if not given:
        return None
    parent = state.messages[where.id].get(str(given))
    if parent is None:
        raise SlackError("thread_not_found")
    return str(parent.get("thread_ts") or given)


def _own_message(state: State, where: Channel, args: Json, refusal: str) -> Json:
    message = state.messages[where.id].get(str(args.get("ts") or ""))
    if message is None or message.get("subtype") == "tombstone":
        raise SlackError("message_not_found")
    if message.get("bot_id") != state.workspace.bot:
        raise SlackError(refusal)
    return message
