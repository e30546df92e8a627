"""`prod` is a healthy installation: real sshd, real RabbitMQ, workers with real connections. `opsbot` looks after it:
unchanged, on PostgreSQL, in a local Slack.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.opsbot import Opsbot, serving
from tests.rigs import postgres
from tests.rigs.rabbitmq import Broker
from tests.rigs.rabbitmq import broker as running_broker
from tests.rigs.worker import Installation, installation


@pytest.fixture(scope="session")
def broker() -> Iterator[Broker]:
    with running_broker() as running:
        yield running


@pytest.fixture
def prod(broker: Broker) -> Iterator[Installation]:
    with installation(broker) as running:
        yield running
        assert not running.not_understood(), "a machine was asked what its stand-ins do not know"


@pytest.fixture
def opsbot(prod: Installation, running_servers: Callable[[str], postgres.Server], tmp_path: Path) -> Iterator[Opsbot]:
    with running_servers("18").database() as dsn, serving(prod, dsn, tmp_path) as running:
        yield running
