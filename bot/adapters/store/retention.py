"""What is thrown away, and when: delivery keys, sent letters, samples. Runs, approvals and the audit trail stay."""

from dataclasses import dataclass
from datetime import timedelta

from bot.adapters.store.pool import Pool
from bot.adapters.store.queries import Queries

_BATCH = 1000  # rows per transaction, so that nobody waits for a clean-up


@dataclass(frozen=True)
class Keep:
    """How long each is of use. Slack repeats a delivery within an hour; an earlier sample speaks for an hour."""

    requests: timedelta = timedelta(days=30)
    letters: timedelta = timedelta(days=14)
    samples: timedelta = timedelta(days=1)


def forget(pool: Pool, keep: Keep) -> dict[str, int]:
    """Delete what is older; returns how many rows of each."""
    return {
        "requests": _forget(pool, Queries("runs")["forget_requests"], keep.requests),
        "letters": _forget(pool, Queries("outbox")["forget"], keep.letters),
        "samples": _forget(pool, Queries("samples")["forget"], keep.samples),
    }


def _forget(pool: Pool, sql: bytes, older: timedelta) -> int:
    total = 0
    while True:
        with pool.connection() as connection:
            gone = connection.execute(sql, {"older": older, "many": _BATCH}).rowcount
        total += gone
        if gone < _BATCH:
            return total
