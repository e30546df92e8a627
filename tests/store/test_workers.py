"""Processes that carry tasks: at once, to the end, one at a time, and handed over when they go."""

import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from bot.adapters.durable import Claim, Durable, Workers, clean_up, workers
from bot.adapters.store import Pool
from bot.core.errors import LeaseLost, Temporary
from bot.core.ports import Suspended

Eventually = Callable[..., None]
SECOND = timedelta(seconds=1)


class Crew:
    """Workers of several processes (as far as the database can tell), with what they carry."""

    def __init__(self, pool: Pool, durable: Durable) -> None:
        self.pool, self.durable = pool, durable
        self.all: list[Workers] = []
        self.errors: list[Exception] = []
        self._spawned = 0

    def start(self, carry: Callable[[Claim], None], lease: float = 30, **options: Any) -> Workers:
        options.setdefault("on_error", self.give_up)
        workers = Workers(self.pool, carry, lease=timedelta(seconds=lease), **options)
        workers.start()
        self.all.append(workers)
        return workers

    def spawn(self, **params: Any) -> str:
        self._spawned += 1
        with self.durable.transaction() as tx:
            return self.durable.spawn(tx, "order", params, f"k{self._spawned}") or ""

    def wake(self, task: str) -> None:
        with self.durable.transaction() as tx:
            self.durable.wake(tx, task)

    def give_up(self, claim: Claim, error: Exception) -> timedelta | None:
        self.errors.append(error)
        return None

    def states(self) -> Counter[str]:
        with self.pool.connection() as tx:
            return Counter(row["state"] for row in tx.execute("SELECT state FROM absurd.t_opsbot"))

    def finished(self, many: int) -> Callable[[], bool]:
        return lambda: self.states() == {"completed": many}


@pytest.fixture
def crew(pool: Pool, durable: Durable) -> Iterator[Crew]:
    crew = Crew(pool, durable)
    yield crew
    for each in crew.all:
        each.stop(patience=SECOND)
    ends = time.monotonic() + 15  # one that waited in the database ends when its statement does
    while ours := [thread for thread in threading.enumerate() if thread.name.startswith("opsbot-")]:
        assert time.monotonic() < ends, f"still alive: {ours}"
        time.sleep(0.05)


def sleep(claim: Claim) -> None:
    with claim.commit() as tx:
        claim.sleep(tx, None)
    raise Suspended


# ------------------------------------------------------------ carried


def test_a_spawn_is_served_at_once(crew: Crew, eventually: Eventually) -> None:
    delays: list[float] = []
    crew.start(lambda claim: delays.append(time.time() - claim.params["at"]))
    for no in range(1, 6):
        crew.spawn(at=time.time())
        eventually(lambda no=no: len(delays) == no)
        time.sleep(0.05)
    assert statistics.median(delays) < 0.2, "it listens; by polling it would be half a second"
    eventually(crew.finished(5))


def test_a_wake_is_served_at_once(crew: Crew, eventually: Eventually) -> None:
    carried: list[float] = []

    def carry(claim: Claim) -> None:
        carried.append(time.monotonic())
        if len(carried) < 6:
            sleep(claim)

    crew.start(carry)
    task = crew.spawn()
    delays = []
    for no in range(1, 6):
        eventually(lambda no=no: len(carried) == no and crew.states() == {"sleeping": 1})
        woken = time.monotonic()
        crew.wake(task)
        eventually(lambda no=no: len(carried) == no + 1)
        delays.append(carried[-1] - woken)
    assert statistics.median(delays) < 0.2
    eventually(crew.finished(1))


def test_a_sleep_ends_by_itself(crew: Crew, eventually: Eventually) -> None:
    carried: list[float] = []

    def carry(claim: Claim) -> None:
        carried.append(time.monotonic())
        if len(carried) == 1:
            claim.back_off(SECOND)
            raise Suspended

    crew.start(carry)
    crew.spawn()
    eventually(crew.finished(1))
    assert 0.9 < carried[1] - carried[0] < 3


