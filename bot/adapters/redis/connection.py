"""One connection to an installation's redis: directly, or through the platform machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import redis
from redis.connection import Connection, SSLConnection
from redis.exceptions import NoPermissionError

from bot.core.ports import Machines
from bot.core.question import Unanswered
from bot.core.target import Target

CONTAINER, TUNNEL, DIRECT = "container", "tunnel", "direct"
NOT_CONFIGURED: Final = "not-configured"
AWAY: Final = "redis-unreachable"  # a finding
REFUSED: Final = "redis-refused"  # not known: opsbot's login, rights or words
CONNECT_WITHIN: Final = 5.0
PORT: Final = 6379


@dataclass(frozen=True)
class Server:
    """How one installation's redis is reached; the URL is a secret, and there is none for the container."""

    via: str = CONTAINER
    url: str = field(default="", repr=False)

    def __str__(self) -> str:
        host, port = self.address
        return "in the platform's container" if self.via == CONTAINER else f"on {host}:{port}"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or PORT


@contextmanager
def reached(server: Server, target: Target, machines: Machines, within: float) -> Iterator[Connection]:
    """A connection that waits `within` seconds for an answer. Raises Unreached, RedisError, OSError or ValueError."""
    if server.via == DIRECT:
        with _connected(server.url, None, within) as connection:
            yield connection
        return
    with machines.forward(target, *server.address) as port, _connected(server.url, port, within) as connection:
        yield connection


class _Plain(Connection):
    """Connects to `to` on loopback when that is given, whatever the URL names."""

    to: int | None = None

    def _connect(self) -> Any:
        if self.to is None:
            return super()._connect()  # type: ignore[no-untyped-call]
        named = self.host, self.port
        self.host, self.port = "127.0.0.1", self.to
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        finally:
            self.host, self.port = named


class _Tls(SSLConnection, _Plain):
    """The certificate is that of the host in the URL, also through a tunnel: it is checked after connecting."""


@contextmanager
def _connected(url: str, to: int | None, within: float) -> Iterator[Connection]:
    options = {
        "socket_connect_timeout": CONNECT_WITHIN,
        "socket_timeout": within,
        "protocol": 2,  # answers as redis-cli shows them: a mapping is a flat list
        "driver_info": None,  # nothing is told but what is asked
    }
    made = redis.ConnectionPool.from_url(url, **options)
    kind = _Tls if issubclass(made.connection_class, SSLConnection) else _Plain
    connection = kind(**made.connection_kwargs)
    connection.to = to
    try:
        connection.connect()  # type: ignore[no-untyped-call]
        yield connection
    finally:
        connection.disconnect()  # type: ignore[no-untyped-call]


def trouble(error: Exception, where: str) -> Unanswered:
    if isinstance(error, redis.AuthenticationError | NoPermissionError):
        return Unanswered(f"Redis {where} refuses the user or the password.", REFUSED)
    if isinstance(error, ValueError):
        return Unanswered(f"Redis {where} cannot be asked: its URL cannot be read.", NOT_CONFIGURED)
    if "certificate verify failed" in str(error):
        return Unanswered(f"Redis {where} cannot be asked: its certificate is not trusted ({first(error)}).", REFUSED)
    if isinstance(error, redis.BusyLoadingError):
        return Unanswered(f"Redis {where} cannot be reached: it is still loading its data.", AWAY)
    late = isinstance(error, redis.TimeoutError | TimeoutError)
    why = "it did not answer in time" if late else first(error)
    return Unanswered(f"Redis {where} cannot be reached: {why}.", AWAY)


def first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300].rstrip(".")
