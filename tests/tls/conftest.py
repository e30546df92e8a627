"""A simulated installation with a database of its own."""

from collections.abc import Iterator

import pytest

from tests.installation.practice import Practice
from tests.rigs import postgres


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with postgres.server("18") as server, server.database() as made:
        yield made


@pytest.fixture
def practice(dsn: str) -> Practice:
    """Everything works, with a database, and time stands still until somebody waits."""
    return Practice(dsn)
