"""What handlers ask and tell the platform's database, on real PostgreSQL with the schemas of 2.2 and 3.0."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from threading import Event as Flag
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location, Way
from bot.core.command import Command
from bot.core.fact import Fact
from bot.core.fix import Change, Fix, Risk, Wait
from bot.core.plan import Plan, narrows, plan_from_json
from bot.core.ports import Unreached
from bot.core.question import Answer, Output, Question, Rows, Unanswered
from bot.core.sql import Statement
from bot.core.target import Role, Site, Target
from bot.sandbox.installation.database import TravisDatabase
from handlers.toolbox import jobs, sidekiq, sync

T = TypeVar("T")
PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")
SITE = Site("prod", "travis.example.com", "2.2", (PLATFORM,))
HOUR = 3600.0


class Nobody:
    """Stands for the machines: the database is reached directly."""

    def ask(self, target: Target, questions: Any, abort: Flag) -> list[Answer | Unanswered]:
        raise AssertionError(f"{target} was asked")

    def identity(self, target: Target) -> str:
        return target.name

    def send(self, target: Target, command: Any, within: timedelta, abort: Flag) -> Output:
        raise AssertionError(f"{target} was told")

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        raise Unreached("nobody is there")


class Platform:
    """A Travis database, and opsbot's own way of asking and telling it."""

    def __init__(self, dsn: str, version: str) -> None:
        self.travis = TravisDatabase(dsn, version)
        self.travis.reset()
        places = {("prod", "main"): Location(Way.DIRECT, dsn, dsn)}
        self.database = Database(places, Nobody(), Containers(Nobody()))

    def __call__(self, fact: Fact[T]) -> T:
        (said,) = self.database.ask(PLATFORM, [fact.question], Flag())
        assert isinstance(said, Rows), said
        return fact.parse(said)

    def tell(self, statement: Statement) -> Output:
        return self.database.execute(PLATFORM, statement, timedelta(seconds=30), Flag())

    def states(self) -> dict[int, str]:
        return {row["id"]: row["state"] for row in self.travis.run("SELECT id, state FROM jobs ORDER BY id")}


@pytest.fixture(params=["2.2", "3.0"])
def platform(database: str, request: pytest.FixtureRequest) -> Platform:
    return Platform(database, request.param)


# ---------------------------------------------------------------- jobs


def test_jobs_are_counted_by_queue_and_state_with_ages_in_utc(platform: Platform) -> None:
    platform.travis.add_job("queued", None, 900)
    platform.travis.add_job("queued", "builds.trusty", 60)
    platform.travis.add_job("queued", "builds.trusty", 7200)
    platform.travis.add_job("started", "builds.trusty", 300)
    platform.travis.add_job("created", None, 9000)
    seen = {(each.queue, each.state): each for each in platform(jobs.standings())}
    assert {key: each.jobs for key, each in seen.items()} == {
        ("", "created"): 1, ("", "queued"): 1, ("builds.trusty", "queued"): 2, ("builds.trusty", "started"): 1,
    }  # fmt: skip
    assert near(seen["builds.trusty", "queued"].waited, 7200)
    assert near(seen["builds.trusty", "started"].began, 300)
    assert seen["", "created"].waited is None


def near(span: timedelta | None, seconds: float) -> bool:
    return span is not None and abs(span.total_seconds() - seconds) < 60


@pytest.mark.parametrize("zone", ["America/Los_Angeles", "Asia/Tokyo"])
def test_ages_do_not_depend_on_the_server_s_time_zone(platform: Platform, database: str, zone: str) -> None:
    platform.travis.add_job("queued", "builds.trusty", 120)
    name = platform.travis.run("SELECT current_database() AS name")[0]["name"]
    platform.travis.run(f"ALTER DATABASE {name} SET timezone = '{zone}'")
    (seen,) = platform(jobs.standings())
    assert near(seen.waited, 120)
    assert platform(jobs.long_queued()) == ()


def test_long_queued_are_those_of_over_an_hour_and_up_to_90_minutes_tell_nothing(platform: Platform) -> None:
    platform.travis.add_job("queued", "builds.trusty", 59 * 60)
    platform.travis.add_job("queued", None, 3 * HOUR)
    platform.travis.add_job("started", "builds.trusty", 3 * HOUR)
    old = platform.travis.add_job("queued", "builds.trusty", 91 * 60)
    orphan = platform.travis.add_job("queued", "builds.gpu", 4 * HOUR, repository_id=999)
    assert [(job.id, job.repo) for job in platform(jobs.long_queued())] == [(orphan, ""), (old, "octo-org/rockets")]


