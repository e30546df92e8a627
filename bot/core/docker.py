"""Programs inside the platform's container, as commands for docker; and what docker says when it is not there.

All services of 2.x live in one container of an image called te-main, under a random name. Pure text, shared by
whatever asks inside the container.
"""

import re
from dataclasses import dataclass
from typing import Final

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.question import Output

MAIN_IMAGE: Final = "te-main"
LISTING: Final = sh("docker", "ps", "--format", "{{.ID}}\t{{.Image}}\t{{.Names}}").sudo()
_GONE: Final = re.compile(
    r"^(Error: No such container|Error response from daemon: (No such container|Container \w+ is not running))",
    re.MULTILINE | re.IGNORECASE,
)


@dataclass(frozen=True)
class Program:
    """A program with its words, the environment variables that it reads and its input; no secret may be among them.

    What differs from question to question is input: so sudo can be given a rule that holds every word.
    """

    words: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    stdin: str = ""

    def inside(self, container: str) -> Command:
        """As docker runs it there."""
        env = (word for name, value in self.env for word in ("-e", f"{name}={value}"))
        asks = ("-i",) if self.stdin else ()
        runs = sh("docker", "exec", *asks, *env, container, *self.words).sudo()
        return sh("printf", "%s", self.stdin) | runs if self.stdin else runs


def main_container(listing: Output) -> str:
    """The container's id, from the answer to `LISTING`; raises Unknown with a sentence."""
    if not listing.ok:
        raise Unknown(f"docker does not answer: {(listing.err or listing.out).strip() or 'no words'}")
    rows = (line.split("\t") for line in listing.out.splitlines())
    found = [row[0] for row in rows if len(row) >= 2 and MAIN_IMAGE in row[1]]
    if len(found) != 1:
        raise Unknown(f"{len(found)} running containers have an image called {MAIN_IMAGE}, not one")
    return found[0]


def gone(said: Output) -> bool:
    """Did docker say that this container is not there (any more), so that nothing ran in it?"""
    return said.exit == 1 and not said.out and _GONE.search(said.err) is not None
