"""What the vendor installs on a 2.x platform, where the configuration says nothing else."""

from collections.abc import Mapping
from typing import Final

from bot.core.target import Site, Target

DATABASE, USER = "travis_production", "travis"  # in the platform's container
SECTIONS: Final[Mapping[str, str]] = {"main": "database", "logs": "logs_database"}  # of the configuration
_DATA: Final = "/var/travis"


def data_dir(site: Site, platform: Target) -> str:
    """The folder that holds the platform's data on this machine."""
    return site.option(f"data_dir.{platform.name}", _DATA).rstrip("/")
