"""Every diagnosis, and every fix of every handler, against the simulated machines: what heals, what does not, and that
nothing unknown is asked and nothing reaches the host.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event as Flag

import pytest

import handlers
from bot.core.errors import Refused
from bot.core.finding import Finding
from bot.core.target import Role
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS, Fault
from tests.installation.practice import CATALOGUE, Practice
from tests.installation.tripwires import Tripwires

WORKERS = ("worker-1", "worker-3")  # systemd, upstart
HANDLERS = "".join(path.read_text() for path in Path(handlers.__file__).parent.glob("*.py"))


def test_a_healthy_installation_is_silent(practice: Practice, tripwires: Tripwires) -> None:
    with tripwires.across():
        assert practice.findings() == []
    assert practice.machines.unknown() == tripwires.tripped == []
    assert practice.machines.changes() == []


@pytest.mark.parametrize("name", WORKERS)
@pytest.mark.parametrize("fault", ["lost RabbitMQ", "lost RabbitMQ until it reboots", "is stopped"])
def test_a_broken_worker_is_found_and_only_that(practice: Practice, name: str, fault: str) -> None:
    practice.inject(f"{name} {fault}")
    practice.pass_time(300)
    [finding] = practice.findings()
    assert finding.target.name == name
    assert finding.fixes
    assert practice.machines.changes() == []


@pytest.mark.parametrize("fault", ["has just started", "is behind NAT", "runs builds"])
def test_what_is_not_lost_is_not_called_lost(practice: Practice, fault: str) -> None:
    practice.inject(f"worker-1 {fault}")
    assert [finding.cause for finding in practice.findings()] == []


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_behind_nat_is_lost_when_its_own_socket_says_so(practice: Practice, name: str) -> None:
    practice.inject(f"{name} is behind NAT")
    practice.inject("worker-2 is behind NAT")
    practice.inject(f"{name} lost RabbitMQ")
    assert [(finding.cause, finding.target.name) for finding in practice.findings()] == [("worker.amqp-lost", name)]


def test_a_worker_that_keeps_ending_is_named_in_every_second(practice: Practice) -> None:
    """Between two tries by its state, and while it tries by systemd's count of its restarts."""
    practice.inject("worker-1 has no docker endpoint")
    practice.pass_time(200)
    states = set()
    for _ in range(9):
        practice.pass_time(1)
        states.add(practice.installation.machine("worker-1").units["travis-worker"].active)
        assert [finding.cause for finding in practice.findings()] == ["worker.crash-loop"]
    assert states == {"active", "deactivating"}


def test_a_worker_that_kept_ending_is_silent_once_somebody_has_restarted_it(practice: Practice) -> None:
    practice.inject("worker-1 has no docker endpoint")
    practice.pass_time(200)
    file = practice.installation.machine("worker-1").files["/etc/default/travis-worker"]
    file.text = file.text.replace("# TRAVIS_WORKER_DOCKER_ENDPOINT=", "export TRAVIS_WORKER_DOCKER_ENDPOINT=")
    practice.installation.machine("worker-1").units["travis-worker"].restart()
    practice.pass_time(10)
    for _ in range(9):
        practice.pass_time(1)
        assert practice.findings() == []


# Which of the fixes that are offered, gentlest first, heals which fault.
HEALS = {
    "lost RabbitMQ": [True, True, True],
    "lost RabbitMQ until it reboots": [False, False, True],
    "is stopped": [True],
}
CASES = [(name, fault, no) for name in WORKERS for fault, heals in HEALS.items() for no in range(len(heals))]


@pytest.mark.parametrize(("name", "fault", "no"), CASES)
def test_each_fix_heals_what_it_should(
    practice: Practice, tripwires: Tripwires, name: str, fault: str, no: int
) -> None:
    with tripwires.across():
        practice.inject(f"{name} {fault}")
        practice.pass_time(300)
        [finding] = practice.findings()
        fixes = finding.fixes
        assert len(fixes) == len(HEALS[fault])
        done = practice.apply(fixes[no])
        healed = not any(each.key == finding.key for each in practice.findings())
    assert done == HEALS[fault][no]
    # On 14.04 a worker that cannot connect ends and starts again: it looks freshly started, not lost.
    assert healed == done or (name, done) == ("worker-3", False)
    assert practice.machines.unknown() == tripwires.tripped == []


@pytest.mark.parametrize("name", WORKERS)
def test_a_drain_lets_the_builds_finish(practice: Practice, name: str) -> None:
    practice.inject(f"{name} runs builds")
    practice.inject(f"{name} lost RabbitMQ")
    [finding] = practice.findings()
    before = practice.installation.timeline.now()
    assert practice.apply(finding.fixes[0])
    assert practice.installation.timeline.now() - before > 100  # the builds take two minutes
    assert practice.findings() == []


