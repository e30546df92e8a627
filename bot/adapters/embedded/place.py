"""Where a server lives: its folders, which are ours alone, and its socket."""

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from bot.adapters.embedded.account import Account, run
from bot.core.errors import Permanent

USER = DATABASE = "opsbot"
USER = DATABASE = "opsbot"
PORT = 5432  # only a part of the socket's name; nothing listens on the network
FOR_ROOT = Path("/var/lib/opsbot-postgres")
LONGEST_SOCKET = 90  # characters; the kernel's limit is 107


@dataclass(frozen=True)
class Place:
    """Where one server lives; `folder` is the caller's, `home` is ours."""

    folder: Path
    home: Path
    account: Account

    @property
    def data(self) -> Path:
        return self.home / "data"

    @property
    def log(self) -> Path:
        return self.home / "log"

    def last_words(self, lines: int = 15) -> str:
        with suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 8_000))
            said = log.read().decode(errors="replace").splitlines()[-lines:]
            return "\n".join(["", f"The last lines of {self.log}:", *said])
        return ""


def claim(folder: Path, account: Account) -> Path:
    folder = folder.expanduser().absolute()
    if not folder.exists():
        with suppress(FileExistsError):
            private(folder, 0o711 if account.is_another else 0o700)
    refuse_foreign(folder)
    return folder


def refuse_foreign(folder: Path) -> None:
    found = folder.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o002:
        raise Permanent(
            f"The database cannot be kept in {folder}: it must belong to the user that runs opsbot "
            "and nobody else may write to it. Name another folder."
        )


def home_of(folder: Path, account: Account) -> Path:
    home = folder / "postgres"
    if home.exists():
        refuse_foreign(home)
        return home.resolve()
    if home.is_symlink():  # what it led to was deleted
        home.unlink()
    if not account.is_another or _reaches(account, folder):
        return private(home, 0o711 if account.is_another else 0o700)
    made = Path(tempfile.mkdtemp(dir=_folder_for_root()))
    made.chmod(0o711)
    home.symlink_to(made)
    return made


def _reaches(account: Account, folder: Path) -> bool:
    asked = run(account, ["test", "-x", str(folder)], timeout=10)
    return asked.returncode == 0


def _folder_for_root() -> Path:
    if not FOR_ROOT.exists():
        private(FOR_ROOT, 0o711)
    refuse_foreign(FOR_ROOT)
    return FOR_ROOT


def private(path: Path, mode: int) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True)
        path.chmod(mode)
    except FileExistsError:
        raise
    except OSError as error:
        raise Permanent(f"The database cannot be kept in {path}: {error.strerror}. Name another folder.") from error
    return path


def socket_folder(place: Place) -> Path:
    """home/run, or a short folder that it links to: a socket's path is at most 107 characters."""
    run = place.home / "run"
    if run.exists() and run.stat().st_uid == place.account.uid:
        return run.resolve()
    if run.is_symlink():  # /tmp was emptied, and perhaps somebody else has the name now
        run.unlink()
    if len(f"{run}/.s.PGSQL.{PORT}") <= LONGEST_SOCKET and re.fullmatch(r"[\w./+-]+", str(run), re.ASCII):
        private(run, 0o700)
    else:
        run.symlink_to(tempfile.mkdtemp(prefix="opsbot-", dir="/tmp"))
    place.account.own(run.resolve())
    return run.resolve()


def dsn(place: Place, database: str) -> str:
    # requirepeer: whoever else made a socket of that name is not talked to.
    return make_conninfo(
        host=str(socket_folder(place)), port=PORT, user=USER, dbname=database, requirepeer=place.account.name
    )
