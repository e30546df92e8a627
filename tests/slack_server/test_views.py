"""Modals: triggers, the stack of three, answers to submissions."""

import time
from collections.abc import Callable, Iterator

import pytest
from slack_bolt import Ack

from bot.sandbox.slack import LocalSlack, Refused
from tests.slack_server.bolt import Bot, Json, refusal

OPEN: Json = {"type": "actions", "elements": [
    {"type": "button", "action_id": "open", "text": {"type": "plain_text", "text": "Open"}}]}  # fmt: skip


def modal(title: str = "Why", callback_id: str = "why", **more: object) -> Json:
    reason = {
        "type": "input", "block_id": "reason", "label": {"type": "plain_text", "text": "Why?"},
        "element": {"type": "plain_text_input", "action_id": "text", "min_length": 3},
    }  # fmt: skip
    return {
        "type": "modal", "callback_id": callback_id, "title": {"type": "plain_text", "text": title},
        "submit": {"type": "plain_text", "text": "Send"}, "blocks": [reason], **more,
    }  # fmt: skip


@pytest.fixture
def opened(slack: LocalSlack, bot: Bot) -> Callable[..., Json]:
    """Opens a modal for bo, who pressed a button; returns the view."""

    def open_modal(answer: Callable[[Ack, Json], object] = lambda ack, body: ack(), **more: object) -> Json:
        def press(ack: Ack, body: Json) -> None:
            ack()
            bot.client.views_open(trigger_id=body["trigger_id"], view=modal(**more))  # type: ignore[arg-type]

        bot.on_action("open", press)
        bot.on_submit("why", answer)
        bot.connect()
        bot.client.chat_postMessage(channel="C0OPS", text="x", blocks=[OPEN])
        slack.driver.person("bo").click(slack.driver.messages("ops")[0], "open")
        return slack.driver.person("bo").view()

    return open_modal


def test_submission_carries_what_was_filled_in_and_closes(
    slack: LocalSlack, bot: Bot, opened: Callable[..., Json]
) -> None:
    view = opened(private_metadata="r1")
    bo = slack.driver.person("bo")
    ended = bo.submit({"reason": "not now"})
    assert (ended.acked, ended.errors) == (True, {})
    sent = bot.heard[-1]
    assert sent["type"] == "view_submission"
    assert sent["user"]["id"] == "U0BO"
    assert sent["view"]["state"]["values"] == {"reason": {"text": {"type": "plain_text_input", "value": "not now"}}}
    assert (sent["view"]["id"], sent["view"]["private_metadata"]) == (view["id"], "r1")
    assert slack.driver.view("bo") is None


@pytest.mark.parametrize(
    ("typed", "error"), [("", "Please complete this required field."), ("no", "Please enter at least 3 characters.")]
)
def test_client_itself_refuses_what_is_incomplete(
    slack: LocalSlack, bot: Bot, opened: Callable[..., Json], typed: str, error: str
) -> None:
    opened()
    assert slack.driver.person("bo").submit({"reason": typed}).errors == {"reason": error}
    assert [one["type"] for one in bot.heard] == ["block_actions"]


def test_errors_are_shown_and_the_modal_stays(slack: LocalSlack, opened: Callable[..., Json]) -> None:
    opened(lambda ack, body: ack(response_action="errors", errors={"reason": "Too vague."}))
    assert slack.driver.person("bo").submit({"reason": "because"}).errors == {"reason": "Too vague."}
    assert slack.driver.view("bo") is not None


def test_errors_for_inputs_that_do_not_exist_are_slacks_error(slack: LocalSlack, opened: Callable[..., Json]) -> None:
    opened(lambda ack, body: ack(response_action="errors", errors={"nothing": "x"}))
    ended = slack.driver.person("bo").submit({"reason": "because"})
    assert ended.error == "errors_for_unknown_blocks"
    assert slack.driver.notices("bo") == ["We had some trouble connecting. Try again? (errors_for_unknown_blocks)"]


def test_no_answer_leaves_the_modal_open(slack: LocalSlack, opened: Callable[..., Json]) -> None:
    slack.driver.change_limits(ack_seconds=0.2)
    opened(lambda ack, body: None)
    assert slack.driver.person("bo").submit({"reason": "because"}).error == "operation_timeout"
    assert slack.driver.view("bo") is not None


def test_answers_update_push_and_clear(slack: LocalSlack, bot: Bot, opened: Callable[..., Json]) -> None:
    answers: Iterator[Json] = iter(
        [
            {"response_action": "update", "view": modal("Second")},
            {"response_action": "push", "view": modal("Third")},
            {"response_action": "push", "view": modal("Fourth")},
            {"response_action": "push", "view": modal("Too deep")},
            {"response_action": "clear"},
        ]
    )
    first = opened(lambda ack, body: ack(**next(answers)))
    bo = slack.driver.person("bo")

    def titles() -> list[str]:
        return [one["title"]["text"] for one in slack.driver.views("bo")]

    bo.submit({"reason": "because"})
    assert titles() == ["Second"]
    assert slack.driver.views("bo")[0]["id"] == first["id"]
    bo.submit({"reason": "because"})
    bo.submit({"reason": "because"})
    assert titles() == ["Second", "Third", "Fourth"]
    top = slack.driver.views("bo")[2]
    assert top["root_view_id"] == first["id"]
    assert bo.submit({"reason": "because"}).error == "push_limit_reached"
    bo.submit({"reason": "because"})
    assert titles() == []


