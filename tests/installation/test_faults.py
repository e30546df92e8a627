"""Each fault is seen as the vendor describes it, and the vendor's cure works in the state."""

from collections.abc import Callable
from pathlib import Path

import pytest

from bot.core.command import sh
from bot.sandbox.installation import FAULTS, Installation, NoSuchFault, Running
from bot.sandbox.installation.faults import CannotBe, inject
from tests.installation.console import Console, pass_time
from tests.installation.test_worker import builds, consumers, log
from tests.installation.visitor import Visitor

On = Callable[[str], Console]
RESTART = {
    "worker-1": sh("systemctl", "restart", "travis-worker").sudo(),
    "worker-3": sh("restart", "travis-worker").sudo(),
}
REBOOT = sh("shutdown", "-r", "now").sudo()
BOTH = pytest.mark.parametrize("name", ["worker-1", "worker-3"])


def active(on: On, name: str) -> bool:
    if name == "worker-3":
        return "start/running" in on(name).say(sh("status", "travis-worker").sudo())
    return on(name).ask(sh("systemctl", "is-active", "travis-worker"))[0].exit == 0


@BOTH
def test_lost_rabbitmq_is_cured_by_a_restart(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} lost RabbitMQ")
    pass_time(healthy, 600)
    assert active(on, name)
    assert consumers(healthy, name) == 0
    assert sum(queue.name.startswith("amq.gen-") for queue in healthy.broker.queues) == 2
    on(name).say(RESTART[name])
    pass_time(healthy, 5)
    assert consumers(healthy, name) == 2
    assert sum(queue.name.startswith("amq.gen-") for queue in healthy.broker.queues) == 3


@BOTH
def test_until_it_reboots_means_that_a_restart_does_not_help(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} lost RabbitMQ until it reboots")
    on(name).say(RESTART[name])
    pass_time(healthy, 300)
    assert consumers(healthy, name) == 0
    if name == "worker-1":
        assert active(on, name)  # the wrapper waits for docker, and systemd sees nothing wrong
        assert on(name).say(sh("docker", "ps", "-q").sudo()) == ""
    else:
        assert "i/o timeout" in log(on, name)
    assert on(name).say(sh("dmesg"))
    on(name).say(REBOOT)
    pass_time(healthy, 45)
    assert consumers(healthy, name) == 2
    assert on(name).say(sh("dmesg")) == ""


