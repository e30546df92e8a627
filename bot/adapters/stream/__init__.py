"""Bytes of machines as they come: OpenSSH's own client is the pipe, with the pins and the key of every other login."""

from bot.adapters.stream.command_line import Login, words
from bot.adapters.stream.stream import Limits, OpenSsh

__all__ = ["Limits", "Login", "OpenSsh", "words"]
