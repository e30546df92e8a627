"""The broker and the certificates of the simulated installation: one cause, its consequences, and a fix that heals."""

import pytest

from bot.core.finding import Finding
from bot.core.fix import Change
from bot.engine.rounds import Report
from tests.installation.practice import Practice


def troubles(report: Report) -> list[tuple[str, str]]:
    return [(found.finding.cause, found.finding.target.name) for found in report.troubles()]


def broken(practice: Practice, fault: str) -> Finding:
    practice.inject(f"platform-1 {fault}")
    practice.pass_time(300)
    [found] = practice.look().troubles()
    assert found.finding.target.name == "platform-1"
    return found.finding


def test_a_broker_that_is_down_is_the_cause_and_what_workers_say_is_not(practice: Practice) -> None:
    practice.inject("platform-1 has no RabbitMQ")
    practice.pass_time(300)
    report = practice.look()
    assert troubles(report) == [("broker.down", "platform-1")]
    below = [found for found in report.findings if found.under]
    assert {found.finding.target.name for found in below} == {"worker-1", "worker-2", "worker-3"}
    assert {found.under for found in below} == {"broker.down"}
    assert not any(found.finding.fixes for found in below)


HEALS = {
    "has no RabbitMQ": ("broker.down", ["broker.start-service", "platform.restart-app"]),
    "has a stopped RabbitMQ": ("broker.down", ["broker.start-app", "broker.start-service", "platform.restart-app"]),
    "has no hub drain": ("platform.hub-drain-down", ["broker.restart-hub-drain"]),
    "has no logs drain": ("broker.logs-drain-down", ["broker.restart-logs-drain"]),
    "has not renewed its certificate": ("tls.expired", ["tls.renew"]),
}
EACH = [(fault, cause, fix) for fault, (cause, fixes) in HEALS.items() for fix in fixes]


@pytest.mark.parametrize(("fault", "cause", "wanted"), EACH)
def test_each_fix_that_is_offered_heals(practice: Practice, fault: str, cause: str, wanted: str) -> None:
    finding = broken(practice, fault)
    assert (finding.cause, [fix.id for fix in finding.fixes]) == (cause, HEALS[fault][1])
    [fix] = [fix for fix in finding.fixes if fix.id == wanted]
    assert practice.apply(fix)
    practice.pass_time(60)
    assert troubles(practice.look()) == []
    assert practice.machines.unknown() == []


PERSON = {
    "is short of memory": "broker.alarm",
    "has no room for RabbitMQ": "broker.alarm",
    "has a split RabbitMQ": "broker.partition",
    "has a self-signed certificate": "tls.self-signed",
    "has a certificate of the company": "tls.untrusted",
    "has an expired certificate": "tls.expired",
    "has a certificate that ends soon": "tls.expiring",
    "has a certificate of another host": "tls.wrong-host",
    "sends no intermediate certificate": "tls.missing-intermediate",
    "has builds that resolve no names": "build.download-failed",
}


@pytest.mark.parametrize("fault", PERSON)
def test_what_only_a_person_can_do_is_said_in_full(practice: Practice, fault: str) -> None:
    finding = broken(practice, fault)
    assert (finding.cause, finding.fixes) == (PERSON[fault], ())
    assert finding.person
    assert finding.link
    assert practice.machines.changes() == []


def test_a_certificate_of_rabbitmq_explains_the_workers_that_end(practice: Practice) -> None:
    practice.inject("platform-1 offers RabbitMQ with a self-signed certificate")
    practice.pass_time(300)
    report = practice.look()
    assert troubles(report) == [("tls.self-signed", "platform-1")]
    assert {found.under for found in report.findings if found.finding.target.name != "platform-1"} == {
        "tls.self-signed"
    }


ODD = (
    "platform-1 has a little backlog",
    "platform-1 has an unused queue",
    "platform-1 had a quiet hour without drains",
    "platform-1 has a certificate for 30 days",
    "platform-1 has a wildcard certificate",
    "platform-1 sends a cross-signed root",
    "platform-1 has one repository with a dead address",
    "platform-1 offers RabbitMQ with a certificate that workers ignore",
    "worker-1 has a clock that is an hour off",
    "worker-1 has no default build image",
)


@pytest.mark.parametrize("fault", ODD)
def test_what_only_looks_odd_is_no_trouble(practice: Practice, fault: str) -> None:
    practice.inject(fault)
    practice.pass_time(300)
    report = practice.look()
    assert (troubles(report), report.unknown) == ([], ())


def test_a_renewal_is_not_run_when_the_certificate_is_good_again(practice: Practice) -> None:
    finding = broken(practice, "has not renewed its certificate")
    practice.installation.tls.serve(443, practice.installation.tls.good())
    [change] = [step for step in finding.fixes[0].steps if isinstance(step, Change)]
    assert practice.carry_out([change])
    assert practice.machines.changes() == []


def test_the_first_worker_is_away_and_another_one_tells(practice: Practice) -> None:
    practice.inject("worker-1 is unreachable")
    practice.inject("platform-1 has a self-signed certificate")
    practice.pass_time(300)
    assert ("tls.self-signed", "platform-1") in troubles(practice.look())
