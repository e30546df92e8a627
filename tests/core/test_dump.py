"""What is told of a dump, and what is read around it."""

import re

import pytest

from bot.core import dump
from bot.core.backup import BackupFailed, DumpInside

INSIDE = DumpInside("c0ffee", "travis_production", "travis")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("pg_dump (PostgreSQL) 9.6.24", (9, 6)), ("pg_dump (PostgreSQL) 15.9 (Debian 15.9-0+deb12u1)", (15,)),
        ("pg_dump (PostgreSQL) 18beta1", (18,)), ("sh: pg_dump: not found", ()), ("", ()),
    ],
)  # fmt: skip
def test_the_version_of_a_program(said: str, version: tuple[int, ...]) -> None:
    assert dump.client_version(said) == version


@pytest.mark.parametrize(("number", "version"), [(90624, (9, 6)), (100005, (10,)), (150009, (15,)), (180000, (18,))])
def test_the_version_of_a_server(number: int, version: tuple[int, ...]) -> None:
    assert dump.server_version(number) == version


@pytest.mark.parametrize(("client", "server"), [((9, 6), (10,)), ((9, 5), (9, 6)), ((15,), (18,)), ((), (9, 6))])
def test_an_older_program_is_refused(client: tuple[int, ...], server: tuple[int, ...]) -> None:
    with pytest.raises(BackupFailed, match=f"the server is {re.escape(dump.written(server))}"):
        dump.refuse_older("database-main", client, server, "Install one.")
    dump.refuse_older("database-main", server, server, "")


def test_what_differs_is_named() -> None:
    snapshot = {"public.a": 1, "public.b": 2, "public.c": 3, "public.d": 4, "public.e": 5}
    assert dump.differences(snapshot, dict(snapshot)) == ()
    different = dump.differences(snapshot, {"public.a": 1, "public.b": 0, "public.c": 3, "public.x": 0, "public.e": 6})
    assert different == (
        "public.b has 0 rows instead of 2", "public.d is missing", "public.e has 6 rows instead of 5",
        "public.x was not in the snapshot",
    )  # fmt: skip
    assert dump.named(different).endswith("public.e has 6 rows instead of 5, and 1 more differ")
    assert dump.named(different[:1]) == "public.b has 0 rows instead of 2"


@pytest.mark.parametrize("said", ["", "[]", '{"a": "many"}', '{"a": 1'])
def test_rows_that_cannot_be_read(said: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        dump.rows_of(said)


@pytest.mark.parametrize("counted", [False, True])
def test_psql_is_told_all_of_it_on_whole_lines(counted: bool) -> None:
    *before, last = dump.script(DumpInside("c0ffee", "odd 'name", "travis", counted)).split("\n")
    assert last.startswith("\\! ")
    assert dump.is_shell(last[3:])
    assert bool(before) is counted
    assert ("--snapshot" in last) is counted
    assert not dump.is_shell("rm -rf /")


def test_what_stands_around_a_dump() -> None:
    assert dump.head_of(b"90624\n{}\npg_dump") is None
    assert dump.head_of(b"90624\n{}\npg_dump 9\nPGDMP\n\nx") == (["90624", "{}", "pg_dump 9"], b"PGDMP\n\nx")
    assert dump.end_of(b"bytes\nopsbot: 0\n") == (b"bytes", 0)
    assert dump.end_of(b"bytes\nopsbot: 143\n") == (b"bytes", 143)
    assert dump.end_of(b"bytes\nopsbot: 0\nmore") is None
    assert len("\nopsbot: 255\n") <= dump.LONGEST_END


def test_nothing_secret_can_be_among_the_words() -> None:
    feed, psql = dump.inside(INSIDE).parts()
    assert psql.as_root
    assert not feed.as_root
    assert "pg_dump" not in str(psql), "what it runs stands in no rule"


WHOLE = b"150004\npg_dump (PostgreSQL) 15.4\n"
ENDED = b"\nopsbot: 0\n"


@pytest.mark.parametrize(
    ("came", "says"),
    [
        (b"", "cannot be read"),
        (WHOLE, "cannot be read"),
        (ENDED, "cannot be read"),
        (WHOLE + b"\nopsbot: 143\n", "cannot be read"),
        (b"odd\n" + WHOLE + ENDED, "cannot be read"),
        (b"160001\npg_dump (PostgreSQL) 15.4\n" + ENDED, "pg_dump is 15, and the server is 16"),
        (b"150004\n" + ENDED, "pg_dump is of a version that is not known"),
        (WHOLE + b"a.b\na.c\n" + ENDED, "may not read a.b, a.c. "),
        (WHOLE + b"".join(b"t.t%d\n" % no for no in range(9)) + ENDED, "may not read t.t0, t.t1, t.t2 and 6 more. "),
    ],
)
def test_what_a_container_says_of_a_dump_beforehand(came: bytes, says: str) -> None:
    dump.refuse_checked("database-main", WHOLE + ENDED, "")
    with pytest.raises(BackupFailed, match=re.escape(says)):
        dump.refuse_checked("database-main", came, "")
