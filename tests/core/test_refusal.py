"""What a restore that fails may tell: what was refused, never what stood in a row."""

import pytest

from bot.core.refusal import WITHHELD, said_by_restore, said_by_server

SECRET = "hunter2"
END = "Command was: CREATE UNIQUE INDEX u ON public.settings USING btree (name);\n\n\n"
IGNORED = "pg_restore: warning: errors ignored on restore: {}\n"


def failed(message: str, *more: str) -> str:
    lines = [f"pg_restore: error: could not execute query: ERROR:  {message}", *more]
    return "\n".join(lines) + f"\n{END}"


def test_lines_of_a_value_are_left_out() -> None:
    detail = f"DETAIL:  Key (name)=(a\n{SECRET}\npg_restore: error: {SECRET}\nlast) is duplicated."
    said = said_by_restore(failed('could not create unique index "u"', detail) + IGNORED.format(1))
    assert said == 'could not execute query: could not create unique index "u"'


def test_the_first_of_several_is_said() -> None:
    text = failed('extension "dblink" is not available') + failed('relation "a" does not exist') + IGNORED.format(2)
    assert said_by_restore(text) == (
        'could not execute query: extension "dblink" is not available (the first of 2 errors)'
    )


@pytest.mark.parametrize(
    "own",
    ["could not read from input file: end of file", "input file does not appear to be a valid archive"],
)
def test_its_own_words_are_said(own: str) -> None:
    assert said_by_restore(f"pg_restore: error: {own}\nmore\n") == own


def test_a_program_that_could_not_begin_says_why() -> None:
    loader = "/opt/bin/pg_restore: error while loading shared libraries: libpq.so.5: cannot open shared object file"
    assert said_by_restore(f"{loader}\nmore\n") == loader
    assert said_by_restore(f"pg_restore: warning: {SECRET}\n") == said_by_restore("") == ""


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (f'invalid input syntax for type integer: "{SECRET}"', "invalid input syntax for type integer"),
        (f'invalid input value for enum mood: "{SECRET}"', WITHHELD),
        (f'value "{SECRET}" is out of range for type integer', WITHHELD),
        (f'date/time field value out of range: "{SECRET}"', WITHHELD),
        (f"{SECRET} is no login", WITHHELD),
        ("value too long for type character varying(3)", "value too long for type character varying(3)"),
        ('could not extend file "base/1/2": No space left on device',
         'could not extend file "base/1/2": No space left on device'),
        ('duplicate key value violates unique constraint "u"', 'duplicate key value violates unique constraint "u"'),
    ],
)  # fmt: skip
def test_only_what_is_known_to_quote_nothing_is_said(message: str, said: str) -> None:
    assert said_by_server(message, copying=True) == said
    assert said_by_server(message) == said
    text = f'pg_restore: error: COPY failed for table "t": ERROR:  {message}\nCONTEXT:  COPY t, line 1: "{SECRET}"\n'
    assert said_by_restore(text) == f'COPY failed for table "t": {said}'


def test_a_value_that_stands_for_a_name_is_no_name() -> None:
    message = f'relation "{SECRET}" does not exist'
    assert said_by_server(message) == message
    assert said_by_server(message, copying=True) == WITHHELD
