"""Block Kit from our own parts: what every message is built of. Pure; slack_sdk's models make and check the dicts."""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from slack_sdk.models.blocks import (
    ActionsBlock,
    ButtonElement,
    ConfirmObject,
    ContextBlock,
    HeaderBlock,
    MarkdownTextObject,
    PlainTextObject,
    RichTextBlock,
    RichTextElementParts,
    RichTextPreformattedElement,
    SectionBlock,
)

from bot.core.approval import Approval
from bot.core.run import Run
from bot.slack import mrkdwn

Block = dict[str, Any]
T = TypeVar("T")

LONGEST_NOTE: Final = 2_500  # characters of a message; longer ones go out as a file
_FENCED: Final = re.compile(r"^```\n(.*?)\n```$", re.M | re.S)
PIECE: Final = 2_800  # characters of one block's text: Slack's limit is 3,000


@dataclass(frozen=True)
class Message:
    """What goes out: `text` is a full sentence for notifications and screen readers. `document` is the whole of it
    as plain text, when not all found room in the blocks; it belongs into the thread as a file called `name`.
    """

    text: str
    blocks: tuple[Block, ...] = ()
    document: str = ""
    name: str = ""


class Paper:
    """One message being written: it gives texts the room that is left, and counts what did not fit."""

    def __init__(self, revision: str, known: Collection[str] = (), room: int = 11_500, most_blocks: int = 40) -> None:
        self.blocks: list[Block] = []
        self.known = known
        self.omitted = 0
        self.revision = revision
        self._room = room
        self._most_blocks = most_blocks

    def fits(self, text: str, keep: int = 0) -> bool:
        """Whether a section of this text finds room, and `keep` characters more after it."""
        return len(text) <= PIECE and len(text) + keep <= self._room and len(self.blocks) < self._most_blocks

    def fit(self, text: str, most: int) -> str:
        """The text on one line, safe, in at most so many characters as sent; what is cut off is counted in it."""
        safe = fitted(text, most, self.known)
        self.omitted += safe != mrkdwn.line(text, self.known)
        return safe

    def fold(self, items: Sequence[T], most: int) -> tuple[Sequence[T], int]:
        """The first of them, and how many are left out."""
        self.omitted += max(0, len(items) - most)
        return items[:most], max(0, len(items) - most)

    def header(self, text: str) -> None:
        plain = mrkdwn.clip(" ".join(text.split()), 150)[:150]
        self._add(HeaderBlock(text=PlainTextObject(text=plain, emoji=True), block_id=self._id()).to_dict(), plain)

    def section(self, text: str) -> None:
        self._add(section(text, self._id()), text)

    def context(self, text: str) -> None:
        self._add(context(text, self._id()), text)

    def _id(self) -> str:
        return f"{self.revision}.{len(self.blocks)}"

    def _add(self, block: Block, text: str) -> None:
        self.blocks.append(block)
        self._room -= len(text)


def fitted(text: str, most: int, known: Collection[str] = ()) -> str:
    """Foreign text made safe, in at most so many characters as they are sent: `&` counts five."""
    flat = " ".join(text.split())
    kept = min(len(flat), most)
    while len(safe := mrkdwn.line(mrkdwn.clip(flat, kept), known)) > most and kept > 32:
        kept = kept * 3 // 4
    return safe


def section(text: str, block_id: str | None = None) -> Block:
    return _dict(SectionBlock(text=MarkdownTextObject(text=text or " ", verbatim=True), block_id=block_id))


def context(text: str, block_id: str | None = None) -> Block:
    return _dict(ContextBlock(elements=[MarkdownTextObject(text=text or " ", verbatim=True)], block_id=block_id))


def preformatted(text: str, block_id: str | None = None) -> Block:
    """Text exactly as it is: nothing in it is parsed, so nothing in it can pretend."""
    part = RichTextElementParts.Text(text=text or " ")
    return _dict(RichTextBlock(elements=[RichTextPreformattedElement(elements=[part])], block_id=block_id))


