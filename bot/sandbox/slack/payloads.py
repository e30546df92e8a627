"""The JSON that Slack sends and returns: people, channels, commands, events, clicks, views. Shapes: slack.md §1.6."""

import re
import time
from uuid import uuid4

from bot.sandbox.slack.state import ResponseUrl, State
from bot.sandbox.slack.workspace import Channel, Group, Json, Person

TOKEN = "local-verification-token"
KIND_OF_TOKEN = re.compile(r"<[^>]*>|[^<]+|<")


# What the Web API returns


def user(state: State, person: Person) -> Json:
    home = not person.team
    profile = {
        "real_name": person.real_name, "display_name": person.name, "real_name_normalized": person.real_name,
        "display_name_normalized": person.name, "status_text": "", "status_emoji": "", "title": person.about,
        "team": state.team_of(person), "avatar_hash": "",
    }  # fmt: skip
    known = {
        "id": person.id, "team_id": state.team_of(person), "name": person.name, "deleted": person.deactivated,
        "profile": profile, "is_bot": person.bot, "is_app_user": False, "updated": 1_700_000_000,
    }  # fmt: skip
    if person.deactivated:
        return known
    standing = {
        "real_name": person.real_name, "tz": person.timezone, "tz_label": person.timezone,
        "tz_offset": person.utc_offset, "is_admin": person.admin or person.owner, "is_owner": person.owner,
        "is_primary_owner": person.owner, "is_restricted": person.guest or person.single_channel_guest,
        "is_ultra_restricted": person.single_channel_guest, "is_email_confirmed": True,
        "who_can_share_contact_card": "EVERYONE",
    }  # fmt: skip
    return known | standing | ({} if home else {"is_stranger": True})


def bot_user(state: State) -> Json:
    workspace = state.workspace
    person = Person(workspace.bot_user, workspace.bot_name, workspace.bot_name, bot=True)
    known = user(state, person)
    known["profile"] |= {"api_app_id": workspace.app, "bot_id": workspace.bot}
    return known


def channel(state: State, one: Channel) -> Json:
    if one.kind == "im":
        other = next(member for member in one.members if member != state.workspace.bot_user)
        return {
            "id": one.id, "created": 1_700_000_000, "is_im": True, "is_org_shared": False, "user": other,
            "is_user_deleted": other in state.people and state.people[other].deactivated, "is_archived": one.archived,
            "context_team_id": state.workspace.team, "priority": 0,
        }  # fmt: skip
    return {
        "id": one.id, "name": one.name, "name_normalized": one.name, "is_channel": one.kind == "public",
        "is_group": one.kind == "private", "is_im": False, "is_mpim": False, "is_private": one.kind == "private",
        "created": 1_700_000_000, "is_archived": one.archived, "is_general": one.name == "general",
        "is_shared": one.shared, "is_org_shared": False, "is_ext_shared": one.shared, "is_pending_ext_shared": False,
        "shared_team_ids": [state.workspace.team], "context_team_id": state.workspace.team, "unlinked": 0,
        "is_member": state.workspace.bot_user in one.members, "num_members": len(one.members),
        "topic": {"value": "", "creator": "", "last_set": 0},
        "purpose": {"value": one.purpose, "creator": "", "last_set": 0}, "previous_names": [],
    }  # fmt: skip


def group(state: State, one: Group) -> Json:
    return {
        "id": one.id, "team_id": state.workspace.team, "is_usergroup": True, "is_subteam": True, "name": one.name,
        "description": "", "handle": one.handle, "is_external": False, "date_create": 1_700_000_000,
        "date_update": 1_700_000_000, "date_delete": 0, "auto_provision": False, "enterprise_subteam_id": "",
        "users": list(one.members), "user_count": len(one.members), "prefs": {"channels": [], "groups": []},
    }  # fmt: skip


def bot_message(state: State) -> Json:
    """What every message of the app carries besides its content."""
    workspace = state.workspace
    profile = {
        "id": workspace.bot, "app_id": workspace.app, "name": workspace.bot_name, "deleted": False,
        "updated": 1_700_000_000, "team_id": workspace.team,
    }  # fmt: skip
    return {"user": workspace.bot_user, "bot_id": workspace.bot, "app_id": workspace.app, "bot_profile": profile}


