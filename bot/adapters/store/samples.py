"""What machines answered earlier, so that "is it still the same?" needs no waiting."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows
from bot.core.ports import Tx

SQL = Queries("samples")
SPEAKS_FOR: Final = timedelta(hours=1)  # what was so before tells nothing of the time between


class Samples:
    def sample(self, tx: Tx, target: str, question: str, answer: Mapping[str, Any]) -> None:
        sample = {"target": target, "question": values.text(question), "answer": values.jsonb(dict(answer))}
        rows(tx).execute(SQL["sample"], sample)

    def earlier(self, tx: Tx, target: str, question: str, before: datetime) -> Mapping[str, Any] | None:
        """The newest answer that is at least as old as `before`, and not over an hour older."""
        key = {"target": target, "question": values.text(question), "before": before, "after": before - SPEAKS_FOR}
        row = rows(tx).execute(SQL["earlier"], key).fetchone()
        return row["answer"] if row else None
