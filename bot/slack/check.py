"""Slack's limits and our own rules for what goes out, looked at before it is sent. Pure.

Slack answers a message that is too big with an error at best; these are its numbers
(that of all blocks' text together is not documented).
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

MESSAGE_BLOCKS: Final = 50
VIEW_BLOCKS: Final = 100
MESSAGE_TEXT: Final = 4_000
ALL_TEXT: Final = 12_000
VIEW_JSON: Final = 250_000

_LOUD: Final = re.compile(r"<!(?:here|channel|everyone)\b")
_LENGTHS: Final[Mapping[str, Mapping[str, int]]] = {
    "section": {"text": 3_000},
    "header": {"text": 150},
    "input": {"label": 2_000},
    "button": {"text": 75, "value": 2_000, "action_id": 255, "url": 3_000, "accessibility_label": 75},
    "confirm": {"title": 100, "text": 300, "confirm": 30, "deny": 30},
    "view": {"title": 24, "submit": 24, "close": 24, "private_metadata": 3_000, "callback_id": 255},
}
_COUNTS: Final = {"context": 10, "actions": 25}


def faults_of_message(text: str, blocks: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with a message, in sentences; empty when Slack will take it."""
    return [
        *_when(not text.strip(), "the message has no text for notifications"),
        *_when(len(text) > MESSAGE_TEXT, f"the text has {len(text)} characters, {MESSAGE_TEXT} fit"),
        *_when(bool(_LOUD.search(text)), "the text mentions a whole channel"),
        *_when(len(blocks) > MESSAGE_BLOCKS, f"there are {len(blocks)} blocks, {MESSAGE_BLOCKS} fit"),
        *_faults_of_blocks(blocks),
        *_when((total := text_in(blocks)) > ALL_TEXT, f"the blocks hold {total} characters, {ALL_TEXT} fit"),
    ]


def faults_of_view(view: Mapping[str, Any]) -> list[str]:
    """What is wrong with a dialog, in sentences."""
    blocks = view.get("blocks", ())
    has_input = any(block.get("type") == "input" for block in blocks)
    return [
        *_too_long("view", view),
        *_when(len(blocks) > VIEW_BLOCKS, f"there are {len(blocks)} blocks, {VIEW_BLOCKS} fit"),
        *_when(has_input and "submit" not in view, "a dialog with a field needs a submit button"),
        *_when(len(str(view)) > VIEW_JSON, "the dialog is larger than 250 kB"),
        *_faults_of_blocks(blocks),
    ]


def text_in(block: Any) -> int:
    """How many characters a block shows, all its parts together."""
    if isinstance(block, Mapping):
        own = len(block["text"]) if isinstance(block.get("text"), str) else 0
        return own + sum(text_in(part) for part in block.values() if not isinstance(part, str))
    return sum(map(text_in, block)) if isinstance(block, Sequence) and not isinstance(block, str) else 0


def _faults_of_blocks(blocks: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for kind in ("block_id", "action_id"):
        given = Counter(part[kind] for part in _parts(blocks) if isinstance(part.get(kind), str))
        yield from (f"{kind} {name!r} is used {times} times" for name, times in given.items() if times > 1)
        yield from (f"{kind} {name[:40]!r} is longer than 255" for name in given if len(name) > 255)
    yield from _when(_primaries(blocks) > 1, "two buttons are primary")
    for part in _parts(blocks):
        yield from _too_long(_kind(part), part)
        text = part.get("text")
        yield from _when(isinstance(text, str) and not text, f"a {_kind(part) or 'part'} has an empty text")
        loud = part.get("type") == "mrkdwn" and bool(_LOUD.search(part["text"]))
        yield from _when(loud, "a block mentions a whole channel")
        if most := _COUNTS.get(part.get("type", "")):
            yield from _when(not 0 < len(part["elements"]) <= most, f"{part['type']} takes 1 to {most} elements")


def _primaries(blocks: Sequence[Mapping[str, Any]]) -> int:
    return sum(part.get("type") == "button" and part.get("style") == "primary" for part in _parts(blocks))


def _parts(thing: Any) -> Iterator[Mapping[str, Any]]:
    """The thing and everything in it that is an object."""
    if isinstance(thing, Mapping):
        yield thing
        for part in thing.values():
            yield from _parts(part)
    elif isinstance(thing, Iterable) and not isinstance(thing, str):
        for part in thing:
            yield from _parts(part)


def _kind(part: Mapping[str, Any]) -> str:
    return "confirm" if "deny" in part else str(part.get("type", ""))


def _too_long(kind: str, part: Mapping[str, Any]) -> Iterator[str]:
    for field, most in _LENGTHS.get(kind, {}).items():
        length = _length(part.get(field))
        yield from _when(length > most, f"{kind}.{field} has {length} characters, {most} fit")


def _length(value: Any) -> int:
    return _length(value.get("text")) if isinstance(value, Mapping) else len(value) if isinstance(value, str) else 0


def _when(wrong: bool, sentence: str) -> tuple[str, ...]:
    return (sentence,) if wrong else ()
