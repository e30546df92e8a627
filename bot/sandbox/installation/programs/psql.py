"""psql inside te-main, in the words of PostgreSQL 9.6's: it runs what it is given on the installation's database."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bot.core import dump
from bot.sandbox.installation.database import LOGS, TABLES
from bot.sandbox.installation.programs import Call, Options, Reply, Usage, in_te_main, options, program, unsupported

PORT = "5432"
VERSION, SERVER = "9.6.24", 90624
USERS = ("travis", "postgres")
LONGEST = "-c statement_timeout=60000"  # a statement that waits for ever would stop the whole installation
_LONGS = {
    "command": True, "file": True, "dbname": True, "host": True, "port": True, "username": True, "set": True,
    "variable": True, "field-separator": True, "pset": True, "no-psqlrc": False, "no-align": False, "quiet": False,
    "tuples-only": False, "no-password": False, "single-transaction": False, "version": False, "echo-errors": False,
}  # fmt: skip
_REFUSED = (
    "psql: could not connect to server: Connection refused\n"
    '\tIs the server running on host "{host}" and accepting\n'
    "\tTCP/IP connections on port {port}?\n"
)
# Words that write, wherever they stand in a statement whose literals and comments are gone; DO may do anything.
_WRITES = re.compile(
    r"\b(DO|INSERT|UPDATE|DELETE|TRUNCATE|ALTER|DROP|CREATE|GRANT|REVOKE|COPY|VACUUM|REINDEX|CLUSTER|MERGE|NOTIFY|"
    r"PG_TERMINATE_BACKEND|PG_CANCEL_BACKEND|SETVAL|NEXTVAL)\b",
    re.I,
)
_LITERALS = re.compile(r"'(?:[^']|'')*'|\$(\w*)\$.*?\$\1\$|--[^\n]*|/\*.*?\*/", re.S)
_LOCKING = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.I)
_READ_ONLY = re.compile(r"default_transaction_read_only\s*=\s*(?:on|true|1|yes)", re.I)
_VARIABLE = re.compile(r"""(?<!:):(?:'(\w+)'|"(\w+)"|(\w+))""")


@dataclass
class Talk:
    """One run of psql: where it speaks to, how it prints, and what it has printed."""

    read: Options
    connection: "psycopg.Connection[Any]"
    said: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def run(self, text: str) -> bool:
        """One string of SQL, of which only the last result is shown, as psql did before 15; False when it fails."""
        try:
            cursor = self.connection.execute(text.encode())
        except psycopg.Error as error:
            self.complaints.append(_message(error, self.verbose))
            return False
        while cursor.nextset():
            pass
        self.said.append(self._shown(cursor))
        return True

    @property
    def verbose(self) -> bool:
        return "VERBOSITY=verbose" in self.read.all("v", "set", "variable")

    def _shown(self, cursor: "psycopg.Cursor[Any]") -> str:
        result = cursor.pgresult
        assert result is not None
        if cursor.description is None:
            return "" if _given(self.read, "q", "quiet") else f"{(result.command_status or b'').decode()}\n"
        between = self.read.get("F", "field-separator") or "|"
        rows = [[_text(result.get_value(row, at)) for at in range(result.nfields)] for row in range(result.ntuples)]
        out = "".join(f"{between.join(row)}\n" for row in rows)
        if _given(self.read, "t", "tuples-only"):
            return out
        head = between.join(column.name for column in cursor.description)
        return f"{head}\n{out}({len(rows)} row{'' if len(rows) == 1 else 's'})\n"


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()


@program("psql", where=in_te_main)
def psql(call: Call) -> Reply:
    try:
        read = options(call.words, flags="XAtqwx1be", values="cfvdhpUFP", longs=_LONGS)
    except Usage as usage:
        return unsupported(call, str(usage))
    if _given(read, "version"):
        return Reply(out=f"psql (PostgreSQL) {VERSION}\n")
    if not _given(read, "A", "no-align"):
        return unsupported(call, "aligned output (no -A)")
    if read.get("f", "file") not in ("", "-"):
        return unsupported(call, "-f with a file")
    shell = next((line[3:] for line in call.stdin.splitlines() if line.startswith(r"\! ")), "")
    if shell and not dump.is_shell(shell):
        return unsupported(call, r"\! with anything but a dump")
    return _refused(call, read) or (_dumped(call, read) if shell else _run(call, read))


def _refused(call: Call, read: Options) -> Reply | None:
    """What psql says when the server does not let it in."""
    database = call.context.installation.database
    host, port = read.get("h", "host", default="127.0.0.1"), read.get("p", "port", default=PORT)
    if database is None or not database.running or port != PORT:
        return Reply(2, err=_REFUSED.format(host=host, port=port))
    user = read.get("U", "username", default=call.context.user)
    name = read.get("d", "dbname") or next(iter(read.words), user)
    why = database.refuses
    if not why and user not in USERS:
        why = f'role "{user}" does not exist'
    if not why and name != database.name:
        why = f'database "{name}" does not exist'
    return Reply(2, err=f"psql: FATAL:  {why}\n") if why else None


def _dumped(call: Call, read: Options) -> Reply:
    """A dump with what stands around it; its rows are those of the dump that this pg_dump writes."""
    database = call.context.installation.database
    assert database is not None
    rows = "{}"
    if "pg_export_snapshot" in call.stdin:
        with database.session() as connection:
            connection.execute(dump.COUNT.encode())
            said = connection.execute(dump.COUNTED.encode()).fetchone()
        rows = json.dumps(_as_dumped(dump.rows_of(said[0] if said else "{}")))
    made = call.run(("pg_dump", "-F", "c", "-U", read.get("U"), "-d", read.get("d")), "")
    head = f"{SERVER}\n{rows}\npg_dump (PostgreSQL) {VERSION}\n"
    return Reply(143 if made.exit else 0, f"{head}{made.out}\nopsbot: {made.exit}\n", made.err)


def _as_dumped(rows: dict[str, int]) -> dict[str, int]:
    """Without the simulation's own clock, and before an installation has put anything into its tables."""
    filled = {f"public.{table}" for table in TABLES + LOGS}
    return {name: 0 if name in filled else count for name, count in rows.items() if name.startswith("public.")}


