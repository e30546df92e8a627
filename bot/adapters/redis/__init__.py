"""Redis of an installation: commands that only read, and a copy of all that it holds."""

from bot.adapters.redis.asking import Redis, only_reads, program
from bot.adapters.redis.connection import CONTAINER, DIRECT, TUNNEL, Server
from bot.adapters.redis.copies import Copies

__all__ = ["CONTAINER", "DIRECT", "TUNNEL", "Copies", "Redis", "Server", "only_reads", "program"]
