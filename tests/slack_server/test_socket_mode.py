"""Delivery: acknowledgements, events sent again, connections that come and go."""

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from slack_sdk import WebClient

from bot.sandbox.slack import LocalSlack, example
from tests.slack_server.bolt import Bot, Json, bot_of


def attempts(slack: LocalSlack) -> list[tuple[int, str, bool]]:
    sent = slack.driver.deliveries("events_api")
    return [(one["attempt"], one["reason"], one["acked"]) for one in sent]


def test_event_is_sent_again_until_it_is_acknowledged(slack: LocalSlack, bot: Bot) -> None:
    slack.driver.change_limits(ack_seconds=0.15)
    headers: list[tuple[str, str]] = []

    def fail_twice(request: object, body: Json) -> None:
        headers.append(tuple(request.headers.get(f"x-slack-retry-{one}", [""])[0] for one in ("num", "reason")))  # type: ignore[attr-defined]
        if len(headers) < 3:
            raise ValueError("broken on purpose")

    bot.app.event("app_mention")(fail_twice)
    bot.connect()
    first = slack.driver.person("ana").mention("diagnose", "ops")
    assert (first.acked, first.error) == (False, "operation_timeout")
    slack.driver.wait_for(lambda _: len(attempts(slack)) == 3 and attempts(slack)[2][2])
    assert attempts(slack) == [(0, "", False), (1, "timeout", False), (2, "timeout", True)]
    assert headers[1:] == [("1", "timeout"), ("2", "timeout")]
    sent = slack.driver.deliveries("events_api")
    assert len({one["payload"]["event_id"] for one in sent}) == 1
    assert len({one["envelope_id"] for one in sent}) == 3


def test_event_is_given_up_after_three_more_attempts(slack: LocalSlack) -> None:
    slack.driver.change_limits(clock_factor=3000)
    asked = slack.driver.person("ana").mention("diagnose", "ops")
    assert asked.error == "dispatch_failed"
    slack.driver.wait_for(lambda _: len(attempts(slack)) == 4)
    time.sleep(0.2)
    assert [one[0] for one in attempts(slack)] == [0, 1, 2, 3]
    assert {one[1] for one in attempts(slack)[1:]} == {"connection_failed"}


def test_command_is_never_sent_again(slack: LocalSlack, bot: Bot) -> None:
    slack.driver.change_limits(ack_seconds=0.1, clock_factor=100_000)
    bot.connect()
    slack.driver.person("ana").slash("/travis", "help")
    time.sleep(0.2)
    assert len(slack.driver.deliveries("slash_commands")) == 1


def test_late_acknowledgement_changes_nothing_for_the_person(slack: LocalSlack, bot: Bot) -> None:
    slack.driver.change_limits(ack_seconds=0.1)
    answered = threading.Event()

    def dawdle(ack: object, body: Json) -> None:
        time.sleep(0.3)
        ack("late")  # type: ignore[operator]
        answered.set()

    bot.on_command(dawdle)
    bot.connect()
    assert slack.driver.person("ana").slash("/travis", "help").error == "operation_timeout"
    assert answered.wait(5)
    slack.driver.wait_for(lambda s: s.deliveries("slash_commands")[0]["acked"])
    assert slack.driver.deliveries("slash_commands")[0]["error"] == "operation_timeout"
    assert slack.driver.ephemerals("ana") == []


