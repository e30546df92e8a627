"""Connections are kept, shared, noticed when dead, replaced once, and given back when idle."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from threading import Event as Flag

import pytest

from bot.adapters.ssh import Limits, Ssh
from bot.adapters.ssh.pool import Connection, Pool, Shell
from bot.core.command import sh
from bot.core.ports import NotSent
from bot.core.question import Output, Unanswered
from tests.adapters.ssh.fleet import Reach, only, target
from tests.rigs.sshd import HostSpec, Rig, sshd, wait_until

ONE = target("worker-1")
SOON = timedelta(seconds=20)


def logins(rig: Rig, name: str = "worker-1") -> int:
    return rig.said(name).count("Accepted publickey")


def asked(ssh: Ssh, *words: str) -> object:
    return only(ssh.ask(ONE, [sh(*words)], Flag()))


def test_a_connection_is_used_again(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        for _ in range(3):
            assert asked(ssh, "true") == Output(0)
        assert ssh.send(ONE, sh("true"), SOON, Flag()).ok
        assert logins(rig) == 1


def test_a_shell_answers_round_after_round(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        for no in range(3):
            assert asked(ssh, "echo", f"{no}") == Output(0, f"{no}\n")
        assert len(rig.received("worker-1")) == 1


def test_a_shell_that_ended_meanwhile_is_replaced(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        asked(ssh, "sh", "-c", "(sleep 0.2; kill -9 $(ps -o sid= -p $$)) >/dev/null 2>&1 &")
        time.sleep(0.6)
        assert asked(ssh, "echo", "hi") == Output(0, "hi\n")
        assert logins(rig) == 1


def test_a_resting_shell_makes_room_for_a_change(reach: Reach) -> None:
    with sshd(HostSpec("worker-1", config="MaxSessions 1")) as rig:
        ssh = reach(rig.hosts)
        assert asked(ssh, "true") == Output(0)
        assert ssh.send(ONE, sh("echo", "changed"), SOON, Flag()) == Output(0, "changed\n")
        assert asked(ssh, "true") == Output(0)


def test_what_a_program_says_later_reaches_no_other_question(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        asked(ssh, "sh", "-c", "(sleep 0.3; echo late) &")
        time.sleep(0.6)
        assert asked(ssh, "echo", "mine") == Output(0, "mine\n")


def test_a_dead_connection_is_replaced_before_anything_is_sent(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        asked(ssh, "true")
        rig.drop_connections("worker-1")
        assert ssh.send(ONE, sh("echo", "once"), SOON, Flag()) == Output(0, "once\n")
        rig.drop_connections("worker-1")
        assert asked(ssh, "echo", "hi") == Output(0, "hi\n")
        assert logins(rig) == 3
        assert len(rig.received("worker-1")) == 3


def test_questions_on_a_connection_that_dies_are_asked_once_more(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig, ThreadPoolExecutor(1) as thread:
        ssh = reach(rig.hosts)
        asking = thread.submit(ssh.ask, ONE, [sh("echo", "first"), sh("sleep", "1.7"), sh("echo", "last")], Flag())
        wait_until(lambda: rig.running("worker-1", "sleep 1.7") != [])
        rig.drop_connections("worker-1")
        assert asking.result(timeout=10) == [Output(0, "first\n"), Output(0), Output(0, "last\n")]
        first, second = rig.received("worker-1")
        assert "echo first" in first.stdin
        assert "echo first" not in second.stdin


def test_a_machine_that_dies_every_time_is_asked_twice_and_no_more(reach: Reach) -> None:
    die = "#!/bin/sh\nkill -9 $(ps -o ppid= -p $(ps -o sid= -p $$))\nsleep 9\n"
    with sshd(HostSpec("worker-1", programs={"die": die})) as rig:
        answer = asked(reach(rig.hosts), "die")
        assert isinstance(answer, Unanswered)
        assert "lost the connection" in answer.why
        assert len(rig.received("worker-1")) == 2


def test_fewer_sessions_than_threads_are_shared(reach: Reach) -> None:
    with sshd(HostSpec("worker-1", config="MaxSessions 1")) as rig, ThreadPoolExecutor(8) as threads:
        ssh = reach(rig.hosts)
        answers = list(threads.map(lambda no: asked(ssh, "sh", "-c", f"sleep 0.1; echo {no}"), range(8)))
        assert answers == [Output(0, f"{no}\n") for no in range(8)]
        assert logins(rig) == 1


def test_no_more_channels_are_opened_than_sshd_allows_by_default(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig, ThreadPoolExecutor(20) as threads:
        ssh = reach(rig.hosts)
        list(threads.map(lambda no: asked(ssh, "sleep", "0.2"), range(20)))
        assert "no more sessions" not in rig.said("worker-1")


def test_no_shell_is_closed_while_somebody_waits_for_one() -> None:
    many, enough, waiting = Limits().channels, Flag(), threading.Semaphore(0)
    with sshd(HostSpec("worker-1")) as rig, closing(Pool(Limits())) as pool, ThreadPoolExecutor(many) as threads:

        def one() -> AbstractContextManager[tuple[Connection, Shell]]:
            return pool.shell("worker-1", rig.hosts["worker-1"], Flag())

        def wait_for_one() -> None:
            with one() as (_, shell):
                shell.reusable = True
                waiting.release()
                assert enough.wait(10)

        with ExitStack() as held:
            shells = [held.enter_context(one()) for _ in range(many)]
            waiters = [threads.submit(wait_for_one) for _ in range(many)]
            wait_until(lambda: shells[0][0]._expected == many)
            for _, shell in shells:
                shell.reusable = True
        assert all(waiting.acquire(timeout=10) for _ in waiters)
        enough.set()
        assert [each.result(10) for each in waiters] == [None] * many
        assert rig.said("worker-1").count("Starting session") == many


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
def test_a_frozen_machine_is_given_up_before_anything_is_sent(reach: Reach, warm: bool) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts, login=0.7, open=0.7)
        if warm:
            asked(ssh, "true")
        before = len(rig.received())
        rig.freeze("worker-1")
        began = time.monotonic()
        with pytest.raises(NotSent, match="worker-1"):
            ssh.send(ONE, sh("touch", "/tmp/never"), SOON, Flag())
        assert time.monotonic() - began < 4
        rig.thaw("worker-1")
        assert asked(ssh, "echo", "thawed") == Output(0, "thawed\n")
        assert len(rig.received()) == before + 1


def test_a_machine_that_freezes_at_work_is_noticed_long_before_the_deadline(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig, ThreadPoolExecutor(1) as thread:
        ssh = reach(rig.hosts, probe_every=0.3, probe_within=0.7, login=0.5)
        sending = thread.submit(ssh.send, ONE, sh("sleep", "41723"), timedelta(seconds=90), Flag())
        wait_until(lambda: rig.running("worker-1", "sleep 41723") != [])
        rig.freeze("worker-1")
        began = time.monotonic()
        assert sending.result(timeout=10) == Output(None)
        assert time.monotonic() - began < 3


def test_a_silent_program_on_a_living_machine_is_left_in_peace(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts, probe_every=0.1, probe_within=0.5)
        assert ssh.send(ONE, sh("sh", "-c", "sleep 1.5; echo done"), SOON, Flag()) == Output(0, "done\n")


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts, idle=0.3, sweep=0.1)
        assert asked(ssh, "sleep", "1") == Output(0)
        assert logins(rig) == 1
        wait_until(lambda: rig.running("worker-1", "@notty") == [], 3)
        assert asked(ssh, "true") == Output(0)
        assert logins(rig) == 2


def test_closing_leaves_no_threads_and_no_descriptors(reach: Reach) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        before, others = descriptors(), set(threading.enumerate())
        ssh = reach(
            {f"worker-{no}": replace(rig.hosts["worker-1"], user=user) for no, user in enumerate(["ops", "nope"])}
        )
        for _ in range(3):
            ssh.ask(target("worker-0"), [sh("true")], Flag())
            ssh.ask(target("worker-1"), [sh("true")], Flag())
        ssh.close()
        wait_until(lambda: not threads(others), 3)
        wait_until(lambda: descriptors() <= before, 3)


def threads(others: set[threading.Thread]) -> list[str]:
    """Those of connections that were opened since."""
    own = set(threading.enumerate()) - others
    return [thread.name for thread in own if "ssh" in thread.name or "Tuned" in repr(thread)]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---------------------------------------------------------------- over a bastion


def test_a_machine_behind_a_bastion_is_reached_through_it(reach: Reach) -> None:
    with sshd(HostSpec("bastion"), HostSpec("worker-1"), HostSpec("worker-2")) as rig:
        bastion = rig.hosts["bastion"]
        ssh = reach({name: replace(rig.hosts[name], jump=bastion) for name in ("worker-1", "worker-2")})
        for name in ("worker-1", "worker-2"):
            assert only(ssh.ask(target(name), [sh("echo", name)], Flag())) == Output(0, f"{name}\n")
            assert ssh.send(target(name), sh("echo", name), SOON, Flag()) == Output(0, f"{name}\n")
        assert (logins(rig, "bastion"), logins(rig, "worker-1"), logins(rig, "worker-2")) == (1, 1, 1)
        assert rig.received("bastion") == []
        rig.power_off("bastion")
        with pytest.raises(NotSent, match="the jump host of worker-1"):
            ssh.send(ONE, sh("true"), SOON, Flag())


def test_a_bastion_that_forwards_nothing_is_named(reach: Reach) -> None:
    with sshd(HostSpec("bastion", config="AllowTcpForwarding no"), HostSpec("worker-1")) as rig:
        ssh = reach({"worker-1": replace(rig.hosts["worker-1"], jump=rig.hosts["bastion"])})
        answer = asked(ssh, "true")
        assert isinstance(answer, Unanswered)
        assert "the jump host of worker-1" in answer.why
        assert "cannot connect to 127.0.0.1:" in answer.why
        assert "AllowTcpForwarding" in answer.why


def test_the_key_of_a_machine_behind_a_bastion_is_checked(reach: Reach) -> None:
    with sshd(HostSpec("bastion"), HostSpec("worker-1")) as rig:
        jump = rig.hosts["bastion"]
        mine = rig.folder / "pinned-bastion"
        mine.write_text("".join(line for line in rig.known_hosts_lines() if f":{jump.port} " in line))
        ssh = reach({"worker-1": replace(rig.hosts["worker-1"], jump=jump, known_hosts=mine)})
        answer = asked(ssh, "true")
        assert isinstance(answer, Unanswered)
        assert answer.cause == "host-key-unknown"
        assert logins(rig) == 0
