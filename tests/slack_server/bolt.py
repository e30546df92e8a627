"""A real Bolt app as opsbot runs it, with listeners that a test gives it."""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

from slack_bolt import Ack, App
from slack_bolt.adapter.socket_mode import SocketModeHandler
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.socket_mode.builtin import SocketModeClient

from bot.sandbox.slack import Driver, LocalSlack

Json = dict[str, Any]
WORKERS = 20

for _name in ("slack_bolt.SocketModeHandler", "slack_bolt.App", "slack_sdk"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)


class Bot:
    """A Bolt app on Socket Mode that remembers what it was sent. Give it listeners before `connect`."""

    def __init__(self, slack: LocalSlack, ping_interval: float = 10) -> None:
        self.client = WebClient(token="xoxb-local-1", base_url=slack.api_url)
        self.app = App(
            client=self.client,
            process_before_response=True,
            listener_executor=ThreadPoolExecutor(WORKERS),
            raise_error_for_unhandled_request=False,
        )
        self.handler = SocketModeHandler(self.app, "xapp-local-1", concurrency=WORKERS, ping_interval=ping_interval)
        self.slack = slack.driver
        self.heard: list[Json] = []

    def on_command(self, answer: Callable[[Ack, Json], Any], command: str = "/travis") -> None:
        def listen(ack: Ack, body: Json) -> None:
            self.heard.append(body)
            answer(ack, body)

        self.app.command(command)(listen)

    def on_event(self, event: str, answer: Callable[[Json], Any] = lambda body: None) -> None:
        def listen(body: Json) -> None:
            self.heard.append(body)
            answer(body)

        self.app.event(event)(listen)

    def on_action(self, action_id: str, answer: Callable[[Ack, Json], Any] = lambda ack, body: ack()) -> None:
        def listen(ack: Ack, body: Json) -> None:
            self.heard.append(body)
            answer(ack, body)

        self.app.action(action_id)(listen)

    def on_submit(self, callback_id: str, answer: Callable[[Ack, Json], Any] = lambda ack, body: ack()) -> None:
        def listen(ack: Ack, body: Json) -> None:
            self.heard.append(body)
            answer(ack, body)

        self.app.view(callback_id)(listen)

    def connect(self) -> "Bot":
        self.handler.connect()  # type: ignore[no-untyped-call]
        self.slack.wait_for_connection()
        return self

    def close(self) -> None:
        close_client(self.handler.client, self.slack)


def close_client(client: SocketModeClient, slack: Driver) -> None:
    """Wake what the built-in client would otherwise wait for: its receive call (3 s) and its queue (1 s)."""
    client.auto_reconnect_enabled, client.closed = False, True
    client.message_queue.put(None)
    slack.drop_connections()
    with suppress(AttributeError):  # its threads race to close one socket, and the loser finds None
        client.close()
    client.close()  # what it opened while it was closing


@contextmanager
def bot_of(slack: LocalSlack, ping_interval: float = 10) -> Iterator[Bot]:
    bot = Bot(slack, ping_interval)
    try:
        yield bot
    finally:
        bot.close()


def refusal(call: Callable[..., Any], **args: Any) -> Json:
    """The answer of a Web API call that must be refused."""
    try:
        call(**args)
    except SlackApiError as error:
        answer: Json = error.response.data
        return answer
    raise AssertionError("Slack accepted what it had to refuse.")
