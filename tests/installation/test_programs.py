"""Programs say what the real ones said; those of an init system or of docker behave as their manuals say."""

import re
from collections.abc import Callable

import pytest

from bot.core.command import sh
from bot.sandbox.installation import Installation
from tests.installation import records
from tests.installation.console import Console, pass_time

On = Callable[[str], Console]


@pytest.fixture
def sample(on: On) -> Console:
    """The files that the real programs were asked about."""
    console = on("worker-1")
    machine = console.machine
    machine.folder("/srv/sample")
    machine.folder("/srv/sample/inside")
    log = 'time="x" level=info msg="worker started"\nSIGUSR2 received\nline (three)\nline 4 + more\n'
    machine.write("/srv/sample/colours", "red\nblue\ngreen\nblue\n")
    machine.write("/srv/sample/numbers", "10\tten\n9\tnine\n100\thundred\n")
    machine.write("/srv/sample/empty", "")
    machine.write("/srv/sample/log", log, mode=0o640)
    console.user = "root"
    return console


@pytest.mark.parametrize("record", records.read(records.FOLDER / "programs.txt"), ids=str)
def test_it_says_what_the_real_one_said(record: records.Record, sample: Console) -> None:
    said = sample.type(record.command)
    assert (said.out, _complaint(said.err), said.exit) == (record.out, _complaint(record.err), record.exit)


def _complaint(text: str) -> str:
    """What is wrong; how a shell numbers its lines depends on the shell."""
    return re.sub(r"^(sh|bash|dash): (line )?\d+: ", r"shell: ", text, flags=re.M).replace("bash: ", "shell: ")


def test_ps_pads_as_procps_does(healthy: Installation, on: On) -> None:
    console = on("worker-3")
    pid = next(p.pid for p in console.machine.processes.values() if p.name == "travis-worker")
    console.machine.processes[pid].started = healthy.timeline.now()
    pass_time(healthy, 5)
    assert console.say(sh("ps", "-C", "travis-worker", "-o", "etimes=")) == "      5\n"
    assert console.say(sh("ps", "-p", "1", "-o", "comm=")) == "init\n"
    assert console.say(sh("ps", "-p", str(pid), "-o", "comm=,etimes=")) == "travis-worker         5\n"
    assert console.say(sh("ps", "-p", str(pid), "-o", "pid,comm")) == f"  PID COMMAND\n{pid:>5} travis-worker\n"


def test_ss_says_what_iproute2_says(on: On) -> None:
    pid = on("worker-1").say(sh("docker", "inspect", "-f", "{{.State.Pid}}", "travis-worker").sudo()).strip()
    ports = "( dport = :5672 or dport = :4567 or dport = :5671 )"
    head = "Recv-Q Send-Q Local Address:Port Peer Address:Port\n"
    inside = sh("nsenter", "-t", pid, "-n", "ss", "-tn", "state", "established", ports).sudo()
    said = on("worker-1").say(inside)
    assert re.fullmatch(head + r"0      0      172\.17\.0\.\d+:\d{5} 127\.0\.0\.21:5672\n", said)
    assert on("worker-1").say(sh("ss", "-tn", "state", "established", ports)) == head  # not the container's network
    assert "127.0.0.21:5672" in on("worker-3").say(sh("ss", "-tn", "state", "established", ports))
    assert on("worker-1").say(sh("ss", "-tn", "state", "established", "( dport = :9999 )")) == head


def test_ss_can_leave_out_its_header_since_18_04(on: On) -> None:
    assert on("worker-1").say(sh("ss", "-Htn", "state", "established", "( dport = :9999 )")) == ""
    [refused] = on("worker-3").ask(sh("ss", "-Htn", "state", "established"))
    assert (refused.exit, refused.err.splitlines()[0]) == (255, "ss: invalid option -- 'H'")