# What Slack sends to the app


def channel_name(one: Channel) -> str:
    return {"im": "directmessage", "private": "privategroup"}.get(one.kind, one.name)


def slash_command(state: State, person: Person, where: Channel, command: str, text: str) -> Json:
    workspace = state.workspace
    return {
        "token": TOKEN, "team_id": workspace.team, "team_domain": workspace.domain, "channel_id": where.id,
        "channel_name": channel_name(where), "user_id": person.id, "user_name": person.name, "command": command,
        "text": text, "api_app_id": workspace.app, "is_enterprise_install": "false",
        "response_url": state.new_response_url(ResponseUrl(person.id, where.id, time.monotonic())),
        "trigger_id": state.new_trigger(person.id),
    }  # fmt: skip


def event(state: State, where: Channel | None, inner: Json) -> Json:
    """The outer half of an Events API payload."""
    workspace = state.workspace
    authorization = {
        "enterprise_id": None, "team_id": workspace.team, "user_id": workspace.bot_user, "is_bot": True,
        "is_enterprise_install": False,
    }  # fmt: skip
    return {
        "token": TOKEN, "team_id": workspace.team, "context_team_id": workspace.team, "context_enterprise_id": None,
        "api_app_id": workspace.app, "event": inner, "type": "event_callback", "event_id": state.next_id("Ev"),
        "event_time": int(time.time()), "authorizations": [authorization],
        "is_ext_shared_channel": bool(where and where.shared), "event_context": f"4-{uuid4().hex}",
    }  # fmt: skip


def mention_event(state: State, where: Channel, message: Json) -> Json:
    """`app_mention`, or `message` of type im when it was said in the conversation with the bot."""
    kept = ("user", "ts", "client_msg_id", "text", "team", "thread_ts", "parent_user_id", "blocks", "user_team")
    inner = {name: message[name] for name in kept if name in message}
    inner |= {"channel": where.id, "event_ts": message["ts"]}
    kind = {"type": "message", "channel_type": "im"} if where.kind == "im" else {"type": "app_mention"}
    return event(state, where, kind | inner)


def home_opened_event(state: State, person: Person, where: Channel, tab: str) -> Json:
    inner: Json = {
        "type": "app_home_opened",
        "user": person.id,
        "channel": where.id,
        "tab": tab,
        "event_ts": state.next_ts(),
    }
    if person.id in state.homes:
        inner["view"] = state.homes[person.id]
    return event(state, None, inner)


def user_changed(state: State, person: Person) -> Json:
    return event(state, None, {"type": "user_change", "user": user(state, person), "event_ts": state.next_ts()})


def group_changed(state: State, one: Group, before: tuple[str, ...]) -> Json:
    added, removed = sorted({*one.members} - {*before}), sorted({*before} - {*one.members})
    inner = {
        "type": "subteam_members_changed", "subteam_id": one.id, "team_id": state.workspace.team,
        "date_previous_update": 1_700_000_000, "date_update": int(time.time()), "added_users": added,
        "added_users_count": len(added), "removed_users": removed, "removed_users_count": len(removed),
        "event_ts": state.next_ts(),
    }  # fmt: skip
    return event(state, None, inner)


def _interaction(state: State, person: Person, kind: str) -> Json:
    workspace = state.workspace
    who = {"id": person.id, "username": person.name, "name": person.name, "team_id": state.team_of(person)}
    team: Json = {"id": workspace.team, "domain": workspace.domain}
    return {
        "type": kind, "user": who, "api_app_id": workspace.app, "token": TOKEN, "team": team, "enterprise": None,
        "is_enterprise_install": False,
    }  # fmt: skip


def message_action(
    state: State, person: Person, where: Channel, message: Json, action: Json, values: Json, wanted: str | None = None
) -> Json:
    """`block_actions` from a message; the source of a private message is not sent, as in Slack."""
    ephemeral = bool(message.get("is_ephemeral"))
    container: Json = {"type": "message", "message_ts": message["ts"], "channel_id": where.id}
    container["is_ephemeral"] = ephemeral
    thread_ts: str | None = message.get("thread_ts")
    if thread_ts:
        container["thread_ts"] = thread_ts
    answer_to = ResponseUrl(person.id, where.id, time.monotonic(), thread_ts, message["ts"], ephemeral)
    payload = _interaction(state, person, "block_actions") | {
        "container": container, "trigger_id": wanted or state.new_trigger(person.id),
        "channel": {"id": where.id, "name": channel_name(where)}, "state": {"values": values},
        "response_url": state.new_response_url(answer_to), "actions": [action],
    }  # fmt: skip
    if not ephemeral:
        payload["message"] = {name: value for name, value in message.items() if name != "metadata"}
    return payload


