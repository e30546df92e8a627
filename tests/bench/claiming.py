"""What a claim costs when 300,000 runs have ended, beside an empty database on the same server."""

import time
from collections.abc import Callable
from statistics import median

import psycopg

from bot.adapters.store import migrate
from tests.bench.gates import Figure, at_most, info
from tests.rigs import postgres

FINISHED = 300_000
CLAIMS, TURNS = 200, 5
# As absurd leaves tasks that have ended: one attempt, completed, spread over the last 30 days.
FILL = """
INSERT INTO absurd.t_opsbot
    (task_id, task_name, params, enqueue_at, first_started_at, state, attempts, last_attempt_run, idempotency_key)
SELECT gen_random_uuid(), 'order', jsonb_build_object('run', n), at, at, 'completed', 1, gen_random_uuid(), 'done:' || n
  FROM (SELECT n, clock_timestamp() - random() * interval '30 days' AS at FROM generate_series(1, %(many)s) n) many
"""
RUNS = """
INSERT INTO absurd.r_opsbot (run_id, task_id, attempt, state, claimed_by, available_at, started_at, completed_at)
SELECT last_attempt_run, task_id, 1, 'completed', 'somebody:1', enqueue_at, enqueue_at, enqueue_at FROM absurd.t_opsbot
 WHERE state = 'completed'
"""


def measure() -> list[Figure]:
    with postgres.server("18", durable=True) as server, server.database() as empty, server.database() as full:
        for dsn in (empty, full):
            migrate(dsn)
        fill(full)
        idle, due = in_turns(empty, full, claims), in_turns(empty, full, served)
        waits = in_turns(empty, full, next_dues)
    return [
        *compared("claim on an idle queue", idle),
        *compared("claim of one task that is due", due),
        *compared("when is the next one due", waits),
    ]


def compared(name: str, both: tuple[float, float]) -> tuple[Figure, Figure]:
    few, many = both
    return (
        at_most(f"{name}, with {FINISHED:,} that ended / with none", many / few, 1.5, "x"),
        info("... each", f"{many * 1000:.3g} / {few * 1000:.3g} ms"),
    )


def fill(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FILL, {"many": FINISHED})
        connection.execute(RUNS)
        connection.execute("VACUUM ANALYZE")


def in_turns(empty: str, full: str, cost: Callable[[str], float]) -> tuple[float, float]:
    costs = [(cost(empty), cost(full)) for _ in range(TURNS)]
    return median(few for few, _ in costs), median(many for _, many in costs)


def claims(dsn: str) -> float:
    """Seconds for one claim that finds nothing."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        return timed(lambda: connection.execute("SELECT * FROM opsbot.claim('bench', 10, 16)").fetchall())


def next_dues(dsn: str) -> float:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return timed(lambda: connection.execute("SELECT opsbot.next_due()").fetchall())


def served(dsn: str) -> float:
    """Seconds for one claim of the one task that is due; it is completed outside of the clock."""
    taken: list[float] = []
    with psycopg.connect(dsn, autocommit=True) as connection:
        for no in range(CLAIMS):
            connection.execute("SELECT opsbot.spawn('order', '{}', %s)", [f"bench:{time.monotonic_ns()}:{no}"])
            began = time.perf_counter()
            rows = connection.execute("SELECT run_id, task_id FROM opsbot.claim('bench', 10, 16)").fetchall()
            taken.append(time.perf_counter() - began)
            assert len(rows) == 1, rows
            connection.execute("SELECT opsbot.complete(%s, %s, 'bench', 10)", list(rows[0]))
    return median(taken)


def timed(do: Callable[[], object]) -> float:
    taken: list[float] = []
    for _ in range(CLAIMS):
        began = time.perf_counter()
        do()
        taken.append(time.perf_counter() - began)
    return median(taken)