def test_a_hanging_docker_answers_nothing_until_the_reboot(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 docker hangs")
    assert on("worker-1").ask(sh("docker", "ps").sudo())[0].exit is None  # its time limit ended it
    on("worker-1").ask(RESTART["worker-1"], seconds=300)
    pass_time(healthy, 60)
    assert consumers(healthy, "worker-1") == 0
    on("worker-1").say(REBOOT)
    pass_time(healthy, 45)
    assert consumers(healthy, "worker-1") == 2


def test_part_of_the_pool(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 lost part of its pool")
    assert consumers(healthy, "worker-1") == 1
    healthy.push(6)
    assert builds(on, "worker-1") == 1
    on("worker-1").say(RESTART["worker-1"])
    pass_time(healthy, 5)
    assert consumers(healthy, "worker-1") == 2


def test_the_canceller(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 lost its canceller")
    assert consumers(healthy, "worker-1") == 2
    assert sum(queue.name.startswith("amq.gen-") for queue in healthy.broker.queues) == 2
    on("worker-1").say(RESTART["worker-1"])
    pass_time(healthy, 5)
    assert sum(queue.name.startswith("amq.gen-") for queue in healthy.broker.queues) == 3


@BOTH
def test_stopped(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} is stopped")
    pass_time(healthy, 600)
    assert not active(on, name)
    words = ("start", "travis-worker") if name == "worker-3" else ("systemctl", "start", "travis-worker")
    on(name).say(sh(*words).sudo())
    pass_time(healthy, 5)
    assert consumers(healthy, name) == 2


def test_just_started(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 has just started")
    pass_time(healthy, 1.5)
    assert consumers(healthy, "worker-1") == 0
    assert int(on("worker-1").say(sh("ps", "-C", "travis-worker", "-o", "etimes="))) < 120
    pass_time(healthy, 5)
    assert consumers(healthy, "worker-1") == 2


def test_builds_run_and_end(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 runs builds")
    assert [builds(on, name) for name in ("worker-1", "worker-2", "worker-3")] == [2, 0, 0]
    pass_time(healthy, 130)
    assert builds(on, "worker-1") == 0


def test_behind_nat_the_broker_sees_another_address(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 is behind NAT")
    peers = sh("docker", "exec", "sleepy_dewdney", "rabbitmqctl", "-q", "list_connections", "peer_host").sudo()
    seen = set(on("platform-1").say(peers).split())
    assert seen == {"peer_host", "127.0.0.1", "192.0.2.77", "127.0.0.23", "127.0.0.24"}
    on("worker-1").say(RESTART["worker-1"])
    pass_time(healthy, 5)
    assert "192.0.2.77" in on("platform-1").say(peers)


def test_the_wrong_password(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 has the wrong password")
    pass_time(healthy, 60)
    assert "username or password not allowed" in log(on, "worker-1")
    restarts = on("worker-1").say(sh("systemctl", "show", "travis-worker", "-p", "NRestarts", "--value"))
    assert int(restarts) > 3
    text = healthy.machine("worker-1").read("/etc/default/travis-worker")
    assert text is not None
    healthy.machine("worker-1").write("/etc/default/travis-worker", text.replace("0ld-pa55word", healthy.password))
    pass_time(healthy, 15)
    assert consumers(healthy, "worker-1") == 2


def test_another_queue(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 listens on another queue")
    pass_time(healthy, 5)
    queue = healthy.broker.queue("builds.focal")
    assert queue is not None
    assert len(queue.consumers) == 2


def test_a_firewall(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 cannot reach RabbitMQ")
    pass_time(healthy, 120)
    assert consumers(healthy, "worker-1") == 0
    assert "i/o timeout" in log(on, "worker-1")
    healthy.machine("worker-1").blocked.clear()
    pass_time(healthy, 60)
    assert consumers(healthy, "worker-1") == 2


def test_no_run_directory(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 has no run directory")
    pass_time(healthy, 60)
    assert "travis-combined-env: line 13: /var/tmp/travis-run.d/travis-worker: No such file" in log(on, "worker-1")
    on("worker-1").say(sh("mkdir", "-p", "/var/tmp/travis-run.d").sudo())
    pass_time(healthy, 20)
    assert log(on, "worker-1").rstrip().endswith("Permission denied")
    on("worker-1").say(sh("chown", "-R", "travis:travis", "/var/tmp/travis-run.d").sudo())
    pass_time(healthy, 20)
    assert consumers(healthy, "worker-1") == 2


def test_what_does_not_start_at_boot_stays_down(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 does not start at boot")
    assert on("worker-1").ask(sh("systemctl", "is-enabled", "travis-worker"))[0].out == "disabled\n"
    on("worker-1").say(REBOOT)
    pass_time(healthy, 60)
    assert not active(on, "worker-1")


def test_the_broker_is_down_and_comes_back_with_the_platform(healthy: Installation, on: On) -> None:
    inject(healthy, "platform-1 has no RabbitMQ")
    ask = sh("docker", "exec", "sleepy_dewdney", "rabbitmqctl", "-q", "list_queues", "-p", "travis").sudo()
    assert on("platform-1").ask(ask)[0].exit == 69
    pass_time(healthy, 30)
    assert "connection refused" in log(on, "worker-1")
    on("platform-1").say(REBOOT)
    pass_time(healthy, 60)
    assert on("platform-1").ask(ask)[0].exit == 0
    assert [consumers(healthy, machine.name) for machine in healthy.workers()] == [2, 2, 2]


def test_a_machine_that_is_off(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 is unreachable")
    assert consumers(healthy, "worker-1") == 0
    pass_time(healthy, 600)
    assert not healthy.machine("worker-1").up
    inject(healthy, "worker-1 is switched on")
    pass_time(healthy, 10)
    assert float(on("worker-1").say(sh("cat", "/proc/uptime")).split()[0]) < 20
    assert consumers(healthy, "worker-1") == 2


@BOTH
def test_what_a_worker_holds_that_hangs_runs_after_a_restart(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} holds builds and does nothing")
    pass_time(healthy, 600)
    queue = healthy.broker.queue("builds.trusty")
    assert queue is not None
    assert (queue.unacked, builds(on, name), len(queue.ready)) == (2, 0, 0)
    on(name).say(RESTART[name])
    pass_time(healthy, 300)
    assert (queue.unacked, len(queue.ready)) == (0, 0)


@BOTH
def test_a_pause_of_some_days_stands_far_back_in_the_log(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} was paused some days ago")
    assert "SIGUSR2" not in log(on, name)[-10_000:]
    assert (active(on, name), consumers(healthy, name)) == (True, 0)
    on(name).say(RESTART[name])
    pass_time(healthy, 30)
    assert consumers(healthy, name) == 2


def test_a_unit_among_the_links_starts_at_boot(healthy: Installation, on: On) -> None:
    inject(healthy, "worker-1 was installed without a network")
    said = on("worker-1").say(sh("systemctl", "show", "travis-worker", "--property=UnitFileState,WantedBy"))
    assert said.split() == ["UnitFileState=", "WantedBy=multi-user.target"]
    on("worker-1").say(REBOOT)
    pass_time(healthy, 60)
    assert active(on, "worker-1")


@BOTH
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("has no image for builds", "couldn't select image"),
        ("has more places than CPUs", "couldn't checkout CPUSets"),
        ("puts builds back for ever", "no space left on device"),
    ],
)
def test_builds_that_do_not_start_go_back(healthy: Installation, on: On, name: str, fault: str, says: str) -> None:
    inject(healthy, f"{name} {fault}")
    pass_time(healthy, 30)
    assert says in log(on, name)
    assert "couldn't start instance, attempting requeue" in log(on, name)


@BOTH
def test_without_scripts_builds_are_given_up(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, "platform-1 makes no build scripts")
    page = sh("curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", "https://travis.example.com/__build__/uptime")
    assert on(name).say(page) == "502"
    pass_time(healthy, 70)
    assert "couldn't generate build script, erroring job" in log(on, name)
    queue = healthy.broker.queue("builds.trusty")
    assert queue is not None
    assert (queue.unacked, len(queue.ready)) == (0, 0)


@BOTH
def test_scripts_behind_a_silent_proxy_never_come(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} asks a silent proxy for build scripts")
    page = sh("curl", "-sSk", "-m", "5", "-w", "%{http_code}", "https://travis.example.com/__build__/uptime")
    (asked,) = on(name).ask(page)
    assert (asked.exit, asked.out) == (28, "000")
    pass_time(healthy, 70)
    assert "TLS handshake timeout" in log(on, name)


def test_a_platform_that_made_no_scripts_for_a_while_makes_them_again(healthy: Installation, on: On) -> None:
    inject(healthy, "platform-1 made no build scripts for a while")
    page = sh("curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", "https://travis.example.com/__build__/uptime")
    assert on("worker-1").say(page) == "502"
    pass_time(healthy, 130)
    assert on("worker-1").say(page) == "200"
    assert "couldn't generate build script, erroring job" in log(on, "worker-1")


@BOTH
def test_a_build_that_started_later_stands_so_in_the_log(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} had a build that did not start")
    before, _, after = log(on, name).rpartition("attempting requeue")
    assert before
    assert "started instance" in after


def test_a_machine_with_another_host_key_is_not_the_pinned_one(running: Running) -> None:
    with Visitor(running, "worker-1") as visitor:
        assert visitor.run("hostname").exit == 0
    inject(running.installation, "worker-1 has another host key")
    with pytest.raises(AssertionError):
        Visitor(running, "worker-1")


@BOTH
def test_a_worker_without_its_docker_endpoint_ends_again_and_again(healthy: Installation, on: On, name: str) -> None:
    inject(healthy, f"{name} has no docker endpoint")
    pass_time(healthy, 60)
    assert log(on, name).count("expected config key endpoint") > 5
    assert consumers(healthy, name) == 0
    file = healthy.machine(name).files["/etc/default/travis-worker"]
    file.text = file.text.replace("# TRAVIS_WORKER_DOCKER_ENDPOINT=", "export TRAVIS_WORKER_DOCKER_ENDPOINT=")
    pass_time(healthy, 60)
    assert consumers(healthy, name) == 2


def test_every_fault_is_tried_by_its_name() -> None:
    """A fault of a worker comes with its cure: its name stands in a test here or beside."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    elsewhere = {"asks for a sudo password", "is full"}
    workers = [fault.name for fault in FAULTS.values() if fault.apply.__module__.endswith((".worker", ".docker"))]
    assert [name for name in workers if name not in tests and name not in elsewhere] == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_every_fault_says_what_it_is_in_one_line(fault: object) -> None:
    says = getattr(fault, "says", "")
    assert says.endswith((".", ":", ","))
    assert len(says) < 120


def test_a_canceller_whose_queue_went_with_the_broker_cannot_be_lost(healthy: Installation) -> None:
    commands = healthy.worker("worker-1").commands
    assert commands is not None
    healthy.broker.queues.remove(commands.queue)
    with pytest.raises(CannotBe, match="no canceller"):
        inject(healthy, "worker-1 lost its canceller")


def test_an_unknown_fault_names_those_there_are(healthy: Installation) -> None:
    for text in ("worker-9 lost RabbitMQ", "worker-1 fell over", ""):
        with pytest.raises(NoSuchFault, match="lost RabbitMQ"):
            inject(healthy, text)
    with pytest.raises(NoSuchFault, match="is not a worker"):
        inject(healthy, "platform-1 lost RabbitMQ")
