"""Counting a database's rows in the snapshot that is dumped, and a dump inside of a container. Pure text, shared by
whatever dumps, whatever restores and the simulated machines.

In a container one psql is told all of it, on its input: it opens a transaction and exports its snapshot, and its `\\!`
counts the rows and runs pg_dump in it, so the transaction stays open until both are done. Docker passes on no signal
and no broken pipe: what it began runs on when its client is gone. So the input never ends while somebody wants the
dump: a `\\q` comes every second, which a watcher hears, and without one everything that was begun there ends. The
first that comes after the dump ends psql. docs/decisions/backup-streams.md has what else was tried.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from bot.core.backup import BackupFailed, DumpInside
from bot.core.command import Command, sh

HOST: Final = "127.0.0.1"  # of the database as its container sees it
SHOWN: Final = 3  # tables that are named when they differ
SILENT: Final = 30  # seconds without a beat, after which nobody wants the dump any more

# What pg_dump writes rows of, whole: an extension brings its own, a partition is a table by itself, and a parent has
# only what is in none of its children.
_DUMPED: Final = (
    "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
    " AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_depend d"
    " WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')"
)
TABLES: Final = f"{_DUMPED} AND c.relkind = 'r' ORDER BY 1"
# pg_dump locks parents of partitions, too, and reads sequences; it needs the right to the whole of each.
UNREADABLE: Final = (
    f"{_DUMPED} AND c.relkind IN ('r', 'p', 'S') AND NOT (pg_catalog.has_schema_privilege(n.oid, 'USAGE')"
    " AND pg_catalog.has_table_privilege(c.oid, 'SELECT')) ORDER BY 1"
)
# One statement for every server since 9.4, and on one line, as psql wants it behind `\!`.
COUNT: Final = (
    "DO $opsbot$ DECLARE tab text; found bigint; said text := ''; BEGIN"
    f" FOR tab IN {TABLES} LOOP EXECUTE 'SELECT count(*) FROM ONLY ' || tab INTO found;"
    " said := said || ',' || to_json(tab)::text || ':' || found; END LOOP;"
    " PERFORM set_config('opsbot.rows', '{' || substr(said, 2) || '}', false); END $opsbot$"
)
COUNTED: Final = "SELECT current_setting('opsbot.rows')"
BEGIN: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
# For the transaction that holds the snapshot, which waits for others; not every server knows every one of them.
PATIENT: Final = (
    "DO $opsbot$ BEGIN PERFORM set_config(name, '0', true) FROM pg_catalog.pg_settings WHERE name IN"
    " ('statement_timeout', 'lock_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout');"
    " END $opsbot$"
)


def differences(snapshot: Mapping[str, int], restored: Mapping[str, int]) -> tuple[str, ...]:
    """Every table that has not as many rows as in the snapshot: `public.users has 499 rows instead of 500`."""
    return tuple(_differ(snapshot, restored))


def _differ(snapshot: Mapping[str, int], restored: Mapping[str, int]) -> Iterator[str]:
    for table, wanted in snapshot.items():
        if (found := restored.get(table)) is None:
            yield f"{table} is missing"
        elif found != wanted:
            yield f"{table} has {found} rows instead of {wanted}"
    yield from (f"{table} was not in the snapshot" for table in restored if table not in snapshot)


def named(different: tuple[str, ...]) -> str:
    """The first of them, and how many more there are."""
    more = len(different) - SHOWN
    return ", ".join(different[:SHOWN]) + (f", and {more} more differ" if more > 0 else "")


def refuse_unreadable(what: str, tables: Sequence[str]) -> None:
    """Raises BackupFailed when there are any: pg_dump stops at the first that its user may not read."""
    if tables:
        more = len(tables) - SHOWN
        raise BackupFailed(
            f"{what} was not taken: its user may not read {', '.join(tables[:SHOWN])}"
            f"{f' and {more} more' if more > 0 else ''}. `GRANT pg_read_all_data` to it; before PostgreSQL 14, USAGE on"
            " each schema, and SELECT on all tables and sequences."
        )


def rows_of(said: str) -> dict[str, int]:
    """The rows of each table, as `COUNTED` says them. Raises ValueError."""
    read = json.loads(said)
    if not isinstance(read, dict):
        raise ValueError("it is no table of rows")
    return {str(table): int(count) for table, count in read.items()}


# ---------------------------------------------------------------- versions

_VERSION: Final = re.compile(r"\(PostgreSQL\) (\d+)(?:\.(\d+))?")


def client_version(said: str) -> tuple[int, ...]:
    """The version that a server must not be newer than, from `pg_dump --version`: (9, 6) or (15,); nothing when it
    says none.
    """
    found = _VERSION.search(said)
    if found is None:
        return ()
    major = int(found[1])
    return (major,) if major >= 10 else (major, int(found[2] or 0))


def server_version(number: int) -> tuple[int, ...]:
    """The same of a server, from its `server_version_num`."""
    major = number // 10000
    return (major,) if major >= 10 else (major, number // 100 % 100)


def written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of a version that is not known"


# ---------------------------------------------------------------- inside a container

# It writes the script and then a beat every second, until nobody reads them any more.
FEED: Final = r"""exec 2>/dev/null; trap '' PIPE; printf '%s\n' "$1"; while printf '\\q\n'; do sleep 1; done; exit 0"""
_WATCH: Final = (
    f"""exec 3<&0 </dev/null; {{ while [ "$(timeout {SILENT} head -n 1 <&3)" ]; do :; done; kill 0; }}"""
    " >/dev/null 2>&1 & w=$!; exec 3<&-; "
)
_END: Final = r"""; r=$?; kill -9 $w; printf '\nopsbot: %s\n' $r; [ $r = 0 ] || kill $PPID"""
_OPTIONS: Final = "PGOPTIONS=-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=on"
_SNAPSHOT: Final = '"$OPSBOT_SNAPSHOT"'
LONGEST_END: Final = 32  # bytes
_ENDED: Final = re.compile(rb"\nopsbot: (\d{1,3})\n\Z")
_SHELL: Final = re.compile(rf"{re.escape(_WATCH)}psql .*{re.escape(_END)}")
LONGEST_HEAD: Final = 16 << 20
HEAD: Final = 3  # lines before the dump: the server's version, the rows, pg_dump's version


def inside(dump: DumpInside) -> Command:
    """What a machine runs: psql in the container, fed with all that it has to do. Nothing but its input differs from
    dump to dump, so sudo's rule holds every word.
    """
    return _told(dump, script(dump))


def check_inside(dump: DumpInside) -> Command:
    """What a machine runs to tell whether `inside` would do: by the very words that sudo has to allow for that."""
    return _told(dump, rf"\! {_line(*_versions(dump), f'{_asking(dump)} {shlex.quote(UNREADABLE)}')}")


def _told(dump: DumpInside, text: str) -> Command:
    psql = sh("docker", "exec", "-i", "-e", _OPTIONS, dump.container, *_psql(dump)).sudo()
    return sh("sh", "-c", FEED, "feed", text) | psql


def script(dump: DumpInside) -> str:
    """What psql is told."""
    if not dump.counted:
        return rf"\! {_shell(dump)}"
    return "\n".join(
        (
            f"{BEGIN};",
            f"{PATIENT};",
            r"SELECT pg_export_snapshot() AS snapshot \gset",
            r"\setenv OPSBOT_SNAPSHOT :snapshot",
            rf"\! {_shell(dump)}",
        )
    )


def is_shell(line: str) -> bool:
    """Is it what `script` has psql run? For those who simulate it."""
    return _SHELL.fullmatch(line) is not None


def _shell(dump: DumpInside) -> str:
    server, client = _versions(dump)
    rows = f"{_asking(dump)} {_counting()}" if dump.counted else "echo '{}'"
    snapshot = f" --snapshot={_SNAPSHOT}" if dump.counted else ""
    return _line(server, rows, client, f"pg_dump -F c {shlex.join(_reach(dump))}{snapshot}")


def _line(*programs: str) -> str:
    """One after the other, until one fails or nobody wants them any more."""
    return f"{_WATCH}{' && '.join(programs)}{_END}"


def _versions(dump: DumpInside) -> tuple[str, str]:
    """The server's, and pg_dump's."""
    return f"{_asking(dump)} 'SHOW server_version_num'", "pg_dump --version"


def _asking(dump: DumpInside) -> str:
    return shlex.join((*_psql(dump), "-c"))


def _counting() -> str:
    """As a word of the shell: in the snapshot that was exported."""
    before = shlex.quote(f"{BEGIN}; SET TRANSACTION SNAPSHOT '")
    return f"""{before}{_SNAPSHOT}{shlex.quote(f"'; {COUNT}; {COUNTED}")}"""


def _psql(dump: DumpInside) -> tuple[str, ...]:
    return ("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", *_reach(dump))


def _reach(dump: DumpInside) -> tuple[str, ...]:
    return ("-h", HOST, "-U", dump.user, "-d", dump.name, "-w")


def head_of(came: bytes) -> tuple[list[str], bytes] | None:
    """The lines before the dump, and what came of it; None while they are not whole."""
    *lines, rest = came.split(b"\n", HEAD)
    return ([line.decode(errors="replace") for line in lines], rest) if len(lines) == HEAD else None


def refuse_checked(what: str, came: bytes, remedy: str) -> None:
    """Raises BackupFailed when what `check_inside` wrote says that no dump would come."""
    said, ended = end_of(came) or (b"", 1)
    server, client, *tables = [*said.decode(errors="replace").splitlines(), "", ""]
    if ended or not server.isdecimal():
        raise BackupFailed(f"{what} was not taken: what its container says of it cannot be read.")
    refuse_older(what, client_version(client), server_version(int(server)), remedy)
    refuse_unreadable(what, [each for each in tables if each])


def end_of(last: bytes) -> tuple[bytes, int] | None:
    """The last bytes of the dump, and how its programs ended; None when the end is not there."""
    found = _ENDED.search(last)
    return (last[: found.start()], int(found[1])) if found else None


def refuse_older(what: str, client: tuple[int, ...], server: tuple[int, ...], remedy: str) -> None:
    """Raises BackupFailed when a pg_dump is older than the server: it would not understand all that is there."""
    if client < server:
        raise BackupFailed(
            f"{what} was not taken: pg_dump is {written(client)}, and the server is {written(server)}, which an older"
            f" pg_dump does not understand. {remedy}"
        )
