"""A change reaches the machine at most once, shows no secret there, and says honestly how it ended."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event as Flag

import pytest

from bot.adapters.ssh import Host, Ssh
from bot.core import wire
from bot.core.command import Command, Secret, sh
from bot.core.ports import NotSent
from bot.core.question import Output
from tests.adapters.ssh.fleet import MACHINES, PASSWORD, Reach, target
from tests.rigs.sshd import EVERYTHING, LOGINS, ROOT, HostSpec, Rig, sshd, wait_until

SOON = timedelta(seconds=20)
LONG = timedelta(seconds=100)


@contextmanager
def meanwhile(send: Callable[[], Output]) -> Iterator[Future[Output]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(send)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_change_is_made_and_tells_how_it_ended(ssh: Ssh, abort: Flag, machine: str) -> None:
    done = ssh.send(target(machine), sh("sh", "-c", "echo out; echo err >&2; exit 7"), SOON, abort)
    assert done == Output(7, "out\n", "err\n")
    assert ssh.send(target(machine), sh("false") | sh("cat"), SOON, abort) == Output(1)


@pytest.mark.parametrize("login", LOGINS)
def test_a_change_under_sudo_is_made_by_root(reach: Reach, abort: Flag, login: str) -> None:
    whoami = "#!/bin/sh\nid -u\ntest -t 1 && echo a terminal\nread -r line || echo nothing to read\n"
    with sshd(HostSpec("worker-1", login, programs={"whoami": whoami})) as rig:
        done = reach(rig.hosts).send(target("worker-1"), sh("whoami").sudo(), SOON, abort)
    root = 0 if ROOT else os.geteuid()  # an ordinary user's sudo is pretended
    assert done == Output(0, f"{root}\nnothing to read\n")


@pytest.mark.parametrize("machine", MACHINES)
def test_the_status_is_never_lost_on_the_way(ssh: Ssh, abort: Flag, machine: str) -> None:
    command = sh("sh", "-c", "exit 7").sudo()  # `script -e` said 0 in half of these
    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda _: ssh.send(target(machine), command, SOON, abort), range(18)))
    assert [output.exit for output in done] == [7] * 18


if ROOT:  # Debian's own sudo needs a second account, which only root's namespaces have

    def test_a_rule_names_the_words_of_a_change_and_digits_for_its_bound(reach: Reach, abort: Flag) -> None:
        rule = "ops ALL=(root) NOPASSWD: /usr/bin/timeout -k 2 [0-9][0-9] id -u"
        with sshd(HostSpec("worker-1", sudoers=rule)) as rig:
            ssh = reach(rig.hosts)
            assert ssh.send(target("worker-1"), sh("id", "-u").sudo(), SOON, abort) == Output(0, "0\n")
            for command, within in (
                (sh("id", "-u"), timedelta(seconds=9)),
                (sh("id"), SOON),
                (sh("id", "-u", "x"), SOON),
            ):
                refused = ssh.send(target("worker-1"), command.sudo(), within, abort)
                assert refused == Output(1, "", "sudo: a password is required\n")


def test_a_change_is_sent_once_over_standard_input(ssh: Ssh, rig: Rig, abort: Flag) -> None:
    before = len(rig.received(MACHINES[0]))
    ssh.send(target(MACHINES[0]), sh("echo", "a b"), SOON, abort)
    (note,) = rig.received(MACHINES[0])[before:]
    assert note.command == wire.SHELL
    assert wire.read_change(note.stdin) == f"timeout -k {wire.KILL_AFTER} 20 echo 'a b'"


@pytest.mark.parametrize("machine", MACHINES)
def test_no_process_shows_a_secret(ssh: Ssh, rig: Rig, abort: Flag, machine: str) -> None:
    keep = sh("sh", "-c", "cat; sleep 0.7")
    command = sh("printf", "%s", Secret("password")) | sh("cat") | keep.sudo()
    word = PASSWORD.split()[0].encode()
    seen = 0
    with meanwhile(lambda: ssh.send(target(machine), command, SOON, abort)) as sent:
        while not sent.done():
            for pid in rig.pids(machine):
                assert word not in read(f"/proc/{pid}/cmdline") + read(f"/proc/{pid}/environ")
                seen += b"sleep\0" in read(f"/proc/{pid}/cmdline")
    assert seen, "nobody looked while it ran"
    assert sent.result() == Output(0, PASSWORD)
    assert PASSWORD.split()[0] not in rig.said(machine) + "".join(note.command for note in rig.received(machine))


def read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError:
        return b""


def test_a_long_answer_is_cut_and_the_change_goes_on(rig: Rig, reach: Reach, abort: Flag) -> None:
    command = sh("sh", "-c", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 5")
    done = reach(rig.hosts, answer=1000, stream=2000).send(target(MACHINES[0]), command, SOON, abort)
    assert done == Output(5, "\0" * 1000, "\0" * 1000, truncated=True)


def test_the_bound_holds_on_the_machine(ssh: Ssh, rig: Rig, abort: Flag) -> None:
    done = ssh.send(target(MACHINES[0]), sh("sleep", "51723"), timedelta(seconds=1), abort)
    assert done == Output(None)
    assert rig.running(MACHINES[0], "sleep 51723") == []


# ---------------------------------------------------------------- was it sent?


def unreachable(host: Host, folder: Path) -> dict[str, Host]:
    """Each way not to get as far as sending."""
    other = folder / "others"
    other.write_text("nobody ssh-ed25519 AAAA\n")
    return {
        "nothing listens": replace(host, port=1),
        "not resolvable": replace(host, host="no-such-name.invalid"),
        "unknown host key": replace(host, known_hosts=other),
        "no private key": replace(host, key_file=folder / "missing"),
        "not this user": replace(host, user="somebody"),
    }


@pytest.mark.parametrize(
    "why", ["nothing listens", "not resolvable", "unknown host key", "no private key", "not this user"]
)
def test_what_surely_was_not_sent_is_said_to_be_so(
    rig: Rig, reach: Reach, abort: Flag, tmp_path: Path, why: str
) -> None:
    host = unreachable(rig.hosts[MACHINES[0]], tmp_path)[why]
    before = len(rig.received())
    with pytest.raises(NotSent, match=r"worker-1|private key"):
        reach({"worker-1": host}).send(target("worker-1"), sh("true"), SOON, abort)
    assert len(rig.received()) == before


def test_a_secret_that_cannot_be_had_is_not_sent(ssh: Ssh, rig: Rig, abort: Flag) -> None:
    before = len(rig.received())
    with pytest.raises(NotSent, match="could not be written down"):
        ssh.send(target(MACHINES[0]), sh("printf", Secret("unheard of")), SOON, abort)
    assert len(rig.received()) == before


def test_a_run_that_was_stopped_sends_nothing(ssh: Ssh, rig: Rig, abort: Flag) -> None:
    abort.set()
    before = len(rig.received())
    with pytest.raises(NotSent, match="stopped"):
        ssh.send(target(MACHINES[0]), sh("true"), SOON, abort)
    assert len(rig.received()) == before


def test_a_server_that_runs_no_commands_was_sent_nothing(reach: Reach, abort: Flag) -> None:
    with sshd(HostSpec("worker-1", config="MaxSessions 0")) as rig, pytest.raises(NotSent, match="worker-1"):
        reach(rig.hosts, open=1).send(target("worker-1"), sh("true"), SOON, abort)


def test_a_connection_lost_after_sending_leaves_a_doubt_and_no_second_try(reach: Reach, abort: Flag) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        with meanwhile(
            lambda: ssh.send(target("worker-1"), sh("sh", "-c", "echo begun; sleep 51724"), LONG, abort)
        ) as sent:
            wait_until(lambda: rig.running("worker-1", "sleep 51724") != [])
            rig.drop_connections("worker-1")
            assert sent.result(timeout=5) == Output(None, "begun\n")
        assert len(rig.received("worker-1")) == 1
        assert ssh.send(target("worker-1"), sh("echo", "again"), SOON, abort) == Output(0, "again\n")


def test_a_machine_that_lost_power_leaves_a_doubt(reach: Reach, abort: Flag) -> None:
    with sshd(HostSpec("worker-1")) as rig:
        ssh = reach(rig.hosts)
        with meanwhile(lambda: ssh.send(target("worker-1"), sh("sleep", "51725"), LONG, abort)) as sent:
            wait_until(lambda: rig.running("worker-1", "sleep 51725") != [])
            rig.power_off("worker-1")
            assert sent.result(timeout=5) == Output(None)
        with pytest.raises(NotSent, match="refused the connection"):
            ssh.send(target("worker-1"), sh("true"), SOON, abort)
        rig.power_on("worker-1")
        assert ssh.send(target("worker-1"), sh("true"), SOON, abort).ok


# ---------------------------------------------------------------- what runs there ends

CLIENT = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import Event
from bot.adapters.ssh import Host, Ssh
from bot.core.command import command_from_json
from bot.core.target import Role, Target

hosts, commands = json.loads(sys.argv[1])
known = {f"prod/{name}": Host(h, p, u, Path(k), Path(n)) for name, (h, p, u, k, n) in hosts.items()}
ssh = Ssh(known, resolve=lambda secret: "hunter2")
with ThreadPoolExecutor(99) as threads:
    for name in hosts:
        for command in commands:
            machine = Target(name, Role.WORKER, "prod")
            threads.submit(ssh.send, machine, command_from_json(command), timedelta(seconds=100), Event())
"""


