"""The database in the platform's container: `psql` there, its answer read as it would be over a connection."""

import re
from collections.abc import Sequence
from datetime import timedelta
from threading import Event as Flag
from typing import Final

import psycopg

from bot.adapters.database import text, trouble
from bot.adapters.database.location import HOST, PORT, Location
from bot.adapters.database.session import milliseconds, wrong_count
from bot.core.docker import Program
from bot.core.ports import Inside, NotSent
from bot.core.question import Answer, Output, Rows, Unanswered
from bot.core.sql import Query, Statement
from bot.core.target import Target

PSQL: Final = ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose")
GRACE: Final = timedelta(seconds=5)  # beyond the server's own time limit, until psql is ended
_ERROR: Final = re.compile(r"^(?:psql:.*?)?(ERROR|FATAL|PANIC):  ([0-9A-Z]{5}): (.*)$", re.MULTILINE)
_COUNT: Final = re.compile(r"opsbot: (\d+) rows$", re.MULTILINE)
_LOST: Final = re.compile(r"connection (to server )?was lost|closed the connection|SSL SYSCALL error|no connection to")


def ask(
    inside: Inside, target: Target, location: Location, queries: Sequence[Query], abort: Flag
) -> list[Answer | Unanswered]:
    """The rows of each query, all asked in one go."""
    made = [_made(location, query) for query in queries]
    programs = [each for each in made if isinstance(each, Program)]
    said = iter(inside.ask(target, programs, abort) if programs else ())
    where = location.shown("", target)
    return [_rows(next(said), where) if isinstance(each, Program) else each for each in made]


def change(
    inside: Inside, target: Target, location: Location, statement: Statement, within: timedelta, abort: Flag
) -> Output:
    """Commit it once; raises NotSent when psql surely did not begin, exit None when nobody knows."""
    try:
        program = writing(location, statement, within)
    except (text.NotOneStatement, psycopg.Error) as why:
        raise NotSent(f"the statement was not sent: {why}") from why
    said = inside.send(target, program, within + GRACE, abort)
    return _ended(said, location.shown("", target), statement)


def reading(location: Location, query: Query) -> Program:
    """psql as it is run for a query. Raises NotOneStatement or psycopg.Error for one that cannot be asked."""
    sql = text.with_literals(*text.wrapped(query.text, query.parameters))
    return _psql(location, sql, query.within, writes=False)


def writing(location: Location, statement: Statement, within: timedelta) -> Program:
    """psql as it is run for a statement; raises as `reading` does."""
    sql = text.with_literals(*text.one_statement(statement.text, statement.parameters))
    return _psql(location, text.changing(sql, statement.rows), within, writes=True)


def _made(location: Location, query: Query) -> Program | Unanswered:
    try:
        return reading(location, query)
    except (text.NotOneStatement, psycopg.Error) as why:
        return Unanswered(f"The query was not asked: {why}.", trouble.FAILED)


def _psql(location: Location, sql: str, within: timedelta, *, writes: bool) -> Program:
    """psql with the session's settings in its environment, so that what it is told is one statement.

    It is told on its input: `ps` shows nobody the values, and sudo's rule need not allow any word.
    """
    options = {
        "default_transaction_read_only": "off" if writes else "on",
        "statement_timeout": milliseconds(within),
        "lock_timeout": text.LOCK_WITHIN,
        "client_min_messages": "notice",
        "timezone": "UTC",
    }
    env = (
        ("PGOPTIONS", " ".join(f"-c {name}={value}" for name, value in options.items())),
        ("PGCONNECT_TIMEOUT", "5"),
        ("PGCLIENTENCODING", "UTF8"),
        ("PGAPPNAME", "opsbot"),
    )
    reach = ("-h", HOST, "-p", str(PORT), "-U", location.user, "-d", location.name, "-w")
    return Program((*PSQL, *reach), env, f"{sql};\n")


def _rows(said: Output | Unanswered, where: str) -> Rows | Unanswered:
    if isinstance(said, Unanswered):
        return said
    if said.exit is None:
        return Unanswered(f"The database {where} cannot be reached: psql did not answer in time.", trouble.AWAY)
    if said.exit != 0:
        return _failure(said, where)
    if said.truncated:
        return Rows(truncated=True)
    try:
        return text.rows_of(said.out.rstrip("\n"))
    except ValueError:
        return Unanswered(f"The database {where} gave an answer that cannot be read.", trouble.FAILED)


def _failure(said: Output, where: str) -> Unanswered:
    """Whoever spoke: the server by its code, libpq by its words, or docker and the container's shell."""
    if (error := _ERROR.search(said.err)) is not None:
        return trouble.by_code(where, error[2], trouble.first_line(error[3]))
    if "psql: " in said.err or _LOST.search(said.err):
        return trouble.by_words(where, said.err.strip())
    words = trouble.first_line(said.err or said.out)
    return Unanswered(f"The database {where} cannot be asked: psql did not run there ({words}).", trouble.REFUSED)


def _ended(said: Output, where: str, statement: Statement) -> Output:
    """What a change came to: psql says ERROR only of what was rolled back."""
    if said.exit == 0 and (count := _COUNT.search(said.err)) is not None:
        return Output(0, f"{count[1]} rows changed")
    if said.exit in (None, 0) or (_LOST.search(said.err) and not _never_began(said)):
        return Output(None, said.out, said.err)
    error = _ERROR.search(said.err)
    count = _COUNT.search(error[3]) if error is not None else None
    if count is not None and statement.rows is not None:
        return Output(1, err=wrong_count(int(count[1]), statement.rows))
    if _never_began(said):
        raise NotSent(_failure(said, where).why)
    return Output(1, err=f"nothing was changed: {_failure(said, where).why}")


def _never_began(said: Output) -> bool:
    """Did psql fail to connect, or not run at all?"""
    return "psql: error: " in said.err or "psql: could not" in said.err or said.exit in (125, 126, 127)
