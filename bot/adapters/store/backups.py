"""Backups as rows: what was taken, what proves it, what was given up. The store's keys are the vault's business."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import psycopg
from psycopg import Connection
from psycopg.rows import DictRow

from bot.adapters.store import values
from bot.adapters.store.queries import Queries
from bot.adapters.store.values import rows, text
from bot.core.errors import Refused
from bot.core.keeping import Backup, Piece, Proof, Proven
from bot.core.ports import Tx
from bot.core.shown import Shown

SQL = Queries("backups")
_KEPT = "OB006"  # the schema's word for what must not be given up


class Backups:
    def begin_backup(self, tx: Tx, site: str, what: str, run: int, folder: str) -> int:
        row = {"site": text(site), "what": what, "run": run, "folder": text(folder)}
        number: int = values.only(rows(tx).execute(SQL["begin"], row).fetchone())["id"]
        return number

    def add_piece(self, tx: Tx, backup: int, piece: Piece) -> int:
        row = {
            "backup": backup,
            "kind": piece.kind,
            "name": text(piece.name),
            "key": text(piece.key),
            "plain": piece.plain,
            "stored": piece.stored,
            "sha256": piece.sha256,
            "packed": piece.packed,
            "fingerprint": piece.fingerprint,
            "warnings": [text(each) for each in piece.warnings],
            "began": piece.began,
            "ended": piece.ended,
            "rows": values.jsonb(piece.rows),
        }
        number: int = values.only(rows(tx).execute(SQL["add"], row).fetchone())["id"]
        return number

    def prove(self, tx: Tx, piece: int, by: Proof, passed: bool, said: Shown) -> None:
        rows(tx).execute(SQL["prove"], {"piece": piece, "kind": by.value, "passed": passed, "said": text(said)})

    def seal_backup(self, tx: Tx, backup: int, manifest: str) -> None:
        rows(tx).execute(SQL["seal"], {"backup": backup, "manifest": text(manifest)})

    def backups(self, tx: Tx, site: str = "", limit: int = 50, gone: bool = False) -> Sequence[Backup]:
        wanted = {"site": site, "limit": limit, "gone": gone}
        return _with_pieces(rows(tx), rows(tx).execute(SQL["backups"], wanted).fetchall())

    def half_gone(self, tx: Tx, site: str) -> Sequence[Backup]:
        return _with_pieces(rows(tx), rows(tx).execute(SQL["half_gone"], {"site": site}).fetchall())

    def backup(self, tx: Tx, backup: int) -> Backup | None:
        found = _with_pieces(rows(tx), rows(tx).execute(SQL["backup"], {"backup": backup}).fetchall())
        return found[0] if found else None

    def last_backup(self, tx: Tx, site: str) -> Backup | None:
        found = _with_pieces(rows(tx), rows(tx).execute(SQL["last_backup"], {"site": site}).fetchall())
        return found[0] if found else None

    def last_piece(self, tx: Tx, site: str, kind: str, name: str) -> Piece | None:
        row = rows(tx).execute(SQL["last_piece"], {"site": site, "kind": kind, "name": text(name)}).fetchone()
        return _piece(row) if row else None

    def give_up_backup(self, tx: Tx, backup: int) -> None:
        try:
            rows(tx).execute(SQL["give_up"], {"backup": backup})
        except psycopg.Error as error:
            raise _kept(error) from error

    def give_up_piece(self, tx: Tx, piece: int) -> str | None:
        connection = rows(tx)
        try:
            with connection.transaction():
                row = connection.execute(SQL["give_up_piece"], {"piece": piece}).fetchone()
        except psycopg.Error as error:
            raise _kept(error) from error
        return row["key"] if row else None

    def living_keys(self, tx: Tx) -> frozenset[str]:
        return frozenset(row["key"] for row in rows(tx).execute(SQL["living"]))

    def raise_alarm(self, tx: Tx, site: str, cause: str) -> bool:
        return rows(tx).execute(SQL["alarm"], {"site": site, "cause": cause}).fetchone() is not None

    def end_alarm(self, tx: Tx, site: str, cause: str) -> bool:
        return rows(tx).execute(SQL["calm"], {"site": site, "cause": cause}).fetchone() is not None


def _kept(error: psycopg.Error) -> Exception:
    """What the schema keeps is a refusal with its sentence; anything else stays what it is."""
    kept = error.sqlstate == _KEPT
    return Refused(f"{error.diag.message_primary}") if kept else error


def _with_pieces(connection: Connection[DictRow], found: Sequence[DictRow]) -> list[Backup]:
    pieces = connection.execute(SQL["pieces"], {"backups": [row["id"] for row in found]}).fetchall()
    proofs = connection.execute(SQL["proofs"], {"pieces": [row["id"] for row in pieces]}).fetchall()
    whole = [(row["backup_id"], _proven(_piece(row), proofs)) for row in pieces]
    return [replace(_backup(row), pieces=tuple(p for owner, p in whole if owner == row["id"])) for row in found]


def _proven(piece: Piece, proofs: Sequence[DictRow]) -> Piece:
    own = (row for row in proofs if row["piece_id"] == piece.id)
    return replace(piece, proofs=tuple(Proven(Proof(r["kind"]), r["passed"], r["said"], r["at"]) for r in own))


def _backup(row: DictRow) -> Backup:
    sealed: datetime | None = row["sealed_at"]
    return Backup(
        row["id"], row["site"], row["what"], row["run_id"], row["folder"], row["began_at"], sealed, row["gone_at"],
        row["manifest"] or "", row["open"] and sealed is None, over=row["over"],
    )  # fmt: skip


def _piece(row: DictRow) -> Piece:
    return Piece(
        row["id"], row["kind"], row["name"], row["key"], row["plain"], row["stored"], row["sha256"], row["packed"],
        row["began_at"], row["ended_at"], row["fingerprint"], tuple(row["warnings"]), row["gone_at"],
        rows=row["rows"],
    )  # fmt: skip
