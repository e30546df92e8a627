"""Rooms are in a database that has opsbot's tables: each would wait for them to be made."""

from collections.abc import Iterator

import pytest

from tests.rigs import postgres


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[str]:
    """The DSN of a database with opsbot's tables, all empty."""
    with postgres_server.migrated() as dsn:
        yield dsn
