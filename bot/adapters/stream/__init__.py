"""Bytes of programs as they come. Of machines: OpenSSH's own client is the pipe, with the pins and the key of every
other login. Of opsbot's own host: a pipe, too.
"""

from bot.adapters.stream.child import Limits
from bot.adapters.stream.command_line import Login, words
from bot.adapters.stream.local import Programs
from bot.adapters.stream.stream import OpenSsh

__all__ = ["Limits", "Login", "OpenSsh", "Programs", "words"]