def test_no_more_at_once_than_threads(crew: Crew, eventually: Eventually) -> None:
    running: Counter[str] = Counter()
    most: list[int] = []

    def carry(claim: Claim) -> None:
        running["now"] += 1
        most.append(running["now"])
        time.sleep(0.05)
        running["now"] -= 1

    for _ in range(12):
        crew.spawn()
    crew.start(carry, threads=3)
    eventually(crew.finished(12))
    assert max(most) == 3


def test_what_takes_long_holds_nothing_up(crew: Crew, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups stream for hours: a click must be decided meanwhile, with however few threads."""
    monkeypatch.setattr(workers, "LONG", 0.1)
    monkeypatch.setattr(workers, "POLL", 0.1)
    streams, going = threading.Event(), Counter[str]()

    def carry(claim: Claim) -> None:
        going[claim.params["is"]] += 1
        if claim.params["is"] == "backup":
            assert streams.wait(20)

    made = crew.start(carry, threads=1)
    for _ in range(workers.MOST + 1):
        crew.spawn(**{"is": "backup"})
    eventually(lambda: going["backup"] == workers.MOST)
    time.sleep(5 * (workers.LONG + workers.POLL))  # a fifth would have been claimed several times over
    assert made.busy == workers.MOST, "there is an end to it"
    streams.set()
    eventually(crew.finished(workers.MOST + 1))


def test_a_click_is_decided_while_backups_stream(
    crew: Crew, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "LONG", 0.3)
    streams, decided = threading.Event(), threading.Event()

    def carry(claim: Claim) -> None:
        if claim.params["is"] == "backup":
            assert streams.wait(20)
        else:
            decided.set()

    crew.start(carry, threads=1)
    crew.spawn(**{"is": "backup"})
    crew.spawn(**{"is": "click"})
    eventually(decided.is_set)
    streams.set()
    eventually(crew.finished(2))


def test_a_task_longer_than_its_lease_keeps_it(crew: Crew, eventually: Eventually) -> None:
    carried: list[bool] = []

    def carry(claim: Claim) -> None:
        time.sleep(2.5)
        carried.append(claim.abort.is_set())

    for _ in range(2):
        crew.start(carry, lease=1)
    crew.spawn()
    eventually(crew.finished(1))
    assert carried == [False]


def test_a_task_that_sleeps_and_wakes_in_its_own_commit_keeps_its_lease(crew: Crew, eventually: Eventually) -> None:
    """It is claimed again while the thread that slept is still on its way out."""
    carried: list[int] = []

    def carry(claim: Claim) -> None:
        carried.append(claim.attempt)
        if len(carried) < 20:
            with claim.commit() as tx:
                claim.sleep(tx, None)
            crew.wake(claim.task)
            time.sleep(0.02)
            raise Suspended
        time.sleep(2)

    crew.start(carry, lease=1)
    crew.spawn()
    eventually(crew.finished(1))
    assert carried == [1] * 20, "no takeover"


def test_a_task_that_is_woken_while_it_runs_hears_of_it(crew: Crew, eventually: Eventually) -> None:
    started, heard = threading.Event(), threading.Event()

    def carry(claim: Claim) -> None:
        started.set()
        assert heard.wait(5)

    crew.start(carry, woken=lambda claim: heard.set() if started.is_set() else None)
    task = crew.spawn()
    assert started.wait(10)
    begun = time.monotonic()
    crew.wake(task)
    assert heard.wait(5)
    assert time.monotonic() - begun < 0.5, "at once"
    eventually(crew.finished(1))


# ------------------------------------------------------------ errors


def test_an_error_backs_off_until_it_is_given_up(crew: Crew, eventually: Eventually) -> None:
    carried: list[float] = []
    tries: list[str] = []

    def carry(claim: Claim) -> None:
        carried.append(time.monotonic())
        raise ValueError("a bug")

    def on_error(claim: Claim, error: Exception) -> timedelta | None:
        tries.append(str(error))
        return None if len(tries) == 3 else timedelta(seconds=0.5)

    crew.start(carry, on_error=on_error)
    crew.spawn()
    eventually(crew.finished(1))
    assert tries == ["a bug"] * 3
    assert carried[1] - carried[0] > 0.45
    assert carried[2] - carried[1] > 0.45


def test_a_signal_that_nobody_took_is_an_error(crew: Crew, eventually: Eventually) -> None:
    """A lease that nobody gives back is taken over, and its task carried again, for ever."""

    class Signal(BaseException):
        pass

    def carry(claim: Claim) -> None:
        raise Signal("not asked yet")

    crew.start(carry)
    crew.spawn()
    eventually(crew.finished(1))
    assert [str(error) for error in crew.errors] == ["Signal came through: not asked yet"]


def test_an_error_about_an_error_is_tried_again_later(crew: Crew, eventually: Eventually) -> None:
    """Nothing of the process dies of it, and the task waits for its turn."""

    def carry(claim: Claim) -> None:
        raise ValueError("a bug")

    def on_error(claim: Claim, error: Exception) -> timedelta | None:
        raise KeyError("another bug")

    crew.start(carry, on_error=on_error)
    crew.spawn()
    eventually(lambda: crew.states() == {"sleeping": 1})


def test_a_wake_ends_a_back_off(crew: Crew, eventually: Eventually) -> None:
    carried: list[int] = []

    def carry(claim: Claim) -> None:
        carried.append(1)
        if len(carried) == 1:
            raise ValueError("a bug")

    crew.start(carry, on_error=lambda claim, error: timedelta(hours=1))
    task = crew.spawn()
    eventually(lambda: crew.states() == {"sleeping": 1})
    crew.wake(task)
    eventually(crew.finished(1))


def test_trouble_with_the_database_is_no_error_of_the_task(crew: Crew, eventually: Eventually) -> None:
    carried: list[int] = []

    def carry(claim: Claim) -> None:
        carried.append(claim.attempt)
        if len(carried) == 1:
            with claim.commit() as tx:
                tx.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    crew.start(carry)
    crew.spawn()
    eventually(crew.finished(1))
    assert carried == [1, 1]
    assert crew.errors == []


def test_an_error_of_the_world_is_one_of_the_task(crew: Crew, eventually: Eventually) -> None:
    def carry(claim: Claim) -> None:
        raise Temporary("Slack does not answer")

    crew.start(carry)
    crew.spawn()
    eventually(crew.finished(1))
    assert [str(error) for error in crew.errors] == ["Slack does not answer"]


@pytest.mark.parametrize("signal", [Suspended, LeaseLost])
def test_leaving_without_sleeping_comes_back(
    crew: Crew, eventually: Eventually, signal: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    carried: list[int] = []

    def carry(claim: Claim) -> None:
        carried.append(claim.attempt)
        if len(carried) == 1:
            raise signal("without a reason")

    crew.start(carry)
    crew.spawn()
    eventually(crew.finished(1))
    assert carried == [1, 1]
    assert crew.errors == []
    assert ("does not sleep" in caplog.text) == (signal is Suspended)


# ------------------------------------------------------------ taken over


def test_peers_go_on_when_a_lease_ends(crew: Crew, eventually: Eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what a killed process held is taken over within 1.2 leases, and none of it is lost.

    They know when that is, and do not find it out by polling.
    """
    monkeypatch.setattr("bot.adapters.durable.workers.POLL", 30.0)
    lease, first = 2.0, threading.Event()
    taken: dict[str, float] = {}

    def hang(claim: Claim) -> None:
        first.wait(30)
        raise LeaseLost("killed")

    def carry(claim: Claim) -> None:
        assert claim.attempt == 2
        taken[claim.task] = time.monotonic()

    killed = crew.start(hang, lease=lease)
    for _ in range(9):
        crew.spawn()
        time.sleep(0.1)
    eventually(lambda: killed.busy == 9)
    for _ in range(2):
        crew.start(carry, lease=lease)
    died = time.monotonic()
    killed.abandon()
    eventually(crew.finished(9))
    first.set()
    delays = [at - died for at in taken.values()]
    assert statistics.median(delays) <= 1.2 * lease, delays
    assert max(delays) <= 2 * lease, delays


def test_a_lease_that_cannot_be_extended_aborts_the_work(crew: Crew, eventually: Eventually) -> None:
    """Before a peer can have it: after two thirds of the lease, by this process' own clock."""
    aborted: list[float] = []

    def carry(claim: Claim) -> None:
        with crew.pool.connection() as tx:  # nobody can extend what somebody has locked
            tx.execute("LOCK TABLE absurd.r_opsbot IN ACCESS EXCLUSIVE MODE")
            since = time.monotonic()
            assert claim.abort.wait(10)
            aborted.append(time.monotonic() - since)
        raise LeaseLost("as every step does when it is told to stop")

    crew.start(carry, lease=3)
    crew.spawn()
    eventually(lambda: bool(aborted))
    assert 0.5 < aborted[0] < 2.8
    crew.all[0].stop()


def test_work_that_another_holds_is_told_to_stop(crew: Crew, eventually: Eventually) -> None:
    """By the next heartbeat, which is due long before the lease is in danger."""
    aborted = threading.Event()

    def carry(claim: Claim) -> None:
        if not aborted.is_set():
            with crew.pool.connection() as tx:
                tx.execute("UPDATE absurd.r_opsbot SET claimed_by = 'somebody else'")
            assert claim.abort.wait(3.2)
            aborted.set()
            raise LeaseLost("as every step does when it is told to stop")

    crew.start(carry, lease=6)
    crew.spawn()
    assert aborted.wait(10)
    with crew.pool.connection() as tx:  # the other one dies
        tx.execute("UPDATE absurd.r_opsbot SET claim_expires_at = now()")
    eventually(crew.finished(1))
    assert crew.errors == []


def test_two_hundred_tasks_survive_kill_after_kill(crew: Crew, eventually: Eventually) -> None:
    """Three processes, one of them killed three times a second. Every task ends, no recorded step is done again, and
    each effect is sent once, or asked about: the killed go on for a while, as who only lost its network does.
    """
    done: Counter[tuple[str, int]] = Counter()
    sent: Counter[str] = Counter()
    doubts: Counter[str] = Counter()
    with crew.pool.connection() as tx:
        tx.execute("DROP TABLE IF EXISTS sent; CREATE TABLE sent (task uuid PRIMARY KEY)")

    def carry(claim: Claim) -> None:
        for no in range(3):
            if claim.recorded(f"step {no}") is None:
                time.sleep(0.04)
                with claim.commit() as tx:
                    claim.record(tx, f"step {no}", no)
                done[claim.task, no] += 1
        if claim.recorded("sent") is None:
            _send_once(claim)

    def _send_once(claim: Claim) -> None:
        with claim.commit() as tx:
            fresh = tx.execute("INSERT INTO sent VALUES (%s) ON CONFLICT DO NOTHING", [claim.task]).rowcount
        if fresh:
            sent[claim.task] += 1
            time.sleep(0.01)
        else:
            doubts[claim.task] += 1
        with claim.commit() as tx:
            claim.record(tx, "sent", True)

    tasks = [crew.spawn() for _ in range(200)]
    alive = [crew.start(carry, lease=1, threads=4) for _ in range(3)]
    kills = 0
    while crew.states() != {"completed": 200}:
        assert kills < 60
        time.sleep(0.3)
        alive.pop(0).abandon()
        alive.append(crew.start(carry, lease=1, threads=4))
        kills += 1
    assert kills >= 5
    assert set(done.values()) == {1}, "a step that was recorded is never done again"
    assert len(done) == 600
    assert set(sent) == set(tasks)
    assert set(sent.values()) == {1}
    assert crew.errors == []


# ------------------------------------------------------------ handed over


def test_drain_hands_over_at_once(crew: Crew, eventually: Eventually) -> None:
    """Not after the lease: a peer goes on as soon as the work was told to stop and stopped."""
    went_on = threading.Event()
    started = threading.Event()

    def work(claim: Claim) -> None:
        started.set()
        assert claim.abort.wait(10)
        raise Temporary("stopped in the middle of a command")

    leaving = crew.start(work)
    crew.spawn()
    assert started.wait(10)
    crew.start(lambda claim: went_on.set())
    begun = time.monotonic()
    assert leaving.drain(grace=timedelta(seconds=0.2))
    assert went_on.wait(5)
    assert time.monotonic() - begun < 2
    eventually(crew.finished(1))
    assert crew.errors == [], "a drain is no error"


def test_drain_lets_finish_what_is_nearly_done(crew: Crew) -> None:
    aborted: list[bool] = []
    started = threading.Event()

    def work(claim: Claim) -> None:
        started.set()
        time.sleep(0.4)
        aborted.append(claim.abort.is_set())

    workers = crew.start(work)
    crew.spawn()
    assert started.wait(10)
    assert workers.drain(grace=timedelta(seconds=10))
    assert aborted == [False]
    assert crew.states() == {"completed": 1}
    crew.spawn()
    time.sleep(0.3)
    assert crew.states() == {"completed": 1, "pending": 1}, "it claims nothing more"


@pytest.mark.parametrize("hurried", [False, True])
def test_a_change_under_way_ends_before_its_process_does(crew: Crew, eventually: Eventually, hurried: bool) -> None:
    """Looking stops at once; a change is waited for, unless somebody cannot wait."""
    cut: dict[str, Any] = {}
    going = threading.Barrier(3)
    begun = 0.0

    def work(claim: Claim) -> None:
        going.wait(10)
        if claim.params["no"] == 0:
            assert claim.abort.wait(10)
            cut["look"] = time.monotonic() - begun
            raise LeaseLost("told to stop")
        with claim.changing():
            cut["change was cut"] = claim.abort.wait(1)
        assert claim.abort.wait(10), "nothing after it is begun"
        raise LeaseLost("told to stop")

    leaving = crew.start(work)
    crew.spawn(no=0)
    crew.spawn(no=1)
    going.wait(10)
    begun = time.monotonic()
    timer = threading.Timer(0.2, leaving.hurry)
    if hurried:
        timer.start()
    leaving.drain(timedelta(), changes=timedelta(seconds=30))
    assert cut["look"] < 0.5
    assert cut["change was cut"] is hurried
    assert time.monotonic() - begun < 5


def test_drain_gives_back_what_hangs(crew: Crew, eventually: Eventually) -> None:
    started, hang, over = threading.Event(), threading.Event(), threading.Event()
    lost: list[str] = []

    def work(claim: Claim) -> None:
        started.set()
        hang.wait(20)
        try:
            with claim.commit() as tx:
                claim.record(tx, "late", True)
        except LeaseLost as error:
            lost.append(str(error))
        over.set()

    leaving = crew.start(work)
    crew.spawn()
    assert started.wait(10)
    recorded: list[object] = []
    crew.start(lambda claim: recorded.append(claim.recorded("late")))
    assert not leaving.drain(grace=timedelta(), patience=timedelta(seconds=0.2))
    eventually(crew.finished(1))
    hang.set()
    assert over.wait(5)
    assert len(lost) == 1
    assert recorded == [None]


def test_old_tasks_are_forgotten(crew: Crew, pool: Pool, eventually: Eventually) -> None:
    crew.start(lambda claim: None)
    for _ in range(3):
        crew.spawn()
    eventually(crew.finished(3))
    assert clean_up(pool) == 0
    with pool.connection() as tx:
        tx.execute("UPDATE absurd.r_opsbot SET completed_at = completed_at - interval '40 days'")
    assert clean_up(pool) == 3
    assert crew.states() == {}
