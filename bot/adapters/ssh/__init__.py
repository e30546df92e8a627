"""Machines over SSH: questions and changes, one tuned connection per machine, host keys pinned."""

from bot.adapters.ssh.files import unusable
from bot.adapters.ssh.host import Host, Limits
from bot.adapters.ssh.transport import Ssh

__all__ = ["Host", "Limits", "Ssh", "unusable"]
