"""auth.test, team.info, users.*, usergroups.*, conversations.*: who and where."""

from bot.sandbox.slack import payloads
from bot.sandbox.slack.methods_chat import readable_channel
from bot.sandbox.slack.state import SlackError, State
from bot.sandbox.slack.workspace import Channel, Json

SCOPE_WORD = {"public": "channels", "private": "groups", "im": "im"}
KIND_OF_TYPE = {"public_channel": "public", "private_channel": "private", "im": "im"}
PAGE = 200


def auth_test(state: State, _args: Json) -> Json:
    workspace = state.workspace
    return {
        "url": f"https://{workspace.domain}.slack.com/", "team": workspace.name, "user": workspace.bot_name,
        "team_id": workspace.team, "user_id": workspace.bot_user, "bot_id": workspace.bot,
        "is_enterprise_install": False,
    }  # fmt: skip


def team_info(state: State, _args: Json) -> Json:
    workspace = state.workspace
    return {"team": {"id": workspace.team, "name": workspace.name, "domain": workspace.domain, "email_domain": ""}}


def users_info(state: State, args: Json) -> Json:
    wanted = str(args.get("user") or "")
    if wanted == state.workspace.bot_user:
        return {"user": payloads.bot_user(state)}
    if wanted not in state.people:
        raise SlackError("user_not_found")
    return {"user": payloads.user(state, state.people[wanted])}


def users_list(state: State, args: Json) -> Json:
    members = [payloads.user(state, one) for one in state.people.values()] + [payloads.bot_user(state)]
    return _page("members", members, args)


def usergroups_list(state: State, args: Json) -> Json:
    groups = [payloads.group(state, one) for one in state.groups.values()]
    if args.get("include_users") not in (True, "true", "1", 1):
        for one in groups:
            del one["users"]
    return {"usergroups": groups}


def usergroups_users_list(state: State, args: Json) -> Json:
    group = state.groups.get(str(args.get("usergroup") or ""))
    if group is None:
        raise SlackError("no_such_subteam")
    return {"users": list(group.members)}


def conversations_info(state: State, args: Json) -> Json:
    return {"channel": payloads.channel(state, _seen(state, args, "read"))}


def conversations_list(state: State, args: Json) -> Json:
    wanted = [KIND_OF_TYPE.get(one) for one in str(args.get("types") or "public_channel").split(",")]
    for kind in wanted:
        if kind:
            state.require_scope(f"{SCOPE_WORD[kind]}:read")
    mine = state.workspace.bot_user
    seen = [
        one for one in state.channels.values() if one.kind in wanted and (one.kind == "public" or mine in one.members)
    ]
    return _page("channels", [payloads.channel(state, one) for one in seen], args)


def conversations_members(state: State, args: Json) -> Json:
    return _page("members", list(_seen(state, args, "read").members), args)


def conversations_open(state: State, args: Json) -> Json:
    """Only conversations with one person: the local Slack has no group conversations."""
    if args.get("channel"):
        return {"channel": {"id": readable_channel(state, args).id}}
    people = str(args.get("users") or "").split(",")
    if len(people) != 1:
        raise SlackError("too_many_users")
    person = state.people.get(people[0])
    if person is None:
        raise SlackError("user_not_found" if people[0] else "users_list_not_supplied")
    if person.deactivated:
        raise SlackError("user_disabled")
    return {"channel": {"id": state.direct_channel(person.id).id}}


def conversations_history(state: State, args: Json) -> Json:
    where = _seen(state, args, "history")
    _require_member(state, where)
    kept = list(state.messages[where.id].values())
    top = [one for one in kept if one.get("thread_ts", one["ts"]) == one["ts"] or one.get("subtype")]
    return _page("messages", _between(top, args)[::-1], args) | {"has_more": False}


def conversations_replies(state: State, args: Json) -> Json:
    where = _seen(state, args, "history")
    _require_member(state, where)
    thread = state.thread(where.id, str(args.get("ts") or ""))
    if not thread:
        raise SlackError("thread_not_found")
    return _page("messages", _between(thread, args), args) | {"has_more": False}


def _between(messages: list[Json], args: Json) -> list[Json]:
    oldest, latest = str(args.get("oldest") or "0"), str(args.get("latest") or "9")
    if args.get("inclusive") in (True, "true", "1", 1):
        return [one for one in messages if oldest <= one["ts"] <= latest]
    return [one for one in messages if oldest < one["ts"] < latest]


def _seen(state: State, args: Json, right: str) -> Channel:
    where = readable_channel(state, args)
    state.require_scope(f"{SCOPE_WORD[where.kind]}:{right}")
    return where


def _require_member(state: State, where: Channel) -> None:
    if state.workspace.bot_user not in where.members:
        raise SlackError("not_in_channel")


def _page(name: str, found: list[Json] | list[str], args: Json) -> Json:
    """Slack's pages: `limit` items, and a cursor for the rest."""
    try:
        start, limit = int(args.get("cursor") or 0), int(args.get("limit") or PAGE)
    except ValueError:
        raise SlackError("invalid_cursor") from None
    following = str(start + limit) if start + limit < len(found) else ""
    return {name: found[start : start + limit], "response_metadata": {"next_cursor": following}}