def test_a_reset_is_about_exactly_its_jobs_and_lets_the_scheduler_see_them(platform: Platform) -> None:
    lost = [platform.travis.add_job("queued", "builds.trusty", 3 * HOUR) for _ in range(3)]
    platform.travis.run("INSERT INTO queueable_jobs (job_id) VALUES (%s)", lost[0])
    other = platform.travis.add_job("queued", "builds.trusty", 3 * HOUR)
    before = platform.states()
    assert platform.tell(jobs.reset_statement(tuple(lost))).ok
    assert platform.states() == before | dict.fromkeys(lost, "created")
    waiting = platform.travis.run("SELECT job_id FROM queueable_jobs ORDER BY job_id")
    assert [row["job_id"] for row in waiting] == lost
    [row] = platform.travis.run("SELECT queued_at, worker, queue FROM jobs WHERE id = %s", lost[0])
    assert row == {"queued_at": None, "worker": None, "queue": "builds.trusty"}
    assert not platform(jobs.still_queued(",".join(map(str, lost))))
    assert platform(jobs.still_queued(str(other)))


def test_a_reset_does_nothing_when_one_of_its_jobs_has_started(platform: Platform) -> None:
    lost = [platform.travis.add_job("queued", "builds.trusty", 3 * HOUR) for _ in range(2)]
    platform.travis.run("UPDATE jobs SET state = 'started' WHERE id = %s", lost[1])
    before = platform.states()
    assert not platform.tell(jobs.reset_statement(tuple(lost))).ok
    assert platform.states() == before
    assert platform.travis.run("SELECT * FROM queueable_jobs") == []


def test_a_cancel_ends_exactly_its_jobs_and_the_builds_that_have_no_other(platform: Platform) -> None:
    alone, last, one, other = (platform.travis.add_job("queued", "builds.trusty", 3 * HOUR) for _ in range(4))
    done = platform.travis.add_job("passed", "builds.trusty", 3 * HOUR)
    platform.travis.run("INSERT INTO queueable_jobs (job_id) VALUES (%s), (%s)", one, other)
    builds = [in_build(platform, *each) for each in ((alone,), (last, done), (one, other))]
    before = platform.states()
    assert platform.tell(jobs.cancel_statement((alone, last, one))).ok
    assert platform.states() == before | dict.fromkeys((alone, last, one), "canceled")
    states = platform.travis.run("SELECT state FROM builds WHERE id = ANY(%s) ORDER BY id", builds)
    assert [row["state"] for row in states] == ["canceled", "canceled", "started"]
    assert platform.travis.run("SELECT job_id FROM queueable_jobs") == [{"job_id": other}]
    times = platform.travis.run("SELECT finished_at, canceled_at FROM jobs WHERE id = %s", alone)[0]
    assert times["finished_at"] == times["canceled_at"] is not None


def in_build(platform: Platform, *numbers: int) -> int:
    """A build of these jobs that has begun; its id."""
    made = "INSERT INTO builds (repository_id, state, created_at, updated_at) VALUES (1, 'started', now(), now())"
    [build] = platform.travis.run(f"{made} RETURNING id")
    move = "UPDATE jobs SET source_id = %s, source_type = 'Build' WHERE id = ANY(%s)"
    platform.travis.run(move, build["id"], list(numbers))
    return int(build["id"])


def test_a_cancel_does_nothing_when_one_of_its_jobs_has_started(platform: Platform) -> None:
    lost = [platform.travis.add_job("queued", "builds.trusty", 3 * HOUR) for _ in range(2)]
    platform.travis.run("UPDATE jobs SET state = 'started' WHERE id = %s", lost[1])
    before = platform.states()
    assert not platform.tell(jobs.cancel_statement(tuple(lost))).ok
    assert platform.states() == before


def test_what_is_saved_of_a_job_says_how_it_was(platform: Platform) -> None:
    number = platform.travis.add_job("queued", "builds.trusty", 3 * HOUR)
    saved = platform(jobs.as_they_are(str(number)))
    assert saved.startswith(f"id={number} queue=builds.trusty queued_at=20")


def test_a_job_counts_as_taken_up_once_it_is_queued_again(platform: Platform) -> None:
    one, two = (platform.travis.add_job(state, None, 60) for state in ("created", "queued"))
    assert platform(jobs.taken_up(f"{one},{two}")) == 1


# ---------------------------------------------------------------- users


def syncing(platform: Platform, *logins: str) -> list[int]:
    rows = platform.travis.run("UPDATE users SET is_syncing = true WHERE login = ANY(%s) RETURNING id", list(logins))
    return sorted(row["id"] for row in rows)


