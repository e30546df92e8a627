"""The last backups as a chart: what is to be drawn, never the drawing. Pure; an adapter draws it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any


class Mark(Enum):
    """What a bar stands for, beside its height."""

    PROVEN = "proven restorable"
    UNPROVEN = "never proven, or a proof failed"
    INCOMPLETE = "failed or incomplete"


@dataclass(frozen=True)
class Bar:
    """One backup: how many bytes the store has of it, how many seconds it took; `part` when it is not one of all."""

    number: int
    began: datetime
    stored: int
    seconds: float
    mark: Mark
    part: bool = False

    @property
    def took(self) -> timedelta:
        return timedelta(seconds=self.seconds)


@dataclass(frozen=True)
class Chart:
    """Sizes and durations, the oldest first. The title is the only text that is not ours."""

    title: str
    bars: tuple[Bar, ...]

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "bars": [_bar_to_json(bar) for bar in self.bars]}


Draw = Callable[[Chart], bytes]  # a PNG


def chart_from_json(given: Mapping[str, Any]) -> Chart:
    """Raises KeyError or ValueError when it is none."""
    return Chart(given["title"], tuple(_bar_from_json(each) for each in given["bars"]))


def _bar_to_json(bar: Bar) -> dict[str, Any]:
    return {**asdict(bar), "began": bar.began.isoformat(), "mark": bar.mark.value}


def _bar_from_json(given: Mapping[str, Any]) -> Bar:
    return Bar(**{**given, "began": datetime.fromisoformat(given["began"]), "mark": Mark(given["mark"])})
