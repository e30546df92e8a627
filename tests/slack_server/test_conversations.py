"""People and a real Bolt app talk through the local Slack."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from slack_sdk.webhook import WebhookClient

from bot.sandbox.slack import Driver, LocalSlack, Refused, example
from tests.slack_server.bolt import Bot, Json, bot_of

BUTTONS: list[Json] = [
    {"type": "section", "text": {"type": "mrkdwn", "text": "Restart *worker-2*?"}},
    {
        "type": "actions",
        "block_id": "decide",
        "elements": [
            {"type": "button", "action_id": "approve", "style": "primary", "value": "r1:n1",
             "text": {"type": "plain_text", "text": "Approve"}},
            {"type": "button", "action_id": "decline", "text": {"type": "plain_text", "text": "Decline"}},
        ],
    },
]  # fmt: skip


@pytest.fixture(params=["same process", "over HTTP"])
def driver(request: pytest.FixtureRequest, slack: LocalSlack) -> Iterator[Driver]:
    driver = slack.driver if request.param == "same process" else Driver.connect(**slack.address)
    yield driver
    driver.close()


def test_command_is_acknowledged_and_its_reply_shown_to_its_author_alone(driver: Driver, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack(f"Looking: {body['text']}"))
    bot.connect()
    ack = driver.person("ana").slash("/travis", "diagnose builds not starting", channel="ops")
    assert ack.acked
    assert ack.ms is not None
    assert ack.ms < 1000
    assert ack.shown == "Looking: diagnose builds not starting"
    assert [one.text for one in driver.ephemerals("ana")] == ["Looking: diagnose builds not starting"]
    assert driver.ephemerals("bo") == []
    assert driver.messages("ops") == []


def test_command_payload_looks_like_slacks(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.person("ana").slash("/travis", "ask @bo in #ops & https://a.example/b", channel="incident-42")
    body = bot.heard[0]
    assert set(body) == {
        "token", "team_id", "team_domain", "channel_id", "channel_name", "user_id", "user_name", "command", "text",
        "api_app_id", "is_enterprise_install", "response_url", "trigger_id",
    }  # fmt: skip
    assert body["channel_name"] == "privategroup"
    assert body["text"] == "ask <@U0BO|bo> in <#C0OPS|ops> &amp; <https://a.example/b>"


def test_command_reply_in_channel_publishes_what_was_typed(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack(text="Done", response_type="in_channel"))
    bot.connect()
    slack.driver.person("ana").slash("/travis", "runs", channel="ops")
    assert [(one.user, one.text) for one in slack.driver.messages("ops")] == [
        ("U0ANA", "/travis runs"),
        ("U0OPSBOT", "Done"),
    ]


@pytest.mark.parametrize("broken", ["no listener", "no ack", "raises"])
def test_person_sees_slacks_error_when_a_command_is_not_acknowledged(slack: LocalSlack, bot: Bot, broken: str) -> None:
    def fail(ack: object, body: Json) -> None:
        if broken == "raises":
            raise ValueError("broken on purpose")

    if broken != "no listener":
        bot.on_command(fail)
    bot.connect()
    ack = slack.driver.person("ana").slash("/travis", "help")
    assert (ack.acked, ack.error) == (False, "operation_timeout")
    assert slack.driver.notices("ana") == ["/travis failed with the error “operation_timeout”"]


def test_command_without_any_connection_fails_at_once(slack: LocalSlack) -> None:
    ack = slack.driver.person("ana").slash("/travis", "help")
    assert ack.shown == "/travis failed with the error “dispatch_failed”"


def test_command_in_a_thread_never_reaches_the_app(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    parent = slack.driver.person("bo").say("Builds are slow", "ops")
    ack = slack.driver.person("ana").slash("/travis", "help", "ops", thread_ts=parent.ts)
    assert ack.shown == "/travis is not supported in threads. Sorry!"
    assert slack.driver.deliveries() == []


@pytest.mark.parametrize(("person", "channel"), [("eve", "acme-partner"), ("ana", "ops")])
def test_unknown_commands_and_external_people_are_told_there_is_no_such_command(
    slack: LocalSlack, person: str, channel: str
) -> None:
    command = "/travis" if person == "eve" else "/nothing"
    ack = slack.driver.person(person).slash(command, "help", channel)
    assert ack.shown is not None
    assert ack.shown.startswith(f"{command} is not a valid command.")
    assert slack.driver.deliveries() == []


def test_mention_starts_a_thread(driver: Driver, bot: Bot) -> None:
    def answer(body: Json) -> None:
        event = body["event"]
        thread = event.get("thread_ts") or event["ts"]
        bot.client.chat_postMessage(channel=event["channel"], thread_ts=thread, text="I look")

    bot.on_event("app_mention", answer)
    bot.connect()
    asked = driver.person("ana").mention("diagnose <all> & tell @bo", "ops")
    assert asked.acked
    event = bot.heard[0]
    assert event["event"]["text"] == "<@U0OPSBOT> diagnose &lt;all&gt; &amp; tell <@U0BO>"
    assert event["authorizations"][0]["user_id"] == "U0OPSBOT"
    assert event["is_ext_shared_channel"] is False
    assert "thread_ts" not in event["event"]
    reply = driver.wait_for(lambda s: s.find("ops", "I look"))
    assert (reply.thread_ts, reply.raw["parent_user_id"]) == (asked.ts, "U0ANA")
    again = driver.person("bo").mention("and now?", "ops", thread_ts=asked.ts)
    driver.wait_for(lambda s: len(s.messages("ops", asked.ts)) == 4)
    assert bot.heard[1]["event"]["thread_ts"] == asked.ts
    assert driver.messages("ops")[0].raw["reply_count"] == 3
    assert again.ts != asked.ts


def test_mention_by_an_external_person_says_so(slack: LocalSlack, bot: Bot) -> None:
    bot.on_event("app_mention")
    bot.connect()
    slack.driver.person("eve").mention("diagnose", "acme-partner")
    assert bot.heard[0]["is_ext_shared_channel"] is True
    assert bot.heard[0]["event"]["user_team"] == "T0PARTNER"


def test_mention_where_the_bot_is_not_reaches_nobody(slack: LocalSlack, bot: Bot) -> None:
    bot.on_event("app_mention")
    bot.connect()
    assert not slack.driver.person("ana").mention("diagnose", "general").acked
    assert slack.driver.deliveries() == []


def test_direct_message_arrives_without_a_mention(slack: LocalSlack, bot: Bot) -> None:
    bot.on_event("message")
    bot.connect()
    assert slack.driver.person("ana").tell("runs").acked
    event = bot.heard[0]["event"]
    assert (event["type"], event["channel_type"], event["text"]) == ("message", "im", "runs")


def test_click_carries_who_what_and_where(driver: Driver, bot: Bot) -> None:
    def approve(ack: object, body: Json) -> None:
        ack()  # type: ignore[operator]
        bot.client.chat_update(
            channel=body["channel"]["id"], ts=body["container"]["message_ts"], text="Approved", blocks=[]
        )

    bot.on_action("approve", approve)
    bot.connect()
    posted = bot.client.chat_postMessage(channel="C0OPS", text="Restart worker-2?", blocks=BUTTONS)
    message = driver.messages("ops")[0]
    assert message.actions == ["approve", "decline"]
    ack = driver.person("bo").click(message, "approve")
    assert (ack.acked, ack.error) == (True, None)
    body = bot.heard[0]
    assert body["user"] == {"id": "U0BO", "username": "bo", "name": "bo", "team_id": "T0ACME"}
    assert body["container"] == {
        "type": "message", "message_ts": posted["ts"], "channel_id": "C0OPS", "is_ephemeral": False,
    }  # fmt: skip
    action = body["actions"][0]
    assert (action["block_id"], action["value"], action["type"]) == ("decide", "r1:n1", "button")
    assert body["message"]["bot_id"] == "B0OPSBOT"
    assert (body["team"]["id"], body["api_app_id"]) == ("T0ACME", "A0OPSBOT")
    changed = driver.messages("ops")[0]
    assert (changed.text, changed.blocks, changed.edited) == ("Approved", [], True)


def test_click_on_a_private_message_comes_without_the_message(slack: LocalSlack, bot: Bot) -> None:
    bot.on_action("approve")
    bot.connect()
    bot.client.chat_postEphemeral(channel="C0OPS", user="U0ANA", text="Only you", blocks=BUTTONS)
    private = slack.driver.ephemerals("ana")[0]
    with pytest.raises(Refused, match="sees no message"):
        slack.driver.person("bo").click(private, "approve")
    slack.driver.person("ana").click(private, "approve")
    assert bot.heard[0]["container"]["is_ephemeral"] is True
    assert "message" not in bot.heard[0]


def test_click_on_what_is_not_there_is_refused_by_the_client(driver: Driver, bot: Bot) -> None:
    bot.client.chat_postMessage(channel="C0OPS", text="x", blocks=BUTTONS)
    message = driver.messages("ops")[0]
    with pytest.raises(Refused, match="there are approve, decline"):
        driver.person("bo").click(message, "restart")
    with pytest.raises(Refused, match="Dee Okafor's account is deactivated"):
        driver.person("dee").click(message, "approve")
    with pytest.raises(Refused, match="Sia Rossi is not in #ops"):
        driver.person("sia").click(message, "approve")


def test_external_person_can_click_in_a_shared_channel(slack: LocalSlack, bot: Bot) -> None:
    bot.on_action("approve")
    bot.connect()
    bot.client.chat_postMessage(channel="C0PARTNER", text="x", blocks=BUTTONS)
    slack.driver.person("eve").click(slack.driver.messages("acme-partner")[0], "approve")
    assert bot.heard[0]["user"]["team_id"] == "T0PARTNER"
    assert bot.heard[0]["team"]["id"] == "T0ACME"


def test_menu_in_a_message_sends_the_option_that_was_chosen(slack: LocalSlack, bot: Bot) -> None:
    options = [{"text": {"type": "plain_text", "text": one}, "value": one} for one in ("worker-1", "worker-2")]
    menu = {"type": "static_select", "action_id": "target", "options": options}
    section = {"type": "section", "text": {"type": "mrkdwn", "text": "Which?"}, "accessory": menu}
    bot.on_action("target")
    bot.connect()
    bot.client.chat_postMessage(channel="C0OPS", text="Which?", blocks=[section])
    slack.driver.person("ana").click(slack.driver.messages("ops")[0], "target", value="worker-2")
    assert bot.heard[0]["actions"][0]["selected_option"]["value"] == "worker-2"


def test_deactivation_is_seen_by_the_app_at_once(slack: LocalSlack, bot: Bot) -> None:
    assert bot.client.users_info(user="U0BO")["user"]["deleted"] is False
    slack.driver.change_person("bo", deactivated=True)
    assert bot.client.users_info(user="U0BO")["user"]["deleted"] is True
    slack.driver.change_group("S0ONCALL", members=["U0CY"])
    assert bot.client.usergroups_users_list(usergroup="S0ONCALL")["users"] == ["U0CY"]
    assert slack.driver.deliveries() == []


def test_changes_of_people_and_groups_are_told_to_who_subscribed() -> None:
    manifest = dict(example().manifest)
    manifest["settings"] = {"event_subscriptions": {"bot_events": ["user_change", "subteam_members_changed"]}}
    with LocalSlack(replace(example(), manifest=manifest)) as slack, bot_of(slack) as bot:
        bot.on_event("user_change")
        bot.on_event("subteam_members_changed")
        bot.connect()
        slack.driver.change_person("bo", deactivated=True)
        slack.driver.change_group("S0ONCALL", members=["U0CY", "U0OLGA"])
        slack.driver.wait_for(lambda _: len(bot.heard) == 2)
        events = {one["event"]["type"]: one["event"] for one in bot.heard}
        assert events["user_change"]["user"]["deleted"] is True
        assert events["subteam_members_changed"]["added_users"] == ["U0OLGA"]
        assert events["subteam_members_changed"]["removed_users"] == ["U0BO"]


def test_response_url_answers_five_times(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.person("ana").slash("/travis", "help")
    url = bot.heard[0]["response_url"]
    answers = [WebhookClient(url).send(text=f"answer {number}") for number in range(6)]
    assert [one.status_code for one in answers] == [200] * 5 + [404]
    assert "used_url" in answers[5].body
    assert [one.text for one in slack.driver.ephemerals("ana")] == [f"answer {number}" for number in range(5)]


def test_response_url_expires(slack: LocalSlack, bot: Bot) -> None:
    slack.driver.change_limits(response_url_seconds=1.0)  # a hundredth of it here
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.person("ana").slash("/travis", "help")
    time.sleep(0.05)
    answer = WebhookClient(bot.heard[0]["response_url"]).send(text="late")
    assert (answer.status_code, "expired_url" in answer.body) == (404, True)


def test_response_url_replaces_the_message_that_was_clicked(slack: LocalSlack, bot: Bot) -> None:
    bot.app.action("approve")(lambda ack, respond: (ack(), respond(text="Decided", replace_original=True)))
    bot.connect()
    bot.client.chat_postMessage(channel="C0OPS", text="x", blocks=BUTTONS)
    slack.driver.person("bo").click(slack.driver.messages("ops")[0], "approve")
    assert slack.driver.wait_for(lambda s: s.find("ops", "Decided")).ts


def test_file_is_uploaded_in_three_steps(slack: LocalSlack, bot: Bot) -> None:
    parent = bot.client.chat_postMessage(channel="C0OPS", text="Report")
    bot.client.files_upload_v2(
        channel="C0OPS", thread_ts=parent["ts"], filename="evidence.txt", content="line 1\nline 2", title="Evidence",
        initial_comment="All of it",
    )  # fmt: skip
    shared = slack.driver.messages("ops", parent["ts"])[1]
    assert (shared.text, shared.files[0]["title"], shared.files[0]["size"]) == ("All of it", "Evidence", 13)
    assert slack.driver.file(shared.files[0]["id"]) == b"line 1\nline 2"


def test_steady_load_reports_the_latency_of_each_command(driver: Driver, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    load = driver.load("ana", "/travis", "ping {n}", "ops", rate=100, seconds=0.5)
    assert (load.sent, load.errors, len(load.ack_ms)) == (50, (), 50)
    assert 0 < load.percentile(0.5) <= load.percentile(0.99) < 1000
    assert sorted(one["text"] for one in bot.heard) == sorted(f"ping {number}" for number in range(50))
