"""What every test may ask for: a PostgreSQL of each supported version, and a new database on it.

`database` runs a test on 15 and on 18; a test that one version is enough for says
`@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)`.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.rigs import postgres

for _name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):  # tests speak to loopback alone
    os.environ.pop(_name, None)
    os.environ.pop(_name.upper(), None)
for _name in [name for name in os.environ if name.startswith("PG")]:  # a developer's own database
    os.environ.pop(_name)
for _number in (signal.SIGINT, signal.SIGHUP):  # a shell in the background ignores them, and so would what is tested
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)


def pytest_report_header() -> str | None:
    if os.geteuid() == 0:
        return None
    return "not root: what is particular to running as root is tested where the tests run as root"


@pytest.fixture(scope="session")
def running_servers() -> Iterator[Callable[[str], postgres.Server]]:
    """Starts a server when it is asked for the first time, and keeps it for the session."""
    started: dict[str, postgres.Server] = {}
    with ExitStack() as until_the_end:

        def running(version: str) -> postgres.Server:
            if version not in started:
                started[version] = until_the_end.enter_context(postgres.server(version))
            return started[version]

        yield running


@pytest.fixture(scope="session", params=postgres.VERSIONS, ids=[f"pg{version}" for version in postgres.VERSIONS])
def postgres_server(
    request: pytest.FixtureRequest, running_servers: Callable[[str], postgres.Server]
) -> postgres.Server:
    return running_servers(request.param)


@pytest.fixture(scope="session")
def postgres_dsn(postgres_server: postgres.Server) -> str:
    return postgres_server.dsn


@pytest.fixture
def database(postgres_server: postgres.Server) -> Iterator[str]:
    """The DSN of a new, empty database."""
    with postgres_server.database() as dsn:
        yield dsn
