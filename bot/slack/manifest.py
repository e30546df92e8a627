"""The app's manifest: the least that Slack must allow, for the administrator who installs opsbot."""

import re
from pathlib import Path
from typing import Final

from bot.core.errors import Permanent

FILE: Final = Path(__file__).parents[2] / "config" / "slack-manifest.yaml"
COMMAND: Final = "/travis"

# The bot scope of each Web API method that we call; None needs none. A test compares it with the code and the file.
SCOPES: Final[dict[str, str | None]] = {
    "auth_test": None,
    "chat_postMessage": "chat:write",
    "chat_postEphemeral": "chat:write",
    "chat_update": "chat:write",
    "conversations_info": None,  # see WHERE
    "conversations_open": "im:write",
    "files_upload_v2": "files:write",
    "usergroups_users_list": "usergroups:read",
    "users_info": "users:read",
    "views_open": None,
    "views_update": None,
}
# A channel is asked about by its kind: `opsbot doctor` says in which the bot is missing.
WHERE: Final = ("channels:read", "groups:read")
# What Slack delivers needs scopes too.
DELIVERED: Final = {"slash_commands": "commands", "app_mention": "app_mentions:read"}


def manifest(command: str = COMMAND) -> str:
    """The manifest as YAML, to be pasted at https://api.slack.com/apps?new_app=1, with this slash command."""
    if not re.fullmatch(r"/[A-Za-z0-9_-]{1,31}", command):
        raise Permanent(
            f"{command!r} is no slash command: a `/`, then letters, digits, `-` and `_`, at most 32 characters"
        )
    return FILE.read_text(encoding="utf-8").replace(COMMAND, command.lower())