def test_envelope_can_be_delivered_twice(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.socket_faults(duplicate_next=1)
    ack = slack.driver.person("ana").slash("/travis", "runs")
    slack.driver.wait_for(lambda _: len(bot.heard) == 2)
    assert bot.heard[0]["trigger_id"] == bot.heard[1]["trigger_id"]
    assert ack.envelope_id is not None
    assert slack.driver.deliver_again(ack.envelope_id).acked
    assert len(bot.heard) == 3
    slack.driver.person("ana").slash("/travis", "runs")
    assert len(bot.heard) == 4


def test_any_payload_can_be_forged(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.person("ana").slash("/travis", "runs")
    forged = bot.heard[0] | {"team_id": "T0OTHER", "api_app_id": "A0OTHER"}
    assert slack.driver.deliver("slash_commands", forged).acked
    assert bot.heard[1]["team_id"] == "T0OTHER"


def test_delivery_can_be_slow_and_acknowledgements_lost(slack: LocalSlack, bot: Bot) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    slack.driver.socket_faults(delay_seconds=0.2)
    before = time.monotonic()
    assert slack.driver.person("ana").slash("/travis", "help").acked
    assert time.monotonic() - before >= 0.2
    slack.driver.clear_faults()
    slack.driver.change_limits(ack_seconds=0.2)
    slack.driver.socket_faults(ignore_acks=1)
    assert slack.driver.person("ana").slash("/travis", "help").error == "operation_timeout"
    assert slack.driver.person("ana").slash("/travis", "help").acked


@pytest.mark.parametrize("reason", ["warning", "refresh_requested", "link_disabled"])
def test_app_comes_back_after_it_was_told_to_go(slack: LocalSlack, bot: Bot, reason: str) -> None:
    bot.on_command(lambda ack, body: ack())
    bot.connect()
    assert slack.driver.disconnect(reason) == 1
    slack.driver.wait_for(lambda s: len(s.calls("apps.connections.open")) == 2)
    slack.driver.wait_for(lambda s: s.person("ana").slash("/travis", "help").acked)


def test_app_comes_back_after_the_connection_was_cut(slack: LocalSlack) -> None:
    """The built-in client notices a cut after five failed pings, so it must ping often (its default is 10 s)."""
    with bot_of(slack, ping_interval=0.2) as bot:
        bot.on_command(lambda ack, body: ack())
        bot.connect()
        assert slack.driver.drop_connections() == 1
        assert slack.driver.connections() == 0
        slack.driver.wait_for_connection(timeout=10)
        assert slack.driver.person("ana").slash("/travis", "help").acked


def test_payloads_go_to_any_of_several_connections(slack: LocalSlack) -> None:
    with bot_of(slack) as one, bot_of(slack) as other:
        for bot in (one, other):
            bot.on_command(lambda ack, body: ack())
            bot.connect()
        slack.driver.wait_for_connection(at_least=2)
        for _ in range(40):
            assert slack.driver.person("ana").slash("/travis", "help").acked
        assert len(one.heard) + len(other.heard) == 40
        assert one.heard
        assert other.heard
        one.slack.drop_connections()


def open_websocket(slack: LocalSlack, url: str = "") -> tuple[socket.socket, int, bytes]:
    """Connect without a client; returns the socket, the status, and what the server says first."""
    client = WebClient(base_url=slack.api_url)
    path = urlsplit(url or client.apps_connections_open(app_token="xapp-local-1")["url"])
    key = base64.b64encode(b"0123456789abcdef").decode()
    request = (
        f"GET {path.path}?{path.query} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    sock = socket.create_connection(("127.0.0.1", slack.port), timeout=5)
    sock.sendall(request.encode())
    said = b""
    while b"\r\n\r\n" not in said or not said.partition(b"\r\n\r\n")[2]:
        said += sock.recv(4096)
    return sock, int(said.split()[1]), said.partition(b"\r\n\r\n")[2]


@pytest.fixture
def websockets() -> Iterator[Callable[..., tuple[int, bytes]]]:
    """Opens plain WebSockets, and closes them after the test."""
    with ExitStack() as sockets:

        def connected(slack: LocalSlack, url: str = "") -> tuple[int, bytes]:
            sock, status, said = open_websocket(slack, url)
            sockets.enter_context(sock)
            return status, said

        yield connected


def test_more_connections_than_allowed_are_sent_away(
    slack: LocalSlack, websockets: Callable[..., tuple[int, bytes]]
) -> None:
    for number in range(1, 11):
        status, hello = websockets(slack)
        assert status == 101
        assert b'"type": "hello"' in hello
        assert f'"num_connections": {number},'.encode() in hello
    assert b"too_many_websockets" in websockets(slack)[1]
    assert slack.driver.connections() == 10


def test_connection_url_is_used_once(slack: LocalSlack, websockets: Callable[..., tuple[int, bytes]]) -> None:
    url = WebClient(base_url=slack.api_url).apps_connections_open(app_token="xapp-local-1")["url"]
    assert url.startswith(f"ws://127.0.0.1:{slack.port}/link/?ticket=")
    assert [websockets(slack, url)[0] for _ in range(2)] == [101, 403]


def test_only_events_of_the_manifest_are_sent() -> None:
    manifest = dict(example().manifest) | {"settings": {"event_subscriptions": {"bot_events": ["message.im"]}}}
    with LocalSlack(replace(example(), manifest=manifest)) as slack:
        slack.driver.person("ana").mention("diagnose", "ops")
        assert slack.driver.deliveries() == []
        slack.driver.person("ana").tell("diagnose")
        assert slack.driver.deliveries()
