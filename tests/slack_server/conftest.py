"""`slack` is a running local Slack without rate limits; `bot` a Bolt app for it, to be connected by the test."""

from collections.abc import Iterator

import pytest

from bot.sandbox.slack import Limits, LocalSlack
from tests.slack_server.bolt import Bot, bot_of


@pytest.fixture
def slack() -> Iterator[LocalSlack]:
    with LocalSlack(limits=Limits(rate_limited=False, ack_seconds=1.0), clock_factor=100) as running:
        yield running


@pytest.fixture
def bot(slack: LocalSlack) -> Iterator[Bot]:
    with bot_of(slack) as made:
        yield made
