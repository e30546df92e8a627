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


def test_the_address_of_docker_is_nobodys_own() -> None:
    """Every machine with Docker has it, so consumers seen from there are anybody's."""
    seen = worker.addresses(MACHINE).parse(Output(0, "10.0.0.11 172.17.0.1 fe80::1 192.168.3.4 \n"))
    assert seen == ("10.0.0.11", "192.168.3.4")
    behind = Target("worker-2", Role.WORKER, "prod", "172.17.0.1")
    assert worker.addresses(behind).parse(Output(0, "172.17.0.1 \n")) == ("172.17.0.1",)
