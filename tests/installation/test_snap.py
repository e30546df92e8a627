"""A worker that is a snap: a program of the machine itself with one file of settings, its builds in LXD, and not
started again when it ends.
"""

import pytest

from bot.core.command import sh
from bot.sandbox.installation import SHAPES, Installation, Shape, settled
from bot.sandbox.installation.faults import CannotBe, inject
from bot.sandbox.installation.worker import SNAP
from tests.installation.console import Console, pass_time, standing_still
from tests.installation.practice import Practice
from tests.installation.tripwires import Tripwires

PLATFORM, NAME = SHAPES[0], "worker-4"
SNAPS = (PLATFORM, Shape(NAME, "127.0.0.25", snap=True))
BUILDS = sh("lxc", "list", "travis-job-", "-c", "n", "--format", "csv").sudo()
STATE = sh("systemctl", "show", "travis-worker", "--property=ActiveState,NRestarts", "--value")


@pytest.fixture
def snap() -> Installation:
    return settled(standing_still(), SNAPS)


@pytest.fixture
def console(snap: Installation) -> Console:
    return Console(snap, NAME)


def test_its_builds_run_in_lxd_and_there_is_no_docker(snap: Installation, console: Console) -> None:
    snap.push(2, seconds=60)
    assert len(console.say(BUILDS).split()) == 2
    pass_time(snap, 61)
    assert console.say(BUILDS) == ""
    assert console.ask(sh("docker", "ps").sudo())[0].exit == 127
    assert snap.machine(NAME).unknown == []


def test_only_root_speaks_to_lxd(console: Console) -> None:
    said = console.ask(sh(*BUILDS.words))[0]
    assert (said.exit, "permission denied" in said.err) == (1, True)


def test_other_words_to_lxd_are_refused_aloud(snap: Installation, console: Console) -> None:
    assert console.ask(sh("lxc", "delete", "travis-job-1").sudo())[0].exit == 127
    assert snap.machine(NAME).unknown


@pytest.mark.parametrize("fault", ["was cut off by RabbitMQ", "has the wrong password", "cannot reach RabbitMQ"])
def test_it_ends_once_and_stays_ended(snap: Installation, console: Console, fault: str) -> None:
    inject(snap, f"{NAME} {fault}")
    pass_time(snap, 120)
    assert console.say(STATE).split() == ["0", "inactive"]


def test_its_one_file_is_what_it_reads(snap: Installation, console: Console) -> None:
    machine = snap.machine(NAME)
    assert not [path for path in machine.files if path.startswith("/etc/default/")]
    machine.write(SNAP, (machine.read(SNAP) or "").replace("builds.trusty", "builds.focal"))
    console.say(sh("systemctl", "restart", "travis-worker").sudo())
    pass_time(snap, 5)
    queue = snap.broker.queue("builds.focal")
    assert queue is not None
    assert len(queue.consumers) == 2


@pytest.mark.parametrize("fault", ["docker hangs", "has no run directory", "has its settings overridden"])
def test_it_has_nothing_of_docker_that_could_break(snap: Installation, fault: str) -> None:
    with pytest.raises(CannotBe, match="is a snap"):
        inject(snap, f"{NAME} {fault}")


def test_a_healthy_one_is_silent(travis_dsn: str, tripwires: Tripwires) -> None:
    practice = Practice(travis_dsn, SNAPS)
    with tripwires.across():
        report = practice.look()
    assert ([*map(str, report.findings)], report.unknown) == ([], ())
    assert practice.machines.unknown() == practice.machines.changes() == tripwires.tripped == []
