"""A machine to stream from, for each kind of login."""

from collections.abc import Iterator
from threading import Event as Flag

import pytest

from bot.adapters.stream import Limits, OpenSsh
from tests.rigs.sshd import LOGINS, HostSpec, Rig, sshd

QUICK = Limits(connect=5, alive=(1, 2), late=3, grace=4)


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
def ssh(rig: Rig) -> OpenSsh:
    return OpenSsh({f"prod/{name}": host for name, host in rig.hosts.items()}, lambda secret: "pass word", QUICK)


@pytest.fixture
def abort() -> Flag:
    return Flag()
