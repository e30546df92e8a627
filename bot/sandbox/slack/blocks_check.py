"""Block Kit as Slack accepts it: what is wrong with some blocks, each with a JSON pointer. Numbers: slack.md §1.4."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from bot.sandbox.slack.limits import BLOCK_TEXT_PER_MESSAGE, BLOCKS_PER_MESSAGE, BLOCKS_PER_VIEW, VIEW_BYTES
from bot.sandbox.slack.workspace import Json

Surface = Literal["message", "modal", "home"]
ID_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where."""

    pointer: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} [json-pointer:{self.pointer}]"


Problems = Iterator[Problem]
Check = Callable[[Any, str], Problems]

# Small checks, combined in the tables below


def text(most: int, *kinds: str) -> Check:
    """A text object of 1..`most` characters; kinds default to both."""
    allowed = kinds or ("plain_text", "mrkdwn")

    def check(value: Any, at: str) -> Problems:
        if not isinstance(value, dict):
            yield Problem(at, "must be an object")
        elif value.get("type") not in allowed:
            yield Problem(f"{at}/type", f"must be {' or '.join(allowed)}")
        else:
            yield from string(most, least=1)(value.get("text"), f"{at}/text")

    return check


def string(most: int, least: int = 0) -> Check:
    def check(value: Any, at: str) -> Problems:
        if not isinstance(value, str):
            yield Problem(at, "must be a string")
        elif len(value) > most:
            yield Problem(at, f"must be less than {most + 1} characters")
        elif len(value) < least:
            yield Problem(at, f"must be more than {least - 1} characters")

    return check


def one_of(*allowed: Any) -> Check:
    def check(value: Any, at: str) -> Problems:
        if value not in allowed:
            yield Problem(at, f"must be one of {', '.join(map(str, allowed))}")

    return check


def items(each: Check, most: int, least: int = 1) -> Check:
    def check(value: Any, at: str) -> Problems:
        if not isinstance(value, list):
            yield Problem(at, "must be an array")
            return
        if len(value) > most:
            yield Problem(at, f"no more than {most} items allowed")
        if len(value) < least:
            yield Problem(at, f"must have at least {least} items")
        for index, one in enumerate(value):
            yield from each(one, f"{at}/{index}")

    return check


def anything(_value: Any, _at: str) -> Problems:
    yield from ()


def boolean(value: Any, at: str) -> Problems:
    if not isinstance(value, bool):
        yield Problem(at, "must be a boolean")


def web_address(value: Any, at: str) -> Problems:
    yield from string(3000, least=1)(value, at)
    if isinstance(value, str) and not value.startswith(("https://", "http://")):
        yield Problem(at, "must be a valid URL")


