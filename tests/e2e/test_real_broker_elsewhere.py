"""A real RabbitMQ that is asked by its management API alone: workers with real connections, lost and found again, real
alarms, queues that nobody listens to, and a node that has ended.
"""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Event

import amqp  # type: ignore[import-untyped]
import pytest

from bot.adapters.http import Http
from bot.adapters.router import Router
from bot.adapters.ssh import Ssh
from bot.core.command import Command
from bot.core.fix import Wait
from bot.core.question import Answer, HttpGet, Output, Question, Rows, Unanswered
from bot.core.sql import Query
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from tests.rigs.rabbitmq import PASSWORD, USER, VHOST, Broker, broker
from tests.rigs.worker import Installation, installation

OPTIONS = (("rabbitmq.via", "http"),)
WORKERS = ("worker lost rabbitmq", "worker stopped")
ITSELF = ("rabbitmq down", "rabbitmq alarm", "rabbitmq split", "rabbitmq node down", "results not recorded")
SECONDS = 40.0  # statistics are counted every five
NOBODY_LOOKED_BEFORE: Callable[[Target, Question, timedelta], None] = lambda target, question, span: None  # noqa: E731


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Broker]:
    with broker(management=True) as running:
        yield running


class Bystander:
    """A worker whose commands really run here, and a database with jobs: the broker alone is what these tests move."""

    def __init__(self, running: Broker, jobs: Sequence[tuple[str, int]] = ()) -> None:
        self.uri = f"amqp://[masked]@{running.host}:{running.port}/{VHOST}"
        self.jobs = jobs

    def ask(self, target: Target, questions: Sequence[Question], abort: Event) -> Sequence[Answer | Unanswered]:
        return [self._answer(question) for question in questions]

    def identity(self, target: Target) -> str:
        return target.address

    def send(self, target: Target, command: Command, within: timedelta, abort: Event) -> Output:
        raise AssertionError("nothing is changed")

    def _answer(self, question: Question) -> Answer:
        if isinstance(question, Query):
            waits = ({"queue": name, "state": "queued", "jobs": 2, "waited": s, "began": None} for name, s in self.jobs)
            return Rows(tuple(waits))
        assert isinstance(question, Command)
        words = [str(word) for word in question.words]
        if "grep" in str(question):
            return Output(0, f"/etc/default/travis-worker:1:export AMQP_URI={self.uri}\n")
        if words[0] in ("ps", "hostname"):
            return Output(0, {"ps": "systemd\n", "hostname": "127.0.0.1\n"}[words[0]])
        assert words[0] == "timeout", words
        done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
        return Output(done.returncode, done.stdout, done.stderr)


def look(rabbit: Broker, *names: str, jobs: Sequence[tuple[str, int]] = ()) -> Report:
    machines = (
        Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10"),
        Target("worker-1", Role.WORKER, "prod", "127.0.0.1"),
    )
    site = Site("prod", "travis.example.com", "2.2", machines, OPTIONS)
    here = Bystander(rabbit, jobs)
    router = Router(here, {HttpGet: Http({"prod": rabbit.api}, here), Query: here})
    diagnoses = [each for name in names or ITSELF for each in discover().about(name)]
    return Diagnoser(site, router, NOBODY_LOOKED_BEFORE).look(diagnoses, site, Event())


def causes(report: Report) -> list[str]:
    return [found.finding.cause for found in report.findings]


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_healthy(report: Report) -> bool:
    return (report.findings, report.unknown) == ((), ())


@contextmanager
def connected(rabbit: Broker) -> Iterator[amqp.Channel]:
    where = f"{rabbit.host}:{rabbit.port}"
    with amqp.Connection(where, userid=USER, password=PASSWORD, virtual_host=VHOST) as connection:
        yield connection.channel()


