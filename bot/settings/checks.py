"""What only the whole file can tell: names used twice, and names that nothing has."""

from collections.abc import Iterable, Iterator
from typing import Final

from bot.settings.secrets import TOKENS, Secrets, is_database
from bot.settings.sections import File, Installation

LONGEST_SOCKET: Final = 107  # bytes; what Linux takes for a Unix socket's path


def problems(file: File, secrets: Secrets) -> Iterator[str]:
    """A sentence for each contradiction."""
    yield from _twice((f"installations[{no}].name", each.name) for no, each in enumerate(file.installations))
    for number, each in enumerate(file.installations):
        yield from _twice((f"{place}.name", name) for place, name, _ in _machines(each, f"installations[{number}]"))
    yield from _twice(
        (f"{place}.host", address)
        for number, each in enumerate(file.installations)
        for place, _, address in _machines(each, f"installations[{number}]")
    )
    yield from _unknown_installations(file)
    yield from _database(file, secrets)
    if (length := len(bytes(file.socket))) > LONGEST_SOCKET:
        yield f"socket: {file.socket} has {length} bytes, and Linux takes {LONGEST_SOCKET}; set a shorter one"


def needed_secrets(file: File) -> tuple[str, ...]:
    """The environment variables that must be there: Slack's, and those that the file names; each once."""
    databases = [base for each in file.installations for base in (each.database, each.logs_database) if base]
    named = [name for base in databases for name in (base.read_dsn_env, base.write_dsn_env)]
    named += [each.redis.url_env for each in file.installations]
    return tuple(dict.fromkeys((*(TOKENS if file.slack.connect else ()), *(name for name in named if name))))


def _machines(given: Installation, place: str) -> Iterator[tuple[str, str, str]]:
    """Each machine's place in the file, name and address."""
    yield from ((f"{place}.platforms[{no}]", m.name, f"{m.host}:{m.port}") for no, m in enumerate(given.platforms))
    yield from ((f"{place}.workers[{no}]", m.name, f"{m.host}:{m.port}") for no, m in enumerate(given.workers))


def _twice(named: Iterable[tuple[str, str]]) -> Iterator[str]:
    seen: dict[str, str] = {}
    for place, name in named:
        if (first := seen.setdefault(name, place)) != place:
            yield f"{place}: {name} is taken by {first.rpartition('.')[0]}"


def _unknown_installations(file: File) -> Iterator[str]:
    names = [each.name for each in file.installations]
    known = f"no installation is called so (there is {', '.join(names)})"
    for number, rule in enumerate(file.rules):
        if rule.installation is not None and rule.installation not in names:
            yield f"policy[{number}].installation: {known}"
    for number, schedule in enumerate(file.schedules):
        if schedule.on is None and len(names) > 1:
            yield f"schedules[{number}].on: missing; say which installation ({', '.join(names)})"
        elif schedule.on is not None and schedule.on not in names:
            yield f"schedules[{number}].on: {known}"


def _database(file: File, secrets: Secrets) -> Iterator[str]:
    url = file.database.url
    if url != "embedded" and not is_database(url):
        yield "database.url: must be embedded, or an address that begins with postgresql://"
    elif url != "embedded" and secrets.database_url:
        yield "database.url: OPSBOT_DATABASE_URL gives another; take one away"
