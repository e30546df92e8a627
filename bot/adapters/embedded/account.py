"""The system user that the server runs as, and running programs as that user."""

import os
import pwd
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag
from typing import Any

from bot.adapters.embedded.locks import TICK, within
from bot.core.errors import Permanent

# No secret of the bot's environment reaches the server, whose environment its user can read.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Account:
    """The system user that the server runs as."""

    name: str
    uid: int
    gid: int
    is_another: bool

    def process(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_another else {}

    def own(self, path: Path) -> None:
        if self.is_another:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_account() -> Account:
    if os.geteuid() == 0:
        try:
            nobody = pwd.getpwnam("nobody")
        except KeyError as error:
            raise Permanent(
                "PostgreSQL refuses to run as root, and this machine has no user 'nobody' to run it as: "
                "run opsbot as an ordinary user, or give it a database by OPSBOT_DATABASE_URL."
            ) from error
        return Account(nobody.pw_name, nobody.pw_uid, nobody.pw_gid, is_another=True)
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise Permanent(
            f"PostgreSQL refuses to run as user id {os.geteuid()}, which has no name on this machine: "
            "run opsbot as a user of /etc/passwd, or give it a database by OPSBOT_DATABASE_URL."
        ) from error
    return Account(me.pw_name, me.pw_uid, me.pw_gid, is_another=False)


def run(
    account: Account, words: list[str], timeout: float, abort: Flag | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    options |= {"cwd": "/", "env": ENVIRONMENT, "start_new_session": True} | account.process()
    try:
        with subprocess.Popen(words, text=True, **options) as process:
            try:
                return _completed(words, process, timeout, abort)
            except BaseException:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # initdb has children
                raise
    except OSError as error:
        raise Permanent(
            f"{Path(words[0]).name} could not be run as user '{account.name}': {error.strerror}. "
            "Run opsbot as an ordinary user, or give it a database by OPSBOT_DATABASE_URL."
        ) from error


def _completed(
    words: list[str], process: "subprocess.Popen[str]", timeout: float, abort: Flag | None
) -> subprocess.CompletedProcess[str]:
    out, err = "", ""

    def ended() -> bool:
        nonlocal out, err
        with suppress(subprocess.TimeoutExpired):
            out, err = process.communicate(timeout=TICK)
        return process.returncode is not None

    if not within(timeout, ended, abort):
        raise Permanent(f"{Path(words[0]).name} did not end within {timeout:.0f} s.")
    return subprocess.CompletedProcess(words, process.returncode, out, err)
