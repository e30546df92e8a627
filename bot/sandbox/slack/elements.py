"""Interactive elements of blocks: finding one, pressing it, filling it in."""

from typing import Any

from bot.sandbox.slack.blocks_check import interactive
from bot.sandbox.slack.state import CannotDo
from bot.sandbox.slack.workspace import Json

Pressed = Json
REQUIRED = "Please complete this required field."
# Where each kind of element keeps what a person chose.
CHOSEN = {
    "static_select": "selected_option", "radio_buttons": "selected_option", "overflow": "selected_option",
    "multi_static_select": "selected_options", "checkboxes": "selected_options", "users_select": "selected_user",
    "multi_users_select": "selected_users", "channels_select": "selected_channel",
    "conversations_select": "selected_conversation", "datepicker": "selected_date", "timepicker": "selected_time",
    "datetimepicker": "selected_date_time",
}  # fmt: skip


def find_element(blocks: list[Json], action_id: str, block_id: str | None = None) -> tuple[Json, Json]:
    """The block and the element with this action_id."""
    present = []
    for block in blocks:
        for element in interactive(block):
            if element["action_id"] == action_id and block_id in (None, block["block_id"]):
                return block, element
            present.append(element["action_id"])
    there = f"there are {', '.join(present)}" if present else "there is nothing to press"
    raise CannotDo(f"There is no element {action_id!r} to press; {there}.")


def pressed(block: Json, element: Json, value: Any, at: str) -> Pressed:
    """One entry of `actions` in a block_actions payload."""
    action: Json = {"action_id": element["action_id"], "block_id": block["block_id"], "type": element["type"]}
    if element["type"] == "button":
        action |= {name: element[name] for name in ("text", "value", "style", "url") if name in element}
    else:
        action |= {name: one for name, one in chosen(element, value).items() if name != "type"}
    return action | {"action_ts": at}


def chosen(element: Json, given: Any) -> Json:
    """The state of an element after a person entered `given` (options are given by their values)."""
    kind = element["type"]
    if kind not in CHOSEN:
        return {"type": kind, "value": None if given in (None, "") else str(given)}
    name = CHOSEN[kind]
    if name == "selected_option":
        return {"type": kind, name: None if given in (None, "") else option(element, given)}
    if name == "selected_options":
        return {"type": kind, name: [option(element, one) for one in given or ()]}
    return {"type": kind, name: given or None}


def option(element: Json, value: Any) -> Json:
    groups = element.get("option_groups") or [{"options": element.get("options") or []}]
    options: list[Json] = [one for group in groups for one in group["options"]]
    for one in options:
        if value in (one["value"], one):
            return one
    there = ", ".join(one["value"] for one in options)
    raise CannotDo(f"{element['action_id']!r} has no option {value!r}; there are {there}.")


def fill_in(blocks: list[Json], before: Json, given: Json) -> Json:
    """`state.values` after a person filled in some inputs, named by action_id or by block_id."""
    values: Json = {block_id: dict(actions) for block_id, actions in before.items()}
    unknown = set(given)
    for block in blocks:
        for element in interactive(block):
            for name in (element["action_id"], block["block_id"]):
                if name in given:
                    values.setdefault(block["block_id"], {})[element["action_id"]] = chosen(element, given[name])
                    unknown.discard(name)
    if unknown:
        raise CannotDo(f"There is no input {sorted(unknown)[0]!r} to fill in.")
    return values


def too_short_or_missing(blocks: list[Json], values: Json) -> dict[str, str]:
    """What Slack's client itself refuses to submit, by block_id."""
    errors = {}
    for block in blocks:
        if block["type"] == "input":
            error = _refusal(block, values[block["block_id"]][block["element"]["action_id"]])
            if error:
                errors[block["block_id"]] = error
    return errors


def _refusal(block: Json, state: Json) -> str:
    element = block["element"]
    value = state.get(CHOSEN.get(element["type"], "value"))
    if not value:
        return "" if block.get("optional") else REQUIRED
    least, most = element.get("min_length", 0), element.get("max_length", 3000)
    if isinstance(value, str) and len(value) < least:
        return f"Please enter at least {least} characters."
    if isinstance(value, str) and len(value) > most:
        return f"Please enter at most {most} characters."
    return ""
