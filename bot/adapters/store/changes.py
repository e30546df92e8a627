"""Changes: a row stands before one is sent, so that nobody sends it twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows
from bot.core.errors import Permanent
from bot.core.ports import Tx
from bot.core.shown import Shown

SQL = Queries("changes")


@dataclass
class Change:
    attempt: int
    ask_no: int
    result: Mapping[str, Any] | None


class Changes:
    def intend(self, tx: Tx, run: int, change: int, ask: int, attempt: int, shown: Shown) -> bool:
        intent = {"run": run, "change": change, "ask": ask, "attempt": attempt, "shown": values.text(shown)}
        return rows(tx).execute(SQL["intend"], intent).fetchone() is not None

    def change(self, tx: Tx, run: int, change: int) -> Change | None:
        row = rows(tx).execute(SQL["newest"], {"run": run, "change": change}).fetchone()
        return Change(row["attempt"], row["ask_no"], row["result"]) if row else None

    def settle(self, tx: Tx, run: int, change: int, ask: int, result: Mapping[str, Any]) -> None:
        key = {"run": run, "change": change, "ask": ask}
        rows(tx).execute(SQL["settle"], {**key, "result": values.jsonb(dict(result))})
        if rows(tx).execute(SQL["one"], key).fetchone() is None:
            raise Permanent(f"Change {change} of run {run} was never intended, so it has no result")
