"""SQL as values: a query that can only read, a statement that reports what it changed."""

from dataclasses import dataclass
from datetime import timedelta

Parameter = str | int | bool | float | None | tuple[int, ...] | tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """SQL that reads, run READ ONLY with a statement and a lock timeout; parameters are bound, never pasted."""

    text: str
    parameters: tuple[Parameter, ...] = ()
    database: str = "main"
    within: timedelta = timedelta(seconds=10)

    def __str__(self) -> str:
        return " ".join(self.text.split())


@dataclass(frozen=True)
class Statement:
    """SQL that writes; its row count is compared with `rows` when that is given, and another count rolls it back."""

    text: str
    parameters: tuple[Parameter, ...] = ()
    database: str = "main"
    rows: int | None = None
    within: timedelta = timedelta(seconds=30)

    def __str__(self) -> str:
        return " ".join(self.text.split())
