"""What only the whole file can tell: names used twice, and names that nothing has."""

from collections.abc import Iterable, Iterator
from typing import Final

from bot.settings.secrets import TOKENS, Secrets, is_database, why_no_address
from bot.settings.sections import File, Installation

_DSNS: Final = ("read_dsn_env", "write_dsn_env")
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
    for number, each in enumerate(file.installations):
        yield from _ways(each, f"installations[{number}]")
        yield from _addresses(each, f"installations[{number}]", secrets)
    if (length := len(bytes(file.socket))) > LONGEST_SOCKET:
        yield f"socket: {file.socket} has {length} bytes, and Linux takes {LONGEST_SOCKET}; set a shorter one"


def needed_secrets(file: File) -> tuple[str, ...]:
    """The environment variables that must be there: Slack's, and those that the file names; each once."""
    databases = [base for each in file.installations for base in (each.database, each.logs_database) if base]
    named = [name for base in databases for name in (base.read_dsn_env, base.write_dsn_env)]
    named += [name for each in file.installations for name in (each.redis.url_env, each.rabbitmq.url_env)]
    return tuple(dict.fromkeys((*(TOKENS if file.slack.connect else ()), *(name for name in named if name))))


def _ways(given: Installation, place: str) -> Iterator[str]:
    """Ways that need an address and have none, and addresses that nobody would use."""
    for section in ("database", "logs_database"):
        database = getattr(given, section)
        if database is None:
            continue
        if database.via != "container" and database.read_dsn_env is None:
            yield f"{place}.{section}.read_dsn_env: missing; via: {database.via} needs it"
        for key in _DSNS:
            if database.via == "container" and getattr(database, key) is not None:
                yield f"{place}.{section}.{key}: has no use inside the container; say via: tunnel or direct, or drop it"
    if given.redis.via != "container" and given.redis.url_env is None:
        yield f"{place}.redis.url_env: missing; via: {given.redis.via} needs it"
    if given.rabbitmq.via == "http" and given.rabbitmq.url_env is None:
        yield f"{place}.rabbitmq.url_env: missing; via: http needs it"


def _addresses(given: Installation, place: str, secrets: Secrets) -> Iterator[str]:
    """Variables whose value is no address of that kind; the value is not repeated."""
    databases = [(f"{place}.{name}", getattr(given, name)) for name in ("database", "logs_database")]
    wanted = [
        *((f"{at}.{key}", getattr(each, key), "postgresql") for at, each in databases if each for key in _DSNS),
        (f"{place}.redis.url_env", given.redis.url_env, "redis"),
        (f"{place}.rabbitmq.url_env", given.rabbitmq.url_env, "http"),
    ]
    for path, variable, kind in wanted:
        value = secrets.named.get(variable, "") if variable else ""
        if value and (why := why_no_address(value, kind)):
            yield f"{path}: {variable} {why}"


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
