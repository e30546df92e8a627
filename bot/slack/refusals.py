"""What Slack's errors mean for a letter: one table, and how to read an error wherever slack_sdk left it."""

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.error import HTTPError

from slack_sdk.errors import SlackApiError, SlackClientError

# What slack_sdk raises when Slack could not be reached, or its answer did not come whole.
DROPPED: Final = (SlackClientError, OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Rule:
    """What an error of Slack's means for a letter."""

    act: str  # `later`, `dead`, `post` (no message to edit), `unthread` (no thread), `file` (too long), `direct`
    why: str
    after: float = 0.0  # seconds; 0.0 backs off by itself
    paced: bool = False  # nothing is wrong with the letter: Slack only asks for patience


LATER, DEAD = "later", "dead"
_LOST = Rule("post", "the message is gone")
_NO_THREAD = Rule("unthread", "the thread was deleted")
_TOO_LONG = Rule("file", "too long for a message")
_PRIVATE = Rule("direct", "that person is not in the channel")
_SETUP = 60.0

RULES: Final[Mapping[str, Rule]] = {
    "ratelimited": Rule(LATER, "Slack asks to wait", paced=True),
    "rate_limited": Rule(LATER, "Slack asks to wait", paced=True),
    "message_limit_exceeded": Rule(LATER, "Slack asks to wait", _SETUP, paced=True),
    "internal_error": Rule(LATER, "Slack has trouble"),
    "fatal_error": Rule(LATER, "Slack has trouble"),
    "service_unavailable": Rule(LATER, "Slack has trouble"),
    "request_timeout": Rule(LATER, "Slack did not answer in time"),
    "team_added_to_org": Rule(LATER, "the workspace is moving into an organisation", _SETUP),
    # the installation is wrong, not the letter: it waits until somebody has corrected it
    "invalid_auth": Rule(LATER, "Slack refuses the bot's token: correct SLACK_BOT_TOKEN", _SETUP),
    "not_authed": Rule(LATER, "Slack got no token: set SLACK_BOT_TOKEN", _SETUP),
    "account_inactive": Rule(LATER, "the bot's token belongs to a removed app: install it again", _SETUP),
    "token_revoked": Rule(LATER, "the bot's token was revoked: install the app again", _SETUP),
    "token_expired": Rule(LATER, "the bot's token has expired: set a new SLACK_BOT_TOKEN", _SETUP),
    "missing_scope": Rule(LATER, "the app lacks a scope: install it with `opsbot manifest`", _SETUP),
    # it can never be said there
    "channel_not_found": Rule(DEAD, "there is no such channel, or the bot is not in it: type `/invite @opsbot` there"),
    "not_in_channel": Rule(DEAD, "the bot is not in the channel: type `/invite @opsbot` there"),
    "is_archived": Rule(DEAD, "the channel is archived"),
    "restricted_action": Rule(DEAD, "the workspace does not let the bot post there"),
    "user_not_found": Rule(DEAD, "there is no such person"),
    "user_disabled": Rule(DEAD, "the account is deactivated"),
    "cannot_dm_bot": Rule(DEAD, "that is a bot"),
    "messages_tab_disabled": Rule(DEAD, "the app does not let its people be written to"),
    # another way
    "message_not_found": _LOST,
    "cant_update_message": _LOST,
    "edit_window_closed": _LOST,
    "thread_not_found": _NO_THREAD,
    "cannot_reply_to_message": _NO_THREAD,
    "msg_too_long": _TOO_LONG,
    "msg_blocks_too_long": _TOO_LONG,
    "invalid_blocks": _TOO_LONG,
    "invalid_blocks_format": _TOO_LONG,
    "no_text": _TOO_LONG,
    "user_not_in_channel": _PRIVATE,
}


def rule_for(error: SlackApiError) -> Rule:
    """By its code, else by the HTTP status."""
    code = code_of(error)
    if known := RULES.get(code):
        return known
    if _http_status(error) == 429:
        return RULES["ratelimited"]
    if _http_status(error) >= 500:
        return RULES["internal_error"]
    return Rule("unknown", f"Slack answers {code or _http_status(error)}")


def code_of(error: SlackApiError) -> str:
    found = error.response.get("error") if hasattr(error.response, "get") else None
    return str(found or "")


def _http_status(error: SlackApiError) -> int:
    """The status, wherever slack_sdk left it: an answer that is no JSON comes as a plain dict."""
    response: Any = error.response
    found = response.get("status") if isinstance(response, dict) else getattr(response, "status_code", 0)
    if not found and isinstance(error.__cause__, HTTPError):
        found = error.__cause__.code
    return int(found or 0)


def retry_after(error: SlackApiError) -> float:
    """The seconds that Slack asks to wait, 0.0 when it names none."""
    response: Any = error.response
    headers = (response.get("headers") if isinstance(response, dict) else response.headers) or {}
    named = next((value for name, value in headers.items() if name.lower() == "retry-after"), 0)
    try:
        return float(named)
    except (TypeError, ValueError):
        return 0.0
