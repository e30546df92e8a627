"""`slack` is a running local Slack, `desk` remembers what was written down, `connected` is our intake between them."""

from collections.abc import Iterator

import pytest

from bot.sandbox.slack import Limits, LocalSlack
from bot.slack import app as slack_app
from bot.slack.intake import Tenant, intake
from tests.slack.fakes import OPS, TEAM, FakeDesk

APP = "A0OPSBOT"
INCIDENT = "C0INCIDENT"
TENANT = Tenant(TEAM, APP, frozenset({OPS, INCIDENT}))
BOT_TOKEN, APP_TOKEN = "xoxb-local-1", "xapp-local-1"


@pytest.fixture
def slack() -> Iterator[LocalSlack]:
    with LocalSlack(limits=Limits(rate_limited=False, ack_seconds=3.0), clock_factor=1000) as running:
        yield running


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk()


@pytest.fixture
def connected(slack: LocalSlack, desk: FakeDesk) -> Iterator[slack_app.Connection]:
    client = slack_app.client(BOT_TOKEN, slack.api_url)
    connection = slack_app.connect(intake(client, desk, TENANT), APP_TOKEN, slack.api_url, workers=10)
    try:
        assert connection.wait(10)
        yield connection
    finally:
        connection.close()
