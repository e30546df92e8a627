"""The same machines through opsbot's own SSH adapter: what a bot would see, from the first look to the repair."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event as Flag
from threading import Timer

import pytest

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location
from bot.adapters.redis import Redis, Server
from bot.adapters.router import Router
from bot.adapters.ssh import Host, Ssh
from bot.core import unit
from bot.core.command import sh
from bot.core.question import Output, RedisRead, Unanswered
from bot.core.sql import Query
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser
from bot.sandbox.installation import Running
from tests.installation.test_server import eventually

MINUTE = timedelta(minutes=1)


def target_of(running: Running, name: str) -> Target:
    role = Role.PLATFORM if name == "platform-1" else Role.WORKER
    return Target(name, role, running.name, running.machine(name).address)


@pytest.fixture
def ssh(running: Running) -> Iterator[Ssh]:
    """Made from the configuration that the installation gives, as `opsbot serve` would."""
    given = running.configuration()
    user, key, pins = given["ssh"]["user"], running.key_file, running.known_hosts
    hosts = {
        f"{running.name}/{place['name']}": Host(place["host"], place["port"], user, key, pins)
        for place in (*given["platforms"], *given["workers"])
    }
    adapter = Ssh(hosts)
    yield adapter
    adapter.close()


def router(running: Running, ssh: Ssh) -> Router:
    """Database and redis by the programs in the platform's container, as the vendor installs them."""
    inside = Containers(ssh)
    database = Database({(running.name, "main"): Location()}, ssh, inside)
    return Router(ssh, {Query: database, RedisRead: Redis({running.name: Server()}, ssh, inside)}, database)


def outputs(answers: list[object]) -> list[Output]:
    assert all(isinstance(answer, Output) for answer in answers), answers
    return [answer for answer in answers if isinstance(answer, Output)]


def test_it_asks_and_hears(running: Running, ssh: Ssh) -> None:
    said = ssh.ask(target_of(running, "worker-1"), [sh("hostname"), sh("false"), sh("echo", "it's\n$(x)")], Flag())
    assert [(each.exit, each.out) for each in outputs([*said])] == [(0, "worker-1\n"), (1, ""), (0, "it's\n$(x)\n")]


def test_sudo_that_asks_for_a_password_is_told_as_such(running: Running, ssh: Ssh) -> None:
    running.inject("worker-1 asks for a sudo password")
    [said] = ssh.ask(target_of(running, "worker-1"), [sh("docker", "ps").sudo()], Flag())
    assert isinstance(said, Unanswered)
    assert said.cause == "sudo-denied"


def test_a_slow_change_runs_as_a_unit(running: Running, ssh: Ssh) -> None:
    worker = target_of(running, "worker-1")
    name = unit.name(1, 0, datetime.now(UTC))
    start = unit.start(sh("systemctl", "restart", "travis-worker"), name, timedelta(minutes=5))
    assert ssh.send(worker, start, MINUTE, Flag()).ok
    assert unit.taken(ssh.send(worker, start, MINUTE, Flag()))

    def ended() -> bool:
        [said] = outputs([*ssh.ask(worker, [unit.asked(name)], Flag())])
        return unit.ended(said).state is unit.State.DONE

    eventually(ended)
    assert all(running.log()[no].changed == (no == 0) for no in range(2))


def test_an_abort_ends_the_change_on_the_machine(running: Running, ssh: Ssh) -> None:
    abort = Flag()
    Timer(0.2, abort.set).start()
    said = ssh.send(target_of(running, "worker-1"), sh("sleep", "100000"), timedelta(hours=30), abort)
    assert said.exit is None
    eventually(lambda: [line.text for line in running.log()] == ["sleep 100000"])


def test_a_reboot_is_seen_as_one(running: Running, ssh: Ssh) -> None:
    worker = target_of(running, "worker-3")
    boot = sh("cat", "/proc/sys/kernel/random/boot_id")
    [before] = outputs([*ssh.ask(worker, [boot], Flag())])
    ssh.send(worker, sh("shutdown", "-r", "now").sudo(), MINUTE, Flag())

    def back() -> bool:
        [said] = ssh.ask(worker, [boot], Flag())
        return isinstance(said, Output) and said.out != before.out

    eventually(back)


def test_a_worker_is_lost_found_and_healed(running: Running, ssh: Ssh) -> None:
    targets = tuple(target_of(running, name) for name in running.servers)
    site = Site(running.name, "travis.example.com", "2.2", targets)
    diagnoser = Diagnoser(site, router(running, ssh), lambda target, question, span: None)
    diagnoses = discover().about("builds not starting")

    def causes() -> list[tuple[str, str]]:
        report = diagnoser.look(diagnoses, site, Flag())
        return [(found.finding.cause, found.finding.target.name) for found in report.troubles()]

    assert causes() == []
    running.inject("worker-2 lost RabbitMQ")
    assert causes() == [("worker.amqp-lost", "worker-2")]
    ssh.send(target_of(running, "worker-2"), sh("systemctl", "restart", "travis-worker").sudo(), MINUTE, Flag())
    eventually(lambda: running.state()["machines"]["worker-2"]["consumers"] == 2)
    assert causes() == []
    assert running.unknown() == []
    assert [(line.machine, line.text) for line in running.log() if line.changed] == [
        ("worker-2", "sudo -n systemctl restart travis-worker")
    ]


def test_a_machine_that_is_off_is_unreachable_and_hides_no_other(running: Running, ssh: Ssh) -> None:
    running.inject("worker-1 is unreachable")
    [said] = ssh.ask(target_of(running, "worker-1"), [sh("true")], Flag())
    assert isinstance(said, Unanswered)
    [other] = outputs([*ssh.ask(target_of(running, "worker-2"), [sh("true")], Flag())])
    assert other.ok
    running.inject("worker-1 is switched on")
    eventually(lambda: isinstance(ssh.ask(target_of(running, "worker-1"), [sh("true")], Flag())[0], Output))
