"""An action that is about something besides a machine: its word comes first, and the machine goes without saying."""

from dataclasses import replace

import pytest

from bot.core.errors import NotUnderstood
from bot.slack.words import guide, read
from tests.slack.fakes import VOCABULARY

WORDS = replace(
    VOCABULARY,
    actions=(*VOCABULARY.actions, "resync"),
    action_roles=(*VOCABULARY.action_roles, ("resync", "platform")),
    action_takes=(("resync", "login"),),
)


@pytest.mark.parametrize(
    "text",
    [
        "resync octo-cat because she asked",
        "resync octo-cat on prod because she asked",
        "resync octo-cat platform-1 because she asked",
    ],
)
def test_the_first_word_is_what_it_is_about(text: str) -> None:
    said = read(text, WORDS)
    assert (said.subject, said.argument, said.targets) == ("resync", "octo-cat", ("platform-1",))
    assert said.because == "she asked"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("resync because she asked", "Resync which login?"),
        ("resync --all because she asked", "is no login"),
        ("resync a;b because she asked", "is no login"),
        ("resync octo-cat", "`resync octo-cat because …`"),
        ("resync octo-cat worker-1 because she asked", "worker-1 is a worker"),
    ],
)
def test_what_is_missing_or_odd_is_said(text: str, answer: str) -> None:
    with pytest.raises(NotUnderstood, match=answer.replace("?", r"\?")):
        read(text, WORDS)


def test_the_guide_says_what_it_takes() -> None:
    assert "resync LOGIN because" in guide(WORDS, "resync")
