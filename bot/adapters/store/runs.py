"""Requests, runs, and what a run keeps: findings, plans, evidence."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.rows import DictRow

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows, text
from bot.core.errors import Permanent
from bot.core.outcome import Outcome
from bot.core.people import Actor, Place
from bot.core.ports import Tx
from bot.core.run import Order, Run, Verb
from bot.core.shown import Shown

SQL = Queries("runs")


class Runs:
    def accept(self, tx: Tx, key: str, kind: str, body: Mapping[str, Any], actor: Actor) -> int | None:
        request = {"key": text(key), "kind": kind, "body": values.json_text(dict(body)), **values.columns(actor)}
        row = rows(tx).execute(SQL["accept"], request).fetchone()
        return row["id"] if row else None

    def request(self, tx: Tx, request: int) -> Mapping[str, Any]:
        row = rows(tx).execute(SQL["request"], {"request": request}).fetchone()
        if row is None:
            raise Permanent(f"Request {request} is not known any more")
        body: Mapping[str, Any] = row["body"]
        return body

    def count_request_try(self, tx: Tx, request: int) -> int:
        tries: int = values.only(rows(tx).execute(SQL["count_request_try"], {"request": request}).fetchone())["tries"]
        return tries

    def start(self, tx: Tx, order: Order) -> int:
        place = order.place
        row = rows(tx).execute(
            SQL["start"],
            {
                "verb": order.verb.value,
                "subject": text(order.subject),
                "site": text(order.site),
                "targets": [text(target) for target in order.targets],
                "because": text(order.because),
                "channel": place.channel if place else None,
                "thread": place.thread if place else None,
                "look_only": order.look_only,
                "argument": text(order.argument),
                **values.columns(order.actor),
            },
        )
        number: int = values.only(row.fetchone())["id"]
        return number

    def attach(self, tx: Tx, run: int, task: str) -> None:
        rows(tx).execute(SQL["attach"], {"run": run, "task": UUID(task)})

    def run(self, tx: Tx, run: int) -> Run | None:
        row = rows(tx).execute(SQL["run"], {"run": run}).fetchone()
        return run_from(row) if row else None

    def runs(self, tx: Tx, limit: int, open_only: bool = False) -> Sequence[Run]:
        found = rows(tx).execute(SQL["runs"], {"limit": limit, "open_only": open_only})
        return [run_from(row) for row in found]

    def set_state(self, tx: Tx, run: int, state: str) -> None:
        rows(tx).execute(SQL["set_state"], {"run": run, "state": state})

    def finish(self, tx: Tx, run: int, outcome: Outcome, summary: Shown) -> None:
        rows(tx).execute(SQL["finish"], {"run": run, "outcome": outcome.name, "summary": text(summary)})

    def cancel(self, tx: Tx, run: int, actor: Actor) -> bool:
        return rows(tx).execute(SQL["cancel"], {"run": run, **values.columns(actor)}).fetchone() is not None

    def count_try(self, tx: Tx, run: int) -> int:
        row = rows(tx).execute(SQL["count_try"], {"run": run}).fetchone()
        row = row or rows(tx).execute(SQL["tries"], {"run": run}).fetchone()
        tries: int = values.only(row)["tries"]
        return tries

    def keep_findings(self, tx: Tx, run: int, look: int, findings: Sequence[Mapping[str, Any]]) -> None:
        connection = rows(tx)
        connection.execute(SQL["forget_findings"], {"run": run, "look": look})
        kept = [
            {"run": run, "look": look, "no": no, "data": values.jsonb(dict(finding))}
            for no, finding in enumerate(findings, 1)
        ]
        connection.cursor().executemany(SQL["keep_finding"], kept)

    def keep_plan(self, tx: Tx, run: int, no: int, digest: str, plan: Mapping[str, Any]) -> None:
        connection = rows(tx)
        given = {"run": run, "no": no, "digest": digest, "plan": values.jsonb(dict(plan))}
        connection.execute(SQL["keep_plan"], given)
        kept = values.only(connection.execute(SQL["plan"], {"run": run, "no": no}).fetchone())
        if kept["digest"] != digest:
            raise Permanent(f"Plan {no} of run {run} stands already, and it is another one")

    def plan(self, tx: Tx, run: int, no: int) -> Mapping[str, Any]:
        row = rows(tx).execute(SQL["plan"], {"run": run, "no": no}).fetchone()
        if row is None:
            raise Permanent(f"Run {run} has no plan {no}")
        plan: Mapping[str, Any] = row["plan"]
        return plan

    def keep_evidence(self, tx: Tx, run: int, target: str, asks: str, text: Shown) -> None:
        evidence = {"run": run, "target": target, "asks": values.text(asks), "text": values.text(text)}
        rows(tx).execute(SQL["keep_evidence"], evidence)

    def evidence(self, tx: Tx, run: int) -> Sequence[tuple[str, str, str]]:
        found = rows(tx).execute(SQL["evidence"], {"run": run})
        return [(row["target"], row["asks"], row["text"]) for row in found]


def run_from(row: DictRow) -> Run:
    order = Order(
        verb=Verb(row["verb"]),
        subject=row["subject"],
        site=row["site"],
        targets=tuple(row["targets"]),
        because=row["because"],
        actor=values.actor(row),
        place=Place(row["channel"], row["thread"]) if row["channel"] else None,
        look_only=row["look_only"],
        argument=row["argument"],
    )
    return Run(
        id=row["id"],
        order=order,
        state=row["state"],
        created=row["created_at"],
        outcome=Outcome[row["outcome"]] if row["outcome"] else None,
        summary=row["summary"],
        cancelled_by=values.actor(row, "cancelled_") if row["cancelled_at"] else None,
        task=str(row["task"] or ""),
    )
