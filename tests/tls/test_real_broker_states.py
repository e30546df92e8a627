"""A real RabbitMQ that is stopped, short of memory or disk, or not drained: its own words, read by the diagnoses."""

import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event

import amqp  # type: ignore[import-untyped]
import pytest

from bot.core.command import Command
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from tests.rigs.rabbitmq import PASSWORD, PROGRAMS, USER, VHOST, Broker, broker

NAMES = ("rabbitmq down", "rabbitmq alarm", "rabbitmq split", "results not recorded")
CONTAINER = "4f1c2ab9d0e1"
SITE = Site("prod", "travis.example.com", "2.2", (Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10"),))
NO_SV = Output(126, "", 'OCI runtime exec failed: exec: "sv": executable file not found in $PATH: unknown\n')
SECONDS = 30.0


class Container:
    """The platform: its one container, in which the real rabbitmqctl asks the real broker."""

    def __init__(self, running: Broker) -> None:
        self.broker = running

    def ask(self, target: Target, questions: Sequence[Question], abort: Event) -> Sequence[Answer | Unanswered]:
        return [self._run(question) for question in questions]

    def identity(self, target: Target) -> str:
        return target.address

    def _run(self, question: Question) -> Output:
        assert isinstance(question, Command)
        words = [str(word) for word in question.words]
        if words[:2] == ["docker", "ps"]:
            return Output(0, f"{CONTAINER}\tregistry.replicated.com/quay.io-travisci-te-main:2.2.17\tsleepy_dewdney\n")
        assert words[:3] == ["docker", "exec", CONTAINER], words
        if words[3] == "sv":
            return NO_SV
        assert words[3] == "rabbitmqctl", words
        done = subprocess.run(
            [str(PROGRAMS / "rabbitmqctl"), *words[4:]],
            env=self.broker.env, cwd=self.broker.folder, capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return Output(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Broker]:
    with broker() as running:
        yield running


def look(rabbit: Broker) -> Report:
    diagnoses = [each for name in NAMES for each in discover().about(name)]
    return Diagnoser(SITE, Container(rabbit), lambda target, question, span: None).look(diagnoses, SITE, Event())


def causes(rabbit: Broker) -> list[str]:
    report = look(rabbit)
    assert report.unknown == ()
    return [found.finding.cause for found in report.findings]


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_healthy(rabbit: Broker) -> None:
    assert causes(rabbit) == []


@pytest.mark.parametrize(
    ("command", "bad", "good", "what"),
    [
        ("set_vm_memory_high_watermark", "0.0000001", "0.4", "memory"),
        ("set_disk_free_limit", "100000GB", "10MB", "disk"),
    ],
)
def test_an_alarm_is_named_with_what_is_left(rabbit: Broker, command: str, bad: str, good: str, what: str) -> None:
    rabbit.ctl(command, bad)
    try:
        until(lambda: causes(rabbit) == ["broker.alarm"])
        [found] = look(rabbit).findings
    finally:
        rabbit.ctl(command, good)
    assert f"the {what} alarm on {rabbit.node}" in found.finding.title
    assert "unknown" not in found.finding.evidence
    assert rabbit.node in found.finding.evidence


def test_reports_that_nobody_takes(rabbit: Broker) -> None:
    with amqp.Connection(
        f"{rabbit.host}:{rabbit.port}", userid=USER, password=PASSWORD, virtual_host=VHOST
    ) as connection:
        channel = connection.channel()
        channel.queue_declare("reporting.jobs.builds", durable=True, auto_delete=False)
        channel.basic_publish(amqp.Message("{}"), routing_key="reporting.jobs.builds")
        assert causes(rabbit) == ["platform.hub-drain-down"]
        channel.basic_qos(0, 1, False)
        channel.basic_consume("reporting.jobs.builds", callback=lambda message: None)
        channel.basic_publish(amqp.Message("{}"), routing_key="reporting.jobs.builds")
        until(lambda: causes(rabbit) == [])  # one waits, and somebody is at work: that is busy, not down
    rabbit.ctl("delete_queue", "reporting.jobs.builds", "-p", VHOST)


def test_a_stopped_app_is_started_alone(rabbit: Broker) -> None:
    rabbit.ctl("stop_app")
    try:
        [found] = look(rabbit).findings
        assert found.finding.cause == "broker.down"
        assert [fix.id for fix in found.finding.fixes] == ["broker.start-app", "platform.restart-app"]
        [change] = found.finding.fixes[0].changes()
        assert isinstance(change.command, Command)
        assert Container(rabbit)._run(change.command).ok
        assert causes(rabbit) == []
    finally:
        rabbit.ctl("start_app")


def test_a_node_that_does_not_run_is_down(rabbit: Broker) -> None:
    rabbit.stop()
    try:
        [found] = look(rabbit).findings
        assert found.finding.cause == "broker.down"
        assert "not running at all" in found.finding.evidence
        assert [fix.id for fix in found.finding.fixes] == ["platform.restart-app"]
    finally:
        rabbit.start()


def test_a_wrong_cookie_says_nothing_about_the_node(rabbit: Broker) -> None:
    cookie = rabbit.folder / ".erlang.cookie"
    right = cookie.read_text()
    cookie.chmod(0o600)
    cookie.write_text("a-wrong-cookie")
    cookie.chmod(0o400)
    try:
        report = look(rabbit)
    finally:
        cookie.chmod(0o600)
        cookie.write_text(right)
        cookie.chmod(0o400)
    assert report.findings == ()
    assert all("rabbitmqctl failed" in sentence for sentence in report.unknown)
    assert report.unknown
