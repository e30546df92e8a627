"""What is sent: a value that is written as a literal means what it means when it is bound."""

import math

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bot.adapters.database import text
from bot.core.sql import Parameter
from tests.adapters.database.world import HOSTILE, World

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES: st.SearchStrategy[Parameter] = st.one_of(
    TEXTS,
    st.sampled_from([HOSTILE, "\\", "'", "\\'", "E'", "$$", "%s", "%", "'; DROP TABLE notes; --"]),
    INTEGERS,
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(INTEGERS).map(tuple),
    st.lists(TEXTS).map(tuple),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
@example(-1)
@example(0.1)
@example(-0.0)
@example(math.nan)
@example(())
@pytest.mark.parametrize("postgres_server", ["15"], indirect=True)
def test_a_literal_means_what_is_bound(world: World, value: Parameter) -> None:
    query = "SELECT value, pg_typeof(value)::text, 'a%%b' LIKE '%%' AS plain, 9 %% 7 FROM (SELECT %s AS value) v"
    sql, parameters = text.wrapped(query, (value,))
    with psycopg.connect(world.owner_dsn) as connection:
        bound = connection.execute(sql, parameters).fetchone()
        written = connection.execute(text.with_literals(sql, parameters)).fetchone()
    assert bound == written


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example(HOSTILE)
@example("$opsbot0$")
@pytest.mark.parametrize("postgres_server", ["15"], indirect=True)
def test_a_block_changes_what_the_statement_would(world: World, value: str) -> None:
    sql = text.with_literals(*text.one_statement("INSERT INTO kept VALUES (%s)", (value,)))
    with psycopg.connect(world.owner_dsn) as connection:
        connection.execute("CREATE TEMPORARY TABLE kept (text text)")
        connection.execute(text.changing(sql, 1))
        assert connection.execute("SELECT text FROM kept").fetchall() == [(value,)]


def test_strings_that_do_not_conform_are_literals_too(world: World) -> None:
    """Backslashes are escapes in plain strings where a server is set so; an E'' string means the same in both."""
    sql, parameters = text.wrapped("SELECT %s AS value", (HOSTILE,))
    with psycopg.connect(world.owner_dsn) as connection:
        connection.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
        said = connection.execute(text.with_literals(sql, parameters)).fetchone()
    assert said is not None
    assert text.rows_of(said[0]).rows == ({"value": HOSTILE},)


@pytest.mark.parametrize(
    ("sql", "values", "why"),
    [
        ("SELECT %s", [], "more placeholders"),
        ("SELECT %s", [1, 2], "fewer placeholders"),
        ("SELECT %d", [1], "%d is no placeholder"),
        ("SELECT %", [1], "is no placeholder"),
    ],
)
def test_parameters_that_do_not_fit(sql: str, values: list[Parameter], why: str) -> None:
    with pytest.raises(text.NotOneStatement, match=why):
        text.with_literals(sql, values)


def test_what_is_no_answer() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        text.rows_of("")
