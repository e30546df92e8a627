"""views.*: modals, their stack, and the app's home."""

import json
import time
from typing import Any
from uuid import uuid4

from bot.sandbox.slack.blocks_check import check_view, interactive, view_too_large
from bot.sandbox.slack.limits import VIEWS_STACKED
from bot.sandbox.slack.methods_chat import named_blocks, refuse
from bot.sandbox.slack.state import SlackError, State, Trigger
from bot.sandbox.slack.workspace import Json

# The value an input starts with, by the name of the property that holds it.
INITIAL = {
    "initial_value": "value", "initial_option": "selected_option", "initial_options": "selected_options",
    "initial_date": "selected_date", "initial_time": "selected_time", "initial_date_time": "selected_date_time",
    "initial_user": "selected_user", "initial_users": "selected_users", "initial_channel": "selected_channel",
    "initial_conversation": "selected_conversation",
}  # fmt: skip


def open_view(state: State, args: Json) -> Json:
    trigger = _use_trigger(state, args)
    view = _checked(args, "modal")
    _refuse_known_external_id(state, view)
    shown = new_view(state, view, ())
    state.stacks[trigger.person] = [shown["id"]]
    state.show_views(trigger.person)
    return {"view": shown}


def push(state: State, args: Json) -> Json:
    trigger = _use_trigger(state, args)
    if trigger.view is None or trigger.view not in state.stacks[trigger.person]:
        raise SlackError("not_found")
    view = _checked(args, "modal")
    _refuse_known_external_id(state, view)
    return {"view": push_view(state, trigger.person, view)}


def push_view(state: State, person: str, view: Json) -> Json:
    stack = state.stacks[person]
    if len(stack) >= VIEWS_STACKED:
        raise SlackError("push_limit_reached")
    shown = new_view(state, view, tuple(stack))
    stack.append(shown["id"])
    state.show_views(person)
    return shown


def update(state: State, args: Json) -> Json:
    known = _find(state, args)
    wanted = args.get("hash")
    if wanted and wanted != known["hash"]:
        raise SlackError("hash_conflict")
    view = replace_view(state, known, _checked(args, "modal"))
    return {"view": view}


def replace_view(state: State, known: Json, view: Json) -> Json:
    """Other content under the same id; values of inputs that keep their block_id and action_id stay."""
    stack = next(one for one in state.stacks.values() if known["id"] in one)
    changed = new_view(state, view, tuple(stack[: stack.index(known["id"])]), known["id"])
    before = known["state"]["values"]
    for block_id, actions in changed["state"]["values"].items():
        actions |= {name: before[block_id][name] for name in actions if name in before.get(block_id, {})}
    for person, views in state.stacks.items():
        if known["id"] in views:
            state.show_views(person)
    return changed


def publish(state: State, args: Json) -> Json:
    person = str(args.get("user_id") or "")
    if person not in state.people:
        raise SlackError("user_not_found")
    known = state.homes.get(person)
    if args.get("hash") and (known is None or args["hash"] != known["hash"]):
        raise SlackError("hash_conflict")
    view = new_view(state, _checked(args, "home"), (), known["id"] if known else None)
    state.homes[person] = view
    state.publish("home", person=person, view=view)
    return {"view": view}


# Triggers, ids, shapes


def _use_trigger(state: State, args: Json) -> Trigger:
    trigger = state.triggers.get(str(args.get("trigger_id") or ""))
    if trigger is None:
        raise SlackError("invalid_trigger_id" if args.get("trigger_id") else "invalid_arguments")
    if trigger.used:
        raise SlackError("exchanged_trigger_id")
    if time.monotonic() - trigger.made > state.limits.trigger_seconds:
        raise SlackError("expired_trigger_id")
    trigger.used = True
    return trigger


def _checked(args: Json, kind: str) -> Json:
    view: Any = args.get("view")
    checked_view(view)
    if view["type"] != kind:
        raise SlackError("invalid_arguments", response_metadata={"messages": [f"[ERROR] view must be a {kind}"]})
    shaped: Json = view
    return shaped


def checked_view(view: Any) -> None:
    problems = check_view(view)
    if problems:
        raise refuse("invalid_arguments", problems)
    if view_too_large(view):
        raise SlackError("view_too_large")


def _refuse_known_external_id(state: State, view: Json) -> None:
    wanted = view.get("external_id")
    open_ids = {one for stack in state.stacks.values() for one in stack}
    if wanted and any(state.views[one]["external_id"] == wanted for one in open_ids):
        raise SlackError("duplicate_external_id")


def _find(state: State, args: Json) -> Json:
    """A view that is open, by `view_id` or `external_id`."""
    for stack in state.stacks.values():
        for one in stack:
            view = state.views[one]
            if one == args.get("view_id") or (args.get("external_id") and view["external_id"] == args["external_id"]):
                return view
    raise SlackError("not_found")


def new_view(state: State, given: Json, below: tuple[str, ...], view_id: str | None = None) -> Json:
    """A view as Slack returns it, kept under its id."""
    workspace = state.workspace
    identity = view_id or state.next_id("V")
    given = json.loads(json.dumps(given))
    blocks = named_blocks(given["blocks"])
    defaults = {
        "private_metadata": "", "callback_id": "", "external_id": "", "clear_on_close": False,
        "notify_on_close": False, "close": None, "submit": None,
    }  # fmt: skip
    ours = {
        "id": identity, "team_id": workspace.team, "app_id": workspace.app, "bot_id": workspace.bot,
        "app_installed_team_id": workspace.team, "blocks": blocks, "hash": f"{time.time_ns()}.{uuid4().hex[:8]}",
        "state": {"values": initial_values(blocks)}, "root_view_id": below[0] if below else identity,
        "previous_view_id": below[-1] if below else None,
    }  # fmt: skip
    view = defaults | given | ours
    state.views[identity] = view
    return view


def initial_values(blocks: list[Json]) -> Json:
    """`state.values` of a view nobody has touched yet."""
    values: Json = {}
    for block in blocks:
        for element in interactive(block):
            if element["type"] not in ("button", "overflow"):
                values.setdefault(block["block_id"], {})[element["action_id"]] = initial_value(element)
    return values


def initial_value(element: Json) -> Json:
    value: Json = {"type": element["type"]}
    if element["type"].endswith("_input"):
        value["value"] = None
    for initial, name in INITIAL.items():
        if initial in element:
            value[name] = element[initial]
    return value
