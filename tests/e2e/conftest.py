"""`prod` is a healthy installation: real sshd, real RabbitMQ, workers with real connections."""

from collections.abc import Iterator

import pytest

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