def test_trigger_opens_one_view_within_three_seconds(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    ana = slack.driver.person("ana")
    fresh = ana.slash("/travis", "help").trigger_id
    bot.client.views_open(trigger_id=str(fresh), view=modal())
    assert refusal(bot.client.views_open, trigger_id=fresh, view=modal())["error"] == "exchanged_trigger_id"
    slack.driver.change_limits(trigger_seconds=0.1)
    old = ana.slash("/travis", "help").trigger_id
    time.sleep(0.15)
    assert refusal(bot.client.views_open, trigger_id=old, view=modal())["error"] == "expired_trigger_id"
    assert refusal(bot.client.views_open, trigger_id="1.2.3", view=modal())["error"] == "invalid_trigger_id"


def test_update_needs_the_hash_it_names(slack: LocalSlack, bot: Bot, opened: Callable[..., Json]) -> None:
    view = opened()
    changed = bot.client.views_update(view_id=view["id"], hash=view["hash"], view=modal("Changed"))["view"]
    assert changed["hash"] != view["hash"]
    stale = refusal(bot.client.views_update, view_id=view["id"], hash=view["hash"], view=modal())
    assert stale["error"] == "hash_conflict"
    assert slack.driver.views("bo")[0]["title"]["text"] == "Changed"
    slack.driver.person("bo").close()
    assert refusal(bot.client.views_update, view_id=view["id"], view=modal())["error"] == "not_found"


@pytest.mark.parametrize(
    ("wrong", "pointer"),
    [
        ({"title": {"type": "plain_text", "text": "x" * 25}}, "/view/title/text"),
        ({"submit": None}, "/view/submit"),
        ({"private_metadata": "x" * 3001}, "/view/private_metadata"),
        ({"blocks": [{"type": "divider"}] * 101}, "/view/blocks"),
        ({"blocks": [{"type": "input", "label": {"type": "plain_text", "text": "x"}}]}, "/view/blocks/0"),
        ({"type": "message"}, "/view/type"),
    ],
)
def test_views_that_slack_refuses(slack: LocalSlack, bot: Bot, wrong: Json, pointer: str) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    trigger = slack.driver.person("ana").slash("/travis", "help").trigger_id
    view = {name: value for name, value in (modal() | wrong).items() if value is not None}
    answer = refusal(bot.client.views_open, trigger_id=trigger, view=view)
    assert answer["error"] == "invalid_arguments"
    assert any(pointer in one for one in answer["errors"]), answer


def test_closing_is_told_when_asked_for(slack: LocalSlack, bot: Bot, opened: Callable[..., Json]) -> None:
    closed: list[Json] = []

    def remember(ack: Ack, body: Json) -> None:
        ack()
        closed.append(body)

    bot.app.view_closed("why")(remember)
    opened(notify_on_close=True)
    slack.driver.person("bo").close()
    slack.driver.wait_for(lambda _: closed)
    assert (closed[0]["type"], closed[0]["is_cleared"]) == ("view_closed", False)
    assert slack.driver.view("bo") is None
    with pytest.raises(Refused, match="Bo Svensson has no modal open"):
        slack.driver.person("bo").submit()


def test_button_in_a_modal_sends_the_view_and_may_push(slack: LocalSlack, bot: Bot) -> None:
    def push(ack: Ack, body: Json) -> None:
        ack()
        bot.client.views_push(trigger_id=body["trigger_id"], view=modal("Page 2"))

    bot.on_command(lambda ack, body: (bot.client.views_open(trigger_id=body["trigger_id"], view=first), ack()))
    bot.on_action("open", push)
    first = modal("Page 1") | {"blocks": [OPEN]}
    bot.connect()
    ana = slack.driver.person("ana")
    ana.slash("/travis", "help")
    assert ana.view()["title"]["text"] == "Page 1"
    ana.click_in_view("open")
    assert bot.heard[-1]["container"]["type"] == "view"
    assert "response_url" not in bot.heard[-1]
    slack.driver.wait_for(lambda s: len(s.views("ana")) == 2)
    ana.close()
    assert [one["title"]["text"] for one in slack.driver.views("ana")] == ["Page 1"]


def test_home_is_published_per_person(slack: LocalSlack, bot: Bot) -> None:
    first = bot.client.views_publish(user_id="U0ANA", view={"type": "home", "blocks": []})["view"]
    assert slack.driver.home("bo") is None
    assert (
        refusal(bot.client.views_publish, user_id="U0ANA", hash="1", view={"type": "home", "blocks": []})["error"]
        == "hash_conflict"
    )
    again = bot.client.views_publish(user_id="U0ANA", hash=first["hash"], view={"type": "home", "blocks": [OPEN]})
    assert again["view"]["id"] == first["id"]