def test_no_mark_and_null_are_not_syncing(platform: Platform) -> None:
    assert platform(sync.syncing()) == ()
    syncing(platform, "ada", "nils")
    ada, nils = platform(sync.syncing())
    assert (ada.login, nils.login, nils.synced_at) == ("ada", "nils", "")
    assert ada.synced_at.startswith("20")


def test_the_members_of_every_organization_are_seen(platform: Platform) -> None:
    syncing(platform, "rui", "sam")
    assert [(user.organization, user.login) for user in platform(sync.members())] == [
        ("acme", "sam"),
        ("octo-org", "rui"),
    ]


def test_only_the_named_users_lose_their_mark_and_it_can_be_given_back(platform: Platform) -> None:
    ids = syncing(platform, "ada", "nils", "rui")
    fix = sync.release(PLATFORM, [user for user in platform(sync.syncing()) if user.login != "rui"], "2.2")
    everybody = "SELECT id, login, is_syncing, synced_at FROM users ORDER BY id"
    before = platform.travis.run(everybody)
    [clear] = [each.command for each in fix.changes() if isinstance(each.command, Statement)]
    assert platform.tell(clear).ok
    after = platform.travis.run(everybody)
    assert [new["login"] for old, new in zip(before, after, strict=True) if old != new] == ["ada", "nils"]
    assert [user.id for user in platform(sync.syncing())] == [ids[1]]
    platform.travis.run(fix.undo)
    assert platform.travis.run(everybody) == before


def test_nobody_loses_the_mark_when_one_of_them_has_lost_it_already(platform: Platform) -> None:
    ids = syncing(platform, "ada", "nils")
    platform.travis.run("UPDATE users SET is_syncing = false WHERE id = %s", ids[0])
    assert not platform.tell(sync.clear(tuple(ids))).ok
    assert [user.id for user in platform(sync.syncing())] == [ids[1]]


def test_only_a_sync_that_ended_after_they_were_seen_is_counted(platform: Platform) -> None:
    """One that ended a minute before the order proves nothing about it."""
    platform.travis.run("UPDATE users SET synced_at = now() - interval '1 minute', is_syncing = true WHERE id <> 3")
    platform.travis.run("UPDATE users SET synced_at = NULL, is_syncing = true WHERE id = 3")
    seen = ",".join(user.as_seen for user in platform(sync.syncing()))
    assert platform(sync.ended_since(seen)) == 0
    platform.travis.run("UPDATE users SET synced_at = now() WHERE id IN (2, 3)")
    assert platform(sync.ended_since(seen)) == 2


# ---------------------------------------------------------------- what must never be said


USERS = some.builds(sync.User, some.integers(1, 10**6), some.text(max_size=45), some.just(""))
JOBS = some.builds(jobs.Job, some.integers(1, 10**9), some.just("builds.x"), some.just(""), some.just(timedelta()))


@given(some.lists(USERS, min_size=1, max_size=30), some.sampled_from(["2.1.7", "2.2", "3.0"]))
def test_no_user_is_synced_or_released_who_is_not_named(users: list[sync.User], version: str) -> None:
    for change in sync.release(PLATFORM, users, version).changes():
        if isinstance(change.command, Statement):
            ids = tuple(sorted({user.id for user in users}))
            assert (change.command.parameters, change.command.rows) == ((ids,), len(ids))
        else:
            assert isinstance(change.command, Command)
            *before, last = change.command.words
            assert before == ["replicated", "admin", "--no-tty", "sync_users"]
            login = str(last).removeprefix("--logins=")
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", login)
            assert login in {user.login for user in users}


@pytest.mark.parametrize("login", ["", "a,b", "-x", "--all", "a b", "a;b", "é", "a" * 40])
def test_no_order_to_sync_without_a_login(login: str) -> None:
    with pytest.raises(ValueError, match="login"):
        sync.sync_user(login)


@pytest.mark.parametrize("statement", [sync.clear, jobs.reset_statement, jobs.cancel_statement])
def test_no_statement_without_ids(statement: Callable[[tuple[int, ...]], Statement]) -> None:
    with pytest.raises(ValueError, match=r"jobs|users"):
        statement(())


