"""A Slack for one laptop: Web API, Socket Mode, people, and a page to chat in. Used by `opsbot try` and by tests."""

from bot.sandbox.slack.driver import Ack, Driver, Load, Message, NotSeen, Person, Refused
from bot.sandbox.slack.limits import Limits
from bot.sandbox.slack.server import LocalSlack, NotLoopback, PortInUse
from bot.sandbox.slack.workspace import Workspace, example

__all__ = [
    "Ack", "Driver", "Limits", "Load", "LocalSlack", "Message", "NotLoopback", "NotSeen", "Person", "PortInUse",
    "Refused", "Workspace", "example",
]  # fmt: skip
