"""SQL as it is sent: one statement, wrapped so that every way brings the same JSON; literals where nothing is bound."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from psycopg import adapters, sql
from psycopg.adapt import PyFormat, Transformer

from bot.core.question import Rows
from bot.core.sql import Parameter

MOST_ROWS: Final = 10_000
LONGEST: Final = 900_000  # characters of an answer: what comes over SSH is cut at a MiB
LOCK_WITHIN: Final = 5_000  # ms that a lock is waited for

# The limits are parameters of ours, so a direct query always has some: PostgreSQL then takes one statement only.
_WRAPPED: Final = """\
SELECT left(coalesce(json_agg(q), '[]')::text, %s) FROM (SELECT * FROM (
{}
) u LIMIT %s) q"""
_NO_MORE: Final = object()
_PLACE: Final = re.compile(r"%(.?)", re.S)


class NotOneStatement(ValueError):
    """The SQL holds more than one statement, or its placeholders and parameters do not fit."""


def wrapped(text: str, parameters: tuple[Parameter, ...]) -> tuple[str, list[Any]]:
    """A query whose answer is one JSON array, with everything that has to be bound."""
    plain = _one_statement(text)
    if not parameters:
        plain = plain.replace("%", "%%")  # psycopg reads placeholders only when there are parameters
    return _WRAPPED.format(plain), [LONGEST + 1, *bound(parameters), MOST_ROWS + 1]


def one_statement(text: str, parameters: tuple[Parameter, ...]) -> tuple[str, list[Any] | None]:
    """A statement as psycopg takes it."""
    return _one_statement(text), bound(parameters) or None


def bound(parameters: tuple[Parameter, ...]) -> list[Any]:
    """Parameters as psycopg takes them: a tuple would be a row, a list is an array."""
    return [list(each) if isinstance(each, tuple) else each for each in parameters]


def with_literals(text: str, values: Sequence[Any] | None) -> str:
    """The SQL with each `%s` replaced by its value as a literal, for `psql`, which binds nothing."""
    if values is None:
        return text
    left = iter(values)

    def place(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        try:
            value = next(left)
        except StopIteration:
            _refuse("it has more placeholders than parameters")
        return _literal(value) if found[1] == "s" else _refuse(f"%{found[1]} is no placeholder; there is only %s")

    said = _PLACE.sub(place, text)
    if next(left, _NO_MORE) is not _NO_MORE:
        _refuse("it has fewer placeholders than parameters")
    return said


def _literal(value: Any) -> str:
    """As psycopg writes it, of the type that psycopg would bind: a bare 1.5 would be another number than a float."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        dumper = Transformer().get_dumper(value, PyFormat.AUTO)
        return f"'{value}'::{adapters.types[dumper.oid].name}"
    return sql.Literal(value).as_string(None).strip()


def _one_statement(text: str) -> str:
    plain = text.strip().removesuffix(";")
    if ";" in plain:
        _refuse("it has a semicolon, so it may be more than one statement; give text with one as a parameter")
    return plain


def _refuse(why: str) -> NoReturn:
    raise NotOneStatement(why)


def changing(statement: str, rows: int | None) -> str:
    """A block that executes the statement and undoes it when it changed another number of rows.

    One statement by itself, so it is committed as a whole or not at all. It says the number as a notice.
    """
    wrong = f"IF changed <> {rows} THEN RAISE EXCEPTION 'opsbot: % rows', changed; END IF;" if rows is not None else ""
    body = (
        f"DECLARE changed bigint; BEGIN EXECUTE {sql.Literal(statement).as_string(None)}; "
        f"GET DIAGNOSTICS changed = ROW_COUNT; {wrong} RAISE NOTICE 'opsbot: % rows', changed; END"
    )
    mark = next(mark for no in range(len(body)) if (mark := f"$opsbot{no}$") not in body)
    return f"DO {mark}{body}{mark}"


def rows_of(said: str) -> Rows:
    """The rows in a JSON array; cut when it is too long to be one. Raises ValueError for anything else."""
    if len(said) > LONGEST:
        return Rows(truncated=True)
    rows: list[Mapping[str, Any]] = json.loads(said)
    kept = tuple({name: _scalar(value) for name, value in row.items()} for row in rows[:MOST_ROWS])
    return Rows(kept, truncated=len(rows) > MOST_ROWS)


def _scalar(value: Any) -> Any:
    nested = isinstance(value, dict | list)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) if nested else value
