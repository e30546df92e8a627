"""The whole situation: somebody says in Slack that builds do not start, another one approves, the worker heals."""

import time
from datetime import timedelta

import pytest

from bot.core.outcome import Outcome
from tests.e2e.opsbot import Opsbot
from tests.rigs.worker import POOL, Installation

QUESTION = "diagnose worker lost rabbitmq"


def sent(prod: Installation, name: str) -> list[str]:
    """The changes that a machine got, without the bounds around them and without the cleaning up after a unit."""
    told = (line.partition(" timeout -k 2 ")[2].partition(" ")[2] for line in prod.changes(name))
    return [line.rpartition(" -- ")[2] for line in told if " opsbot-" not in line.partition("systemd-run")[0]]


def test_a_lost_worker_is_drained_and_restarted_after_a_second_person_agreed(
    prod: Installation, opsbot: Opsbot
) -> None:
    prod.order_builds(2 * POOL)
    prod.worker_1.wait_for_builds(POOL)
    prod.worker_1.tell_worker("lose")
    prod.wait_for_consumers("worker-1", 0)
    lost = prod.worker_1.worker.pid

    thread = opsbot.ask("ana", QUESTION)
    plan = opsbot.plan(thread)
    story = "\n".join(message.all_text for message in opsbot.slack.driver.thread(thread))
    assert "worker-1 is running, but RabbitMQ sees no consumer from it" in story
    assert "RabbitMQ sees consumers from 1 machine and 1 cancel queue" in story
    assert "Drain and restart travis-worker" in plan.all_text

    opsbot.press("ana", plan, "approve")
    opsbot.told_alone("ana", "did not count")
    assert prod.changes("worker-1") == []
    assert opsbot.run().outcome is None

    opsbot.press("bo", plan, "approve")
    prod.worker_1.wait_for_log("SIGUSR2")
    time.sleep(1.5)  # in which it looks at the builds a few times
    assert sent(prod, "worker-1") == ["docker kill -s USR2 travis-worker"]
    for machine in (prod.worker_1, prod.worker_2):
        machine.tell_worker("finish")
    assert opsbot.ended().outcome is Outcome.FIXED
    assert opsbot.decisions() == [("approve", "U0BO")]
    assert prod.worker_1.worker.pid not in (0, lost)
    assert prod.consumers("worker-1") == POOL
    assert sent(prod, "worker-1") == ["docker kill -s USR2 travis-worker", "systemctl restart travis-worker"]
    assert prod.changes("worker-2") == prod.changes("platform-1") == []
    assert prod.waiting_builds() == 0, "RabbitMQ gave the lost worker's builds to the other one"
    # Its running builds came to their end before it was restarted.
    log = prod.worker_1.logged("SIGUSR2", "finished job", "SIGTERM", "worker started")
    assert log == ["worker started", "SIGUSR2", *["finished job"] * POOL, "SIGTERM", "worker started"]


def test_on_ubuntu_14_04_the_same_is_done_in_upstarts_words(prod: Installation, opsbot: Opsbot) -> None:
    prod.worker_2.tell_worker("lose")
    prod.wait_for_consumers("worker-2", 0)
    lost = prod.worker_2.worker.pid

    plan = opsbot.plan(opsbot.ask("ana", QUESTION))
    opsbot.press("cy", plan, "approve")
    assert opsbot.ended().outcome is Outcome.FIXED
    assert prod.worker_2.worker.pid not in (0, lost)
    assert prod.consumers("worker-2") == POOL
    assert sent(prod, "worker-2") == [f"kill -s USR2 {lost}", "restart travis-worker"]
    assert prod.changes("worker-1") == prod.changes("platform-1") == []


@pytest.mark.timeout(300)  # three plans, two of them with a wait that has to fail
def test_when_milder_fixes_do_not_help_each_next_one_is_approved_anew(
    prod: Installation, opsbot: Opsbot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.toolbox.recovery.BACK_WITHIN", timedelta(seconds=4))
    prod.worker_1.stuck = True
    prod.worker_1.tell_worker("lose")
    prod.wait_for_consumers("worker-1", 0)
    before = prod.worker_1.boot_id

    thread = opsbot.ask("ana", QUESTION)
    titles = ("Drain and restart travis-worker", "Restart travis-worker", "Reboot the worker machine")
    for number, title in enumerate(titles, 1):
        plan = opsbot.plan(thread, number)
        assert title in plan.all_text
        opsbot.press("bo", plan, "approve")
    assert opsbot.ended().outcome is Outcome.FIXED
    assert prod.worker_1.boot_id != before
    assert prod.consumers("worker-1") == POOL
    assert opsbot.decisions() == [("approve", "U0BO")] * len(titles)
    assert sent(prod, "worker-1") == [
        "docker kill -s USR2 travis-worker",
        "systemctl restart travis-worker",
        "systemctl restart travis-worker",
        "shutdown -r now",
    ]
    assert prod.changes("worker-2") == prod.changes("platform-1") == []
