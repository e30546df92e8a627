"""One connection to an installation's redis: directly, or through the platform machine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event as Flag
from typing import Any, Final

import redis
from redis.connection import Connection, SSLConnection
from redis.exceptions import NoPermissionError

from bot.adapters.redis.server import AWAY, DIRECT, NOT_CONFIGURED, REFUSED, Server, judged
from bot.core.ports import Machines, NotLed, Unreached
from bot.core.question import Answer, Output, RedisRead, Unanswered
from bot.core.target import Target

CONNECT_WITHIN: Final = 5.0
WITHIN: Final = 10.0  # seconds for one answer
LONGEST: Final = 900_000  # characters of an answer that are kept


def answers(
    server: Server, target: Target, machines: Machines, reads: Sequence[RedisRead], abort: Flag
) -> Iterator[Answer | Unanswered]:
    """One answer per question, over one connection."""
    left, where = list(reads), server.shown(target)
    try:
        with reached(server, target, machines, WITHIN) as connection:
            while left and not abort.is_set():
                yield _answer(connection, left[0], where)
                left.pop(0)
    except Unreached as why:
        yield from (Unanswered(str(why), why.cause) for _ in left)
    except (NotLed, redis.RedisError, OSError, ValueError) as error:
        yield from (trouble(error, where) for _ in left)
    else:
        yield from (Unanswered("redis was not asked to the end: the run was stopped.") for _ in left)


def _answer(connection: Connection, read: RedisRead, where: str) -> Answer | Unanswered:
    """One command's answer. A lost connection is the caller's business."""
    try:
        connection.send_command(*read.words)  # type: ignore[no-untyped-call]
        lines = "\n".join(_lines(connection.read_response()))
    except redis.ResponseError as error:
        return judged(Output(1, err=f"{_as_sent(error).strip()}\n"), where)
    return Output(0, lines[:LONGEST] + "\n", truncated=len(lines) > LONGEST)


def _lines(said: Any) -> Iterator[str]:
    """As `redis-cli` prints it when nobody watches: a line per element, nothing for nil."""
    if isinstance(said, list):
        for each in said or [""]:
            yield from _lines(each)
    elif isinstance(said, redis.ResponseError):
        yield _as_sent(said)
    else:
        yield said.decode(errors="replace") if isinstance(said, bytes) else "" if said is None else str(said)


def _as_sent(error: redis.ResponseError) -> str:
    """With the word in front that the client takes away: `ERR …`."""
    return f"{error.status_code} {error}" if error.status_code else str(error)


@contextmanager
def reached(server: Server, target: Target, machines: Machines, within: float) -> Iterator[Connection]:
    """A connection that waits `within` seconds for an answer.

    Raises Unreached, NotLed, RedisError, OSError or ValueError.
    """
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
