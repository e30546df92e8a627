"""Files in Slack's three steps: announce, send the bytes, share."""

import secrets
from typing import Any

from bot.sandbox.slack import payloads
from bot.sandbox.slack.methods_chat import writable_channel
from bot.sandbox.slack.state import SlackError, State, Upload
from bot.sandbox.slack.workspace import Json

LARGEST = 50 * 1024 * 1024
KINDS = {False: ("text/plain", "text", "Plain Text"), True: ("image/png", "png", "PNG")}


def get_upload_url(state: State, args: Json) -> Json:
    try:
        name, length = str(args["filename"]), int(args["length"])
    except (KeyError, ValueError):
        raise SlackError("invalid_arguments") from None
    if not 0 < length <= LARGEST:
        raise SlackError("file_upload_size_restricted")
    upload = Upload(state.next_id("F"), name, length, secrets.token_urlsafe(24), alt=str(args.get("alt_txt") or ""))
    state.uploads[upload.id] = upload
    return {"file_id": upload.id, "upload_url": f"{state.base_url}/upload/{upload.id}/{upload.ticket}"}


def complete_upload(state: State, args: Json) -> Json:
    uploads = [_filled(state, one) for one in args.get("files") or ()]
    if not uploads:
        raise SlackError("invalid_arguments")
    channels = [one for one in (args.get("channel_id"), *str(args.get("channels") or "").split(",")) if one]
    for channel in channels:
        _share(state, channel, uploads, args)
    return {"files": [file_json(state, one) for one in uploads]}


def _filled(state: State, given: Any) -> Upload:
    upload = state.uploads.get(str(given.get("id")) if isinstance(given, dict) else "")
    if upload is None or upload.content is None:
        raise SlackError("file_not_found")
    upload.title = str(given.get("title") or upload.name)
    return upload


def _share(state: State, channel: str, uploads: list[Upload], args: Json) -> None:
    where = writable_channel(state, {"channel": channel})
    message = payloads.bot_message(state) | {"text": str(args.get("initial_comment") or ""), "subtype": "file_share"}
    if args.get("thread_ts"):
        message["thread_ts"] = str(args["thread_ts"])
    for one in uploads:
        one.shared_in.append(where.id)
    message["files"] = [file_json(state, one) for one in uploads]
    state.post(where.id, message)


def file_json(state: State, upload: Upload) -> Json:
    """A file as messages carry it; its links open in the page."""
    link = f"{state.base_url}/files/{upload.id}"
    mimetype, filetype, pretty = KINDS[upload.is_picture]
    return {
        "id": upload.id, "name": upload.name, "title": upload.title or upload.name, "size": len(upload.content or b""),
        "mimetype": mimetype, "filetype": filetype, "pretty_type": pretty, "mode": "hosted", "alt_txt": upload.alt,
        "user": state.workspace.bot_user, "user_team": state.workspace.team, "is_external": False, "is_public": False,
        "url_private": link, "url_private_download": f"{link}?download=1", "permalink": link,
        "channels": list(upload.shared_in),
    }  # fmt: skip


def receive(state: State, file_id: str, ticket: str, content: bytes) -> str | None:
    """Keep the bytes of an announced file; returns what is wrong, if anything."""
    upload = state.uploads.get(file_id)
    if upload is None or not secrets.compare_digest(upload.ticket, ticket):
        return "no such upload"
    if len(content) != upload.length:
        return f"announced {upload.length} bytes, received {len(content)}"
    upload.content = content
    return None
