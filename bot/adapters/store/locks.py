"""Locks on machines: a run holds all that it wants, or none."""

from collections.abc import Sequence

from psycopg import Connection, Rollback
from psycopg.rows import DictRow

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows
from bot.core.ports import Tx

SQL = Queries("locks")


class Locks:
    def lock(self, tx: Tx, run: int, keys: Sequence[str]) -> int | None:
        connection = rows(tx)
        wanted = {"run": run, "keys": sorted(set(keys))}
        while True:
            if _take_all(connection, wanted):
                connection.execute(SQL["stop_waiting"], wanted)
                return None
            holder = connection.execute(SQL["holder"], wanted).fetchone()
            if holder:
                connection.execute(SQL["wait"], wanted)
                number: int = holder["run_id"]
                return number
            # Freed between the two statements: try again.

    def unlock(self, tx: Tx, run: int) -> Sequence[str]:
        connection = rows(tx)
        connection.execute(SQL["stop_waiting"], {"run": run})
        freed = [row["key"] for row in connection.execute(SQL["free"], {"run": run})]
        return [row["task"] for row in connection.execute(SQL["waiting"], {"keys": freed})]

    def locks(self, tx: Tx, run: int) -> Sequence[str]:
        """What the run holds now."""
        return [row["key"] for row in rows(tx).execute(SQL["held"], {"run": run})]


def _take_all(connection: Connection[DictRow], wanted: dict[str, object]) -> bool:
    """All of them, or nothing of it stands."""
    with connection.transaction():
        connection.execute(SQL["take"], wanted)
        taken: bool = values.only(connection.execute(SQL["missing"], wanted).fetchone())["missing"] == 0
        if not taken:
            raise Rollback
    return taken
