"""What this package needs of a database."""

from contextlib import AbstractContextManager
from typing import Protocol, cast

from psycopg import Connection
from psycopg.rows import DictRow

from bot.core.ports import Tx


class Database(Protocol):
    def connection(self) -> AbstractContextManager[Connection[DictRow]]:
        """One transaction; raises Temporary when the database is away."""
        ...

    def apart(self) -> Connection[DictRow]:
        """A connection of one's own, autocommit."""
        ...


def rows(tx: Tx) -> Connection[DictRow]:
    if not isinstance(tx, Connection):
        raise TypeError(f"a transaction of this database is needed, not {type(tx).__name__}")
    return cast("Connection[DictRow]", tx)
