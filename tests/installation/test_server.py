"""The SSH servers: who may log in, what a session is, how a machine goes away and comes back, what is written down."""

import json
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko
import pytest

from bot.core.command import Secret, sh
from bot.core.wire import SHELL, change_script
from bot.sandbox.installation import Running, Shape, start
from bot.sandbox.installation.running import _new_key
from tests.installation.visitor import Visitor, finish


def eventually(met: Callable[[], bool], within: float = 20.0) -> None:
    end = time.monotonic() + within
    while not met():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_a_machine_answers_with_both_streams_and_a_status(running: Running) -> None:
    with Visitor(running, "worker-1") as visitor:
        said = visitor.run("echo out; echo err >&2; exit 3")
        assert (said.exit, said.out, said.err) == (3, "out\n", "err\n")


def test_several_questions_come_back_in_order(running: Running) -> None:
    with Visitor(running, "worker-1") as visitor:
        said = visitor.ask(sh("systemctl", "is-active", "travis-worker"), sh("hostname"), sh("false"))
        assert [(each.exit, each.out) for each in said if each] == [(0, "active\n"), (0, "worker-1\n"), (1, "")]


def test_only_the_one_user_with_the_one_key_may_log_in(running: Running) -> None:
    stranger, _ = _new_key()
    for user, key in (("root", None), ("ops", stranger)):
        with pytest.raises(paramiko.AuthenticationException):
            Visitor(running, "worker-1", user, key)


def test_each_machine_has_its_own_address_and_key(running: Running) -> None:
    lines = [line.split() for line in running.known_hosts.read_text().splitlines()]
    assert len({line[0] for line in lines}) == len({line[2] for line in lines}) == 4
    assert {address.split(":")[0] for address in running.addresses().values()} == {
        f"127.0.0.{n}" for n in range(21, 25)
    }


def test_where_the_host_lacks_an_address_the_ports_tell_the_machines_apart(tmp_path: Path) -> None:
    shapes = (Shape("platform-1", "198.51.100.1", worker=False), Shape("worker-1", "198.51.100.2"))
    running = start(tmp_path, shapes=shapes)
    try:
        assert {address.split(":")[0] for address in running.addresses().values()} == {"127.0.0.1"}
        with Visitor(running, "worker-1") as visitor:
            assert visitor.run("hostname").out == "worker-1\n"
        with Visitor(running, "platform-1") as visitor:
            assert visitor.run("hostname").out == "platform-1\n"
    finally:
        running.stop()


def test_keys_are_for_their_owner_alone(running: Running) -> None:
    for path in (running.key_file, running.known_hosts, running.received.path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_a_connection_takes_ten_sessions(running: Running) -> None:
    with Visitor(running, "worker-1") as visitor:
        sessions = [visitor.begin("sleep 1000") for _ in range(10)]
        with pytest.raises(paramiko.ChannelException) as refused:
            visitor.begin("true")
        assert refused.value.code == 2
        sessions[0].close()
        eventually(lambda: _answers(visitor))


def _answers(visitor: Visitor) -> bool:
    try:
        return visitor.run("true").exit == 0
    except paramiko.ChannelException:
        return False


def test_many_connections_at_once(running: Running) -> None:
    def visit(no: int) -> int:
        with Visitor(running, f"worker-{no % 3 + 1}") as visitor:
            return sum(each is not None and each.ok for each in visitor.ask(sh("true"), sh("hostname")))

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(visit, range(24))) == [2] * 24


