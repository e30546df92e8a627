"""Who people are: as fresh as a minute, and nobody gets in because Slack did not answer."""

import http.client

import pytest

from bot.core.errors import Permanent, Temporary
from bot.core.people import Actor
from bot.sandbox.slack import LocalSlack
from bot.slack import app as slack_app
from bot.slack.directory import SlackDirectory
from tests.slack.conftest import BOT_TOKEN
from tests.slack.fakes import ANA, TEAM


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(slack: LocalSlack, clock: Clock) -> SlackDirectory:
    return SlackDirectory(slack_app.client(BOT_TOKEN, slack.api_url), TEAM, clock=clock)


@pytest.mark.parametrize(
    ("user", "barred"),
    [
        ("U0ANA", ""),
        ("U0GUS", "guests may not use opsbot"),
        ("U0SIA", "guests may not use opsbot"),
        ("U0DEE", "the account is deactivated"),
        ("U0EVE", "people of other workspaces may not use opsbot"),
        ("U0DEPLOYBOT", "bots may not use opsbot"),
        ("U0OPSBOT", "bots may not use opsbot"),
        ("U0NOBODY", "people of other workspaces may not use opsbot"),
    ],
)
def test_says_who_may_do_nothing(directory: SlackDirectory, user: str, barred: str) -> None:
    assert directory.person(Actor(TEAM, user)).barred == barred


def test_knows_the_name_that_people_see(directory: SlackDirectory) -> None:
    assert directory.person(Actor(TEAM, ANA)).name == "ana"


def test_another_workspaces_people_are_not_even_asked_about(slack: LocalSlack, directory: SlackDirectory) -> None:
    assert directory.person(Actor("T0PARTNER", ANA)).external
    assert not slack.driver.calls("users.info")


def test_asks_once_a_minute(slack: LocalSlack, directory: SlackDirectory, clock: Clock) -> None:
    for _ in range(3):
        directory.person(Actor(TEAM, ANA))
        directory.members("S0ONCALL")
    assert len(slack.driver.calls("users.info")) == len(slack.driver.calls("usergroups.users.list")) == 1
    slack.driver.change_person("ana", deactivated=True)
    clock.seconds = 59.0
    assert not directory.person(Actor(TEAM, ANA)).barred
    clock.seconds = 60.0
    assert directory.person(Actor(TEAM, ANA)).barred


def test_members_are_those_of_now(slack: LocalSlack, directory: SlackDirectory, clock: Clock) -> None:
    assert directory.members("S0ONCALL") == ("U0BO", "U0CY")
    slack.driver.change_group("S0ONCALL", members=["U0CY"])
    clock.seconds = 61.0
    assert directory.members("S0ONCALL") == ("U0CY",)


@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 429}, {"drop": "before"}, {"error": "internal_error"}])
def test_nobody_is_anybody_while_slack_cannot_be_asked(
    slack: LocalSlack, directory: SlackDirectory, clock: Clock, fault: dict[str, object]
) -> None:
    directory.person(Actor(TEAM, ANA))
    directory.members("S0ONCALL")
    clock.seconds = 60.0
    slack.driver.fault("*", times=2, **fault)
    with pytest.raises(Temporary, match="Slack could not be asked who U0ANA is"):
        directory.person(Actor(TEAM, ANA))
    with pytest.raises(Temporary, match="who is in the group S0ONCALL"):
        directory.members("S0ONCALL")
    assert not directory.person(Actor(TEAM, ANA)).barred


def test_an_answer_that_was_cut_off_is_none(
    directory: SlackDirectory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_: object, **__: object) -> object:
        raise http.client.IncompleteRead(b"{", 490)

    monkeypatch.setattr("urllib.request.OpenerDirector.open", cut_off)
    with pytest.raises(Temporary, match="IncompleteRead"):
        directory.person(Actor(TEAM, ANA))
    with pytest.raises(Temporary, match="IncompleteRead"):
        directory.members("S0ONCALL")


def test_a_group_that_is_not_there_is_a_mistake_in_the_configuration(directory: SlackDirectory) -> None:
    with pytest.raises(Permanent, match=r"people\.approvers\.usergroup"):
        directory.members("S0NONE")
