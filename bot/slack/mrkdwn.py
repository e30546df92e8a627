"""Slack's mark-up, made safe: foreign text can never mention, link, or break out of where it stands. Pure."""

import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final

_MENTION: Final = re.compile(r"&lt;(@|#|!subteam\^)([UWCGS][A-Z0-9]{1,30})&gt;")
_LINK: Final = re.compile(r"https://[A-Za-z0-9.-]+(?::\d+)?(?:/[^\s<>|]*)?")


class _Everybody(frozenset[str]):
    """Every id is in it."""

    def __contains__(self, _: object) -> bool:
        return True


EVERYBODY: Final = _Everybody()  # for words that one person alone sees: nobody else is told of a mention there
_JOINER: Final = "\u200b"  # zero width: parts three backticks, so that they end no block


def escape(text: str) -> str:
    """The three characters that Slack's mark-up is made of, as entities."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def prose(text: str, known: Collection[str] = ()) -> str:
    """A sentence with foreign parts: no mention, link or fence lives but of `known` people and channels (ids)."""
    safe = _unfenced(escape(text))
    if safe.count("`") % 2:  # an open code span would swallow what follows
        safe = safe.replace("`", "ˋ")
    return _MENTION.sub(lambda found: f"<{found[1]}{found[2]}>" if found[2] in known else found[0], safe)


def line(text: str, known: Collection[str] = ()) -> str:
    """Like `prose`, on one line."""
    return prose(" ".join(text.split()), known)


def code(text: str) -> str:
    """Foreign text as a code span on one line."""
    return f"`{escape(' '.join(text.split()).replace('`', 'ˋ')) or ' '}`"


def block(text: str) -> str:
    """Foreign text in a code block that it cannot end."""
    return f"```\n{_unfenced(escape(text))}\n```"


def _unfenced(text: str) -> str:
    return re.sub("`(?=`)", f"`{_JOINER}", text)


def person(user: str) -> str:
    """A mention of one person by id; anything that is not an id is shown as text."""
    return f"<@{user}>" if re.fullmatch(r"[UW][A-Z0-9]{1,30}", user) else escape(user)


def unmarked(text: str) -> str:
    """The same with the bare ids of the people that it mentions, for files: nothing turns them into names there."""
    return re.sub(r"<@([UW][A-Z0-9]{1,30})>", r"\1", text)


def anyone(identity: str) -> str:
    """A mention of a person or a user group by id."""
    return f"<!subteam^{identity}>" if re.fullmatch(r"S[A-Z0-9]{1,30}", identity) else person(identity)


def channel(channel_id: str) -> str:
    return f"<#{channel_id}>" if re.fullmatch(r"[CGD][A-Z0-9]{1,30}", channel_id) else escape(channel_id)


def link(url: str, label: str) -> str:
    """A link to an https address that we chose; anything else is shown as text."""
    if not _LINK.fullmatch(url):
        return escape(f"{label}: {url}" if url else label)
    return f"<{escape(url)}|{escape(' '.join(label.split())).replace('|', '¦')}>"


def date(moment: datetime) -> str:
    """A moment in the reader's own time zone, in UTC where that cannot be shown."""
    return f"<!date^{int(moment.timestamp())}^{{date_short_pretty}} {{time}}|{utc(moment)}>"


def utc(moment: datetime) -> str:
    """`2026-11-22 14:30 UTC`, for texts that Slack does not translate (notifications, buttons, files)."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def clip(text: str, most: int) -> str:
    """At most so many characters; what is missing is counted."""
    if len(text) <= most:
        return text
    kept = max(0, most - 32)
    return f"{text[:kept]}… ({len(text) - kept:,} more characters)"
