"""The audit trail: a chain of records, each signed together with the one before it.

The key lies outside the database, so that whoever can write to the tables can still not rewrite what happened. Records
cut off at the end leave no trace in the chain itself: compare with a head that was kept elsewhere (`verify(head)`).
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.rows import DictRow

from bot.adapters.store import values
from bot.adapters.store.pool import Pool
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows, text
from bot.core.errors import Permanent
from bot.core.people import Actor
from bot.core.ports import Tx

SQL = Queries("audit")
SHORTEST_KEY = 16  # bytes
_LOCK = 0x6F707361  # "opsa"
_FIRST = "0" * 64
_BATCH = 1000


@dataclass(frozen=True)
class Record:
    """One line of the trail, as it is signed."""

    no: int
    at: datetime
    what: str
    team: str | None
    user: str | None
    via: str | None
    detail: str
    mac: str = ""

    @property
    def written(self) -> str:
        """When, as RFC 3339 in UTC."""
        return self.at.astimezone(UTC).isoformat()

    def signed(self, key: bytes, before: str) -> str:
        said = [before, self.no, self.written, self.what, self.team, self.user, self.via]
        return hmac.new(key, values.canonical([*said, self.detail]).encode(), hashlib.sha256).hexdigest()


class Audit:
    """Appends to the trail and checks it. `key` is the secret that signs it."""

    def __init__(self, pool: Pool, key: bytes) -> None:
        if len(key) < SHORTEST_KEY:
            raise Permanent(f"The audit key has {len(key)} bytes; it needs at least {SHORTEST_KEY}")
        self._pool = pool
        self._key = key

    def append(self, tx: Tx, what: str, who: Actor | None, detail: Mapping[str, Any]) -> None:
        """Takes a lock until the transaction ends, so that the chain is a line: the last lock to take."""
        connection = rows(tx)
        connection.execute(SQL["lock"], {"lock": _LOCK})
        last = connection.execute(SQL["last"]).fetchone()
        at = values.only(connection.execute(SQL["now"]).fetchone())["at"]
        who_columns: dict[str, Any] = values.columns(who) if who else _NOBODY
        no = last["no"] + 1 if last else 1
        record = Record(no=no, at=at, what=text(what), detail=values.canonical(dict(detail)), **who_columns)
        mac = record.signed(self._key, last["mac"] if last else _FIRST)
        connection.execute(SQL["append"], {**vars(record), "mac": mac})

    def head(self) -> str:
        """What the newest record is known by, to be kept where this database's users cannot write: `17:9f2c…`."""
        with self._pool.connection() as connection:
            last = connection.execute(SQL["last"]).fetchone()
        return f"{last['no']}:{last['mac']}" if last else f"0:{_FIRST}"

    def verify(self, head: str | None = None) -> str | None:
        """None when every record fits, else a sentence that names the first which does not."""
        expected = _split(head) if head else (0, _FIRST)
        before, no = _FIRST, 0
        for record in self.export():
            no += 1
            if record.no != no:
                return f"Record {no} is missing: after record {no - 1} comes record {record.no}."
            if not hmac.compare_digest(record.mac, record.signed(self._key, before)):
                return f"Record {no} ({record.what}, {record.at}) is not what was written, or not in its place."
            if no == expected[0] and record.mac != expected[1]:
                return f"Record {no} is not the one that the given head names: the trail was rewritten."
            before = record.mac
        if no < expected[0]:
            return f"Record {no + 1} is missing: the given head names record {expected[0]}, the trail ends at {no}."
        return None

    def export(self) -> Iterator[Record]:
        """Every record, oldest first; a batch at a time, so that no transaction stays open."""
        after = -(2**62)
        while True:
            with self._pool.connection() as connection:
                found = connection.execute(SQL["all"], {"after": after, "many": _BATCH}).fetchall()
            yield from map(_record, found)
            if len(found) < _BATCH:
                return
            after = found[-1]["no"]


_NOBODY: dict[str, Any] = {"team": None, "user": None, "via": None}


def _record(row: DictRow) -> Record:
    return Record(**row)


def _split(head: str) -> tuple[int, str]:
    no, _, mac = head.strip().partition(":")
    if not no.isdecimal() or len(mac) != len(_FIRST):
        raise Permanent(f"{head!r} is no head of an audit trail; it looks like 17:9f2c… with 64 hexadecimal digits")
    return int(no), mac
