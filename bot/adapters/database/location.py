"""Where an installation's database is, and which way leads there."""

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlsplit

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from bot.core.target import Target

NAME = "travis_production"  # as the vendor installs it, with this user, in the platform's container
USER = "travis"
HOST = "127.0.0.1"
PORT = 5432


class Way(Enum):
    """From opsbot itself, through the platform machine, or by `psql` in the platform's container."""

    DIRECT = "direct"
    TUNNEL = "tunnel"
    CONTAINER = "container"


@dataclass(frozen=True)
class Location:
    """One database. The DSNs are secrets, and for the container there are none: `name` and `user` say it all."""

    way: Way = Way.CONTAINER
    read_dsn: str = field(default="", repr=False)
    write_dsn: str = field(default="", repr=False)
    name: str = NAME
    user: str = USER

    def shown(self, dsn: str, target: Target) -> str:
        """`travis_production on 127.0.0.1:5432 through platform-1`, never the password."""
        if self.way is Way.CONTAINER:
            return f"{self.name} in the platform's container of {target}"
        host, port = address(dsn)
        through = f" through {target}" if self.way is Way.TUNNEL else ""
        return f"{parts(dsn).get('dbname') or parts(dsn).get('user') or 'postgres'} on {host}:{port}{through}"


def parts(dsn: str) -> dict[str, str]:
    """What a DSN says, by libpq's own names; nothing when it cannot be read."""
    try:
        return {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    except ProgrammingError:
        return {}


def address(dsn: str) -> tuple[str, int]:
    """Host and port, the first when there are several."""
    said = parts(dsn)
    host = (said.get("host") or said.get("hostaddr") or urlsplit(dsn).hostname or HOST).partition(",")[0]
    port = said.get("port", "").partition(",")[0]
    return host, int(port) if port.isdigit() else PORT
