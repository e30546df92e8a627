"""Slack's refusals: tokens, scopes, limits, blocks, rates; and faults on purpose."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from bot.sandbox.slack import Limits, LocalSlack, Refused, example
from bot.sandbox.slack.limits import Bucket
from tests.slack_server.bolt import Bot, Json, refusal


@pytest.fixture
def client(slack: LocalSlack) -> WebClient:
    return WebClient(token="xoxb-local-1", base_url=slack.api_url)


def section(text: str, **more: Any) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}, **more}


def buttons(*ids: str) -> Json:
    elements = [{"type": "button", "action_id": one, "text": {"type": "plain_text", "text": one}} for one in ids]
    return {"type": "actions", "elements": elements}


# Tokens and scopes


@pytest.mark.parametrize(
    ("token", "method", "error"),
    [
        ("xoxb-local-1", "auth.test", None),
        ("", "auth.test", "not_authed"),
        ("xoxb-123-real", "auth.test", "invalid_auth"),
        ("xoxp-local-1", "auth.test", "invalid_auth"),
        ("xapp-local-1", "chat.postMessage", "not_allowed_token_type"),
        ("xoxb-local-1", "apps.connections.open", "not_allowed_token_type"),
        ("xapp-1-real", "apps.connections.open", "invalid_auth"),
        ("xoxb-local-1", "admin.users.list", "unknown_method"),
    ],
)
def test_only_local_tokens_of_the_right_kind_are_taken(
    slack: LocalSlack, token: str, method: str, error: str | None
) -> None:
    client = WebClient(base_url=slack.api_url, token=token)
    if error is None:
        assert client.api_call(method)["user_id"] == "U0OPSBOT"
    else:
        assert refusal(client.api_call, api_method=method)["error"] == error


def test_scopes_are_those_of_the_manifest() -> None:
    manifest = dict(example().manifest)
    manifest["oauth_config"] = {"scopes": {"bot": ["chat:write", "channels:read"]}}
    with LocalSlack(replace(example(), manifest=manifest)) as slack:
        client = WebClient(token="xoxb-local-1", base_url=slack.api_url)
        assert client.auth_test().headers["x-oauth-scopes"] == "chat:write,channels:read"
        client.conversations_info(channel="C0OPS")
        answer = refusal(client.conversations_info, channel="C0INCIDENT")
        assert (answer["error"], answer["needed"]) == ("missing_scope", "groups:read")
        answer = refusal(client.users_info, user="U0ANA")
        assert (answer["needed"], answer["provided"]) == ("users:read", "chat:write,channels:read")
        assert refusal(client.conversations_history, channel="C0OPS")["needed"] == "channels:history"


# Looking


def test_people_are_told_apart_as_slack_does(client: WebClient) -> None:
    users = {one["name"]: one for one in client.users_list()["members"]}
    assert users["gus"]["is_restricted"]
    assert not users["gus"]["is_ultra_restricted"]
    assert users["sia"]["is_ultra_restricted"]
    assert users["eve"]["team_id"] == "T0PARTNER"
    assert users["eve"]["is_stranger"]
    assert users["dee"]["deleted"]
    assert users["deploybot"]["is_bot"]
    assert users["opsbot"]["is_bot"]
    assert users["olga"]["is_owner"]
    assert not users["ana"]["is_restricted"]
    assert refusal(client.users_info, user="U0NOBODY")["error"] == "user_not_found"


def test_lists_come_in_pages(client: WebClient) -> None:
    seen: list[str] = []
    for page in client.users_list(limit=4):
        seen += [one["id"] for one in page["members"]]
    assert len(seen) == len(set(seen)) == 10
    assert client.conversations_members(channel="C0INCIDENT")["members"] == ["U0ANA", "U0BO", "U0OPSBOT"]


def test_channels_and_groups(client: WebClient) -> None:
    partner = client.conversations_info(channel="C0PARTNER")["channel"]
    assert (partner["is_ext_shared"], partner["is_private"]) == (True, False)
    assert client.conversations_info(channel="C0INCIDENT")["channel"]["is_private"] is True
    listed = client.conversations_list(types="public_channel,private_channel")["channels"]
    assert [one["name"] for one in listed] == ["ops", "general", "incident-42", "acme-partner"]
    group = client.usergroups_list(include_users=True)["usergroups"][0]
    assert (group["handle"], group["users"]) == ("oncall-leads", ["U0BO", "U0CY"])
    assert refusal(client.usergroups_users_list, usergroup="S0NONE")["error"] == "no_such_subteam"
    assert client.team_info()["team"]["id"] == "T0ACME"
    direct = client.conversations_open(users="U0ANA")["channel"]["id"]
    assert client.conversations_info(channel=direct)["channel"]["user"] == "U0ANA"


def test_history_is_there_for_who_may_read_it(slack: LocalSlack) -> None:
    manifest = dict(example().manifest)
    manifest["oauth_config"] = {"scopes": {"bot": ["chat:write", "channels:history"]}}
    with LocalSlack(replace(example(), manifest=manifest)) as other:
        client = WebClient(token="xoxb-local-1", base_url=other.api_url)
        first = client.chat_postMessage(channel="C0OPS", text="first")["ts"]
        client.chat_postMessage(channel="C0OPS", text="reply", thread_ts=first)
        client.chat_postMessage(channel="C0OPS", text="second")
        history = client.conversations_history(channel="C0OPS")["messages"]
        assert [one["text"] for one in history] == ["second", "first"]
        replies = client.conversations_replies(channel="C0OPS", ts=first)["messages"]
        assert [one["text"] for one in replies] == ["first", "reply"]


# Saying


@pytest.mark.parametrize(
    ("args", "error"),
    [
        ({"channel": "C0NONE", "text": "x"}, "channel_not_found"),
        ({"channel": "C0GENERAL", "text": "x"}, "not_in_channel"),
        ({"channel": "C0OPS"}, "no_text"),
        ({"channel": "C0OPS", "text": "x", "thread_ts": "1.000001"}, "thread_not_found"),
        ({"channel": "U0DEE", "text": "x"}, "user_disabled"),
        ({"channel": "C0OPS", "text": "x", "metadata": {"event_type": "x", "event_payload": {"x": "y" * 20_000}}},
         "metadata_too_large"),
    ],
)  # fmt: skip
def test_posts_that_slack_refuses(client: WebClient, args: Json, error: str) -> None:
    assert refusal(client.api_call, api_method="chat.postMessage", json=args)["error"] == error


def test_archived_channels_and_private_ones_without_the_bot(slack: LocalSlack, client: WebClient) -> None:
    slack.driver.change_channel("ops", archived=True)
    assert refusal(client.chat_postMessage, channel="C0OPS", text="x")["error"] == "is_archived"
    slack.driver.change_channel("incident-42", members=["U0ANA"])
    assert refusal(client.chat_postMessage, channel="C0INCIDENT", text="x")["error"] == "channel_not_found"


def test_long_posts_are_cut_and_long_updates_refused(client: WebClient) -> None:
    posted = client.chat_postMessage(channel="C0OPS", text="x" * 40_001)
    assert len(posted["message"]["text"]) == 40_000
    assert client.chat_update(channel="C0OPS", ts=posted["ts"], text="x" * 4_000)["ok"]
    answer = refusal(client.chat_update, channel="C0OPS", ts=posted["ts"], text="x" * 4_001)
    assert answer["error"] == "msg_too_long"


def test_updates_are_of_ones_own_messages(slack: LocalSlack, client: WebClient) -> None:
    theirs = slack.driver.person("ana").say("hello", "ops").ts
    assert refusal(client.chat_update, channel="C0OPS", ts=theirs, text="x")["error"] == "cant_update_message"
    assert refusal(client.chat_delete, channel="C0OPS", ts=theirs)["error"] == "cant_delete_message"
    assert refusal(client.chat_update, channel="C0OPS", ts="1.000001", text="x")["error"] == "message_not_found"
    mine = client.chat_postMessage(channel="C0OPS", text="x", blocks=[section("kept")])["ts"]
    client.chat_update(channel="C0OPS", ts=mine, text="y")
    kept = slack.driver.messages("ops")[-1]
    assert (kept.text, kept.blocks[0]["text"]["text"]) == ("y", "kept")
    client.chat_delete(channel="C0OPS", ts=mine)
    assert [one.text for one in slack.driver.messages("ops")] == ["hello"]


def test_deleting_the_parent_of_a_thread_leaves_a_tombstone(slack: LocalSlack, client: WebClient) -> None:
    parent = client.chat_postMessage(channel="C0OPS", text="secret")["ts"]
    client.chat_postMessage(channel="C0OPS", text="reply", thread_ts=parent)
    client.chat_delete(channel="C0OPS", ts=parent)
    assert [one.text for one in slack.driver.messages("ops")] == ["This message was deleted.", "reply"]
    assert refusal(client.chat_update, channel="C0OPS", ts=parent, text="x")["error"] == "message_not_found"


def test_private_messages_only_to_members(client: WebClient) -> None:
    client.chat_postEphemeral(channel="C0OPS", user="U0ANA", text="x")
    assert refusal(client.chat_postEphemeral, channel="C0OPS", user="U0SIA", text="x")["error"] == "user_not_in_channel"


def test_reactions_once(slack: LocalSlack, client: WebClient) -> None:
    ts = client.chat_postMessage(channel="C0OPS", text="x")["ts"]
    client.reactions_add(channel="C0OPS", timestamp=ts, name="eyes")
    again = refusal(client.reactions_add, channel="C0OPS", timestamp=ts, name="eyes")
    assert again["error"] == "already_reacted"
    assert slack.driver.messages("ops")[0].raw["reactions"] == [{"name": "eyes", "users": ["U0OPSBOT"], "count": 1}]


# Blocks


@pytest.mark.parametrize(
    ("blocks", "pointer"),
    [
        ([section("x" * 3001)], "/blocks/0/text/text"),
        ([section("")], "/blocks/0/text/text"),
        ([{"type": "section"}], "/blocks/0"),
        ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "x" * 2001}]}], "/blocks/0/fields/0/text"),
        ([{"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11}], "/blocks/0/fields"),
        ([{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}], "/blocks/0/text/text"),
        ([{"type": "header", "text": {"type": "mrkdwn", "text": "x"}}], "/blocks/0/text/type"),
        ([{"type": "context", "elements": [{"type": "mrkdwn", "text": "x"}] * 11}], "/blocks/0/elements"),
        ([buttons(*map(str, range(26)))], "/blocks/0/elements"),
        ([buttons("same", "same")], "/blocks/0/elements"),
        ([section("x", block_id="b"), section("y", block_id="b")], "/blocks/1/block_id"),
        ([section("x", blockid="b")], "/blocks/0"),
        ([{"type": "nonsense"}], "/blocks/0/type"),
        ([{"type": "alert", "text": {"type": "plain_text", "text": "only in modals"}}], "/blocks/0/type"),
        ([{"type": "divider"}] * 51, "/blocks"),
        ([{**buttons("x"), "elements": [{**buttons("x")["elements"][0], "value": "x" * 2001}]}],
         "/blocks/0/elements/0/value"),
        ([{**buttons("x"), "elements": [{**buttons("x")["elements"][0], "url": "javascript:x"}]}],
         "/blocks/0/elements/0/url"),
        ([{**buttons("x"), "elements": [{**buttons("x")["elements"][0], "confirm": {"title": "x"}}]}],
         "/blocks/0/elements/0/confirm"),
    ],
)  # fmt: skip
def test_blocks_are_refused_with_a_pointer(client: WebClient, blocks: list[Json], pointer: str) -> None:
    answer = refusal(client.chat_postMessage, channel="C0OPS", text="x", blocks=blocks)
    assert answer["error"] == "invalid_blocks"
    assert any(one.endswith(f"[json-pointer:{pointer}]") for one in answer["errors"]), answer["errors"]
    assert answer["response_metadata"]["messages"][0].startswith("[ERROR] ")


def test_blocks_at_their_limits_are_taken_and_too_much_together_is_not(client: WebClient) -> None:
    client.chat_postMessage(channel="C0OPS", text="x", blocks=[section("x" * 3000)] * 4)
    client.chat_postMessage(channel="C0OPS", text="x", blocks=[{"type": "divider"}] * 50)
    answer = refusal(client.chat_postMessage, channel="C0OPS", text="x", blocks=[section("x" * 2700)] * 5)
    assert answer["error"] == "msg_blocks_too_long"


def test_blocks_come_back_with_ids(client: WebClient) -> None:
    made = {"type": "actions", "elements": [{"type": "button", "text": {"type": "plain_text", "text": "x"}}]}
    posted = client.chat_postMessage(channel="C0OPS", text="x", blocks=[made])["message"]["blocks"][0]
    assert posted["block_id"]
    assert posted["elements"][0]["action_id"]


# Rates


@pytest.fixture
def limited() -> Iterator[LocalSlack]:
    with LocalSlack(limits=Limits(post_burst=3, posts_per_second=4)) as slack:
        yield slack


def test_a_channel_takes_about_one_post_a_second(limited: LocalSlack) -> None:
    client = WebClient(token="xoxb-local-1", base_url=limited.api_url)
    for number in range(3):
        client.chat_postMessage(channel="C0OPS", text=str(number))
    with pytest.raises(SlackApiError) as refused:
        client.chat_postMessage(channel="C0OPS", text="too much")
    assert refused.value.response.status_code == 429
    assert refused.value.response["error"] == "ratelimited"
    assert refused.value.response.headers["retry-after"] == "1"
    client.chat_postMessage(channel="C0INCIDENT", text="another channel")
    client.retry_handlers.append(RateLimitErrorRetryHandler(max_retry_count=1))
    client.chat_postMessage(channel="C0OPS", text="later")
    assert [one.text for one in limited.driver.messages("ops")] == ["0", "1", "2", "later"]


def test_a_method_has_its_tier(limited: LocalSlack) -> None:
    client = WebClient(token="xoxb-local-1", base_url=limited.api_url)
    for _ in range(20):
        client.usergroups_list()
    with pytest.raises(SlackApiError) as refused:
        client.usergroups_list()
    assert refused.value.response.headers["retry-after"] == "3"


def test_a_bucket_fills_with_time() -> None:
    bucket = Bucket(rate=2, size=2, left=2, at=0)
    assert [bucket.wait(0), bucket.wait(0), bucket.wait(0)] == [0, 0, 0.5]
    assert bucket.wait(0.5) == 0
    assert [bucket.wait(100), bucket.wait(100), bucket.wait(100)] == [0, 0, 0.5]


# Faults on purpose


@pytest.mark.parametrize("status", [429, 500, 503])
def test_fault_answers_a_status_so_many_times(slack: LocalSlack, client: WebClient, status: int) -> None:
    slack.driver.fault("chat.postMessage", status=status, times=2, retry_after=7)
    for _ in range(2):
        with pytest.raises(SlackApiError) as refused:
            client.chat_postMessage(channel="C0OPS", text="x")
        assert refused.value.response.status_code == status
        if status == 429:
            assert refused.value.response.headers["retry-after"] == "7"
    client.chat_postMessage(channel="C0OPS", text="x")
    assert len(slack.driver.messages("ops")) == 1


def test_fault_cuts_the_connection_before_or_after_the_effect(slack: LocalSlack, client: WebClient) -> None:
    client.retry_handlers.clear()
    for drop, posted in (("before", 0), ("after", 1)):
        slack.driver.fault("chat.postMessage", drop=drop)
        with pytest.raises(OSError, match=r"(?i)closed|reset"):
            client.chat_postMessage(channel="C0OPS", text=drop)
        assert len(slack.driver.messages("ops")) == posted


def test_fault_makes_answers_late_or_wrong(slack: LocalSlack, client: WebClient) -> None:
    slack.driver.fault("users.info", seconds=0.3)
    before = time.monotonic()
    client.users_info(user="U0ANA")
    assert time.monotonic() - before >= 0.3
    slack.driver.fault("users.info", error="internal_error", times=100)
    assert refusal(client.users_info, user="U0ANA")["error"] == "internal_error"
    slack.driver.clear_faults()
    client.users_info(user="U0ANA")


@pytest.mark.parametrize("wrong", [{"drop": "sideways"}, {"status": 404}])
def test_fault_that_does_not_exist_is_refused(slack: LocalSlack, wrong: Json) -> None:
    with pytest.raises(Refused, match="not"):
        slack.driver.fault(**wrong)


def test_every_call_is_remembered_with_its_end(slack: LocalSlack, bot: Bot) -> None:
    bot.client.chat_postMessage(channel="C0OPS", text="x")
    refusal(bot.client.chat_postMessage, channel="C0NONE", text="x")
    calls = slack.driver.calls("chat.postMessage")
    assert [(one["args"]["channel"], one["error"], one["token"]) for one in calls] == [
        ("C0OPS", None, "xoxb"),
        ("C0NONE", "channel_not_found", "xoxb"),
    ]
    assert slack.driver.calls()[0]["method"] == "auth.test"
    assert "xoxb-local-1" not in str(slack.driver.calls())


def test_forms_and_json_mean_the_same(slack: LocalSlack, client: WebClient) -> None:
    send: list[Callable[..., object]] = [
        lambda **args: client.api_call("chat.postMessage", json=args),
        lambda **args: client.api_call("chat.postMessage", data=args),
        lambda **args: client.api_call("chat.postMessage", params=args),
    ]
    for one in send:
        one(channel="C0OPS", text="x", blocks='[{"type": "divider"}]', team_id="T0ACME", nonsense="1")
    assert [one.blocks[0]["type"] for one in slack.driver.messages("ops")] == ["divider"] * 3
    refused = refusal(client.api_call, api_method="chat.postMessage", data={"channel": "C0OPS", "blocks": "[{"})
    assert refused["error"] == "invalid_blocks"


def test_upload_needs_its_own_address_and_length(slack: LocalSlack, client: WebClient) -> None:
    announced = client.files_getUploadURLExternal(filename="x.txt", length=3)
    assert refusal(client.files_completeUploadExternal, files=[{"id": announced["file_id"]}])["error"] == (
        "file_not_found"
    )
    assert refusal(client.files_getUploadURLExternal, filename="x", length=0)["error"] == (
        "file_upload_size_restricted"
    )
