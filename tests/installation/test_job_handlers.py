"""Jobs, queues, syncs and Sidekiq on the simulated machines: each fault is named, each fix heals, what only looks odd
raises no alarm.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Event as Flag
from typing import Any

import pytest

from bot.core.errors import Refused, Unknown
from bot.core.finding import Finding, Severity
from bot.core.look import Look
from bot.core.sql import Statement
from bot.engine.rounds import Report
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS, Fault, jobs, sidekiq, sync
from tests.installation.practice import CATALOGUE, Practice
from tests.installation.tripwires import Tripwires

MODULES = {module.__name__ for module in (jobs, sync, sidekiq)}
OWN = [each for each in FAULTS.values() if each.apply.__module__ in MODULES]
BROKEN = [each for each in OWN if each.cause]
ODD = [each for each in OWN if each.cause == SUSPICIOUS]
HEALED_BY_FIX = ["lost the messages of queued jobs", "has users stuck in syncing"]
LOOKS = tuple(
    f"handlers.{name}"
    for name in ("jobs_", "queue_", "users_", "organizations_", "sidekiq_", "broker_", "worker_stopped")
)
OURS = ("jobs.", "queue.", "capacity.", "users.", "orgs.", "sidekiq.")


class Jobs(Practice):
    """Looks with the diagnoses that are about jobs, and those that can explain them."""

    def look(self) -> Report:
        diagnoses = [each for each in CATALOGUE.diagnoses.values() if each.look.__module__.startswith(LOOKS)]
        report = self.diagnoser.look(diagnoses, self.site, Flag())
        self.samples.keep(report)
        return report

    def at_version(self, version: str) -> None:
        self.diagnoser = replace(self.diagnoser, site=replace(self.site, version=version))


@pytest.fixture
def practice(travis_dsn: str) -> Jobs:
    return Jobs(travis_dsn)


def named(fault: Fault) -> str:
    return fault.name


def causes(practice: Jobs) -> set[str]:
    """Everything of ours that is found, the consequences too."""
    found = {each.finding.cause for each in practice.look().findings}
    return {cause for cause in found if cause.startswith(OURS)}


@pytest.mark.parametrize("fault", BROKEN, ids=named)
def test_each_fault_is_named_by_two_looks_a_quarter_of_an_hour_apart(
    practice: Jobs, tripwires: Tripwires, fault: Fault
) -> None:
    with tripwires.across():
        practice.inject(f"platform-1 {fault.name}")
        practice.look()
        practice.pass_time(15 * 60)
        assert fault.cause in causes(practice)
    assert practice.machines.changes() == practice.machines.unknown() == tripwires.tripped == []


def test_more_builds_than_workers_is_said_and_no_fault(practice: Jobs) -> None:
    practice.inject("platform-1 has builds waiting")
    practice.pass_time(60)
    [finding] = [each.finding for each in practice.look().findings if each.finding.cause.startswith(OURS)]
    assert (finding.cause, finding.severity) == ("capacity.saturated", Severity.INFO)
    assert practice.findings() == []
    practice.pass_time(70 * 60)
    assert causes(practice) == set()


@pytest.mark.parametrize("fault", ODD, ids=named)
def test_what_only_looks_odd_raises_no_alarm(practice: Jobs, tripwires: Tripwires, fault: Fault) -> None:
    with tripwires.across():
        practice.inject(f"platform-1 {fault.name}")
        for _ in range(4):
            assert causes(practice) == set()
            practice.pass_time(5 * 60)
    assert practice.machines.unknown() == tripwires.tripped == []


@pytest.mark.parametrize("name", HEALED_BY_FIX)
def test_the_fix_heals_and_writes_to_nobody_else(practice: Jobs, name: str) -> None:
    before = untouched(practice)
    practice.inject(f"platform-1 {name}")
    practice.look()
    practice.pass_time(15 * 60)
    [finding] = [each for each in practice.findings() if each.fixes]
    assert practice.apply(finding.fixes[0])
    practice.look()
    practice.pass_time(20 * 60)
    assert causes(practice) == set()
    assert untouched(practice) == before


def untouched(practice: Jobs) -> list[object]:
    """What no fault and no fix here is about."""
    database = practice.installation.database
    assert database is not None
    people = database.run("SELECT id, is_syncing, synced_at FROM users WHERE login NOT IN ('sam', 'nils') ORDER BY id")
    return [*people, *database.run("SELECT id, state, queued_at FROM jobs WHERE id <= 3062 ORDER BY id")]


def test_reset_jobs_are_queued_once_more_and_run(practice: Jobs) -> None:
    practice.inject("platform-1 lost the messages of queued jobs")
    finding = found(practice, "jobs.stuck-queued")
    assert practice.apply(finding.fixes[0])
    practice.pass_time(15 * 60)
    assert states(practice, finding) == {"passed"}


def test_released_users_are_synced_again_and_nobody_else_is(practice: Jobs) -> None:
    practice.inject("platform-1 has users stuck in syncing")
    finding = found(practice, "users.sync-stuck")
    assert practice.apply(finding.fixes[0])
    orders = [text for text in practice.machines.changes() if "sync_users" in text]
    assert [order.rpartition("=")[2] for order in orders] == ["sam", "nils"]


def test_a_sync_that_ended_before_it_was_ordered_proves_nothing(practice: Jobs) -> None:
    """Somebody was synced a minute ago; what is ordered now is never carried out, since nobody works it off."""
    jobs.database_of(practice.installation).run("UPDATE users SET synced_at = now() WHERE login = 'ada'")
    practice.pass_time(60)
    practice.installation.app.services["travis-github-sync"].stop()
    assert not practice.apply(practice.order("resync", "platform-1", "ada"))


@pytest.mark.parametrize("login", ["ada", "Ada"])
def test_a_user_who_is_not_marked_is_synced_and_no_mark_is_touched(practice: Jobs, login: str) -> None:
    practice.inject("platform-1 has users stuck in syncing")
    fix = practice.order("resync", "platform-1", login)
    assert [str(each) for each in fix.changes()] == ["Sync ada again"]
    assert practice.apply(fix)
    rows = jobs.database_of(practice.installation).run("SELECT login FROM users WHERE is_syncing ORDER BY login")
    assert [row["login"] for row in rows] == ["nils", "sam"]


def test_the_mark_of_a_stuck_user_is_taken_before_the_sync(practice: Jobs) -> None:
    practice.inject("platform-1 has users stuck in syncing")
    fix = practice.order("resync", "platform-1", "sam")
    assert [str(each) for each in fix.changes()] == ["Take the mark `is_syncing` away", "Sync sam again"]
    assert practice.apply(fix)


def test_nobody_takes_the_mark_of_a_sync_that_sidekiq_has_in_hand(practice: Jobs) -> None:
    practice.inject("platform-1 syncs a user with very many repositories")
    with pytest.raises(Refused, match="in hand or waiting"):
        practice.order("resync", "platform-1", "rui")
    assert practice.machines.changes() == []


def test_nobody_takes_the_mark_of_a_sync_that_waits_for_its_turn(practice: Jobs) -> None:
    jobs.database_of(practice.installation).run(sync.MARK, ["rui"])
    job = {"class": "Travis::GithubSync::Worker", "args": ["sync_user", {"user_id": 3}], "queue": "sync"}
    practice.installation.redis.lists["sidekiq:queue:sync"] = [json.dumps(job)]
    with pytest.raises(Refused, match="in hand or waiting"):
        practice.order("resync", "platform-1", "rui")
    practice.installation.redis.lists["sidekiq:queue:sync"] = [json.dumps(job | {"args": [{"user_id": 33}]})]
    assert practice.order("resync", "platform-1", "rui").steps
    practice.installation.redis.push("user_sync", 300)
    with pytest.raises(Unknown, match="ask again later"):
        practice.order("resync", "platform-1", "rui")


def test_only_while_old_travis_has_it_the_archive_queue_is_cleared(practice: Jobs) -> None:
    practice.inject("platform-1 keeps an archive queue")
    assert found(practice, "sidekiq.archive-growing").fixes == ()
    practice.at_version("2.1.7")
    finding = found(practice, "sidekiq.archive-growing")
    assert practice.apply(finding.fixes[0])
    assert practice.installation.redis.depth("archive") < 100


def test_a_queue_without_worker_is_explained_by_all_its_workers_or_not_at_all(practice: Jobs) -> None:
    for worker in ("worker-1", "worker-2", "worker-3"):
        practice.inject(f"{worker} is stopped")
    jobs.database_of(practice.installation).add_job("queued", "builds.trusty", 900)
    assert under(practice, "queue.no-consumers") == "worker.stopped"
    practice.inject("platform-1 has jobs for a queue without worker")
    practice.installation.worker("worker-1").unit.start()
    practice.pass_time(300)
    assert under(practice, "queue.no-consumers") == "worker.stopped"  # the other two might be xenial's


def test_one_stopped_worker_does_not_explain_a_queue_that_others_listen_to(practice: Jobs) -> None:
    practice.inject("platform-1 has jobs for a queue without worker")
    assert under(practice, "queue.no-consumers") == ""


def test_jobs_are_not_called_lost_while_reports_wait(practice: Jobs) -> None:
    practice.inject("platform-1 lost the messages of queued jobs")
    practice.inject("platform-1 has no hub drain")
    practice.look()
    practice.pass_time(15 * 60)
    report = practice.look()
    assert all(not each.finding.fixes for each in report.findings if each.finding.cause == "jobs.stuck-queued")


def test_statistics_tell_the_depths_and_what_waits(practice: Jobs) -> None:
    practice.inject("platform-1 falls behind in Sidekiq")
    practice.inject("platform-1 does not route jobs")
    practice.inject("platform-1 tries some Sidekiq jobs again")
    steps = Steps()
    ended = practice.diagnoser.planned(lambda look: steps.run("sidekiq statistics", look), Flag())
    queues, sets, states = steps.said
    assert queues.splitlines()[1].startswith("scheduler: 4")
    assert ended.startswith(sets)
    assert sets.startswith("6 Sidekiq processes; 3 in retry, 0 in schedule, 0 in dead.")
    assert "queued on no queue yet: 2" in states


class Steps:
    """What a job gets, kept in memory."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def run(self, name: str, look: Look) -> str:
        self.said.clear()
        return CATALOGUE.jobs[name].work(self, look)

    def step(self, name: str, do: Callable[[], Any]) -> Any:
        return do()

    def say(self, text: str) -> None:
        self.said.append(text)

    def masked(self, text: str) -> tuple[str, Mapping[str, int]]:
        return text, {}

    def attach(self, name: str, files: Mapping[str, str], says: str) -> None:
        raise AssertionError(f"{name} was attached")

    def findings(self) -> Sequence[str]:
        return ()


def found(practice: Jobs, cause: str) -> Finding:
    practice.look()
    practice.pass_time(15 * 60)
    [finding] = [each.finding for each in practice.look().findings if each.finding.cause == cause]
    return finding


def under(practice: Jobs, cause: str) -> str:
    [reason] = [each.under for each in practice.look().findings if each.finding.cause == cause]
    return reason


def states(practice: Jobs, finding: Finding) -> set[str]:
    [reset] = [each.command for each in finding.fixes[0].changes()]
    assert isinstance(reset, Statement)
    database = jobs.database_of(practice.installation)
    rows = database.run("SELECT state FROM jobs WHERE id = ANY(%s)", list(reset.parameters[0]))  # type: ignore[arg-type]
    return {row["state"] for row in rows}
