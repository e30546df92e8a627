"""What single answers are read as, where a mistake would send a change, or keep one from being sent."""

import pytest

from bot.core.errors import Unknown
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import worker

MACHINE = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")


@pytest.mark.parametrize("init", [worker.UPSTART, worker.SYSTEMD])
@pytest.mark.parametrize(
    "said",
    [Output(1, "", "sudo: a password is required"), Output(None), Output(0, "")],
    ids=["denied", "no time", "nothing"],
)
def test_no_answer_does_not_say_that_the_process_is_another_one(init: str, said: Output) -> None:
    with pytest.raises(Unknown):
        worker.still_process(MACHINE, init, 4711).parse(said)


def test_a_process_is_the_same_or_another_one() -> None:
    upstart = worker.still_process(MACHINE, worker.UPSTART, 4711)
    assert upstart.parse(Output(0, "travis-worker start/running, process 4711\n"))
    assert not upstart.parse(Output(0, "travis-worker start/running, process 4712\n"))
    assert not upstart.parse(Output(0, "travis-worker stop/waiting\n"))
    systemd = worker.still_process(MACHINE, worker.SYSTEMD, 700)
    assert systemd.parse(Output(0, "ActiveState=active\nMainPID=700\n"))
    assert not systemd.parse(Output(0, "ActiveState=active\nMainPID=701\n"))
    with pytest.raises(Unknown):
        systemd.parse(Output(0, "ActiveState=active\n"))


ERROR = 'time="2026-11-22T03:00:00Z" level=error msg="couldn\'t connect to AMQP" err="{}" pid=1 self=cli'


@pytest.mark.parametrize(
    ("err", "said"),
    [
        ("x509: certificate signed by unknown authority", "x509: certificate signed by unknown authority"),
        (
            r"Exception (403) Reason: \"username or password not allowed\"",
            'Exception (403) Reason: "username or password not allowed"',
        ),
        (
            r"parse \"amqp://travis:ab/cd@travis.example.com/travis\": invalid port \":ab\" after host",
            "parse [masked]: invalid port [masked] after host",
        ),
        ("dial amqp://travis:s3cr3t@host:5672: i/o timeout", "dial amqp://[masked]@host:5672: i/o timeout"),
    ],
    ids=["certificate", "quotes", "a piece of the password", "a password"],
)
def test_the_last_error_comes_with_its_reason_and_without_passwords(err: str, said: str) -> None:
    last = worker.last_error(MACHINE, worker.SYSTEMD)
    assert last.parse(Output(0, ERROR.format(err) + "\n")) == f"couldn't connect to AMQP: {said}"


def test_a_log_without_errors_has_no_last_one() -> None:
    assert worker.last_error(MACHINE, worker.SYSTEMD).parse(Output(0, 'level=info msg="worker started"\n')) == ""


@pytest.mark.parametrize(
    ("there", "why"),
    [
        ("/etc/default/travis-worker", ""),
        ("/var/snap/travis-worker/common/worker.env", ""),
        ("", "no settings of travis-worker were found on it"),
        ("/etc/replicated.conf", "no settings of travis-worker were found on it"),
        ("/etc/default/travis-worker\n/etc/replicated.conf", "it has a platform on it as well (/etc/replicated.conf)"),
    ],
    ids=["worker", "snap", "nothing", "platform", "both"],
)
def test_only_a_machine_that_is_a_worker_alone_is_rebooted(there: str, why: str) -> None:
    assert worker.not_to_reboot(MACHINE).parse(Output(1, f"{there}\n", "stat: cannot stat")) == why


def test_a_machine_that_does_not_answer_is_not_rebooted() -> None:
    assert worker.not_to_reboot(MACHINE).parse(Output(None, "/etc/default/travis-worker\n"))


def test_the_address_of_docker_is_nobodys_own() -> None:
    """Every machine with Docker has it, so consumers seen from there are anybody's."""
    seen = worker.addresses(MACHINE).parse(Output(0, "10.0.0.11 172.17.0.1 fe80::1 192.168.3.4 \n"))
    assert seen == ("10.0.0.11", "192.168.3.4")
    behind = Target("worker-2", Role.WORKER, "prod", "172.17.0.1")
    assert worker.addresses(behind).parse(Output(0, "172.17.0.1 \n")) == ("172.17.0.1",)
