"""Which redis is an installation's, how it is reached, and what its refusals mean."""

from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from bot.core.question import Answer, Output, Unanswered
from bot.core.target import Target

CONTAINER, TUNNEL, DIRECT = "container", "tunnel", "direct"
NOT_CONFIGURED: Final = "not-configured"
AWAY: Final = "redis-unreachable"  # a finding
REFUSED: Final = "redis-refused"  # not known: opsbot's login, rights or words
PORT: Final = 6379
_DENIED: Final = ("NOAUTH", "NOPERM", "WRONGPASS", "DENIED", "ERR AUTH", "ERR invalid password", "ERR operation not")


@dataclass(frozen=True)
class Server:
    """How one installation's redis is reached; the URL is a secret, and there is none for the container."""

    via: str = CONTAINER
    url: str = field(default="", repr=False)

    def shown(self, target: Target) -> str:
        """`on 127.0.0.1:6379 through platform-1`, never the password."""
        if self.via == CONTAINER:
            return f"in the platform's container of {target}"
        host, port = self.address
        return f"on {host}:{port}{f' through {target}' if self.via == TUNNEL else ''}"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "127.0.0.1", parts.port or PORT


def judged(said: Output, where: str) -> Answer | Unanswered:
    """An error is an answer, but for those that say that it is not for us, or not yet there."""
    if said.err.startswith("LOADING"):
        return Unanswered(f"Redis {where} cannot be reached: it is still loading its data.", AWAY)
    if said.err.startswith(_DENIED):
        return Unanswered(f"Redis {where} does not let opsbot ask: {said.err.strip()[:300]}.", REFUSED)
    return said