PREPARED = {  # what has to be wrong before an action has something to do
    "start": "{} is stopped",
    "reset lost jobs": "platform-1 lost the messages of queued jobs",
    "end lost jobs": "platform-1 lost the messages of queued jobs",
}
ARGUMENTS = {"resync": "ada"}
ORDERS = [
    pytest.param(name, each.name, id=f"{each.name} {name}")
    for each in CATALOGUE.actions.values()
    if each.takes != "backup"  # a person's work for the most part: tests/handlers/test_restore.py
    for name in (WORKERS if each.each is Role.WORKER else ("platform-1",))
]


@pytest.mark.parametrize(("name", "action"), ORDERS)
def test_every_action_can_be_carried_out(practice: Practice, tripwires: Tripwires, name: str, action: str) -> None:
    if action in PREPARED:
        practice.inject(PREPARED[action].format(name))
    with tripwires.across():
        assert practice.apply(practice.order(action, name, ARGUMENTS.get(action, "")))
        proofs = CATALOGUE.about(CATALOGUE.actions[action].proof)
        assert practice.diagnoser.look(proofs, practice.site, Flag()).troubles() == ()
    assert practice.machines.changes()
    assert practice.machines.unknown() == tripwires.tripped == []


@pytest.mark.parametrize("name", WORKERS)
def test_a_stopped_worker_is_started_by_restart_as_well(practice: Practice, name: str) -> None:
    """upstart's own `restart` knows no instance of what is stopped."""
    target = practice.site.find(name)
    assert target is not None
    practice.inject(f"{name} is stopped")
    fix = practice.diagnoser.planned(lambda look: CATALOGUE.actions["restart"].fix(look, target), Flag())
    assert fix.title == "Start travis-worker"
    assert practice.apply(fix)
    assert practice.findings() == []
    with pytest.raises(Refused, match="is not stopped"):
        practice.diagnoser.planned(lambda look: CATALOGUE.actions["start"].fix(look, target), Flag())


def test_a_machine_that_is_a_platform_too_is_not_rebooted_by_name(practice: Practice) -> None:
    target = practice.site.find("worker-1")
    assert target is not None
    practice.installation.machine("worker-1").write("/etc/replicated.conf", "{}\n")
    with pytest.raises(Refused, match="has a platform on it as well"):
        practice.diagnoser.planned(lambda look: CATALOGUE.actions["reboot"].fix(look, target), Flag())


def places(fault: Fault) -> tuple[str, ...]:
    return WORKERS if fault.role is Role.WORKER else ("platform-1",)


PLACES = [pytest.param(name, each, id=f"{name} {each.name}") for each in FAULTS.values() for name in places(each)]
RESTARTS = (1,) * 8  # seconds: a worker that ends is started again after five
PROVOKED: dict[str, set[str]] = {}  # diagnosis -> the faults that it found


def seen(practice: Practice, fault: Fault) -> list[Finding]:
    """What a fault makes of two looks with a quarter of an hour between them.

    A worker that keeps ending looks different from second to second, so there the first look is taken several times.
    """
    practice.pass_time(200)
    for seconds in (*RESTARTS, 900) if (fault.cause or "").startswith("worker.") else (1, 900):
        practice.pass_time(seconds)
        report = practice.look()
        for found in report.findings:
            PROVOKED.setdefault(found.by, set()).add(fault.name)
        named = [found.finding for found in report.findings if found.finding.cause == fault.cause]
        if named:
            return named
    return [found.finding for found in report.troubles()] if fault.cause == SUSPICIOUS else []


@pytest.mark.parametrize(("name", "fault"), PLACES)
def test_each_fault_is_called_by_its_cause_and_healed(
    practice: Practice, tripwires: Tripwires, name: str, fault: Fault
) -> None:
    """By one of the fixes that are offered, gentlest first as the engine tries them; what has none is a person's."""
    if practice.installation.machine(name).release in fault.harmless_on:
        fault = replace(fault, cause=SUSPICIOUS)
    with tripwires.across():
        practice.inject(f"{name} {fault.name}")
        found = seen(practice, fault)
        assert practice.machines.changes() == []
        if fault.cause == SUSPICIOUS:
            assert found == []
        elif fault.cause and f'"{fault.cause}"' in HANDLERS:
            assert found
        assert heals(practice, found)
    assert practice.machines.unknown() == tripwires.tripped == []


def heals(practice: Practice, found: Sequence[Finding]) -> bool:
    fixes = list(found[0].fixes) if found else []
    for fix in fixes:
        practice.apply(fix)
        if not any(each.key == found[0].key for each in practice.findings()):
            return True
    return not fixes


def test_every_diagnosis_finds_some_fault() -> None:
    """A handler for which there is no fault is not practised: add one to faults/ that makes it speak."""
    of_opsbot_itself = {"backup overdue"}  # its own record, and no state of any machine
    assert CATALOGUE.diagnoses.keys() - PROVOKED.keys() == of_opsbot_itself
