"""What has been backed up, what proves it, and how long it is kept. Pure."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

from bot.core.backup import LIVE

KINDS: Final = ("data", "databases", "key", "redis", "rabbitmq", "settings")
ALL: Final = "all"
MOST_KEPT: Final = 2000  # backups of one installation, the newest, that are looked through: an hourly one for 12 weeks


class Proof(Enum):
    """What was done to a piece to know that it can be restored, weakest first.

    LISTING: its contents were read while it was written. READ_BACK: what the store has was read, decrypted where that
    can be done, and compared. RESTORED: loaded into an empty server, and the tables counted. DECRYPTED: a key that
    opened a value of the database. DRILLED: restored from what the store has, with the secret key of a person.
    """

    LISTING = "listing"
    READ_BACK = "read back"
    RESTORED = "restored"
    DECRYPTED = "decrypted"
    DRILLED = "drilled"


@dataclass(frozen=True)
class Proven:
    """How one proof of a piece went."""

    by: Proof
    passed: bool
    said: str
    at: datetime


@dataclass(frozen=True)
class Piece:
    """One object in the store. `proofs` are the newest of each kind; sizes are bytes; `rows` are those of each table in
    the snapshot that a dump was made of, where they were counted.
    """

    id: int
    kind: str
    name: str
    key: str
    plain: int
    stored: int
    sha256: str
    packed: str
    began: datetime
    ended: datetime
    fingerprint: str = ""
    warnings: tuple[str, ...] = ()
    gone: datetime | None = None
    proofs: tuple[Proven, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind} ({self.name})"

    @property
    def took(self) -> timedelta:
        """Nothing where the clock was put back meanwhile."""
        return max(self.ended - self.began, timedelta())

    @property
    def proven(self) -> Proven | None:
        """The strongest proof that it passed; None when it passed none, or failed one."""
        if any(not each.passed for each in self.proofs):
            return None
        return max(self.proofs, key=lambda each: list(Proof).index(each.by), default=None)

    @property
    def live(self) -> bool:
        """Whether files of a running database are in it, which no server starts on."""
        return any(LIVE in warning for warning in self.warnings)

    @property
    def failed(self) -> Proven | None:
        return next((each for each in self.proofs if not each.passed), None)


@dataclass(frozen=True)
class Backup:
    """What one run took: its pieces, sealed by a manifest that was written last. `open` while that run goes on, and
    `over` when it ended.
    """

    id: int
    site: str
    what: str
    run: int
    folder: str
    began: datetime
    sealed: datetime | None = None
    gone: datetime | None = None
    manifest: str = ""
    open: bool = False
    pieces: tuple[Piece, ...] = ()
    over: datetime | None = None

    def __str__(self) -> str:
        return f"backup {self.id}: {self.what} of {self.site}"

    @property
    def stored(self) -> int:
        return sum(piece.stored for piece in self.pieces)

    @property
    def proven(self) -> Proven | None:
        """The weakest of what its pieces passed, by its time the oldest; None unless all passed, and it is complete."""
        proofs = [piece.proven for piece in self.pieces]
        passed = [each for each in proofs if each is not None]
        if self.sealed is None or self.gone is not None or not passed or len(passed) < len(proofs):
            return None
        return min(passed, key=lambda each: each.at)

    @property
    def took(self) -> timedelta:
        """Until it was sealed; of one that was not, until its run ended; nothing where a clock was put back."""
        return max((self.sealed or self.over or self.began) - self.began, timedelta())

    @property
    def state(self) -> str:
        if self.gone is not None:
            return "gone"
        if self.sealed is not None:
            return "complete"
        return "being taken" if self.open else "incomplete"


# ---------------------------------------------------------------- how long


@dataclass(frozen=True)
class Keep:
    """How many days, weeks and months that have a backup keep their newest one. Time alone makes nothing old: when no
    new backups come, the old ones stay.
    """

    daily: int = 7
    weekly: int = 4
    monthly: int = 12


def _day(at: datetime) -> tuple[int, ...]:
    return at.year, at.month, at.day


def _week(at: datetime) -> tuple[int, ...]:
    return tuple(at.isocalendar()[:2])


def _month(at: datetime) -> tuple[int, ...]:
    return at.year, at.month


def dispensable(backups: Iterable[Backup], keep: Keep) -> list[Backup]:
    """What may be thrown away, the oldest first. Each site's backups of the same things are counted by themselves.

    Never the newest, nor the newest proven one, nor anything while the newest is unproven.
    """
    series: dict[tuple[str, str], list[Backup]] = {}
    for each in backups:
        if each.gone is None:
            series.setdefault((each.site, each.what), []).append(each)
    old = [backup for each in series.values() for backup in _old(sorted(each, key=lambda b: b.id), keep)]
    return sorted(old, key=lambda backup: backup.id)


def _old(series: Sequence[Backup], keep: Keep) -> list[Backup]:
    if series[-1].proven is None:
        return []
    wanted = {series[-1].id}
    proven = [each for each in series if each.proven is not None]
    for many, period in ((keep.daily, _day), (keep.weekly, _week), (keep.monthly, _month)):
        wanted |= _newest_of_each(proven, many, period)
    return [each for each in series if each.id not in wanted]


def _newest_of_each(series: Sequence[Backup], many: int, period: Callable[[datetime], tuple[int, ...]]) -> set[int]:
    """The newest backup of each of the last `many` periods that have one."""
    newest = {period(each.began): each.id for each in series}
    return {newest[each] for each in sorted(newest)[-many:]} if many else set()
