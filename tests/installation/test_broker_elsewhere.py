"""The simulated broker, asked by its management API: the same causes are named as by rabbitmqctl, which nobody runs."""

import pytest

from bot.core.finding import Severity
from bot.sandbox.installation import management
from tests.installation.practice import Practice

SETTLED, SHOWN = 300, 200  # seconds


def broken(said: str = "") -> tuple[Practice, list[tuple[str, str]]]:
    """What is found, by cause and machine, but for the database: there is none here."""
    practice = Practice(None, broker="http")
    practice.pass_time(SETTLED)
    if said:
        practice.inject(said)
        practice.pass_time(SHOWN)
    found = [each for each in practice.findings() if each.severity >= Severity.WARN]
    return practice, [(each.cause, each.target.name) for each in found if "database" not in each.cause]


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("platform-1 has no RabbitMQ", "broker.down"),
        ("platform-1 has a stopped RabbitMQ", "broker.down"),
        ("platform-1 is short of memory", "broker.alarm"),
        ("platform-1 has no room for RabbitMQ", "broker.alarm"),
        ("platform-1 has a split RabbitMQ", "broker.partition"),
        ("worker-1 lost RabbitMQ", "worker.amqp-lost"),
        ("worker-1 lost part of its pool", "worker.pool-shrunk"),
        ("worker-1 lost its canceller", "worker.canceller-lost"),
    ],
)
def test_the_cause_is_named(fault: str, cause: str) -> None:
    practice, found = broken(fault)
    assert found == [(cause, fault.split()[0])]
    asked = [command.text for command in practice.machines.consoles["platform-1"].received]
    assert not any("rabbitmqctl" in text for text in asked)
    assert practice.machines.unknown() == []


@pytest.mark.parametrize("state", ["", "worker-1 is behind NAT", "worker-1 is draining", "worker-1 has just started"])
def test_what_only_looks_wrong_is_not_called_wrong(state: str) -> None:
    assert broken(state)[1] == []


@pytest.mark.parametrize("fault", ["platform-1 does not get ready", "platform-1 has an expired license"])
def test_a_platform_that_is_down_explains_its_own_broker(fault: str) -> None:
    """Workers go to the platform's own name: this API is that of its RabbitMQ, not of one on other machines."""
    assert [cause for cause, _ in broken(fault)[1] if cause.startswith("broker.")] == []


def test_a_worker_whose_packets_get_lost_is_no_witness_for_a_broker_that_refuses_the_others() -> None:
    practice, _ = broken("worker-1 cannot reach RabbitMQ")
    practice.inject("platform-1 has a stopped RabbitMQ")
    practice.pass_time(SHOWN)
    assert "broker.down" in [each.cause for each in practice.findings() if each.severity is Severity.BROKEN]


def test_a_worker_that_hangs_is_seen_by_what_it_holds_in_two_looks() -> None:
    practice, found = broken("worker-1 holds builds and does nothing")
    practice.pass_time(SETTLED)
    assert not found
    assert "worker.zombie" in [each.cause for each in practice.findings()]


def test_a_lost_worker_is_healed_and_the_api_proves_it() -> None:
    practice, found = broken("worker-1 lost RabbitMQ")
    assert found == [("worker.amqp-lost", "worker-1")]
    [lost] = [each for each in practice.findings() if each.cause == "worker.amqp-lost"]
    assert practice.apply(lost.fixes[0])
    assert "worker.amqp-lost" not in [each.cause for each in practice.findings()]


def test_the_api_tells_of_no_other_vhost() -> None:
    broker = Practice(None).installation.broker
    assert management.answer(broker, "/api/queues/nowhere?columns=name")[0] == 404
    assert management.answer(broker, "/api/queues/%2F?columns=name") == (200, "[]")
    assert '{"name":"builds.trusty"}' in management.answer(broker, "/api/queues/travis?columns=name")[1]