def test_a_worker_is_lost_and_found_by_the_api_alone(rabbit: Broker) -> None:
    with installation(rabbit) as prod, closing(Ssh(prod.hosts)) as ssh:
        site = replace(prod.site, options=OPTIONS)
        router = Router(ssh, {HttpGet: Http({site.name: rabbit.api}, ssh)})
        diagnoser = Diagnoser(site, router, NOBODY_LOOKED_BEFORE)
        diagnoses = [discover().diagnoses[name] for name in WORKERS]

        def seen() -> Report:
            return diagnoser.look(diagnoses, site, Event())

        until(lambda: is_healthy(seen()))
        prod.worker_1.tell_worker("lose")
        prod.wait_for_consumers("worker-1", 0)
        until(lambda: bool(seen().findings))
        [found] = seen().findings
        assert (found.finding.cause, found.finding.target.name) == ("worker.amqp-lost", "worker-1")
        assert [fix.id for fix in found.finding.fixes] == [
            "worker.drain-and-restart",
            "worker.restart",
            "worker.reboot",
        ]
        back = found.finding.fixes[1].steps[-1]
        assert isinstance(back, Wait)
        assert not back.until.met_by(diagnoser.answer(back.fact, Event()))

        prod.worker_1.worker.stop()
        prod.worker_1.on()
        prod.worker_1.settle()
        prod.wait_for_consumers("worker-1")
        until(lambda: is_healthy(seen()))
        until(lambda: back.until.met_by(diagnoser.answer(back.fact, Event())))
        _untouched(prod)


def _untouched(prod: Installation) -> None:
    assert prod.rig.received("platform-1") == [], "the platform has nothing to say about a broker elsewhere"
    assert prod.changes("worker-1") == prod.changes("worker-2") == []


@pytest.mark.parametrize(
    ("command", "bad", "good", "what"),
    [
        ("set_vm_memory_high_watermark", "0.0000001", "0.4", "memory"),
        ("set_disk_free_limit", "100000GB", "10MB", "disk"),
    ],
)
def test_an_alarm_is_named_with_what_is_left(rabbit: Broker, command: str, bad: str, good: str, what: str) -> None:
    until(lambda: is_healthy(look(rabbit)))
    rabbit.ctl(command, bad)
    try:
        until(lambda: causes(look(rabbit)) == ["broker.alarm"])
        [found] = look(rabbit).findings
    finally:
        rabbit.ctl(command, good)
    assert f"the {what} alarm on {rabbit.node}" in found.finding.title
    assert "unknown" not in found.finding.evidence
    assert found.finding.fixes == ()
    assert PASSWORD not in str(found)


def test_a_queue_without_consumers_and_one_that_is_not_there(rabbit: Broker) -> None:
    jobs = [("builds.alone", 3600), ("builds.nowhere", 3600)]
    with connected(rabbit) as channel:
        channel.queue_declare("builds.alone", durable=True, auto_delete=False)
        until(lambda: causes(look(rabbit, "queue without worker", jobs=jobs)) == ["queue.no-consumers", "queue.absent"])
        channel.basic_consume("builds.alone", callback=lambda message: None)
        until(lambda: causes(look(rabbit, "queue without worker", jobs=jobs)) == ["queue.absent"])
    rabbit.ctl("delete_queue", "builds.alone", "-p", VHOST)


def test_reports_that_nobody_takes(rabbit: Broker) -> None:
    with connected(rabbit) as channel:
        channel.queue_declare("reporting.jobs.builds", durable=True, auto_delete=False)
        channel.basic_publish(amqp.Message("{}"), routing_key="reporting.jobs.builds")
        until(lambda: causes(look(rabbit)) == ["platform.hub-drain-down"])
        channel.basic_qos(0, 1, False)
        channel.basic_consume("reporting.jobs.builds", callback=lambda message: None)
        channel.basic_publish(amqp.Message("{}"), routing_key="reporting.jobs.builds")
        until(lambda: is_healthy(look(rabbit)))
    rabbit.ctl("delete_queue", "reporting.jobs.builds", "-p", VHOST)


def test_an_api_that_is_away_is_no_broker_that_is_down(rabbit: Broker) -> None:
    rabbit.ctl("eval", "application:stop(rabbitmq_management).")
    try:
        report = look(rabbit, "rabbitmq down")
    finally:
        rabbit.ctl("eval", "application:start(rabbitmq_management).")
    assert causes(report) == ["platform.rabbitmq-unreachable"]
    assert report.unknown
    assert PASSWORD not in str(report)


def test_a_node_that_does_not_run_is_down(rabbit: Broker) -> None:
    rabbit.stop()
    try:
        report = look(rabbit, "rabbitmq down", "rabbitmq alarm")
    finally:
        rabbit.start()
    down = next(found for found in report.findings if found.finding.cause == "broker.down")
    assert (down.under, down.finding.fixes) == ("", ())
    assert f"{rabbit.host}:{rabbit.port} refuses worker-1" in down.finding.evidence
    assert [found.under for found in report.findings if found is not down] == ["broker.down"]
    assert PASSWORD not in str(report)
    until(lambda: is_healthy(look(rabbit)))
