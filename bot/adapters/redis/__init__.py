"""Redis of an installation: commands that only read, and (`copies.py`) a copy of all that it holds."""

from bot.adapters.redis.asking import Redis, only_reads, program
from bot.adapters.redis.server import CONTAINER, DIRECT, TUNNEL, Server

__all__ = ["CONTAINER", "DIRECT", "TUNNEL", "Redis", "Server", "only_reads", "program"]
