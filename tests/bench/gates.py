"""Figures with their gates: printed as a table, and kept in docs/measurements.md."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "measurements.md"


@dataclass(frozen=True)
class Figure:
    """One measured thing; without a gate it is told for information only."""

    name: str
    value: str
    gate: str = ""
    held: bool = True

    @property
    def verdict(self) -> str:
        return "" if not self.gate else "ok" if self.held else "**MISSED**"


def at_most(name: str, value: float, most: float, unit: str = "") -> Figure:
    return Figure(name, f"{value:.4g}{unit}", f"<= {most:g}{unit}", value <= most)


def at_least(name: str, value: float, least: float, unit: str = "") -> Figure:
    return Figure(name, f"{value:.4g}{unit}", f">= {least:g}{unit}", value >= least)


def exactly(name: str, value: int, wanted: int) -> Figure:
    return Figure(name, str(value), str(wanted), value == wanted)


def info(name: str, value: object) -> Figure:
    return Figure(name, f"{value:.4g}" if isinstance(value, float) else str(value))


def table(title: str, figures: Sequence[Figure]) -> str:
    rows = [("", "gate", "measured", ""), *((each.name, each.gate, each.value, each.verdict) for each in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    lines = [f"| {' | '.join(cells)} |" for cells in padded]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join([f"### {title}", "", *lines])


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Progress, for who waits."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def write(section: str, text: str) -> None:
    """Put the text between the section's marks in docs/measurements.md, at the end when it is new."""
    begin, end = f"<!-- {section} -->", f"<!-- end of {section} -->"
    page = PAGE.read_text() if PAGE.exists() else "# Measurements\n"
    kept = f"{begin}\n{text.strip()}\n{end}"
    marked = re.compile(rf"{re.escape(begin)}.*?{re.escape(end)}", re.S)
    page = marked.sub(lambda _: kept, page) if marked.search(page) else f"{page.rstrip()}\n\n{kept}\n"
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page)


def missed(figures: Sequence[Figure]) -> int:
    return sum(not each.held for each in figures)