def fields_of(needed: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    """An object with these fields and no others."""

    def check(value: Any, at: str) -> Problems:
        if not isinstance(value, dict):
            yield Problem(at, "must be an object")
            return
        for name in needed:
            if name not in value:
                yield Problem(at, f"missing required field: {name}")
        known = {"type": anything, **needed, **optional}
        for name, content in value.items():
            if name in known:
                yield from known[name](content, f"{at}/{name}")
            else:
                yield Problem(at, f"invalid additional property: {name}")

    return check


def by_type(table: Mapping[str, Check]) -> Check:
    def check(value: Any, at: str) -> Problems:
        kind = value.get("type") if isinstance(value, dict) else None
        if isinstance(kind, str) and kind in table:
            yield from table[kind](value, at)
        else:
            yield Problem(f"{at}/type", f"unsupported type: {kind}")

    return check


# Objects

PLAIN, MARKDOWN = "plain_text", "mrkdwn"
CONFIRM = fields_of(
    {"title": text(100, PLAIN), "text": text(300), "confirm": text(30, PLAIN), "deny": text(30, PLAIN)},
    {"style": one_of("primary", "danger")},
)
OPTION = fields_of({"text": text(75), "value": string(150, least=1)}, {"description": text(75), "url": web_address})
IDENTIFIED = {"action_id": string(ID_CHARACTERS, least=1), "confirm": CONFIRM, "focus_on_load": boolean}
MENU = {**IDENTIFIED, "placeholder": text(150, PLAIN)}
GROUPS = items(fields_of({"label": text(75, PLAIN), "options": items(OPTION, 100)}, {}), 100)
OPTIONS = {"options": items(OPTION, 100), "option_groups": GROUPS}
CHOICES = {"options": items(OPTION, 10)}

BUTTON = fields_of(
    {"text": text(75, PLAIN)},
    {
        **IDENTIFIED, "value": string(2000), "url": web_address, "style": one_of("primary", "danger"),
        "accessibility_label": string(75),
    },
)  # fmt: skip
IMAGE = fields_of({"image_url": web_address, "alt_text": string(2000)}, {})
INPUT_TEXT = {
    **MENU, "initial_value": string(3000), "multiline": boolean, "min_length": anything, "max_length": anything,
    "dispatch_action_config": anything,
}  # fmt: skip

ACTIONS: dict[str, Check] = {
    "button": BUTTON,
    "checkboxes": fields_of(CHOICES, {**IDENTIFIED, "initial_options": items(OPTION, 10)}),
    "conversations_select": fields_of({}, {**MENU, "initial_conversation": anything, "filter": anything}),
    "channels_select": fields_of({}, {**MENU, "initial_channel": anything}),
    "datepicker": fields_of({}, {**MENU, "initial_date": anything}),
    "datetimepicker": fields_of({}, {**IDENTIFIED, "initial_date_time": anything}),
    "multi_static_select": fields_of(
        {}, {**MENU, **OPTIONS, "initial_options": items(OPTION, 100), "max_selected_items": anything}
    ),
    "multi_users_select": fields_of({}, {**MENU, "initial_users": anything, "max_selected_items": anything}),
    "overflow": fields_of({"options": items(OPTION, 5)}, IDENTIFIED),
    "radio_buttons": fields_of(CHOICES, {**IDENTIFIED, "initial_option": OPTION}),
    "static_select": fields_of({}, {**MENU, **OPTIONS, "initial_option": OPTION}),
    "timepicker": fields_of({}, {**MENU, "initial_time": anything, "timezone": anything}),
    "users_select": fields_of({}, {**MENU, "initial_user": anything}),
}
INPUTS: dict[str, Check] = {
    **{kind: check for kind, check in ACTIONS.items() if kind not in ("button", "overflow")},
    "plain_text_input": fields_of({}, INPUT_TEXT),
    "email_text_input": fields_of({}, INPUT_TEXT),
    "number_input": fields_of(
        {"is_decimal_allowed": boolean}, {**INPUT_TEXT, "min_value": anything, "max_value": anything}
    ),
    "url_text_input": fields_of({}, INPUT_TEXT),
}
IN_CONTEXT: dict[str, Check] = {PLAIN: text(2000), MARKDOWN: text(2000), "image": IMAGE}

RICH_INLINE = by_type(
    {
        "text": fields_of({"text": string(40_000, least=1)}, {"style": anything}),
        "link": fields_of({"url": web_address}, {"text": anything, "unsafe": anything, "style": anything}),
        "user": fields_of({"user_id": string(ID_CHARACTERS, least=1)}, {"style": anything}),
        "usergroup": fields_of({"usergroup_id": string(ID_CHARACTERS, least=1)}, {"style": anything}),
        "channel": fields_of({"channel_id": string(ID_CHARACTERS, least=1)}, {"style": anything}),
        "emoji": fields_of({"name": string(100)}, {"unicode": anything, "skin_tone": anything, "style": anything}),
        "date": fields_of({"timestamp": anything, "format": anything}, {"url": anything, "fallback": anything}),
        "broadcast": fields_of({"range": anything}, {"style": anything}),
        "color": fields_of({"value": anything}, {"style": anything}),
    }
)
RICH_LINES = {"elements": items(RICH_INLINE, 1000, least=0)}
RICH_SECTION = fields_of(RICH_LINES, {})
RICH: dict[str, Check] = {
    "rich_text_section": RICH_SECTION,
    "rich_text_preformatted": fields_of(RICH_LINES, {"border": anything, "language": anything}),
    "rich_text_quote": fields_of(RICH_LINES, {"border": anything}),
    "rich_text_list": fields_of(
        {"elements": items(RICH_SECTION, 1000), "style": one_of("bullet", "ordered")},
        {"indent": anything, "offset": anything, "border": anything},
    ),
}

# Blocks

NAMED: dict[str, Check] = {"block_id": string(ID_CHARACTERS)}


def _block(needed: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    return fields_of(needed, {**NAMED, **(optional or {})})


EVERYWHERE: dict[str, Check] = {
    "actions": _block({"elements": items(by_type(ACTIONS), 25)}),
    "context": _block({"elements": items(by_type(IN_CONTEXT), 10)}),
    "divider": _block({}),
    "header": _block({"text": text(150, PLAIN)}),
    "image": _block({"alt_text": string(2000)}, {"image_url": web_address, "title": text(2000, PLAIN)}),
    "input": _block(
        {"label": text(2000, PLAIN), "element": by_type(INPUTS)},
        {"hint": text(2000, PLAIN), "optional": boolean, "dispatch_action": boolean},
    ),
    "rich_text": _block({"elements": items(by_type(RICH), 1000, least=0)}),
    "section": _block(
        {},
        {
            "text": text(3000), "fields": items(text(2000), 10), "expand": boolean,
            "accessory": by_type({**ACTIONS, "image": IMAGE}),
        },
    ),
}  # fmt: skip
MESSAGE_ONLY: dict[str, Check] = {
    "markdown": _block({"text": string(12_000, least=1)}),
    "table": _block({"rows": items(items(anything, 20), 100)}, {"column_settings": anything}),
}
MODAL_ONLY: dict[str, Check] = {"alert": _block({"text": text(200)}, {"level": anything})}

BLOCKS: dict[Surface, tuple[Check, int]] = {
    "message": (by_type({**EVERYWHERE, **MESSAGE_ONLY}), BLOCKS_PER_MESSAGE),
    "modal": (by_type({**EVERYWHERE, **MODAL_ONLY}), BLOCKS_PER_VIEW),
    "home": (by_type(EVERYWHERE), BLOCKS_PER_VIEW),
}


def check_blocks(blocks: Any, surface: Surface, at: str = "/blocks") -> list[Problem]:
    """Everything that Slack would refuse in these blocks; an empty list means it takes them."""
    check, most = BLOCKS[surface]
    problems = list(items(check, most, least=0)(blocks, at))
    if not problems:
        problems = [*_section_problems(blocks, at), *_repeated_ids(blocks, at)]
    return problems


def _section_problems(blocks: list[Json], at: str) -> Problems:
    for index, block in enumerate(blocks):
        if block["type"] == "section" and not ("text" in block or "fields" in block):
            yield Problem(f"{at}/{index}", "either text or fields must be given")
        if block["type"] == "image" and "image_url" not in block:
            yield Problem(f"{at}/{index}", "missing required field: image_url")


def _repeated_ids(blocks: list[Json], at: str) -> Problems:
    seen: set[str] = set()
    for index, block in enumerate(blocks):
        name = block.get("block_id")
        if name and name in seen:
            yield Problem(f"{at}/{index}/block_id", f"`block_id` {name} already exists")
        seen.add(name or "")
        ids = [one["action_id"] for one in interactive(block) if "action_id" in one]
        for repeated in sorted({one for one in ids if ids.count(one) > 1}):
            yield Problem(f"{at}/{index}/elements", f"`action_id` {repeated} already exists")


def interactive(block: Json) -> list[Json]:
    """The elements of a block that a person can press or fill in."""
    if block["type"] == "actions":
        return list(block["elements"])
    single = block.get("element") or block.get("accessory")
    return [single] if single and single["type"] != "image" else []


def text_length(value: Any) -> int:
    """Characters of all text in some blocks, as far as Slack counts them together."""
    if isinstance(value, dict):
        own = len(value["text"]) if isinstance(value.get("text"), str) else 0
        return own + sum(text_length(one) for name, one in value.items() if not isinstance(one, str))
    if isinstance(value, list):
        return sum(text_length(one) for one in value)
    return 0


def too_long_together(blocks: list[Json]) -> bool:
    return text_length(blocks) > BLOCK_TEXT_PER_MESSAGE


# Views

MODAL = fields_of(
    {"title": text(24, PLAIN), "blocks": anything},
    {
        "submit": text(24, PLAIN), "close": text(24, PLAIN), "private_metadata": string(3000),
        "callback_id": string(255), "external_id": string(255), "clear_on_close": boolean, "notify_on_close": boolean,
        "submit_disabled": boolean,
    },
)  # fmt: skip
HOME = fields_of(
    {"blocks": anything},
    {"private_metadata": string(3000), "callback_id": string(255), "external_id": string(255)},
)


def check_view(view: Any) -> list[Problem]:
    """Everything that Slack would refuse in this view."""
    kind = view.get("type") if isinstance(view, dict) else None
    if kind not in ("modal", "home"):
        return [Problem("/view/type", "must be modal or home")]
    problems = list((MODAL if kind == "modal" else HOME)(view, "/view"))
    if "blocks" in view:
        problems += check_blocks(view["blocks"], kind, "/view/blocks")
    if not problems and kind == "modal" and "submit" not in view and _has_input(view["blocks"]):
        problems.append(Problem("/view/submit", "missing required field: submit (there are input blocks)"))
    return problems


def _has_input(blocks: list[Json]) -> bool:
    return any(one["type"] == "input" for one in blocks)


def view_too_large(view: Json) -> bool:
    return len(json.dumps(view, separators=(",", ":"))) > VIEW_BYTES
