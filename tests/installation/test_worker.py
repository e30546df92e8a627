"""The life of travis-worker, as its machine and the broker see it."""

from collections.abc import Callable

import pytest

from bot.core.command import sh
from bot.sandbox.installation import Installation
from tests.installation.console import Console, pass_time

On = Callable[[str], Console]
SIGNAL = {
    "worker-1": lambda name, pid: sh("docker", "kill", "-s", name, "travis-worker").sudo(),
    "worker-3": lambda name, pid: sh("kill", "-s", name, str(pid)).sudo(),
}
BOTH = pytest.mark.parametrize("name", ["worker-1", "worker-3"])


def consumers(installation: Installation, name: str) -> int:
    address = installation.machine(name).address
    return sum(
        consumer.queue.name.startswith("builds.")
        for consumer in installation.broker.consumers()
        if consumer.channel.connection.peer_host == address
    )


def send(on: On, name: str, signal: str) -> None:
    worker = on(name).installation.worker(name)
    assert worker.process is not None
    [said] = on(name).ask(SIGNAL[name](signal, worker.process.pid))
    assert said.exit == 0


def builds(on: On, name: str) -> int:
    return len(on(name).say(sh("docker", "ps", "-q", "--filter", "name=travis-job-").sudo()).split())


def log(on: On, name: str) -> str:
    if name == "worker-3":
        return on(name).say(sh("tail", "-n", "500", "/var/log/upstart/travis-worker.log").sudo())
    return on(name).say(sh("journalctl", "-u", "travis-worker", "-n", "500", "-o", "cat", "--no-pager").sudo())


@BOTH
def test_it_takes_builds_one_for_each_consumer(healthy: Installation, on: On, name: str) -> None:
    healthy.push(10, seconds=100)
    assert builds(on, name) == 2
    assert len(healthy.broker.queue("builds.trusty").ready) == 4  # type: ignore[union-attr]
    pass_time(healthy, 101)
    assert len(healthy.broker.queue("builds.trusty").ready) == 0  # type: ignore[union-attr]
    pass_time(healthy, 101)
    assert builds(on, name) == 0


@BOTH
def test_usr2_drains_and_the_process_stays(healthy: Installation, on: On, name: str) -> None:
    healthy.push(6, seconds=100)
    before = healthy.worker(name).process
    send(on, name, "USR2")
    pass_time(healthy, 2)
    assert "SIGUSR2 received" in log(on, name).rsplit("worker started", 1)[-1]
    assert builds(on, name) == 2  # they run to their end
    pass_time(healthy, 100)
    healthy.push(2)
    assert (builds(on, name), consumers(healthy, name)) == (0, 0)  # and it takes no new ones
    pass_time(healthy, 1000)
    assert healthy.worker(name).process is before


@BOTH
def test_usr2_twice_ends_it_and_it_is_started_again(healthy: Installation, on: On, name: str) -> None:
    before = healthy.worker(name).process
    send(on, name, "USR2")
    pass_time(healthy, 2)
    send(on, name, "USR2")
    pass_time(healthy, 3)
    assert healthy.worker(name).process is None
    pass_time(healthy, 10)
    after = healthy.worker(name).process
    assert after not in (None, before)
    assert consumers(healthy, name) == 2


@BOTH
def test_int_waits_for_the_builds_and_starts_again(healthy: Installation, on: On, name: str) -> None:
    healthy.push(6, seconds=60)
    before = healthy.worker(name).process
    send(on, name, "INT")
    pass_time(healthy, 30)
    assert healthy.worker(name).process is before
    pass_time(healthy, 45)
    assert healthy.worker(name).process not in (None, before)
    assert healthy.broker.queue("builds.trusty").unacked == 0  # type: ignore[union-attr]


@BOTH
def test_term_puts_running_builds_back(healthy: Installation, on: On, name: str) -> None:
    jobs = healthy.push(6, seconds=1000)
    send(on, name, "TERM")
    pass_time(healthy, 1)
    queue = healthy.broker.queue("builds.trusty")
    assert queue is not None
    assert (len(queue.ready), queue.unacked, builds(on, name)) == (2, 4, 0)
    pass_time(healthy, 15)
    assert (len(queue.ready), queue.unacked, builds(on, name)) == (0, 6, 2)
    assert {job.number for consumer in queue.consumers for job in consumer.unacked} == {job.number for job in jobs}


@pytest.mark.parametrize(
    ("name", "words"),
    [("worker-1", ("systemctl", "restart", "travis-worker")), ("worker-3", ("restart", "travis-worker"))],
)
def test_a_restart_requeues_builds_and_the_worker_comes_back(
    healthy: Installation, on: On, name: str, words: tuple[str, ...]
) -> None:
    healthy.push(6, seconds=1000)
    on(name).say(sh(*words).sudo())
    assert consumers(healthy, name) == 0
    pass_time(healthy, 5)
    assert consumers(healthy, name) == 2
    assert builds(on, name) == 2


def test_usr1_only_writes_into_the_log(healthy: Installation, on: On) -> None:
    console = on("worker-1")
    console.say(SIGNAL["worker-1"]("USR1", 0))
    pass_time(healthy, 2)
    assert log(on, "worker-1").count("processor info") == 2
    assert not any(sent.changed for sent in console.received)


def test_a_reboot_requeues_builds_and_starts_the_worker(healthy: Installation, on: On) -> None:
    healthy.push(6, seconds=1000)
    boot = on("worker-2").say(sh("cat", "/proc/sys/kernel/random/boot_id"))
    on("worker-2").say(sh("shutdown", "-r", "now").sudo())
    pass_time(healthy, 1)
    assert not healthy.machine("worker-2").up
    assert consumers(healthy, "worker-2") == 0
    pass_time(healthy, 40)
    assert on("worker-2").say(sh("cat", "/proc/sys/kernel/random/boot_id")) != boot
    assert float(on("worker-2").say(sh("cat", "/proc/uptime")).split()[0]) < 60
    assert consumers(healthy, "worker-2") == 2


@pytest.mark.parametrize(("words", "minutes"), [(("+1",), 1), ((), 1), (("0",), 0), (("+5",), 5)])
def test_shutdown_reads_the_time_as_its_manual_says(
    healthy: Installation, on: On, words: tuple[str, ...], minutes: int
) -> None:
    boot = healthy.machine("worker-2").boot_id
    assert on("worker-2").ask(sh("shutdown", "-r", *words).sudo())[0].exit == 0
    pass_time(healthy, minutes * 60 - 1)
    assert healthy.machine("worker-2").up
    pass_time(healthy, 40)
    assert healthy.machine("worker-2").boot_id != boot


def test_a_shutdown_can_be_cancelled(healthy: Installation, on: On) -> None:
    boot = healthy.machine("worker-2").boot_id
    on("worker-2").say(sh("shutdown", "-r", "+1").sudo(), sh("shutdown", "-c").sudo())
    pass_time(healthy, 200)
    assert healthy.machine("worker-2").boot_id == boot