def actions(buttons: Sequence[ButtonElement], block_id: str) -> Block:
    return _dict(ActionsBlock(elements=list(buttons), block_id=block_id))


def button(
    label: str, action: str, value: str, says: str, style: str | None = None, confirm: ConfirmObject | None = None
) -> ButtonElement:
    """A button; `says` is what a screen reader reads, since "Approve" alone does not tell what."""
    return ButtonElement(
        text=PlainTextObject(text=label, emoji=True),
        action_id=action,
        value=value,
        style=style,
        confirm=confirm,
        accessibility_label=says[:75],
    )


def confirm(title: str, text: str, yes: str, style: str = "primary") -> ConfirmObject:
    return ConfirmObject(
        title=title[:100],
        text=PlainTextObject(text=mrkdwn.clip(" ".join(text.split()), 300)[:300]),
        confirm=PlainTextObject(text=yes[:30]),
        deny=PlainTextObject(text="Not now"),
        style=style,
    )


def pieces(text: str, most: int = PIECE) -> list[str]:
    """The whole text in pieces that end at a line's end where they can; joined they are the text again."""
    found: list[str] = []
    while len(text) > most:
        cut = text.rfind("\n", most // 2, most) + 1 or most
        found.append(text[:cut])
        text = text[cut:]
    return [*found, text]


def note(text: str, known: Collection[str] = ()) -> Message:
    """A text of several lines, whole; lines between two of three backticks keep their columns. For one that is
    `too_long` the sender makes a file.
    """
    first, *others = _FENCED.split(text)
    made = [*_prose(first.rstrip("\n"), known)] if first.strip() or not others else []
    for lines, after in zip(others[::2], others[1::2], strict=True):
        made += map(preformatted, pieces(lines))
        made += _prose(after.strip("\n"), known) if after.strip() else []
    return Message(fitted(_FENCED.sub(r"\1", text), 300, known), tuple(made))


def _prose(text: str, known: Collection[str]) -> Iterator[Block]:
    safe = mrkdwn.prose(text, known)
    bodies = [safe] if len(safe) <= PIECE else _joined(mrkdwn.prose(piece, known) for piece in pieces(text, PIECE // 5))
    return (section(body) for body in bodies)


def too_long(text: str) -> bool:
    """Whether a text is better read as a file."""
    return len(text) > LONGEST_NOTE or len(mrkdwn.prose(text)) > 3 * PIECE


def _joined(bodies: Iterable[str]) -> Iterable[str]:
    """Small pieces put together again, as many as fit into one block."""
    held = ""
    for body in bodies:
        if held and len(held) + len(body) > PIECE:
            yield held
            held = ""
        held += body
    yield held


def pointer(approval: Approval) -> Message:
    """One line for the approvals channel; what can be decided is decided in the run's thread."""
    ask = approval.ask
    where = f" in {mrkdwn.channel(approval.place.channel)}" if approval.place else ""
    waits = f"Run {ask.run} waits for an approval{where}"
    head = waits if approval.state == "open" else f"Run {ask.run} was decided ({mrkdwn.line(approval.state)})"
    until = f", until {mrkdwn.date(ask.expires)}" if approval.state == "open" else ""
    text = f"{head}: {fitted(ask.title, 300)}{until}. The buttons are in the run's thread."
    return Message(text, (section(text),))


def people_of(run: Run | None, approval: Approval | None = None, more: Iterable[str] = ()) -> frozenset[str]:
    """The user ids that a text about this run may mention: the parties, and nobody whom foreign text names."""
    actors = [run.order.actor, run.cancelled_by] if run else []
    actors += [approval.requester, *approval.decided_by] if approval else []
    return frozenset({actor.user for actor in actors if actor} | set(more))


def _dict(block: Any) -> Block:
    made: Block = block.to_dict()
    return made
