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
        return _shown(self.text, self.parameters)


@dataclass(frozen=True)
class Statement:
    """SQL that writes; its row count is compared with `rows` when that is given, and another count rolls it back."""

    text: str
    parameters: tuple[Parameter, ...] = ()
    database: str = "main"
    rows: int | None = None
    within: timedelta = timedelta(seconds=30)

    def __str__(self) -> str:
        only = "" if self.rows is None else f" [exactly {self.rows} rows, or nothing]"
        return f"{_shown(self.text, self.parameters)}{only} [database {self.database}]"


def _shown(text: str, parameters: tuple[Parameter, ...]) -> str:
    """One line, with everything that is bound: what is approved, and what a sample is found by, has to be whole."""
    line = " ".join(text.split())
    return f"{line} with {', '.join(map(repr, parameters))}" if parameters else line
