"""What `doctor` learns from Slack: whose tokens they are, and in which channels the bot is missing."""

from types import SimpleNamespace
from typing import cast

import pytest
from slack_sdk import WebClient

from bot.core.errors import Permanent, Temporary
from bot.sandbox.slack import LocalSlack
from bot.slack import app as slack_app
from bot.slack.presence import presence
from tests.slack.conftest import BOT_TOKEN
from tests.slack.fakes import OPS, TEAM


def asked(slack: LocalSlack, *channels: str, team: str = TEAM) -> str:
    return presence(slack_app.client(BOT_TOKEN, slack.api_url), team, channels)


def test_says_who_the_bot_is_and_that_it_is_everywhere(slack: LocalSlack) -> None:
    assert asked(slack, OPS).endswith("in Acme, and it is in every channel")


def test_names_each_channel_that_it_is_not_in_and_says_how_to_invite_it(slack: LocalSlack) -> None:
    with pytest.raises(Permanent) as error:
        asked(slack, OPS, "C0GENERAL", "C0NOWHERE")
    assert str(error.value) == (
        "the bot is not in #general: type `/invite @opsbot` there; "
        "C0NOWHERE: there is no such channel, or the bot is not in it: type `/invite @opsbot` there"
    )


def test_a_token_of_another_workspace_is_named(slack: LocalSlack) -> None:
    with pytest.raises(Permanent, match=f"belongs to the workspace {TEAM}, and `slack.team_id` is T0OTHER"):
        asked(slack, team="T0OTHER")


def test_a_workspace_of_an_organisation_is_said_to_be_one() -> None:
    bot = {"team_id": TEAM, "enterprise_id": "E0ACME", "user": "opsbot", "team": "Acme"}
    slack = cast("WebClient", SimpleNamespace(auth_test=lambda: bot))
    with pytest.raises(Permanent, match="belongs to the organisation E0ACME: set `slack"):
        presence(slack, TEAM, ())
    assert presence(slack, TEAM, (), "E0ACME").startswith("the tokens are those of opsbot")
    bot["enterprise_id"] = ""
    with pytest.raises(Permanent, match="belongs to no organisation: take"):
        presence(slack, TEAM, (), "E0ACME")


def test_a_refused_token_is_said_so(slack: LocalSlack) -> None:
    slack.driver.fault("auth.test", error="invalid_auth")
    with pytest.raises(Permanent, match="correct SLACK_BOT_TOKEN"):
        asked(slack, OPS)


def test_an_app_that_may_not_ask_is_no_channel_without_a_bot(slack: LocalSlack) -> None:
    slack.driver.fault("conversations.info", error="missing_scope")
    with pytest.raises(Permanent, match=f"whether the bot is in {OPS} cannot be told"):
        asked(slack, OPS)


def test_slack_may_be_away(slack: LocalSlack) -> None:
    slack.stop()
    with pytest.raises(Temporary, match="Slack cannot be reached"):
        asked(slack, OPS)
