"""An installation in memory, and one with its servers up."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bot.sandbox.installation import Installation, Running, settled, start
from tests.installation.console import Console, standing_still
from tests.installation.practice import Practice
from tests.installation.tripwires import Tripwires
from tests.rigs import postgres


@pytest.fixture
def healthy() -> Installation:
    """Everything works, and time stands still until somebody waits."""
    return settled(standing_still())


@pytest.fixture
def on(healthy: Installation) -> Callable[[str], Console]:
    """`on("worker-1")` types into that machine."""
    return lambda name: Console(healthy, name)


@pytest.fixture
def running(tmp_path: Path, travis_dsn: str) -> Iterator[Running]:
    """Servers up on loopback, fifty seconds pass for each one outside."""
    installation = start(tmp_path / "machines", speed=50, dsn=travis_dsn)
    yield installation
    installation.stop()


@pytest.fixture(scope="session")
def tripwires() -> Tripwires:
    return Tripwires()


@pytest.fixture(scope="session")
def travis_dsn(running_servers: Callable[[str], postgres.Server]) -> Iterator[str]:
    """A database for the simulated platform; each installation that takes it empties and seeds it."""
    with running_servers("18").database() as dsn:
        yield dsn


@pytest.fixture
def practice(travis_dsn: str) -> Practice:
    """Everything works, with a database, and time stands still until somebody waits."""
    return Practice(travis_dsn)
