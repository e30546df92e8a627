"""Who may come in, read from the outside of a payload alone."""

from typing import Any

import pytest

from bot.slack.door import Tenant, envelope, refusal

OURS = Tenant("T0ACME", "A0OPSBOT", frozenset({"C0OPS"}), enterprise="E0ACME")


def clicked(home: str | None, team: str = "T0ACME") -> dict[str, Any]:
    """A click as Slack delivers it; on Enterprise Grid `user.team_id` is the organisation's."""
    return {
        "type": "block_actions",
        "api_app_id": "A0OPSBOT",
        "team": {"id": team, "enterprise_id": "E0ACME"},
        "user": {"id": "U0BO", "team_id": home},
        "container": {"channel_id": "C0OPS", "message_ts": "1.2"},
    }


@pytest.mark.parametrize("home", ["T0ACME", "E0ACME"])
def test_people_are_at_home_in_the_workspace_and_in_its_organisation(home: str) -> None:
    assert refusal(envelope(clicked(home)), OURS) == ""


@pytest.mark.parametrize("home", ["T0PARTNER", "E0PARTNER", "", None])
def test_people_of_any_other_are_not(home: str | None) -> None:
    assert refusal(envelope(clicked(home)), OURS) == "People of other workspaces may not use opsbot."


def test_an_organisation_counts_only_where_it_is_configured() -> None:
    alone = Tenant("T0ACME", "A0OPSBOT", frozenset({"C0OPS"}))
    assert refusal(envelope(clicked("E0ACME")), alone) == "People of other workspaces may not use opsbot."
    assert refusal(envelope(clicked("", team="")), alone) == "This opsbot belongs to another workspace."
