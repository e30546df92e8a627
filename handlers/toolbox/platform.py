"""Facts about the platform machine of a 2.x installation.

Source: https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/
"""

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.question import Output
from bot.core.target import Role

MAIN_IMAGE = "te-main"  # all services of 2.x live in one container of this image, under a random name


@fact
def main_container() -> Fact[str]:
    """The id of the container that holds the platform's services."""
    listing = sh("docker", "ps", "--format", "{{.ID}}\t{{.Image}}\t{{.Names}}").sudo()
    return Fact("Which container runs the platform?", Role.PLATFORM, listing, _main_container)


def _main_container(said: Output) -> str:
    if not said.ok:
        raise Unknown(f"docker does not answer on the platform: {said.err.strip() or said.out.strip()}")
    rows = (line.split("\t") for line in said.out.splitlines())
    found = [row[0] for row in rows if len(row) >= 2 and MAIN_IMAGE in row[1]]
    if len(found) != 1:
        raise Unknown(f"{len(found)} running containers of the platform have an image called {MAIN_IMAGE}, not one")
    return found[0]
