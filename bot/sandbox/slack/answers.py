"""What an app answers to a command or a click: in its acknowledgement, or later through a `response_url`."""

import time
from typing import Any

from bot.sandbox.slack import payloads
from bot.sandbox.slack.methods_chat import checked_blocks
from bot.sandbox.slack.state import ResponseUrl, SlackError, State
from bot.sandbox.slack.workspace import Json


def show_answer(state: State, source: ResponseUrl, answer: Json) -> Json | None:
    """Post, replace or delete as the answer says; returns the message shown."""
    if answer.get("delete_original") and source.message_ts:
        state.delete_message(source.channel, source.message_ts)
        return None
    content = _content(answer)
    if answer.get("replace_original") and source.message_ts:
        return state.replace_message(source.channel, source.message_ts, content)
    if answer.get("thread_ts"):  # Slack answers in a thread only when told so
        content["thread_ts"] = answer["thread_ts"]
    said = payloads.bot_message(state) | content
    if answer.get("response_type") == "in_channel":
        return state.post(source.channel, said)
    return state.whisper(source.channel, source.person, said)


def _content(answer: Json) -> Json:
    content: Json = {"text": str(answer.get("text") or "")}
    if answer.get("blocks"):
        content["blocks"] = checked_blocks(answer["blocks"])
    if not content["text"] and not content.get("blocks"):
        raise SlackError("no_text")
    return content


def use_response_url(state: State, path: str, answer: Any) -> str | None:
    """One use of a response_url; returns Slack's error code, or None when the answer is shown."""
    source = state.response_urls.get(path)
    if source is None:
        return "invalid_response_url"
    if time.monotonic() - source.made > state.limits.scaled(state.limits.response_url_seconds):
        return "expired_url"
    if source.uses >= state.limits.response_url_uses:
        return "used_url"
    if not isinstance(answer, dict):
        return "invalid_payload"
    source.uses += 1
    try:
        show_answer(state, source, answer)
    except SlackError as error:
        return error.code
    return None
