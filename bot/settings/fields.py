"""The kinds of values that settings have, each with the sentence for what it is not."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr, ValidationInfo
from pyrage import RecipientError, x25519

from bot.settings.secrets import OURS

_UNITS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RESERVED: Final = ("all", "and", "because", "machine", "machines", "on", "platform", "worker")


def _matching(pattern: str, why: str) -> AfterValidator:
    """Text of this shape; the sentence says which, and does not repeat what was given."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(why)
        return value

    return AfterValidator(check)


def _no_word_of_the_grammar(name: str) -> str:
    if name in _RESERVED:
        raise ValueError(f"`{name}` is a word of the commands, so nothing can be called so")
    return name


def span(value: Any) -> timedelta:
    """`90s`, `30m`, `26h`, `1h30m`, `7d` as a time span."""
    text = value if isinstance(value, str) else ""
    parts = re.findall(r"(\d+)(ms|s|m|h|d)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError("must be a time span with a unit, such as 10s, 30m, 26h or 1h30m")
    return timedelta(milliseconds=sum(int(number) * _UNITS[unit] for number, unit in parts))


def _cron(value: str) -> str:
    """Checked by the library that will read it; it is given a time that every schedule can be asked about."""
    try:
        CronSim(value, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError:
        raise ValueError(
            "is no cron line of five fields (minute hour day month weekday), such as `0 3 * * *`"
        ) from None
    return value


def _version(value: str) -> str:
    if re.fullmatch(r"3(\.\w+)*", value):
        raise ValueError("3.x needs Kubernetes, which is not built yet; opsbot looks after 2.x")
    if not re.fullmatch(r"2(\.\w+)*", value):
        raise ValueError('must be a version of Travis CI Enterprise 2.x, such as "2.2"')
    return value


def _file(value: Any, info: ValidationInfo) -> Path:
    """Relative paths count from the configuration file's own folder, wherever opsbot is started."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError("must be the path of a file or folder")
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / Path(value).expanduser()


def _variable(name: str) -> str:
    if name in OURS:
        raise ValueError(f"{name} is opsbot's own; name a variable of the installation")
    return name


def _id(letters: str, what: str) -> AfterValidator:
    first = " or ".join(letters)
    return _matching(
        f"[{letters}][A-Z0-9]{{2,30}}", f"must be {what}, which begins with {first}, as in {letters[0]}012AB3CD"
    )


def _approvals(value: Any) -> Any:
    """YAML's `yes` and `true` equal 1 in Python; who must agree is nothing to guess."""
    if isinstance(value, bool) or value not in (0, 1, 2, "forbidden") or isinstance(value, float):
        raise ValueError("must be 0, 1, 2 or forbidden")
    return value


def _between(least: timedelta, most: timedelta, why: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not least <= value <= most:
            raise ValueError(why)
        return value

    return AfterValidator(check)


def _bytes(value: Any) -> int:
    """`500MiB`, `20GiB`, `1TiB` as a number of bytes."""
    found = re.fullmatch(r"(\d{1,6})(MiB|GiB|TiB)", value) if isinstance(value, str) else None
    if not found:
        raise ValueError("must be a size with a unit, such as 500MiB, 20GiB or 1TiB")
    return int(found[1]) * {"MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}[found[2]]


def _store(value: str) -> str:
    """Where backups go: a folder of this machine, or a bucket."""
    parts = urlsplit(value)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return value
    if parts.scheme in ("s3", "gs", "az") and parts.netloc:
        return value
    raise ValueError("must be a folder as file:///var/backups/opsbot, or a bucket as s3://, gs:// or az://BUCKET/PATH")


def _recipient(value: str) -> str:
    try:
        x25519.Recipient.from_str(value)
    except RecipientError:
        raise ValueError("must be an age public key, age1…, as `age-keygen` prints it") from None
    return value


_SECOND: Final = timedelta(seconds=1)
_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,253}[A-Za-z0-9])?"

Text = Annotated[StrictStr, _matching(r"(?s).*\S.*", "must not be empty")]
Port = Annotated[StrictInt, Field(ge=1, le=65535)]
Uid = Annotated[int, Field(ge=0)]
File = Annotated[Path, BeforeValidator(_file)]
Name = Annotated[
    StrictStr,
    _matching(r"[a-z0-9][a-z0-9.-]{0,39}", "must be a short name of a-z, 0-9, - and ., as people will type it"),
    AfterValidator(_no_word_of_the_grammar),
]
Host = Annotated[StrictStr, _matching(_HOST, "must be a host name or an address, without a user or a port")]
UnixUser = Annotated[StrictStr, _matching(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "must be the name of a user")]
Word = Annotated[StrictStr, _matching(r"[^\s'\"`<>|;&$\\]+", "must be one word, without quotes or shell characters")]
SecurityGroup = Annotated[
    StrictStr, _matching(r"sg-[0-9a-f]{8,17}", "must be the id of a security group, such as sg-0123456789abcdef0")
]
Variable = Annotated[
    StrictStr,
    _matching(r"[A-Z][A-Z0-9_]*", "must name an environment variable, such as TRAVIS_READ_DSN"),
    AfterValidator(_variable),
]
Version = Annotated[StrictStr, AfterValidator(_version)]
SlashCommand = Annotated[
    StrictStr, _matching(r"/[a-z0-9_-]{1,31}", "must be a slash command of small letters, such as /travis")
]
Team = Annotated[StrictStr, _id("T", "a workspace id")]
App = Annotated[StrictStr, _id("A", "an app id")]
Enterprise = Annotated[StrictStr, _id("E", "an organisation's id")]
Channel = Annotated[StrictStr, _id("CG", "a channel id")]
User = Annotated[StrictStr, _id("UW", "a user id")]
Usergroup = Annotated[StrictStr, _id("S", "a user group id")]
Approvals = Annotated[Literal[0, 1, 2, "forbidden"], BeforeValidator(_approvals)]
Cron = Annotated[StrictStr, AfterValidator(_cron)]
Lease = Annotated[timedelta, BeforeValidator(span), _between(_SECOND, 600 * _SECOND, "must be between 1s and 10m")]
Poll = Annotated[timedelta, BeforeValidator(span), _between(_SECOND / 100, 60 * _SECOND, "must be between 10ms and 1m")]
Patience = Annotated[
    timedelta, BeforeValidator(span), _between(_SECOND, 86_400 * _SECOND, "must be between 1s and 24h")
]
Store = Annotated[StrictStr, AfterValidator(_store)]
Recipient = Annotated[StrictStr, AfterValidator(_recipient)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Grace = Annotated[
    timedelta, BeforeValidator(span), _between(3600 * _SECOND, 31 * 86_400 * _SECOND, "must be between 1h and 31d")
]
