"""A question that is over, in words."""

import pytest

from bot.core.approval import CLOSED, Verdict


@pytest.mark.parametrize("verdict", Verdict)
def test_every_way_to_close_a_question_has_a_word(verdict: Verdict) -> None:
    assert CLOSED[verdict.value]