@contextmanager
def another_opsbot(rig: Rig, commands: list[Command]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends each command to each machine."""
    hosts = {
        name: (host.host, host.port, host.user, str(host.key_file), str(host.known_hosts))
        for name, host in rig.hosts.items()
    }
    given = json.dumps([hosts, [command.to_json() for command in commands]])
    with subprocess.Popen([sys.executable, "-c", CLIENT, given]) as process:
        try:
            yield process
        finally:
            process.kill()


POLITE: dict[str, Callable[[str], Command]] = {
    "a program": lambda n: sh("sleep", n),
    "a pipeline": lambda n: sh("sleep", n) | sh("cat"),
    "a family": lambda n: sh("sh", "-c", f"sleep {n} & sleep {n} & wait"),
    "a program under sudo": lambda n: sh("sleep", n).sudo(),
    "a family under sudo": lambda n: sh("sh", "-c", f"sleep {n} & sleep {n} & wait").sudo(),
    "a secret piped into sudo": lambda n: sh("printf", Secret("password")) | sh("sh", "-c", f"cat; sleep {n}").sudo(),
}
SUDO = {"use_pty": EVERYTHING, "no pty": f"Defaults !use_pty\n{EVERYTHING}"}
KINDS = [
    (login, shell, sudo)
    for login in LOGINS
    for shell in ("bash", "dash")
    for sudo in (SUDO if login == "ops" else ["use_pty"])
]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def machine(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """One machine; on the ordinary account, sudo is set up as Debian does it now and as it did before."""
    login, shell, sudo = request.param
    with sshd(HostSpec("worker-1", login, login_shell=f"/bin/{shell}", sudoers=SUDO[sudo])) as rig:
        yield rig


@contextmanager
def all_running(
    rig: Rig, commands: dict[str, Callable[[str], Command]], send: Callable[[Command], object]
) -> Iterator[str]:
    """All the commands at the same time; gives what their processes have in common."""
    number = a_number()
    with ThreadPoolExecutor(len(commands)) as threads:
        for no, make in enumerate(commands.values()):
            threads.submit(send, make(f"{number}{no}"))
        wait_until(lambda: all(rig.running("worker-1", f"sleep {number}{no}") for no in range(len(commands))))
        yield f"sleep {number}"


def test_stopping_a_change_ends_it_there_and_waits_for_that(machine: Rig, reach: Reach, abort: Flag) -> None:
    ssh, said = reach(machine.hosts), []
    with all_running(machine, POLITE, lambda c: said.append(ssh.send(target("worker-1"), c, LONG, abort))) as marker:
        abort.set()
        wait_until(lambda: len(said) == len(POLITE))
        assert machine.running("worker-1", marker) == []
    assert [output.exit for output in said] == [None] * len(POLITE)


def test_closing_the_connections_ends_what_runs(machine: Rig, reach: Reach, abort: Flag) -> None:
    ssh = reach(machine.hosts)
    with all_running(machine, POLITE, lambda command: ssh.send(target("worker-1"), command, LONG, abort)) as marker:
        ssh.close()
        wait_until(lambda: machine.running("worker-1", marker) == [], 2)


def test_killing_opsbot_ends_what_runs(machine: Rig) -> None:
    number = a_number()
    commands = [make(f"{number}{no}") for no, make in enumerate(POLITE.values())]
    with another_opsbot(machine, commands) as opsbot:
        wait_until(lambda: all(machine.running("worker-1", f"sleep {number}{no}") for no in range(len(commands))))
        opsbot.kill()
        wait_until(lambda: machine.running("worker-1", f"sleep {number}") == [], 2)


def test_whatever_a_program_ignores_it_ends_when_opsbot_is_killed(rig: Rig) -> None:
    number = a_number()
    stubborn = sh("sh", "-c", f"trap '' TERM HUP INT; sleep {number}; sleep {number}")
    with another_opsbot(rig, [stubborn, stubborn.sudo()]) as opsbot:
        wait_until(lambda: all(asleep(rig, name, number) == 2 for name in MACHINES))
        opsbot.kill()
        wait_until(lambda: all(rig.running(name, f"sleep {number}") == [] for name in MACHINES), wire.KILL_AFTER + 3)


if ROOT:

    @pytest.mark.parametrize("sudo", SUDO)
    def test_a_sudo_that_takes_no_signal_from_its_user_is_hung_up(
        reach: Reach, abort: Flag, monkeypatch: pytest.MonkeyPatch, sudo: str
    ) -> None:
        """As sudo 1.8, which becomes root altogether: here the watch is kept from signalling what belongs to root."""
        only_own = wire.CHANGE_TAIL.replace('kill -s $signal "$f"', '[ ! -O /proc/$f ] || kill -s $signal "$f"')
        assert only_own != wire.CHANGE_TAIL
        monkeypatch.setattr(wire, "CHANGE_TAIL", only_own)
        number = a_number()
        stubborn = sh("sh", "-c", f"trap '' TERM HUP INT; sleep {number}; sleep {number}").sudo()
        with sshd(HostSpec("worker-1", sudoers=SUDO[sudo])) as rig:
            ssh = reach(rig.hosts)
            with meanwhile(lambda: ssh.send(target("worker-1"), stubborn, LONG, abort)) as sent:
                wait_until(lambda: asleep(rig, "worker-1", number) == 1)
                abort.set()
                assert sent.result(timeout=20).exit is None
            assert rig.running("worker-1", f"sleep {number}") == []


def asleep(rig: Rig, name: str, number: str) -> int:
    return sum(line.startswith("sleep ") for line in rig.running(name, f"sleep {number}"))


def a_number() -> str:
    """How long to sleep, unlike any other."""
    return f"5{time.monotonic_ns() % 10**9}"


def test_nothing_of_a_change_is_left_when_it_ends_by_itself(machine: Rig, reach: Reach, abort: Flag) -> None:
    reach(machine.hosts).send(target("worker-1"), sh("true").sudo() | sh("cat"), SOON, abort)
    wait_until(lambda: machine.running("worker-1", "bash --norc") == [], 2)
