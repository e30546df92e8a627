"""The drawn chart: a picture of its size whose bars follow the numbers, and whose marks are there."""

import io
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import pytest
from PIL import Image, ImageFont

from bot.adapters.chart import COLOURS, LEFT, PART, RIGHT, SIGNS, TEXT, WIDTH, _durations, _sizes, draw, ticks
from bot.core.chart import Bar, Chart, Mark
from tests.core.test_chart import CHART

MIB = 1024**2
SIZES_AXIS, DURATIONS_AXIS = 500, 946  # pixels from the top


def picture(chart: Chart) -> Image.Image:
    opened = Image.open(io.BytesIO(draw(chart)))
    assert opened.format == "PNG"
    return opened.convert("RGB")


def of(*stored: int, mark: Mark = Mark.PROVEN, seconds: float = 10.0, part: bool = False) -> Chart:
    bars = tuple(Bar(no, CHART.bars[0].began, each, seconds, mark, part) for no, each in enumerate(stored, 1))
    return Chart(f"The last {len(bars)} backups of prod", bars)


def pixels(image: Image.Image, colour: str, box: tuple[int, int, int, int]) -> int:
    wanted = tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))
    found = image.crop(box).getcolors(1 << 20) or []
    return sum(count for count, seen in found if seen == wanted)


def height(image: Image.Image, no: int, of: int, axis: int, mark: Mark = Mark.PROVEN) -> int:
    """Of the bar, in pixels, beside the sign over its middle."""
    column = round(LEFT + (no + 0.5) * (RIGHT - LEFT) / of) + 24
    return pixels(image, COLOURS[mark], (column, axis - 340, column + 1, axis))


def test_bars_are_as_high_as_their_numbers() -> None:
    image = picture(of(64 * MIB, 128 * MIB, 256 * MIB))
    first, second, third = (height(image, no, 3, SIZES_AXIS) for no in range(3))
    assert third == 330, "the largest is a tick of the axis"
    assert second == pytest.approx(third / 2, abs=2)
    assert first == pytest.approx(third / 4, abs=2)
    assert {height(image, no, 3, DURATIONS_AXIS) for no in range(3)} == {330}


def test_durations_have_their_own_row() -> None:
    chart = of(MIB, MIB)
    slower = replace(chart, bars=(chart.bars[0], replace(chart.bars[1], seconds=20.0)))
    image = picture(slower)
    assert height(image, 0, 2, SIZES_AXIS) == height(image, 1, 2, SIZES_AXIS)
    assert height(image, 0, 2, DURATIONS_AXIS) == pytest.approx(height(image, 1, 2, DURATIONS_AXIS) / 2, abs=2)


@pytest.mark.parametrize("mark", [Mark.UNPROVEN, Mark.INCOMPLETE])
def test_doubts_have_a_colour_a_sign_and_a_line_below(mark: Mark) -> None:
    fine = of(MIB, MIB)
    doubted = replace(fine, bars=(fine.bars[0], replace(fine.bars[1], mark=mark, stored=MIB // 2)))
    image = picture(doubted)
    assert height(image, 1, 2, SIZES_AXIS, mark) == 165
    assert image.height == picture(fine).height + 48
    above = (LEFT + (RIGHT - LEFT) // 2, SIZES_AXIS - 210, RIGHT, SIZES_AXIS - 168)
    assert pixels(image, COLOURS[mark], above) > 20, "a sign for who does not tell colours apart"


def test_nothing_stored_is_seen_all_the_same() -> None:
    image = picture(of(MIB, 0, mark=Mark.INCOMPLETE, seconds=0.0))
    assert height(image, 1, 2, SIZES_AXIS, Mark.INCOMPLETE) == 4


def test_one_part_is_narrow() -> None:
    chart = of(MIB, MIB)
    image = picture(replace(chart, bars=(chart.bars[0], replace(chart.bars[1], part=True))))
    row = SIZES_AXIS - 50
    half = (LEFT + RIGHT) // 2
    whole = pixels(image, COLOURS[Mark.PROVEN], (LEFT, row, half, row + 1))
    part = pixels(image, COLOURS[Mark.PROVEN], (half, row, RIGHT, row + 1))
    assert 0 < part < whole / 2


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_any_number_fits(count: int) -> None:
    data = draw(of(*(no * MIB for no in range(count))))
    assert Image.open(io.BytesIO(data)).size == (WIDTH, 1090 + 48)
    assert len(data) < 120_000


@pytest.mark.parametrize("title", ["x" * 400, "two\nlines <@U0ANA> <!here>", "Sicherungen von Köln", ""])
def test_any_title_is_one_line(title: str) -> None:
    assert picture(replace(CHART, title=title)).width == WIDTH


def test_the_font_has_every_letter_of_ours() -> None:
    """What it does not have, it draws as a box."""
    font = ImageFont.load_default(TEXT)
    box = bytes(font.getmask("\ue000"))
    said = "".join((*(mark.value for mark in Mark), *SIGNS.values(), PART, "Size in the store, last: 0.9 KMGTiB"))
    assert [letter for letter in set(said) - {" "} if bytes(font.getmask(letter)) == box] == []


def test_it_is_the_same_every_time() -> None:
    assert draw(CHART) == draw(CHART)


@pytest.mark.parametrize(
    ("most", "last", "count"),
    [(0, 1, 2), (1, 1, 2), (4, 4, 5), (5, 6, 4), (3.3 * 1024**3, 4 * 1024**3, 5), (7 * MIB, 8 * MIB, 5)],
)
def test_ticks_of_sizes(most: float, last: float, count: int) -> None:
    made = ticks(most, _sizes())
    assert (made[0], made[-1], len(made)) == (0, last, count)


@pytest.mark.parametrize(("most", "last"), [(0, 1), (3.2, 4), (95, 120), (5400, 5400), (400_000, 518_400)])
def test_ticks_of_durations(most: float, last: float) -> None:
    assert ticks(most, _durations())[-1] == last


def test_steps_grow() -> None:
    for steps in (_sizes(), _durations()):
        first = list(islice(steps, 60))
        assert first == sorted(set(first))


def test_a_serve_that_draws_nothing_does_not_load_the_library() -> None:
    code = "import sys, bot.wiring; raise SystemExit('PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
