"""What PostgreSQL and pg_restore say when they refuse a dump, without anything that stands in a row. Pure text.

A message quotes values in its own line (`invalid input syntax for type integer: "…"`) and in those that follow, where
a value with several lines looks like a message of its own. pg_restore can be told neither to leave them out nor to
say only the SQLSTATE. So the first message alone is read, its first line, and of what the server said only phrases
that are known to name no more than tables, columns and the like.
"""

import re
from typing import Final

WITHHELD: Final = "the server's words are not repeated, since they may quote a row"

_NAME: Final = r'"[^"]*"'
# Of any statement; each stops before a value.
_PHRASES: Final = (
    rf"could not create unique index {_NAME}",
    rf"duplicate key value violates unique constraint {_NAME}",
    rf"insert or update on table {_NAME} violates foreign key constraint {_NAME}",
    rf"new row for relation {_NAME} violates (?:check|partition) constraint(?: {_NAME})?",
    rf"check constraint {_NAME} of relation {_NAME} is violated by some row",
    rf"null value in column {_NAME} of relation {_NAME} violates not-null constraint",
    rf"column {_NAME} of relation {_NAME} (?:contains null values|does not exist)",
    r"invalid input syntax for type [a-z ]+",
    r"invalid byte sequence for encoding",
    r"value too long for type [a-z ]+\(\d+\)",
    rf"missing data for column {_NAME}",
    r"extra data after last expected column",
    r"unexpected EOF in COPY data",
    r"numeric field overflow",
    r"division by zero",
    rf"could not (?:extend|write to|write|open|create|access) (?:file|directory) {_NAME}: [A-Z][a-z ]+",
    r"could not [a-z ]+: No space left on device",
    r"out of (?:shared )?memory",
    r"canceling statement due to [a-z ]+",
    r"permission denied(?: (?:to|for) [a-z ]+)?",
    r"must be (?:superuser|owner|member|able)[A-Za-z ]*",
)
# Of a statement that makes something; where rows are copied, a value may stand for a name (regclass, regrole).
_OF_STATEMENTS: Final = (
    rf"permission denied (?:to|for) [a-z ]+ {_NAME}",
    rf"must be owner of [a-z ]+ {_NAME}",
    rf"(?:type|schema|role|language|access method|collation|column|relation) {_NAME} (?:does not exist|already exists)",
    rf"extension {_NAME} is not available",
    rf"unrecognized configuration parameter {_NAME}",
    r'function [\w."]+\([\w ,."\[\]]*\) does not exist',
    r"syntax error",
)
_BEGAN: Final = re.compile(r"^pg_restore: ", re.M)
_ERROR: Final = re.compile(r"^pg_restore: error: (.*)$", re.M)
_ERRORS: Final = re.compile(r"^pg_restore: warning: errors ignored on restore: (\d+)\s*\Z", re.M)
_COPIES: Final = "COPY failed"


def said_by_restore(text: str) -> str:
    """The first error of a pg_restore, from all that it wrote, on one line; what comes after it may be a piece of a row
    that only looks like one. Where pg_restore could not even begin, the first line says why.
    """
    found = _ERROR.search(text)
    if found is None:
        return "" if _BEGAN.search(text) else _one_line(text.partition("\n")[0])
    first = _without_values(_one_line(found[1]))
    errors = _ERRORS.search(text)
    return f"{first} (the first of {errors[1]} errors)" if errors and errors[1] != "1" else first


def said_by_server(message: str, copying: bool = False) -> str:
    """A server's message as far as it is known to quote no row."""
    phrases = _PHRASES if copying else (*_OF_STATEMENTS, *_PHRASES)
    return next((found[0] for each in phrases if (found := re.match(each, message))), WITHHELD)


def _without_values(line: str) -> str:
    """pg_restore's own words hold names only, up to where it repeats the server's."""
    before, mark, message = line.partition("ERROR:")
    if not mark:
        return line
    return f"{before}{said_by_server(message.strip(), copying=before.startswith(_COPIES))}"


def _one_line(text: str) -> str:
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