class TestChanges:
    def test_a_change_arrives_by_standard_input(self, running: Running) -> None:
        with Visitor(running, "worker-3") as visitor:
            said = visitor.change(sh("restart", "travis-worker").sudo())
            assert said.exit == 0
            assert said.out.startswith("travis-worker start/running, process ")

    def test_half_a_change_does_nothing(self, running: Running) -> None:
        boot = running.machine("worker-1").boot_id
        script = change_script(sh("shutdown", "-r", "now").sudo(), 60).encode()
        with Visitor(running, "worker-1") as visitor:
            channel = visitor.begin(SHELL)
            channel.sendall(script[: len(script) // 2])
            channel.shutdown_write()
            assert finish(channel).exit is None
        assert running.machine("worker-1").boot_id == boot
        assert running.log() == ()

    def test_the_end_of_standard_input_ends_the_program(self, running: Running) -> None:
        with Visitor(running, "worker-1") as visitor:
            channel = visitor.order(sh("sleep", "100000"), seconds=200_000)
            time.sleep(0.1)
            assert not channel.exit_status_ready()
            channel.shutdown_write()
            assert finish(channel).exit == 143

    def test_the_end_of_the_connection_ends_the_program(self, running: Running) -> None:
        with Visitor(running, "worker-1") as visitor:
            visitor.order(sh("sleep", "100000"), seconds=200_000)
            time.sleep(0.1)
        eventually(lambda: [line.text for line in running.log()] == ["sleep 100000"])

    def test_its_time_limit_ends_the_program(self, running: Running) -> None:
        with Visitor(running, "worker-1") as visitor:
            assert visitor.change(sh("sleep", "1000"), seconds=10).exit == 124

    def test_a_unit_outlives_the_connection_and_starts_once(self, running: Running) -> None:
        start = sh("systemd-run", "--unit=opsbot-1-1", "-p", "RemainAfterExit=yes", "--", "sleep", "20").sudo()
        with Visitor(running, "worker-1") as visitor:
            assert visitor.change(start).exit == 0
        with Visitor(running, "worker-1") as visitor:
            again = visitor.change(start)
            assert (again.exit, "already exists" in again.err) == (1, True)
            shown = sh("systemctl", "show", "opsbot-1-1", "-p", "SubState", "--value")
            eventually(lambda: [each.out for each in visitor.ask(shown) if each] == ["exited\n"])
        assert [line.changed for line in running.log() if "systemd-run" in line.text] == [True, False]


class TestReboot:
    def test_it_hangs_up_refuses_and_comes_back_as_another_boot(self, running: Running) -> None:
        before = running.machine("worker-2").boot_id
        with Visitor(running, "worker-2") as visitor:
            visitor.change(sh("shutdown", "-r", "now").sudo())
            eventually(lambda: not visitor.transport.is_active())
        with pytest.raises(ConnectionRefusedError):
            Visitor(running, "worker-2")
        eventually(lambda: running.machine("worker-2").up)
        with Visitor(running, "worker-2") as visitor:
            [boot, up] = visitor.ask(sh("cat", "/proc/sys/kernel/random/boot_id"), sh("cat", "/proc/uptime"))
            assert boot is not None
            assert up is not None
            assert boot.out.strip() != before
            assert float(up.out.split()[0]) < 300

    def test_the_others_stay(self, running: Running) -> None:
        with Visitor(running, "worker-1") as other, Visitor(running, "worker-2") as visitor:
            visitor.change(sh("shutdown", "-r", "now").sudo())
            eventually(lambda: not visitor.transport.is_active())
            assert other.run("true").exit == 0


class TestLog:
    def test_every_command_is_one_line_of_the_file(self, running: Running) -> None:
        asked = [sh("true"), sh("docker", "ps", "-q").sudo() | sh("wc", "-l"), sh("echo", "a\nb")]
        with Visitor(running, "worker-1") as visitor:
            visitor.ask(*asked)
            visitor.change(sh("systemctl", "restart", "travis-worker").sudo())
        lines = [json.loads(line) for line in running.received.path.read_text().splitlines()]
        assert [line["text"] for line in lines] == [
            *(command.text() for command in asked),
            "sudo -n systemctl restart travis-worker",
        ]
        assert [line["changed"] for line in lines] == [False, False, False, True]
        assert {line["machine"] for line in lines} == {"worker-1"}

    def test_what_was_written_before_stays(self, tmp_path: Path) -> None:
        (tmp_path / "commands.jsonl").write_text("before\n" * 50)
        running = start(tmp_path)
        with Visitor(running, "worker-1") as visitor:
            visitor.ask(sh("true"))
        running.stop()
        lines = running.received.path.read_text().splitlines()
        assert lines[:50] == ["before"] * 50
        assert json.loads(lines[50])["text"] == "true"

    def test_a_change_is_written_before_it_is_over(self, running: Running) -> None:
        with Visitor(running, "worker-1") as visitor:
            running.machine("worker-1").wedged.add("docker")  # so that stopping takes 90 s
            visitor.order(sh("systemctl", "restart", "travis-worker").sudo())
            eventually(lambda: [line.changed for line in running.log()] == [True])

    def test_a_refused_change_is_none(self, running: Running) -> None:
        running.inject("worker-1 asks for a sudo password")
        with Visitor(running, "worker-1") as visitor:
            said = visitor.change(sh("systemctl", "restart", "travis-worker").sudo())
            assert (said.exit, said.err) == (1, "sudo: a password is required\n")
        assert [line.changed for line in running.log()] == [False]

    def test_it_holds_no_secret(self, running: Running) -> None:
        text = change_script(sh("printf", "%s", Secret("key")) | sh("wc", "-c"), 10, lambda secret: "hunter2")
        with Visitor(running, "worker-1") as visitor:
            channel = visitor.begin(SHELL)
            channel.sendall(text.encode())
            assert finish(channel).out == "7\n"
        assert "hunter2" not in running.received.path.read_text()
        assert len(running.log()) == 1


def test_a_slow_reader_stops_nobody_else(running: Running) -> None:
    running.machine("worker-1").write("/srv/long", "x" * 8_000_000)
    with Visitor(running, "worker-1") as slow, Visitor(running, "worker-2") as other:
        channel = slow.begin("cat /srv/long")
        time.sleep(0.2)
        assert other.run("true").exit == 0
        assert len(finish(channel).out) == 8_000_000


def test_nothing_is_left_when_it_stops(running: Running) -> None:
    with Visitor(running, "worker-1"):
        running.stop()
        eventually(lambda: not any(thread.name.startswith("sshd ") for thread in threading.enumerate()))