class TestSystemd:
    def test_is_active_answers_with_its_status(self, on: On) -> None:
        answers = on("worker-1").ask(
            sh("systemctl", "is-active", "travis-worker"), sh("systemctl", "is-active", "nothing")
        )
        assert [(a.exit, a.out) for a in answers] == [(0, "active\n"), (3, "inactive\n")]

    def test_show_gives_its_own_order_and_only_what_was_asked(self, on: On) -> None:
        said = on("worker-1").say(sh("systemctl", "show", "travis-worker", "--property=SubState,ActiveState,Nothing"))
        assert said == "ActiveState=active\nSubState=running\n"
        value = on("worker-1").say(sh("systemctl", "show", "-p", "UnitFileState", "--value", "travis-worker"))
        assert value == "enabled\n"

    def test_show_of_an_unknown_unit_is_no_error(self, on: On) -> None:
        said = on("worker-1").say(
            sh("systemctl", "show", "opsbot-1-1.service", "-p", "LoadState,ActiveState,ExecMainCode")
        )
        assert said == "ExecMainCode=0\nLoadState=not-found\nActiveState=inactive\n"

    def test_only_root_restarts(self, on: On) -> None:
        console = on("worker-1")
        [said] = console.ask(sh("systemctl", "restart", "travis-worker"))
        assert (said.exit, "authentication required" in said.err) == (1, True)
        assert not any(sent.changed for sent in console.received)

    def test_an_unknown_unit_is_not_loaded(self, on: On) -> None:
        [said] = on("worker-1").ask(sh("systemctl", "restart", "nothing").sudo())
        assert (said.exit, said.err) == (5, "Failed to restart nothing.service: Unit nothing.service not loaded.\n")

    def test_restart_waits_until_the_unit_is_back(self, on: On) -> None:
        console = on("worker-1")
        before = console.say(sh("systemctl", "show", "travis-worker", "-p", "MainPID"))
        console.say(sh("systemctl", "restart", "travis-worker").sudo())
        assert console.say(sh("systemctl", "show", "travis-worker", "-p", "MainPID")) != before
        assert console.say(sh("systemctl", "is-active", "travis-worker")) == "active\n"

    def test_the_journal_is_for_root(self, on: On) -> None:
        console = on("worker-1")
        words = ("journalctl", "-u", "travis-worker", "-n", "5", "-o", "cat", "--no-pager")
        assert "worker started" in console.say(sh(*words).sudo())
        assert console.ask(sh(*words))[0].out == ""

    def test_upstart_has_none_of_it(self, on: On) -> None:
        console = on("worker-3")
        [said] = console.ask(sh("systemctl", "is-active", "travis-worker"))
        assert said.exit == 127
        assert console.machine.unknown == []  # it is simulated, just not there


class TestUpstart:
    def test_status_names_the_process(self, on: On) -> None:
        said = on("worker-3").say(sh("status", "travis-worker").sudo())
        assert re.fullmatch(r"travis-worker start/running, process \d+\n", said)

    def test_stop_and_start(self, on: On) -> None:
        console = on("worker-3")
        assert console.say(sh("stop", "travis-worker").sudo()) == "travis-worker stop/waiting\n"
        assert console.say(sh("status", "travis-worker").sudo()) == "travis-worker stop/waiting\n"
        [restarted, stopped] = console.ask(sh("restart", "travis-worker").sudo(), sh("stop", "travis-worker").sudo())
        assert (restarted.exit, restarted.err) == (1, "restart: Unknown instance: \n")
        assert (stopped.exit, stopped.err) == (1, "stop: Unknown instance: \n")
        assert "start/running, process" in console.say(sh("start", "travis-worker").sudo())

    def test_it_says_who_it_is(self, on: On) -> None:
        assert on("worker-3").say(sh("initctl", "version")) == "init (upstart 1.12.1)\n"
        assert on("worker-1").ask(sh("initctl", "version"))[0].exit == 127


class TestDocker:
    def test_it_is_for_root(self, on: On) -> None:
        [said] = on("worker-1").ask(sh("docker", "ps"))
        assert (said.exit, "permission denied" in said.err) == (1, True)

    def test_exec_without_a_container_or_a_program(self, on: On) -> None:
        console = on("platform-1")
        [none, nothing] = console.ask(
            sh("docker", "exec", "nothing", "true").sudo(), sh("docker", "exec", "sleepy_dewdney", "nothing").sudo()
        )
        assert (none.exit, none.err) == (1, "Error: No such container: nothing\n")
        assert nothing.exit == 126
        assert console.machine.unknown == ["nothing"]

    def test_exec_has_no_terminal(self, on: On) -> None:
        [said] = on("platform-1").ask(sh("docker", "exec", "-it", "sleepy_dewdney", "true").sudo())
        assert (said.exit, said.err) == (1, "the input device is not a TTY\n")

    def test_an_id_may_be_short(self, on: On) -> None:
        console = on("platform-1")
        rows = console.say(sh("docker", "ps", "--format", "{{.ID}}\t{{.Image}}").sudo()).splitlines()
        [main] = [row.split("\t")[0] for row in rows if "te-main" in row]
        assert len(main) == 12
        assert console.say(sh("docker", "exec", main, "hostname").sudo()) == "te-main\n"

    def test_the_vendors_way_into_the_container(self, on: On) -> None:
        words = ("replicated", "admin", "--no-tty", "bash", "-c", "rabbitmqctl -q list_vhosts")
        assert on("platform-1").say(sh(*words).sudo()) == "name\n/\ntravis\n"


def test_bash_probes_a_port(on: On, healthy: Installation) -> None:
    probe = sh("bash", "-c", "</dev/tcp/travis.example.com/5672")
    console = on("worker-1")
    assert console.ask(probe)[0].exit == 0
    assert console.ask(sh("bash", "-c", "</dev/tcp/travis.example.com/9"))[0].exit == 1
    console.machine.blocked.add(5672)
    assert console.ask(sh("timeout", "5", "bash", "-c", "</dev/tcp/travis.example.com/5672"))[0].exit is None


def test_an_unknown_program_is_remembered(on: On) -> None:
    console = on("worker-1")
    assert console.type("nosuchprogram").err == "sh: 1: nosuchprogram: not found\n"
    console.ask(sh("nosuchprogram").sudo(), sh("systemctl", "isolate", "rescue.target").sudo())
    assert console.machine.unknown == ["nosuchprogram", "nosuchprogram", "systemctl isolate rescue.target"]
