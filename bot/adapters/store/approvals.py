"""Questions to people, and the one UPDATE that decides."""

import secrets
from collections.abc import Sequence

from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store import letters, values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows, text
from bot.core.approval import Approval, Ask, Click, Kind
from bot.core.people import Actor, Part, Place
from bot.core.ports import Tx

SQL = Queries("approvals")


class Approvals:
    approvals_channel: str | None
    else_channel: str | None

    def put(self, tx: Tx, ask: Ask, requester: Actor) -> Approval:
        connection = rows(tx)
        row = connection.execute(SQL["put"], {**_columns(ask), **values.columns(requester)}).fetchone()
        if row:
            letters.status(connection, ask.run)  # goes first: the thread begins with it
            letters.approval(connection, row["id"], self.else_channel)
            letters.pointer(connection, row["id"], self.approvals_channel)
        standing = self.approval_of(tx, ask.run, ask.no)
        if standing is None:
            raise LookupError(f"run {ask.run} has no question {ask.no}")
        return standing

    def approval(self, tx: Tx, approval: int) -> Approval | None:
        return _read(rows(tx), SQL["by_id"], {"approval": approval})

    def approval_of(self, tx: Tx, run: int, no: int) -> Approval | None:
        return _read(rows(tx), SQL["by_no"], {"run": run, "no": no})

    def open_asks(self, tx: Tx, run: int) -> Sequence[int]:
        return [row["id"] for row in rows(tx).execute(SQL["open_asks"], {"run": run})]

    def decide(self, tx: Tx, click: Click, members: Sequence[str]) -> Approval | None:
        decision = {
            "approval": click.approval,
            "verdict": click.verdict.value,
            "voter": f"{click.actor.team}/{click.actor.user}",
            "reason": text(click.reason),
            "nonce": click.nonce,
            "channel": click.place.channel if click.place and click.message else None,
            "thread": click.place.thread if click.place and click.message else None,
            "message": click.message,
            "members": list(members),
            **values.columns(click.actor),
        }
        connection = rows(tx)
        connection.execute(SQL["lock_run"], decision)
        if connection.execute(SQL["decide"], decision).fetchone() is None:
            return None
        connection.execute(SQL["keep_decision"], decision)
        return self._told(tx, click.approval)

    def expire(self, tx: Tx, approval: int) -> Approval | None:
        rows(tx).execute(SQL["lock_run"], {"approval": approval})
        closed = rows(tx).execute(SQL["expire"], {"approval": approval}).fetchone()
        return self._told(tx, approval) if closed else None

    def withdraw(self, tx: Tx, approval: int, verdict: str) -> None:
        rows(tx).execute(SQL["lock_run"], {"approval": approval})
        if rows(tx).execute(SQL["withdraw"], {"approval": approval, "verdict": verdict}).fetchone():
            self._told(tx, approval)

    def add_party(self, tx: Tx, run: int, who: Actor) -> bool:
        return rows(tx).execute(SQL["add_party"], {"run": run, **values.columns(who)}).fetchone() is not None

    def parts(self, tx: Tx, run: int, who: Actor) -> frozenset[Part]:
        found = rows(tx).execute(SQL["parts"], {"run": run, **values.columns(who)})
        return frozenset(Part(row["part"]) for row in found)

    def _told(self, tx: Tx, approval: int) -> Approval | None:
        letters.approval(rows(tx), approval, self.else_channel)
        return self.approval(tx, approval)


def _columns(ask: Ask) -> dict[str, object]:
    return {
        "run": ask.run,
        "no": ask.no,
        "kind": ask.kind.value,
        "digest": ask.digest,
        "needs": ask.needs,
        "expires": ask.expires,
        "title": text(ask.title),
        "text": text(ask.text),
        "rule": text(ask.rule),
        "nonce": secrets.token_urlsafe(16),
    }


def _read(connection: Connection[DictRow], sql: bytes, key: dict[str, int]) -> Approval | None:
    row = connection.execute(sql, key).fetchone()
    if row is None:
        return None
    decisions = connection.execute(SQL["decisions"], {"approval": row["id"]}).fetchall()
    counts = row["state"] if row["state"] != "open" else "approve"
    return approval_from(row, tuple(values.actor(one) for one in decisions if one["verdict"] == counts))


def approval_from(row: DictRow, decided_by: tuple[Actor, ...]) -> Approval:
    ask = Ask(
        run=row["run_id"],
        no=row["no"],
        kind=Kind(row["kind"]),
        digest=row["digest"],
        needs=row["needs"],
        expires=row["expires_at"],
        title=row["title"],
        text=row["text"],
        rule=row["rule"],
    )
    return Approval(
        id=row["id"],
        ask=ask,
        nonce=row["nonce"],
        state=row["state"],
        requester=values.actor(row, "requester_"),
        decided_by=decided_by,
        reason=row["reason"],
        decided_at=row["decided_at"],
        place=Place(row["channel"], row["thread"]) if row["channel"] else None,
        message=row["message"],
    )
