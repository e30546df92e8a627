"""Connections to our database: a pool that survives restarts, and errors that say which database, without its password.

`Pool` is a psycopg pool whose `connection()` is one transaction. Trouble with the database itself (away, restarting,
too many connections, a deadlock) leaves it as `Temporary`: nothing of the transaction stands, unless its commit was
lost on the way back, so the caller looks at the rows again.
"""

import select
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg_pool import ConnectionPool

from bot.core.errors import OpsbotError, Permanent, Temporary

# A machine that vanished is noticed within about 15 s, a client that hangs in a transaction within 60.
LIVELY: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 3,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "application_name": "opsbot",
}
SESSION = "-c idle_in_transaction_session_timeout=60000 -c TimeZone=UTC"

_NEVER = (  # what libpq says when trying again does not help; it gives no code for an error while connecting
    ("authentication failed", "it refuses the user or the password"),
    ("no password supplied", "it asks for a password and none is configured"),
    ("no pg_hba.conf entry", "its pg_hba.conf does not let this user in from here"),
    ("does not exist", "the database or the user does not exist there"),
    ("Name or service not known", "no such host is known"),
    ("No address associated with hostname", "no such host is known"),
    ("is not permitted to log in", "this user may not log in"),
    ("server does not support SSL", "it does not speak TLS, which the URL asks for"),
    ("certificate verify failed", "its certificate is not trusted"),
)
_SOON = (
    ("Connection refused", "nothing listens there"),
    ("No such file or directory", "nothing listens there"),
    ("starting up", "it is starting up"),
    ("shutting down", "it is shutting down"),
    ("recovery", "it is recovering from a crash"),
    ("too many clients", "it has no free connection"),
    ("remaining connection slots", "it has no free connection"),
    ("Temporary failure in name resolution", "its name cannot be looked up at the moment"),
    ("timeout expired", "it did not answer in time"),
    ("couldn't get a connection", "it did not answer in time"),
    ("terminating connection", "it ended the connection"),
    ("server closed the connection", "it ended the connection"),
    ("deadlock detected", "two transactions waited for each other"),
    ("No space left on device", "its disk is full"),
    ("No route to host", "there is no route to it"),
    ("Network is unreachable", "there is no route to it"),
)


class Pool(ConnectionPool[Connection[DictRow]]):
    """See above. `ready` connections are opened beforehand; `apart()` is one outside of the pool, for whoever listens
    or must not wait for others.
    """

    def __init__(self, dsn: str, size: int = 32, ready: int = 1) -> None:
        self.dsn = dsn
        super().__init__(
            dsn,
            min_size=ready,
            max_size=size,
            kwargs=_options(dsn),
            timeout=5.0,
            reconnect_timeout=2.0,  # then the next caller tries at once; the pool's own back-off doubles for ever
            check=_check,  # a restarted server costs no transaction
            name="database",
            open=True,
        )

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection[DictRow]]:
        # Begun at once: a nested transaction() would else be the outer one, and commit before its time.
        with _sentences(self.dsn), super().connection(timeout) as connection, connection.transaction():
            yield connection

    def apart(self) -> Connection[DictRow]:
        with _sentences(self.dsn):
            return psycopg.connect(self.dsn, **_options(self.dsn), autocommit=True)


def connect(dsn: str) -> Connection[DictRow]:
    """One connection; Permanent or Temporary with a sentence when there is none."""
    try:
        return psycopg.connect(dsn, **_options(dsn))
    except psycopg.ProgrammingError as error:
        raise Permanent("The database's URL cannot be read; it looks like postgresql://user@host:5432/name") from error
    except psycopg.OperationalError as error:
        raise trouble(dsn, error) from error


def describe(dsn: str) -> str:
    """`opsbot on db.example.com:5432`, never the password."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "of the configured URL"
    host, port = parts.get("host") or parts.get("hostaddr") or "localhost", parts.get("port") or 5432
    return f"{parts.get('dbname') or parts.get('user') or 'postgres'} on {host}:{port}"


def trouble(dsn: str, error: Exception) -> OpsbotError:
    """The error as a sentence: Permanent when trying again cannot help."""
    text = str(error)
    for sign, why in _NEVER:
        if sign in text:
            return Permanent(f"The database {describe(dsn)} cannot be used: {why}. Check the database's URL.")
    why = next((why for sign, why in _SOON if sign in text), f"{type(error).__name__}")
    return Temporary(f"The database {describe(dsn)} does not answer: {why}.")


def _check(connection: Connection[DictRow]) -> None:
    """A server that ended the connection has said so: a round trip is made only when something can be read."""
    said = select.poll()
    said.register(connection.fileno(), select.POLLIN)
    if said.poll(0):
        ConnectionPool.check_connection(connection)


@contextmanager
def _sentences(dsn: str) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.ProgramLimitExceeded:
        raise  # what was written is too large; it will not become smaller
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise Temporary(str(trouble(dsn, error))) from error


def _options(dsn: str) -> dict[str, Any]:
    """Ours where the URL says nothing."""
    given = conninfo_to_dict(dsn)
    options = {name: value for name, value in LIVELY.items() if name not in given}
    return {**options, "options": f"{SESSION} {given.get('options') or ''}".strip(), "row_factory": dict_row}
