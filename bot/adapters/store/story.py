"""The story of a run: numbered events, and the letters that tell it in Slack."""

from collections.abc import Mapping, Sequence
from typing import Any

from bot.adapters.store import letters, values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows
from bot.core.ports import Tx
from bot.core.story import KINDS, Event

SQL = Queries("story")


class Story:
    def tell(self, tx: Tx, run: int, kind: str, data: Mapping[str, Any]) -> int:
        if kind not in KINDS:
            raise ValueError(f"{kind!r} is no kind of event; there are {', '.join(KINDS)}")
        connection = rows(tx)
        no: int = values.only(connection.execute(SQL["next_no"], {"run": run}).fetchone())["told"]
        connection.execute(SQL["tell"], {"run": run, "no": no, "kind": kind, "data": values.jsonb(dict(data))})
        connection.execute(SQL["notify"], {"run": run})
        letters.status(connection, run)
        if kind == "note":
            letters.note(connection, run, data)
        return no

    def story(self, tx: Tx, run: int, after: int = 0) -> Sequence[Event]:
        found = rows(tx).execute(SQL["story"], {"run": run, "after": after})
        return [Event(row["run_id"], row["no"], row["kind"], row["data"], row["at"]) for row in found]
