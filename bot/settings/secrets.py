"""Secrets: from the environment, or from files that the environment names; never from the configuration file."""

import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SHORTEST_KEY: Final = 32  # characters; a shorter audit key could be guessed
LARGEST_FILE: Final = 64 * 1024

_APPS: Final = "https://api.slack.com/apps"
_WHERE: Final = {
    "SLACK_BOT_TOKEN": f"copy the Bot User OAuth Token from {_APPS} > your app > OAuth & Permissions",
    "SLACK_APP_TOKEN": f"make one with connections:write at {_APPS} > your app > Basic Information > App-Level Tokens",
    "OPSBOT_DATABASE_URL": "give the address of opsbot's own database, as postgresql://USER:PASSWORD@HOST/NAME",
    "OPSBOT_AUDIT_KEY": "make one with `openssl rand -hex 32`, and keep a copy away from the database",
}
_PREFIXES: Final = {"SLACK_BOT_TOKEN": "xoxb-", "SLACK_APP_TOKEN": "xapp-"}
OURS: Final = tuple(_WHERE)


@dataclass(frozen=True)
class Secrets:
    """The values of every secret, none of which `repr` shows.

    `database_url` is empty when the database is embedded; `named` holds those whose variable the configuration names
    (`read_dsn_env`).
    """

    slack_bot_token: str = field(default="", repr=False)
    slack_app_token: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    audit_key: str = field(default="", repr=False)
    named: Mapping[str, str] = field(default_factory=dict, repr=False)

    def values(self) -> tuple[str, ...]:
        """All that must never be shown, for the redactor."""
        every = (self.slack_bot_token, self.slack_app_token, self.database_url, self.audit_key, *self.named.values())
        return tuple(value for value in every if value)


def read(environment: Mapping[str, str], named: Iterable[str]) -> tuple[Secrets, list[str]]:
    """Every secret, and a sentence for each that is missing or cannot be used."""
    problems: list[str] = []
    found = {name: _one(name, environment, problems) for name in (*OURS, *named)}
    problems += [f"{name}: missing; {_where(name)}" for name, value in found.items() if _missing(name, value, problems)]
    ours = {name: found.pop(name) for name in OURS}
    problems += [f"{name}: {why}" for name, value in ours.items() if value and (why := _wrong(name, value))]
    bot, app, url, key = ours.values()
    return Secrets(bot, app, url, key, found), problems


def _one(name: str, environment: Mapping[str, str], problems: list[str]) -> str:
    value, file = environment.get(name, "").strip(), environment.get(f"{name}_FILE", "").strip()
    if value and file:
        problems.append(f"{name}: given twice, by {name} and by {name}_FILE; take one away")
        return ""
    try:
        value = _from_file(Path(file)) if file else value
    except (OSError, ValueError) as why:
        reason = why.strerror if isinstance(why, OSError) else str(why)
        problems.append(f"{name}_FILE: {file} cannot be used: {reason}")
        return ""
    if len(value.split()) > 1:
        problems.append(f"{name}: has a space or a line break in it; was it copied whole, and nothing else?")
    return value


def _from_file(file: Path) -> str:
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise ValueError("it is no ordinary file")
    if mode & stat.S_IRWXO:
        raise ValueError(f"everybody on this machine can read it; chmod o= {file}")
    text = file.read_bytes()[:LARGEST_FILE].decode(errors="replace").strip()
    if not text:
        raise ValueError("it is empty")
    return text


def _missing(name: str, value: str, problems: list[str]) -> bool:
    """The database's address is not: the embedded one needs none, and `database.url` says which it is."""
    told = any(problem.startswith((f"{name}:", f"{name}_FILE:")) for problem in problems)
    return not value and not told and name != "OPSBOT_DATABASE_URL"


def _where(name: str) -> str:
    return _WHERE.get(name) or f"the configuration names it; set {name} or {name}_FILE"


def _wrong(name: str, value: str) -> str:
    checks: dict[str, Callable[[str], str]] = {
        "SLACK_BOT_TOKEN": lambda token: _wrong_token("SLACK_BOT_TOKEN", token),
        "SLACK_APP_TOKEN": lambda token: _wrong_token("SLACK_APP_TOKEN", token),
        "OPSBOT_DATABASE_URL": lambda url: "" if is_database(url) else "must begin with postgresql://",
        "OPSBOT_AUDIT_KEY": lambda key: "" if len(key) >= SHORTEST_KEY else f"is too short; {_where(name)}",
    }
    return checks[name](value)


def _wrong_token(name: str, token: str) -> str:
    wanted = _PREFIXES[name]
    if token.startswith(wanted):
        return ""
    swapped = any(token.startswith(other) for other in _PREFIXES.values())
    return f"must begin with {wanted}{'; the two tokens look swapped' if swapped else f'; {_where(name)}'}"


def is_database(url: str) -> bool:
    return re.match(r"postgres(ql)?://", url) is not None
