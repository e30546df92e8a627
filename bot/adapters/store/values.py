"""What goes into columns and comes out of rows."""

import json
import re
from typing import Any, cast

from psycopg import Connection
from psycopg.rows import DictRow
from psycopg.types.json import Json, Jsonb

from bot.core.people import Actor
from bot.core.ports import Tx

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")  # NUL and halves of characters: PostgreSQL refuses them


def rows(tx: Tx) -> Connection[DictRow]:
    """The connection that a Tx of ours is."""
    if not isinstance(tx, Connection):
        raise TypeError(f"a transaction of this database is needed, not {type(tx).__name__}")
    return cast("Connection[DictRow]", tx)


def text(value: str) -> str:
    """Text as PostgreSQL can keep it."""
    return _UNSTORABLE.sub("\ufffd", str(value))


def jsonb(value: Any) -> Jsonb:
    return Jsonb(_storable(value), dumps=_dumps)


def json_text(value: Any) -> Json:
    return Json(_storable(value), dumps=_dumps)


def canonical(value: Any) -> str:
    """The one spelling of a value: sorted keys, no spaces, ASCII. What a MAC is computed over."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def actor(row: DictRow, prefix: str = "") -> Actor:
    return Actor(row[f"{prefix}team"], row[f"{prefix}user"], row[f"{prefix}via"])


def columns(who: Actor) -> dict[str, str]:
    return {"team": text(who.team), "user": text(who.user), "via": who.via}


def only(row: DictRow | None) -> DictRow:
    """The row of a statement that always returns one."""
    if row is None:
        raise LookupError("the statement returned no row")
    return row


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, dict):
        return {text(key): _storable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(part) for part in value]
    return value
