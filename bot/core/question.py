"""What can be asked of the world, and the forms its answers take. Asking changes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any

from bot.core.aws import AwsCall
from bot.core.command import Command
from bot.core.sql import Parameter, Query


@dataclass(frozen=True)
class HttpGet:
    """A GET request; the status and at most `most` bytes of the body come back, redirects are not followed."""

    url: str
    within: timedelta = timedelta(seconds=10)
    most: int = 64 << 10

    def __str__(self) -> str:
        return f"GET {self.url}"


@dataclass(frozen=True)
class TcpProbe:
    """Can a TCP connection be opened from the bot to host:port?"""

    host: str
    port: int
    within: timedelta = timedelta(seconds=5)

    def __str__(self) -> str:
        return f"connect {self.host}:{self.port}"


@dataclass(frozen=True)
class RedisRead:
    """One command that only reads, such as `LLEN sidekiq:queue:sync`; the answer is an `Output`, a line per element, as
    `redis-cli` prints it when nobody watches.
    """

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"redis-cli {' '.join(self.words)}"


@dataclass(frozen=True)
class BackupRecords:
    """What opsbot itself knows of the installation's backups, a row: `newest` (its number), `age` and `overdue_after`
    in seconds, `fingerprint` of the encryption key that was backed up last, `key_backup` (the number of the backup with
    it), `key_opens` (`yes` or `no`: whether it opened a value of the database then; empty: it was not tried), and
    `key_before`, the newest backup with another key, which did open one. No row: no backups are configured.
    """

    def __str__(self) -> str:
        return "opsbot's own records of backups"


@dataclass(frozen=True)
class KeyFingerprint:
    """A keyed fingerprint of the encryption key that the platform has now: `fingerprint` of the one row. The key itself
    is no answer, since answers are kept as evidence. No row: no backups are configured.
    """

    def __str__(self) -> str:
        return "the fingerprint of the platform's encryption key"


@dataclass(frozen=True)
class StoredBackup:
    """What one backup of the installation holds, by its number, a row a piece: its `kind` and `name`, the `address` of
    its object in the store, `size` in bytes, `fingerprint` of an encryption key, `state` of the whole backup, in
    `failed` what a proof says that it did not pass, and `live` where files of a running database are
    in it. No row: there is no such backup.
    """

    number: str

    def __str__(self) -> str:
        return f"opsbot's own record of backup {self.number}"


Question = Command | Query | HttpGet | TcpProbe | RedisRead | AwsCall | BackupRecords | KeyFingerprint | StoredBackup


@dataclass(frozen=True)
class Output:
    """What a program said: exit status (None when a signal or the deadline ended it), both streams as text."""

    exit: int | None
    out: str = ""
    err: str = ""
    truncated: bool = False

    @property
    def ok(self) -> bool:
        return self.exit == 0


@dataclass(frozen=True)
class Rows:
    """What a query returned: a mapping per row, column name to value; `truncated` when there were more.

    A value is what JSON has for it: a number, text, a boolean or None. A time is ISO 8601 in UTC, an array or a JSON
    value is JSON text.
    """

    rows: tuple[Mapping[str, Parameter], ...] = ()
    truncated: bool = False


@dataclass(frozen=True)
class Response:
    """What an HTTP server said: status, body, headers in lower case; `truncated` when there was more of the body."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    truncated: bool = False


@dataclass(frozen=True)
class Reached:
    """How a connection went: `open`, `refused` (nothing listens), `silent` (dropped on the way) or `no-name` (DNS)."""

    state: str


@dataclass(frozen=True)
class Unanswered:
    """The question could not be asked: why, as a sentence, and the cause id of the finding it becomes."""

    why: str
    cause: str = "unreachable"


Answer = Output | Rows | Response | Reached
_KINDS: dict[str, Callable[..., Answer]] = {kind.__name__: kind for kind in (Output, Rows, Response, Reached)}


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """An answer as a stored sample."""
    return {"kind": type(answer).__name__, **asdict(answer)}


def answer_from_json(stored: Mapping[str, Any]) -> Answer:
    fields = {key: tuple(value) if key == "rows" else value for key, value in stored.items() if key != "kind"}
    return _KINDS[stored["kind"]](**fields)
