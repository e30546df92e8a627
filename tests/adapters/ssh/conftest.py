"""Machines that stay up for all tests of the SSH adapter."""

from collections.abc import Iterator
from threading import Event as Flag

import pytest

from bot.adapters.ssh import Host, Limits, Ssh
from tests.adapters.ssh.fleet import Reach, resolve
from tests.rigs.sshd import LOGINS, HostSpec, Rig, sshd


@pytest.fixture(scope="session")
def rig() -> Iterator[Rig]:
    """A machine for each login of this user (root and ops, or ops alone), with bash and with dash."""
    specs = [
        HostSpec(f"{login}-{shell}", login, login_shell=f"/bin/{shell}")
        for login in LOGINS
        for shell in ("bash", "dash")
    ]
    with sshd(*specs) as running:
        yield running


@pytest.fixture
def reach() -> Iterator[Reach]:
    """Makes an Ssh for some hosts, closed at the end of the test."""
    made: list[Ssh] = []

    def make(hosts: dict[str, Host], **limits: float) -> Ssh:
        ssh = Ssh({f"prod/{name}": host for name, host in hosts.items()}, resolve, Limits(**limits))  # type: ignore[arg-type]
        made.append(ssh)
        return ssh

    yield make
    for ssh in made:
        ssh.close()


@pytest.fixture
def ssh(rig: Rig, reach: Reach) -> Ssh:
    return reach(rig.hosts)


@pytest.fixture
def abort() -> Flag:
    return Flag()