def _run(call: Call, read: Options) -> Reply:
    database = call.context.installation.database
    assert database is not None
    commands = read.all("c", "command")
    asked = commands or [call.stdin]
    pgoptions = dict(call.context.environment).get("PGOPTIONS", "")
    if not _READ_ONLY.search(pgoptions) and any(map(_writes, asked)):
        call.changes()
    try:
        with database.session(f"{LONGEST} {pgoptions}") as connection:
            talk = Talk(read, connection)
            connection.add_notice_handler(lambda said: talk.complaints.append(_noticed(said, talk.verbose)))
            status = _commands(talk, commands) if commands else _script(talk, call.stdin)
    except psycopg.OperationalError as error:
        return Reply(2, err=f"psql: {error}\n")
    return Reply(status, "".join(talk.said), "".join(talk.complaints))


def _commands(talk: Talk, commands: list[str]) -> int:
    """The `-c` strings in one session; the first that fails ends it where ON_ERROR_STOP is set."""
    done = True
    for text in commands:
        done = talk.run(text)
        if not done and _stops(talk.read):
            break
    return 0 if done else 1


def _script(talk: Talk, text: str) -> int:
    """What stands on the input, statement by statement; psql ends with 3 when one fails and ON_ERROR_STOP is set."""
    variables = dict(given.partition("=")[::2] for given in talk.read.all("v", "set", "variable"))
    for line, statement in _statements(text):
        if statement.startswith("\\"):
            return 3
        if not talk.run(_bound(statement, variables)):
            where = f"psql:<stdin>:{line}: " if _given(talk.read, "f", "file") else ""
            talk.complaints[-1] = f"{where}{talk.complaints[-1]}"
            if _stops(talk.read):
                return 3
    return 0


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Each statement, and the line it ends on."""
    bare = _LITERALS.sub(lambda found: " " * len(found[0]), text)
    start = 0
    for at in [found.start() for found in re.finditer(";", bare)] + [len(text)]:
        if statement := text[start:at].strip():
            yield text[:at].count("\n") + 1, statement
        start = at + 1


def _bound(statement: str, variables: dict[str, str]) -> str:
    """psql's variables: `:'name'` as a literal, `:name` as it is."""

    def value(found: "re.Match[str]") -> str:
        literal, identifier, plain = found.groups()
        name = literal or identifier or plain
        if name not in variables:
            return str(found[0])
        quote: Callable[[str], str] = {bool(literal): _literal, bool(identifier): _identifier}.get(True, str)
        return quote(variables[name])

    return _VARIABLE.sub(value, statement)


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return " E'" + quoted.replace("\\", "\\\\") + "'" if "\\" in text else f"'{quoted}'"


def _identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _writes(text: str) -> bool:
    return _WRITES.search(_LOCKING.sub("", _LITERALS.sub(" ", text))) is not None


def _stops(read: Options) -> bool:
    values = [
        given.partition("=")[2] for given in read.all("v", "set", "variable") if given.startswith("ON_ERROR_STOP")
    ]
    return bool(values) and values[-1] not in ("0", "off", "false")


def _given(read: Options, *names: str) -> bool:
    return any(name in read for name in names)


def _message(error: psycopg.Error, verbose: bool) -> str:
    """As libpq words it: `ERROR:  …`, the line, a mark under it; verbose with the code and the place."""
    if error.pgresult is None:
        return f"{error}\n"
    said = error.pgresult.error_message.decode(errors="replace")
    if not verbose:
        return said
    return said.replace(":  ", f":  {error.sqlstate}: ", 1) + _place(error.diag)


def _noticed(said: psycopg.errors.Diagnostic, verbose: bool) -> str:
    code = f"{said.sqlstate}: " if verbose else ""
    return f"{said.severity}:  {code}{said.message_primary}\n{_place(said) if verbose else ''}"


def _place(said: psycopg.errors.Diagnostic) -> str:
    return f"LOCATION:  {said.source_function}, {said.source_file}:{said.source_line}\n"
