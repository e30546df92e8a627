"""Many questions over one connection, each with its own answer, and what becomes of those that get none."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event as Flag
from threading import Timer

import pytest

from bot.adapters.ssh import Host, Ssh
from bot.core.command import Command, Secret, sh
from bot.core.question import Answer, Output, TcpProbe, Unanswered
from tests.adapters.ssh.fleet import MACHINES, Reach, only, target
from tests.rigs.sshd import LOGINS, HostSpec, Rig, sshd, wait_until


@pytest.mark.parametrize("machine", MACHINES)
def test_all_questions_are_answered_in_one_request(ssh: Ssh, rig: Rig, abort: Flag, machine: str) -> None:
    before = len(rig.received(machine))
    asked = [sh("echo", "a'b"), sh("sh", "-c", "echo out; echo err >&2; exit 3"), sh("printf", "x") | sh("cat", "-")]
    assert ssh.ask(target(machine), asked, abort) == [Output(0, "a'b\n"), Output(3, "out\n", "err\n"), Output(0, "x")]
    assert len(rig.received(machine)) == before + 1


def test_only_commands_are_asked_over_ssh(ssh: Ssh, abort: Flag) -> None:
    probe, command = ssh.ask(target(MACHINES[0]), [TcpProbe("127.0.0.1", 22), sh("echo", "hi")], abort)
    assert isinstance(probe, Unanswered)
    assert command == Output(0, "hi\n")


def test_a_secret_is_never_asked(ssh: Ssh, rig: Rig, abort: Flag) -> None:
    before = len(rig.received())
    answer = only(ssh.ask(target(MACHINES[0]), [sh("printf", Secret("password")) | sh("cat")], abort))
    assert answer == Unanswered("printf '<secret password>' | cat cannot be asked over SSH.")
    assert len(rig.received()) == before


def test_no_questions_reach_no_machine(ssh: Ssh, abort: Flag) -> None:
    assert ssh.ask(target("nowhere"), [], abort) == []


def test_a_machine_without_an_address_says_so(ssh: Ssh, abort: Flag) -> None:
    answer = only(ssh.ask(target("nowhere"), [sh("id")], abort))
    assert answer == Unanswered("nowhere cannot be reached: the configuration has no SSH address for it.")
    assert "no SSH address" in ssh.identity(target("nowhere"))


def test_a_long_answer_is_cut_and_costs_no_other(rig: Rig, reach: Reach, abort: Flag) -> None:
    asked = [
        sh("echo", "short"),
        sh("head", "-c", "3000000", "/dev/zero"),
        sh("sh", "-c", "head -c 3000000 /dev/zero >&2; echo said"),
        sh("echo", "next"),
    ]
    short, long, loud, after = reach(rig.hosts, answer=1000).ask(target(MACHINES[0]), asked, abort)
    assert (short, after) == (Output(0, "short\n"), Output(0, "next\n"))
    assert long == Output(0, "\0" * 1000, truncated=True)
    assert loud == Output(0, "said\n", "\0" * 1000, truncated=True)


def test_a_machine_that_never_stops_talking_is_cut_off(rig: Rig, reach: Reach, abort: Flag) -> None:
    asked = [sh("echo", "first"), sh("yes", "81723"), sh("echo", "next")]
    first, flood, after = reach(rig.hosts, stream=1 << 20).ask(target(MACHINES[0]), asked, abort)
    assert first == Output(0, "first\n")
    assert isinstance(flood, Unanswered)
    assert "said more than 1 MiB" in flood.why
    assert isinstance(after, Unanswered)
    wait_until(lambda: rig.running(MACHINES[0], "yes 81723") == [])


def test_what_is_no_text_is_replaced_and_letters_are_never_torn(ssh: Ssh, abort: Flag) -> None:
    asked = [sh("printf", r"\377\376 ok"), sh("sh", "-c", "yes é | head -n 200000")]
    broken, many = ssh.ask(target(MACHINES[0]), asked, abort)
    assert broken == Output(0, "\ufffd\ufffd ok")
    assert many == Output(0, "é\n" * 200_000)


def test_a_question_past_its_time_costs_only_itself(rig: Rig, reach: Reach, abort: Flag) -> None:
    slow, after = reach(rig.hosts, program=1).ask(target(MACHINES[0]), [sh("sleep", "60"), sh("echo", "next")], abort)
    assert (slow, after) == (Output(None), Output(0, "next\n"))


def test_a_round_past_its_time_keeps_what_was_answered(rig: Rig, reach: Reach, abort: Flag) -> None:
    asked = [sh("echo", "first"), sh("sleep", "71723"), sh("echo", "next")]
    first, slow, after = reach(rig.hosts, ask=0.7).ask(target(MACHINES[0]), asked, abort)
    assert first == Output(0, "first\n")
    assert slow == after == Unanswered(f"{MACHINES[0]} did not answer all questions within 0.7 s.")
    wait_until(lambda: rig.running(MACHINES[0], "sleep 71723") == [])


@pytest.mark.parametrize("machine", MACHINES)
def test_stopping_ends_the_question_here_and_there(ssh: Ssh, rig: Rig, abort: Flag, machine: str) -> None:
    ssh.ask(target(machine), [sh("true")], abort)
    began = time.monotonic()
    Timer(0.4, abort.set).start()
    asked = [sh("echo", "first"), sh("sh", "-c", "sleep 71724 & sleep 71724"), sh("sleep", "71724")]
    first, slow, after = ssh.ask(target(machine), asked, abort)
    assert time.monotonic() - began < 0.4 + 0.4
    assert first == Output(0, "first\n")
    assert slow == after == Unanswered(f"{machine} was not asked to the end: the run was stopped.")
    wait_until(lambda: rig.running(machine, "sleep 71724") == [])


def test_a_run_that_was_stopped_asks_nothing(rig: Rig, reach: Reach, abort: Flag) -> None:
    abort.set()
    before = len(rig.received())
    answer = only(reach(rig.hosts).ask(target(MACHINES[0]), [sh("id")], abort))
    assert isinstance(answer, Unanswered)
    assert "stopped" in answer.why
    assert len(rig.received()) == before


def test_more_questions_than_fit_one_request_are_split(ssh: Ssh, abort: Flag) -> None:
    asked = [sh("printf", "%s", f"{no}" * 20_000) for no in range(9)]
    assert ssh.ask(target(MACHINES[0]), asked, abort) == [Output(0, f"{no}" * 20_000) for no in range(9)]


def test_a_background_program_that_holds_the_stream_keeps_nobody_waiting(ssh: Ssh, abort: Flag) -> None:
    began = time.monotonic()
    assert only(ssh.ask(target(MACHINES[0]), [sh("sh", "-c", "sleep 8 & echo started")], abort)) == Output(
        0, "started\n"
    )
    assert time.monotonic() - began < 3


def test_many_threads_share_one_login(rig: Rig, reach: Reach, abort: Flag) -> None:
    ssh, machine = reach(rig.hosts), MACHINES[0]
    before = rig.said(machine).count("Accepted publickey")

    def ask(no: int) -> list[Answer | Unanswered]:
        return ssh.ask(target(machine), [sh("sh", "-c", f"sleep 0.1; echo {no}")], abort)

    with ThreadPoolExecutor(24) as threads:
        answers = [only(answer) for answer in threads.map(ask, range(24))]
    assert answers == [Output(0, f"{no}\n") for no in range(24)]
    assert rig.said(machine).count("Accepted publickey") == before + 1


# ---------------------------------------------------------------- what sudo refuses

REFUSALS = {
    "asks for a password": "ops ALL=(root) /usr/bin/id",
    "knows no such user": "",
    "allows other programs": "ops ALL=(root) NOPASSWD: /usr/bin/true",
}


def denied(host: Host, reach: Reach, command: Command) -> Unanswered:
    answer, other = reach({"worker-1": host}).ask(target("worker-1"), [command, sh("echo", "still")], Flag())
    assert other == Output(0, "still\n")
    assert isinstance(answer, Unanswered)
    return answer


if "root" in LOGINS:  # Debian's own sudo needs a second account, which only root's namespaces have

    @pytest.mark.parametrize("why", REFUSALS)
    def test_a_refusal_of_real_sudo_is_a_cause_of_its_own(reach: Reach, why: str) -> None:
        with sshd(HostSpec("worker-1", sudoers=REFUSALS[why])) as rig:
            answer = denied(rig.hosts["worker-1"], reach, sh("cat", "/etc/shadow").sudo())
        assert answer.cause == "sudo-denied"
        assert "sudo on worker-1 refuses `sudo -n cat /etc/shadow`" in answer.why

    def test_the_rule_for_a_question_names_its_program_and_its_bound(reach: Reach) -> None:
        rule = r"ops ALL=(root) NOPASSWD: /usr/bin/timeout -k 2 20 id -u"
        with sshd(HostSpec("worker-1", sudoers=rule)) as rig:
            ssh = reach(rig.hosts)
            allowed, other = ssh.ask(target("worker-1"), [sh("id", "-u").sudo(), sh("id").sudo()], Flag())
        assert allowed == Output(0, "0\n")
        assert isinstance(other, Unanswered)
        assert other.cause == "sudo-denied"


@pytest.fixture(scope="module")
def old_sudo() -> Iterator[Rig]:
    """A machine whose sudo says its last word and fails."""
    with sshd(HostSpec("worker-1", programs={"sudo": '#!/bin/sh\nshift $(($# - 1))\necho "$1" >&2\nexit 1\n'})) as rig:
        yield rig


@pytest.mark.parametrize(
    "said",
    [
        "sudo: a password is required",
        "sudo: no tty present and no askpass program specified",
        "sudo: sorry, you must have a tty to run sudo",
        "ops is not in the sudoers file.  This incident will be reported.",
        "Sorry, user ops is not allowed to execute '/bin/cat /etc/shadow' as root on worker-1.",
        "Sorry, user ops may not run sudo on worker-1.",
    ],
)
def test_refusals_of_other_versions_of_sudo_are_known(old_sudo: Rig, reach: Reach, said: str) -> None:
    answer = denied(old_sudo.hosts["worker-1"], reach, sh("cat", said).sudo())
    assert answer.cause == "sudo-denied"
    assert said in answer.why


def test_a_program_that_fails_under_sudo_was_not_refused(ssh: Ssh, abort: Flag) -> None:
    failed = only(ssh.ask(target(MACHINES[0]), [sh("sh", "-c", "echo 'no such unit' >&2; exit 1").sudo()], abort))
    assert failed == Output(1, "", "no such unit\n")
