"""A chart travels as JSON in a letter and comes out as it was."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.chart import Bar, Chart, Mark, chart_from_json

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
CHART = Chart(
    "The last 3 backups of prod",
    (
        Bar(5, NOON, 3 * 1024**3, 90.5, Mark.PROVEN),
        Bar(6, NOON + timedelta(days=1), 0, 0.0, Mark.INCOMPLETE),
        Bar(7, NOON + timedelta(days=2), 2048, 2.0, Mark.UNPROVEN, part=True),
    ),
)


def test_it_comes_back_as_it_was() -> None:
    assert chart_from_json(json.loads(json.dumps(CHART.to_json()))) == CHART


@pytest.mark.parametrize(
    "wrong", [{}, {"title": "x"}, {"title": "x", "bars": [{**CHART.to_json()["bars"][0], "mark": "fine"}]}]
)
def test_what_is_none_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises((KeyError, ValueError)):
        chart_from_json(wrong)


def test_how_long_one_took() -> None:
    assert replace(CHART.bars[0], seconds=60.0).took == timedelta(minutes=1)
