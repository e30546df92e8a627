"""Spawning and waking."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

from psycopg.types.json import Jsonb

from bot.adapters.durable.database import Database, rows
from bot.core.ports import Tx


class Durable:
    """`bot.core.ports.Durable` on PostgreSQL.

    `wake` locks a row of the task it wakes: wake last in a transaction, and several tasks in the order of their ids.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def transaction(self) -> AbstractContextManager[Tx]:
        return self._database.connection()

    def spawn(self, tx: Tx, name: str, params: Mapping[str, Any], key: str) -> str | None:
        spawn = [name, Jsonb(dict(params)), key]
        spawned = rows(tx).execute("SELECT opsbot.spawn(%s, %s, %s)::text AS task", spawn).fetchone()
        return spawned["task"] if spawned else None

    def wake(self, tx: Tx, task: str) -> None:
        rows(tx).execute("SELECT opsbot.wake(%s)", [task])
