"""Is the worker lost? Asked over real SSH of real hosts, told by a real RabbitMQ."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event

import pytest

from bot.adapters.ssh import Ssh
from bot.core.finding import Finding
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from tests.rigs.rabbitmq import Broker
from tests.rigs.worker import Installation

ABOUT = ("worker lost rabbitmq", "worker keeps ending", "worker stopped")  # what these machines can be asked about
Look = Callable[[], Report]


@pytest.fixture
def look(prod: Installation) -> Iterator[Look]:
    with looking(prod) as ready:
        yield ready


@contextmanager
def looking(prod: Installation) -> Iterator[Look]:
    ssh = Ssh(prod.hosts)
    diagnoser = Diagnoser(prod.site, ssh, lambda target, question, span: None)
    diagnoses = [discover().diagnoses[name] for name in ABOUT]
    try:
        yield lambda: diagnoser.look(diagnoses, prod.site, Event())
    finally:
        ssh.close()


def findings(report: Report) -> list[tuple[str, str]]:
    return [(found.finding.cause, found.finding.target.name) for found in report.findings]


def the_finding(report: Report) -> Finding:
    assert len(report.findings) == 1, report
    return report.findings[0].finding


def test_a_worker_is_lost_and_found(prod: Installation, look: Look) -> None:
    healthy = look()
    assert (findings(healthy), healthy.unknown) == ([], ())

    prod.worker_1.tell_worker("lose")
    prod.wait_for_consumers("worker-1", 0)
    lost = look()
    assert lost.unknown == ()
    finding = the_finding(lost)
    assert (finding.cause, finding.target.name) == ("worker.amqp-lost", "worker-1")
    assert [fix.id for fix in finding.fixes] == ["worker.drain-and-restart", "worker.restart", "worker.reboot"]
    assert "consumers from 1 machine and 1 cancel queue" in finding.evidence
    assert prod.worker_1.worker.pid, "it lives on, and that is the trouble"

    prod.worker_1.worker.stop()
    prod.worker_1.on()
    prod.worker_1.settle()
    prod.wait_for_consumers("worker-1")
    again = look()
    assert (findings(again), again.unknown) == ([], ())
    assert prod.changes("worker-1") == prod.changes("worker-2") == prod.changes("platform-1") == []


def test_an_upstart_worker_and_a_systemd_worker_are_lost_together(prod: Installation, look: Look) -> None:
    for machine in (prod.worker_1, prod.worker_2):
        machine.tell_worker("lose")
        prod.wait_for_consumers(machine.name, 0)
    lost = look()  # RabbitMQ has neither channels nor consumers now, and prints no header either
    assert sorted(findings(lost)) == [("worker.amqp-lost", "worker-1"), ("worker.amqp-lost", "worker-2")]
    assert lost.unknown == ()


def test_a_worker_that_was_told_to_pause_is_not_lost(prod: Installation, look: Look) -> None:
    for machine in (prod.worker_1, prod.worker_2):
        os.kill(machine.worker.pid, signal.SIGUSR2)
        prod.wait_for_consumers(machine.name, 0)
    report = look()
    assert sorted(findings(report)) == [("worker.paused", "worker-1"), ("worker.paused", "worker-2")]
    assert not any(found.finding.fixes for found in report.findings)


def test_a_machine_that_is_off_does_not_hide_the_lost_one(prod: Installation, look: Look) -> None:
    prod.worker_1.tell_worker("lose")
    prod.wait_for_consumers("worker-1", 0)
    prod.rig.power_off("worker-2")
    assert sorted(findings(look())) == [("worker.amqp-lost", "worker-1"), ("worker.unreachable", "worker-2")]


def test_when_the_broker_cannot_be_asked_nothing_is_claimed(prod: Installation, look: Look, broker: Broker) -> None:
    prod.worker_1.tell_worker("lose")  # so this one notices nothing
    prod.wait_for_consumers("worker-1", 0)
    broker.stop()
    try:
        report = look()
    finally:
        broker.start()
    # The workers end and are started again for as long as it is away, and no fix of theirs would help.
    causes = {finding.cause for finding in (found.finding for found in report.findings)}
    assert any("rabbitmqctl failed" in sentence for sentence in report.unknown), report
    assert causes <= {"worker.crash-loop"}, report
    assert all(not found.finding.fixes for found in report.findings)
    assert all("AMQP" in found.finding.evidence or "amqp" in found.finding.evidence for found in report.findings)
    prod.wait_for_consumers("worker-2")  # whose supervisor has started it again until the broker was back
    assert findings(look()) == [("worker.amqp-lost", "worker-1")]