def test_many_are_handled_in_batches_and_each_names_its_own() -> None:
    users = [sync.User(no, "", "") for no in range(1, 2501)]
    lost = [jobs.Job(no, "builds.x", "", timedelta(hours=2)) for no in range(1, 501)]
    assert batches(sync.release(PLATFORM, users, "3.0")) == [(1, 1000, 1000), (1001, 2000, 1000), (2001, 2500, 500)]
    for make in (jobs.reset, jobs.cancel):
        fix = make(PLATFORM, lost)
        assert batches(fix) == [(1, 200, 200), (201, 400, 200), (401, 500, 100)]
        assert fix.title.endswith("500 queued jobs in 3 batches")
        assert len(fix.items) == 500
    with pytest.raises(ValueError, match="1000"):
        sync.clear(tuple(range(1001)))
    with pytest.raises(ValueError, match="200"):
        jobs.reset_statement(tuple(range(201)))


def batches(fix: Fix) -> list[tuple[int, int, int | None]]:
    """First id, last id and promised rows of each statement; what it is needed for names the same ids."""
    found = []
    for change in fix.changes():
        assert isinstance(change.command, Statement)
        assert change.needed is not None
        assert change.needed.ref is not None
        [ids] = change.command.parameters
        assert isinstance(ids, tuple)
        assert change.needed.ref.arguments == (",".join(map(str, ids)),)
        assert list(ids) == list(range(ids[0], ids[-1] + 1))  # type: ignore[arg-type, operator]
        found.append((ids[0], ids[-1], change.command.rows))
    return found  # type: ignore[return-value]


def test_a_batch_that_is_no_longer_needed_is_left_out_of_what_was_agreed() -> None:
    lost = [jobs.Job(no, "builds.x", "", timedelta(hours=2)) for no in range(4001, 4501)]
    assert narrows(jobs.reset(PLATFORM, lost[:450]), jobs.reset(PLATFORM, lost))
    assert narrows(jobs.reset(PLATFORM, lost[:400]), jobs.reset(PLATFORM, lost))
    assert not narrows(jobs.cancel(PLATFORM, lost[:400]), jobs.reset(PLATFORM, lost))


@given(some.lists(JOBS, min_size=1, max_size=20), some.lists(USERS, min_size=1, max_size=20))
def test_plans_survive_being_stored_and_read_the_same_a_minute_later(
    lost: list[jobs.Job], users: list[sync.User]
) -> None:
    later = [jobs.Job(job.id, job.queue, job.repo, job.waited + timedelta(minutes=1)) for job in lost]
    for fix, again in (
        (jobs.reset(PLATFORM, lost), jobs.reset(PLATFORM, list(reversed(later)))),
        (sync.release(PLATFORM, users, "2.2"), sync.release(PLATFORM, users, "2.2")),
        (sidekiq.clear_archive(PLATFORM, "4f", "sidekiq:"), sidekiq.clear_archive(PLATFORM, "4f", "sidekiq:")),
    ):
        plan = Plan((fix,))
        assert plan_from_json(plan.to_json(), SITE).digest == plan.digest == Plan((again,)).digest


def test_a_fix_waits_for_what_proves_it_and_says_what_it_risks() -> None:
    lost = [jobs.Job(7, "builds.x", "", timedelta(hours=2))]
    for fix in (jobs.reset(PLATFORM, lost), sync.release(PLATFORM, [sync.User(7, "ada", "")], "2.2")):
        assert (fix.risk, bool(fix.undo), bool(fix.saves)) == (Risk.DATA, True, True)
        assert isinstance(fix.steps[-1], Wait)
        assert first(fix).needed is not None


def first(fix: Fix) -> Change:
    return next(fix.changes())


@pytest.mark.parametrize(
    ("version", "old"),
    [
        ("2.1.7", True),
        ("2.0.1", True),
        ("2.1.8", False),
        ("2.1", False),
        ("2.2", False),
        ("2.2.1", False),
        ("3.0", False),
    ],
)
def test_only_versions_up_to_2_1_7_have_an_archive_queue_that_nothing_reads(version: str, old: bool) -> None:
    assert sidekiq.has_archive(version) == old


@pytest.mark.parametrize(
    ("queue", "syncs"),
    [("sync", True), ("sync.low", True), ("user_sync", True), ("repo_sync", False), ("syncer", False)],
)
def test_which_queues_are_about_users(queue: str, syncs: bool) -> None:
    assert sidekiq.sync_depth(sidekiq.Sidekiq("", {queue: 7})) == (7 if syncs else 0)


def test_a_question_is_always_the_same_text_so_that_samples_are_found() -> None:
    made: list[Callable[[], Question]] = [
        lambda: jobs.long_queued().question, lambda: sync.syncing().question, lambda: sync.members().question,
        lambda: sidekiq.depth("sidekiq:", "sync").question,
    ]  # fmt: skip
    assert [str(make()) for make in made] == [str(make()) for make in made]
    assert all(make().__class__.__name__ in ("Query", "RedisRead") for make in made)
