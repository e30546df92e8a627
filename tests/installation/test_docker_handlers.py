"""What is wrong with Docker or with the pool of a worker, on the simulated machines: found, alone, and healed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event as Flag
from typing import Any

import pytest

from bot.core.finding import Finding
from bot.core.fix import Change, Fix, Wait
from bot.engine.rounds import Report
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import inject
from tests.installation.console import pass_time
from tests.installation.practice import CATALOGUE, Practice
from tests.installation.tripwires import Tripwires

LOOKED_WITH = (
    "docker hangs",
    "docker down",
    "docker too old",
    "docker api too new",
    "worker has orphaned containers",
    "worker lost part of its pool",
    "worker lost its canceller",
    "worker lost rabbitmq",
    "worker keeps ending",
    "worker stopped",
)
OURS = ("docker.", "worker.pool-shrunk", "worker.canceller-lost", "worker.orphan-containers")
BOTH = pytest.mark.parametrize("name", ["worker-1", "worker-3"])
BROKEN = [fault.name for fault in FAULTS.values() if (fault.cause or "").startswith(OURS)]
ODD = [
    "has a slow docker",
    "has an old docker that is still supported",
    "speaks the API of its new docker",
    "has run a build for 170 minutes",
    "is draining",
    "has nothing to do",
    "has just started",
    "runs builds",
    "does not start at boot",
]
# Which of the fixes that are offered, gentlest first, heals which fault; none where only a person can.
HEALS = {
    "docker hangs": [True],
    "hangs in docker with a stuck network": [True],
    "has no docker daemon": [True],
    "has a docker that is too old": [],
    "has a docker that wants a newer API": [True],
    "lost part of its pool": [True, True],
    "lost its canceller": [True, True],
    "has an orphaned build": [True],
    "was killed while builds ran": [True],
}
CASES = [(name, fault, no) for name in ("worker-1", "worker-3") for fault in HEALS for no in range(len(HEALS[fault]))]


class Docker(Practice):
    """Looks with the diagnoses of this file, and with those whose findings could be their consequences."""

    def look(self) -> Report:
        return self.diagnoser.look([CATALOGUE.diagnoses[name] for name in LOOKED_WITH], self.site, Flag())

    def carry_out_on(self, fix: Fix) -> bool:
        """The steps alone, without the time that passes after them."""
        self._target = fix.target
        return self.carry_out(fix.steps)

    def job(self, name: str, said: list[str]) -> str:
        """The sentence that ends a job; what it says on the way goes into `said`."""
        return self.diagnoser.planned(lambda look: CATALOGUE.jobs[name].work(Spoken(said), look), Flag())


@dataclass(frozen=True)
class Spoken:
    """The steps of a job that nothing is recorded of."""

    said: list[str]

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        return do()

    def say(self, text: str) -> None:
        self.said.append(text)

    def masked(self, text: str) -> tuple[str, Mapping[str, int]]:
        return text, {}

    def attach(self, name: str, files: Mapping[str, str], says: str) -> None:
        raise AssertionError("a table needs no archive")

    def findings(self) -> Sequence[str]:
        raise AssertionError("a table needs no diagnosis")


@pytest.fixture
def practice() -> Docker:
    """Without a database: none of this asks one."""
    return Docker()


def broken(practice: Docker, name: str, fault: str) -> Finding:
    """The one thing that is found wrong after the fault."""
    inject(practice.installation, f"{name} {fault}")
    pass_time(practice.installation, 300)
    [finding] = practice.findings()
    assert finding.target.name == name
    assert finding.cause == FAULTS[fault.lower()].cause
    return finding


def test_every_fault_of_ours_has_its_cure_here() -> None:
    assert set(BROKEN) == set(HEALS)


@BOTH
@pytest.mark.parametrize("fault", HEALS)
def test_it_is_found_and_only_that(practice: Docker, name: str, fault: str) -> None:
    finding = broken(practice, name, fault)
    assert len(finding.fixes) == len(HEALS[fault])
    assert finding.person or HEALS[fault], "what opsbot cannot mend, a person is told how to"
    assert practice.machines.unknown() == practice.machines.changes() == []


@pytest.mark.parametrize(("name", "fault", "no"), CASES)
def test_each_fix_heals_it(practice: Docker, tripwires: Tripwires, name: str, fault: str, no: int) -> None:
    with tripwires.across():
        finding = broken(practice, name, fault)
        assert practice.apply(finding.fixes[no]) == HEALS[fault][no]
        assert practice.findings() == []
    assert practice.machines.unknown() == tripwires.tripped == []


@BOTH
@pytest.mark.parametrize("fault", ODD)
def test_what_is_odd_is_not_called_broken(practice: Docker, name: str, fault: str) -> None:
    inject(practice.installation, f"{name} {fault}")
    for _ in range(3):
        pass_time(practice.installation, 60)
        assert practice.look().troubles() == ()


def test_a_saturated_installation_is_healthy(practice: Docker) -> None:
    inject(practice.installation, "platform-1 has builds on all its workers")
    assert practice.findings() == []


def test_a_worker_that_rabbitmq_lost_too_is_explained_by_its_docker(practice: Docker) -> None:
    inject(practice.installation, "worker-1 docker hangs")
    pass_time(practice.installation, 300)
    report = practice.look()
    assert {(found.finding.cause, found.under) for found in report.findings} == {
        ("docker.hung", ""),
        ("worker.amqp-lost", "docker.hung"),
    }
    assert report.unknown == ()


def test_a_docker_that_hangs_is_rebooted_only_where_the_worker_comes_back(practice: Docker) -> None:
    inject(practice.installation, "worker-1 does not start at boot")
    inject(practice.installation, "worker-1 docker hangs")
    [finding] = practice.findings()
    assert finding.fixes == ()
    assert "does not start at boot, and would stay down" in finding.person


def test_a_docker_that_hangs_is_named_when_the_platform_is_away(practice: Docker) -> None:
    inject(practice.installation, "worker-1 docker hangs")
    practice.installation.switch_off(practice.installation.platform)
    [finding] = [each for each in practice.findings() if each.cause == "docker.hung"]
    assert finding.fixes == ()
    assert "cannot prove that the worker is back" in finding.person


def test_the_kernels_reason_stands_beside_the_finding(practice: Docker) -> None:
    assert (
        "12 times `unregister_netdevice"
        in broken(practice, "worker-1", "hangs in docker with a stuck network").evidence
    )


@BOTH
def test_builds_that_were_put_back_are_the_evidence(practice: Docker, name: str) -> None:
    inject(practice.installation, f"{name} has a docker that wants a newer API")
    for other in {"worker-1", "worker-2", "worker-3"} - {name}:
        inject(practice.installation, f"{other} is stopped")
    practice.installation.push(1, seconds=3600)
    pass_time(practice.installation, 300)
    [finding] = [each for each in practice.findings() if each.cause == "docker.api-too-new"]
    assert "`couldn't start instance, attempting requeue`" in finding.evidence
    assert "client version 1.24 is too old" in finding.evidence
    assert practice.apply(finding.fixes[0])
    assert [each.cause for each in practice.findings() if each.target.name == name] == []
    assert any(container.name.startswith("travis-job-") for container in practice.installation.machine(name).containers)


def test_the_fresh_machine_gets_the_queue_of_the_old_one(practice: Docker) -> None:
    finding = broken(practice, "worker-1", "has a docker that is too old")
    assert "--travis_queue_name=builds.trusty --travis_build_images=trusty" in finding.person
    assert practice.installation.password not in finding.person


def test_only_the_orphans_are_removed(practice: Docker) -> None:
    inject(practice.installation, "worker-1 runs builds")
    inject(practice.installation, "worker-1 has an orphaned build")
    [finding] = practice.findings()
    machine = practice.installation.machine("worker-1")
    orphan = next(each for each in machine.containers if each.name.endswith("-3001"))
    [change] = [step for step in finding.fixes[0].steps if isinstance(step, Change)]
    assert str(change.command) == f"sudo -n docker rm -f {orphan.id[:12]}"
    assert finding.fixes[0].items == (orphan.id[:12],)
    before = [each.name for each in machine.containers]
    practice.carry_out_on(finding.fixes[0])
    assert [name for name in before if name not in [each.name for each in machine.containers]] == [orphan.name]


def test_how_many_builds_can_run(practice: Docker) -> None:
    said: list[str] = []
    inject(practice.installation, "platform-1 has builds waiting")
    sentence = practice.job("worker capacity", said)
    assert sentence == "6 builds can run at once, from 3 machines: worker-1, worker-2, worker-3."
    assert said == [
        "`queue          at once  machines  running  waiting`\n`builds.trusty        6         3        6        5`"
    ]


def test_what_waits_in_which_queue(practice: Docker) -> None:
    said: list[str] = []
    assert "3 cancel queues" in practice.job("queue statistics", said)
    assert "`builds.trusty              0        0          6`" in said[0]
    assert "amq.gen" not in said[0]


def test_the_jobs_are_known() -> None:
    assert {"worker capacity", "queue statistics"} <= CATALOGUE.jobs.keys()


@BOTH
@pytest.mark.parametrize("fault", ["lost part of its pool", "lost its canceller"])
def test_a_pool_is_back_when_all_of_it_is(practice: Docker, name: str, fault: str) -> None:
    """Some consumers were there all along, and nothing is said of a worker that has just started."""
    for fix in broken(practice, name, fault).fixes:
        [*_, back] = fix.steps
        assert isinstance(back, Wait)
        assert not back.until.met_by(practice.diagnoser.answer(back.fact, Flag()))
