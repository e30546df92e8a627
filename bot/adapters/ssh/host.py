"""Where a machine is, how long it may take, and how it cannot be reached."""

from dataclasses import dataclass
from pathlib import Path

from bot.core import ports


@dataclass(frozen=True)
class Host:
    """How to log in to a machine: address, user, private key, file of pinned host keys, and the bastion if any."""

    host: str
    port: int
    user: str
    key_file: Path
    known_hosts: Path
    jump: "Host | None" = None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Limits:
    """Times in seconds, sizes in bytes; the defaults fit a fleet, tests use shorter ones."""

    connect: float = 10  # until TCP is open
    login: float = 30  # until the key is accepted, after that
    open: float = 10  # until a channel runs its command
    program: int = 20  # for one question on the machine
    ask: float = 90  # for all questions of one round to one machine
    grace: float = 5  # after the machine should have ended a change by itself
    probe_every: float = 15  # silence after which a connection has to prove that it lives
    probe_within: float = 5
    idle: float = 600  # then a connection is closed
    sweep: float = 30  # between looks for such
    answer: int = 1 << 20  # kept of one answer, of each stream
    stream: int = 16 << 20  # read of one stream in all; a machine that says more is cut off
    channels: int = 8  # at a time on one connection: sshd's MaxSessions is 10


class Unreached(ports.Unreached):
    """Why nothing was sent, as a sentence; the cause id of the finding it becomes; whether trying again may help."""

    def __init__(self, why: str, cause: str = "unreachable", *, passing: bool = False) -> None:
        super().__init__(why, cause)
        self.passing = passing
