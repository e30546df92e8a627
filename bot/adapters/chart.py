"""Charts drawn with Pillow: two rows of bars, to be read on a phone, where the picture is a third as wide."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, count
from math import ceil
from textwrap import shorten
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from bot.core.chart import Bar, Chart, Mark
from bot.core.fix import readable
from bot.engine.words import size

WIDTH: Final = 1080
LEFT, RIGHT = 190, WIDTH - 30  # of the bars
PANEL: Final = 330  # pixels from the axis to the largest tick
TITLE, TEXT = 44, 32  # pixels of a letter
LONGEST: Final = 46  # characters of the title
MOST_TICKS, MOST_DATES = 4, 4
INK, FAINT, GRID, PAPER = "#1d1c1d", "#616061", "#dddddd", "#ffffff"
COLOURS: Final = {Mark.PROVEN: "#1264a3", Mark.UNPROVEN: "#d99000", Mark.INCOMPLETE: "#c01343"}
SIGNS: Final = {Mark.PROVEN: "", Mark.UNPROVEN: "?", Mark.INCOMPLETE: "x"}  # for who does not tell colours apart
PART: Final = "narrow: one part only"
WIDE, NARROW = 0.8, 0.35  # of the room that a bar has
LOWEST: Final = 4  # pixels: what is nothing is seen all the same


@dataclass(frozen=True)
class Panel:
    """One row of bars over its axis."""

    title: str
    axis: int  # pixels from the top
    heights: tuple[float, ...]
    steps: Iterable[float]
    label: Callable[[float], str]


def draw(chart: Chart) -> bytes:
    """A PNG of the sizes and, below them, the durations; for a chart of one bar or more."""
    legend = list(_legend(chart))
    sheet = _Sheet(1090 + len(legend) * 48)
    sheet.text((30, 52), shorten(chart.title, LONGEST, placeholder="..."), TITLE, "lm")
    for panel in _panels(chart):
        _draw_panel(sheet, panel, chart.bars)
    _draw_dates(sheet, chart.bars)
    for no, (colour, said) in enumerate(legend):
        _draw_key(sheet, 1096 + no * 48, colour, said)
    return sheet.png()


def _panels(chart: Chart) -> tuple[Panel, Panel]:
    sizes, seconds = tuple(float(bar.stored) for bar in chart.bars), tuple(bar.seconds for bar in chart.bars)
    newest = chart.bars[-1]
    return (
        Panel(f"Size in the store, last: {size(newest.stored)}", 500, sizes, _sizes(), _size),
        Panel(f"Duration, last: {readable(newest.took)}", 946, seconds, _durations(), _duration),
    )


class _Sheet:
    """The picture while it is drawn."""

    def __init__(self, height: int) -> None:
        self._image = Image.new("RGB", (WIDTH, height), PAPER)
        self._pen = ImageDraw.Draw(self._image)
        self._fonts = {each: ImageFont.load_default(each) for each in (TITLE, TEXT)}

    def text(self, at: tuple[float, float], said: str, letter: int = TEXT, anchor: str = "rm", ink: str = INK) -> None:
        self._pen.text(at, said, fill=ink, font=self._fonts[letter], anchor=anchor)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._pen.rectangle((round(left), round(top), round(right) - 1, round(bottom) - 1), fill=colour)

    def png(self) -> bytes:
        """With fewer colours it were a third of 70 kB, and would take ten more megabytes of memory meanwhile."""
        written = io.BytesIO()
        self._image.save(written, "PNG")
        return written.getvalue()


def _draw_panel(sheet: _Sheet, panel: Panel, bars: Sequence[Bar]) -> None:
    marks = ticks(max(panel.heights), panel.steps)
    scale = PANEL / marks[-1]
    sheet.text((30, panel.axis - PANEL - 48), panel.title, anchor="lm")
    for mark in marks:
        level = panel.axis - mark * scale
        sheet.box(LEFT, level, RIGHT, level + 2, GRID if mark else FAINT)
        sheet.text((LEFT - 14, level), panel.label(mark), ink=FAINT)
    room = (RIGHT - LEFT) / len(bars)
    for no, (bar, height) in enumerate(zip(bars, panel.heights, strict=True)):
        _draw_bar(sheet, bar, LEFT + (no + 0.5) * room, room, panel.axis, height * scale)


def _draw_bar(sheet: _Sheet, bar: Bar, middle: float, room: float, axis: int, height: float) -> None:
    half = min(room, 120) * (NARROW if bar.part else WIDE) / 2
    top = axis - max(height, LOWEST)
    sheet.box(middle - half, top, middle + half, axis, COLOURS[bar.mark])
    sheet.text((middle, top - 4), SIGNS[bar.mark], anchor="ms", ink=COLOURS[bar.mark])


def _draw_dates(sheet: _Sheet, bars: Sequence[Bar]) -> None:
    """When some of them began, evenly among them; the newest always has its date."""
    room = (RIGHT - LEFT) / len(bars)
    every = ceil(len(bars) / MOST_DATES)
    for no in range(len(bars) - 1, -1, -every):
        began = bars[no].began
        sheet.text((min(LEFT + (no + 0.5) * room, WIDTH - 62), 978), f"{began:%d} {began:%b}", anchor="mm", ink=FAINT)
    first, last = bars[0], bars[-1]
    sheet.text((30, 1034), f"backups {first.number} to {last.number}, by the day (UTC) that each began", anchor="lm")


def _draw_key(sheet: _Sheet, middle: float, colour: str, said: str) -> None:
    sheet.box(30, middle - 14, 58, middle + 14, colour)
    sheet.text((72, middle), said, anchor="lm")


def _legend(chart: Chart) -> Iterator[tuple[str, str]]:
    """What there is to be told apart, and nothing else."""
    for mark in Mark:
        if any(bar.mark is mark for bar in chart.bars):
            yield COLOURS[mark], f"{SIGNS[mark]} {mark.value}".strip()
    if any(bar.part for bar in chart.bars):
        yield PAPER, PART


# ---------------------------------------------------------------- axes


def ticks(most: float, steps: Iterable[float]) -> list[float]:
    """From nothing to the largest or a little more, in the first step that needs few of them."""
    step = next(each for each in steps if most <= each * MOST_TICKS)
    return [step * no for no in range(max(1, ceil(most / step)) + 1)]


def _sizes() -> Iterator[float]:
    """Powers of two, so that they stay round in KiB, MiB and GiB."""
    return (2.0**power for power in count())


def _durations() -> Iterator[float]:
    known = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
    return chain(map(float, known), (86_400.0 * 2**power for power in count()))


def _size(count: float) -> str:
    return size(count).replace(".0 ", " ").replace("bytes", "B")


def _duration(seconds: float) -> str:
    return readable(timedelta(seconds=seconds))