def view_action(state: State, person: Person, view: Json, action: Json) -> Json:
    return _interaction(state, person, "block_actions") | {
        "container": {"type": "view", "view_id": view["id"]}, "trigger_id": state.new_trigger(person.id, view["id"]),
        "view": view, "actions": [action],
    }  # fmt: skip


def view_submission(state: State, person: Person, view: Json) -> Json:
    trigger = state.new_trigger(person.id, view["id"])
    return _interaction(state, person, "view_submission") | {"trigger_id": trigger, "view": view, "response_urls": []}


def view_closed(state: State, person: Person, view: Json, cleared: bool) -> Json:
    return _interaction(state, person, "view_closed") | {"view": view, "is_cleared": cleared}


# What a client makes of what a person types


def as_rich_text(text: str) -> list[Json]:
    """The `blocks` that Slack's client adds to what a person says: text, mentions and links."""
    elements = [_rich_element(one) for one in KIND_OF_TOKEN.findall(text)]
    section = {"type": "rich_text_section", "elements": elements}
    return [{"type": "rich_text", "block_id": uuid4().hex[:5], "elements": [section]}]


def _rich_element(token: str) -> Json:
    inside = token[1:-1].split("|")[0] if token.startswith("<") and token.endswith(">") else ""
    kinds: tuple[tuple[str, str, str], ...] = (
        ("@", "user", "user_id"), ("#", "channel", "channel_id"), ("!subteam^", "usergroup", "usergroup_id"),
    )  # fmt: skip
    for mark, kind, name in kinds:
        if inside.startswith(mark):
            return {"type": kind, name: inside.removeprefix(mark)}
    if inside.startswith(("http://", "https://")):
        return {"type": "link", "url": inside}
    return {"type": "text", "text": unescape(token)}


def unescape(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


TYPED = re.compile(r"(?P<link>https?://[^\s<>]+)|(?P<mark>[@#])(?P<name>[\w][\w.-]*)")


def typed(state: State, text: str, named: bool = False) -> str:
    """Escape what a person typed, and turn @names, #channels and links into Slack's forms.

    `named` gives the form of an escaped slash command: `<@U1|ana>`, `<#C1|ops>` (a private channel: `<#C1|>`).
    """
    raw = re.split(r"(<[@#!][^<>]*>)", text)  # a form that is already Slack's stays as it is
    return "".join(one if index % 2 else _typed_part(state, one, named) for index, one in enumerate(raw))


def _typed_part(state: State, text: str, named: bool) -> str:
    return TYPED.sub(lambda found: _typed_form(state, found, named), escape(text))


def _typed_form(state: State, found: re.Match[str], named: bool) -> str:
    if found["link"]:
        return f"<{found['link']}>"
    name = found["name"].rstrip(".")
    rest = found["name"][len(name) :]
    form = _person_form(state, name, named) if found["mark"] == "@" else _channel_form(state, name)
    return found[0] if form is None else form + rest


def _person_form(state: State, name: str, named: bool) -> str | None:
    if name in ("here", "channel", "everyone"):
        return f"<!{name}>"
    for group_ in state.groups.values():
        if group_.handle == name:
            return f"<!subteam^{group_.id}|@{name}>" if named else f"<!subteam^{group_.id}>"
    ids = {one.name: one.id for one in state.people.values()} | {state.workspace.bot_name: state.workspace.bot_user}
    if name not in ids:
        return None
    return f"<@{ids[name]}|{name}>" if named else f"<@{ids[name]}>"


def _channel_form(state: State, name: str) -> str | None:
    for one in state.channels.values():
        if one.name == name:
            label = "" if one.kind == "private" else one.name
            return f"<#{one.id}|{label}>"
    return None
