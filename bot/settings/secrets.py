"""Secrets: from the environment, or from files that the environment names; never from the configuration file."""

import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

SHORTEST_KEY: Final = 32  # characters; a shorter audit key could be guessed
LARGEST_FILE: Final = 64 * 1024

_KEY: Final = "make one with `openssl rand -hex 32`, and keep a copy away from the database"
_APPS: Final = "https://api.slack.com/apps"
_WHERE: Final = {
    "SLACK_BOT_TOKEN": f"copy the Bot User OAuth Token from {_APPS} > your app > OAuth & Permissions",
    "SLACK_APP_TOKEN": f"make one with connections:write at {_APPS} > your app > Basic Information > App-Level Tokens",
}
_PREFIXES: Final = {"SLACK_BOT_TOKEN": "xoxb-", "SLACK_APP_TOKEN": "xapp-"}
TOKENS: Final = tuple(_PREFIXES)
OURS: Final = (*TOKENS, "OPSBOT_DATABASE_URL", "OPSBOT_AUDIT_KEY")


@dataclass(frozen=True)
class Secrets:
    """The values of every secret, none of which `repr` shows.

    The tokens are empty when `slack.connect` is false, `database_url` when the database is embedded, `audit_key` when
    opsbot keeps its own; `named` holds those whose variable the configuration names (`read_dsn_env`).
    """

    slack_bot_token: str = field(default="", repr=False)
    slack_app_token: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    audit_key: str = field(default="", repr=False)
    named: Mapping[str, str] = field(default_factory=dict, repr=False)

    def values(self) -> tuple[str, ...]:
        """All that must never be shown, for the redactor."""
        every = (self.slack_bot_token, self.slack_app_token, self.database_url, self.audit_key, *self.named.values())
        return tuple(dict.fromkeys(text for value in every for text in (value, *passwords(value)) if text))


def read(environment: Mapping[str, str], needed: Iterable[str]) -> tuple[Secrets, list[str]]:
    """Every secret, and a sentence for each that is needed and missing, or cannot be used."""
    needed, problems = tuple(needed), list[str]()
    found = {name: _one(name, environment, problems) for name in dict.fromkeys((*OURS, *needed))}
    told = {problem.partition(":")[0].removesuffix("_FILE") for problem in problems}
    problems += [f"{name}: missing; {_where(name)}" for name in needed if not found[name] and name not in told]
    bot, app, url, key = (found.pop(name) for name in OURS)
    problems += [f"SLACK_BOT_TOKEN: {why}" for why in _wrong_token("SLACK_BOT_TOKEN", bot)]
    problems += [f"SLACK_APP_TOKEN: {why}" for why in _wrong_token("SLACK_APP_TOKEN", app)]
    problems += ["OPSBOT_DATABASE_URL: must begin with postgresql://"] if url and not is_database(url) else []
    problems += [f"OPSBOT_AUDIT_KEY: is too short; {_KEY}"] if key and len(key) < SHORTEST_KEY else []
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


def _where(name: str) -> str:
    return _WHERE.get(name) or f"the configuration names it; set {name} or {name}_FILE"


def _wrong_token(name: str, token: str) -> Iterator[str]:
    wanted = _PREFIXES[name]
    if token and not token.startswith(wanted):
        swapped = token.startswith(tuple(_PREFIXES.values()))
        yield f"must begin with {wanted}; {'the two tokens look swapped' if swapped else _where(name)}"


def is_database(url: str) -> bool:
    return re.match(r"postgres(ql)?://", url) is not None


def passwords(url: str) -> tuple[str, ...]:
    """The passwords in an address, as they are typed and as they stand there: each would be told by itself too."""
    if "://" not in url:
        return ()
    authority, _, rest = url.partition("://")[2].partition("/")
    written = [authority.rpartition("@")[0].partition(":")[2]]
    written += [value for name, value in parse_qsl(rest.partition("?")[2]) if "password" in name.lower()]
    return tuple(dict.fromkeys(form for each in written if each for form in (each, unquote(each))))


def why_no_address(value: str, kind: str) -> str:
    """Why this is no address of a database (`postgresql`), of `redis` or of a page (`http`); empty when it is one."""
    shape, example = _ADDRESSES[kind]
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - it is read when it is asked for
    except ValueError:
        return f"holds no address that can be read; it looks like {example}"
    return (
        "" if parts.scheme in shape else f"must begin with {' or '.join(f'{each}://' for each in shape)}, as {example}"
    )


_ADDRESSES: Final = {
    "postgresql": (("postgresql", "postgres"), "postgresql://reader:PASSWORD@10.0.0.10:5432/travis_production"),
    "redis": (("redis", "rediss"), "redis://:PASSWORD@10.0.0.10:6379/0"),
    "http": (("http", "https"), "https://monitor:PASSWORD@10.0.0.10:15671"),
}
