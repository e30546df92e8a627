"""Commands that belong to the surroundings: answered by the local Slack itself, never delivered to the app."""

from bot.sandbox.slack import LocalSlack


def test_a_command_of_the_surroundings_is_answered_privately_and_the_app_hears_nothing(slack: LocalSlack) -> None:
    typed: list[str] = []

    def answer(text: str) -> str:
        typed.append(text)
        return "Done: <b>it is off</b>"

    slack.add_command("/break", answer, [{"title": "what there is", "items": ["/break the lamp"]}])
    ack = slack.driver.person("ana").slash("/break", "the lamp")
    assert (ack.error, ack.shown) == (None, "Done: <b>it is off</b>")
    assert typed == ["the lamp"]
    assert slack.driver.notices("ana") == ["Done: <b>it is off</b>"]
    assert slack.driver.notices("bo") == []
    assert slack.driver.deliveries() == []
    assert slack.driver.messages("ops") == []
    assert slack.driver.ask("everything")["menu"] == [{"title": "what there is", "items": ["/break the lamp"]}]


def test_a_command_that_nobody_added_stays_unknown(slack: LocalSlack) -> None:
    assert "/break is not a valid command" in str(slack.driver.person("ana").slash("/break", "the lamp").shown)
