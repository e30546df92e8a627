"""The connection: kept whatever Slack does, opened only where it may be."""

import logging
import threading
import time

import pytest

from bot.core.errors import Permanent
from bot.sandbox.slack import Limits, LocalSlack
from bot.slack import app as slack_app
from bot.slack.intake import intake
from tests.slack.conftest import APP_TOKEN, BOT_TOKEN, TENANT
from tests.slack.fakes import FakeDesk, until


@pytest.mark.parametrize(
    ("base", "token", "says"),
    [
        ("https://slack.com.evil.example/api/", "xoxb-local-1", "not to slack.com.evil.example"),
        ("http://10.0.0.1:80/api/", "xoxb-local-1", "not to 10.0.0.1"),
        ("http://127.0.0.1:80/api/", "xoxb-1-real", "gets no real token"),
        ("https://slack.com/api/", "xoxb-local-1", "no token for Slack itself"),
        ("https://slack.com/api/", "xapp-1", "must begin with `xoxb-`"),
        ("http://127.0.0.1@evil.example/api/", "xoxb-local-1", "not to evil.example"),
        ("", "xoxb-local-1", "simulator on this machine"),
    ],
)
def test_no_token_goes_where_it_may_not(base: str, token: str, says: str) -> None:
    with pytest.raises(Permanent, match=says) as refused:
        slack_app.client(token, base)
    assert token not in str(refused.value)


def test_the_app_token_is_guarded_too(slack: LocalSlack, desk: FakeDesk) -> None:
    app = intake(slack_app.client(BOT_TOKEN, slack.api_url), desk, TENANT)
    with pytest.raises(Permanent, match="gets no real token"):
        slack_app.connect(app, "xapp-1-real", slack.api_url)


def test_starts_while_slack_is_away_and_survives_its_restart(desk: FakeDesk, caplog: pytest.LogCaptureFixture) -> None:
    with LocalSlack() as first:  # only to learn a free port
        port = first.port
    client = slack_app.client(BOT_TOKEN, f"http://127.0.0.1:{port}/api/")
    connection = slack_app.connect(intake(client, desk, TENANT), APP_TOKEN, client.base_url, workers=4, ping=0.3)
    try:
        until(lambda: "Slack cannot be reached (URLError)" in caplog.text)
        assert len(caplog.records) == 1
        for times in (1, 2):
            with LocalSlack(port=port) as slack:
                assert connection.wait(10)
                slack.driver.wait_for_connection()
                assert slack.driver.person("ana").slash("/travis", "status").acked
            assert len(desk.submitted) == times
    finally:
        connection.close()


def test_no_command_is_lost_when_slack_refreshes_the_connection(
    slack: LocalSlack, desk: FakeDesk, connected: slack_app.Connection
) -> None:
    halfway = threading.Timer(0.5, slack.driver.disconnect, kwargs={"reason": "refresh_requested"})
    halfway.start()
    load = slack.driver.load("ana", "/travis", "show {n}", "ops", rate=50, seconds=1.5)
    halfway.join()
    assert load.errors == ()
    assert len(desk.submitted) == load.sent


def test_a_command_nobody_waits_for_any_more_is_dropped(desk: FakeDesk, caplog: pytest.LogCaptureFixture) -> None:
    """Two workers are busy while Slack gives up on a third command; it must not run when a worker is free again."""
    free, begun = threading.Event(), threading.Semaphore(0)

    def slow() -> None:
        begun.release()
        assert free.wait(20)

    desk.before = slow
    with LocalSlack(limits=Limits(ack_seconds=1.0)) as slack:
        client = slack_app.client(BOT_TOKEN, slack.api_url)
        app = intake(client, desk, TENANT, patience=1.0)
        connection = slack_app.connect(app, APP_TOKEN, slack.api_url, workers=2)
        try:
            assert connection.wait(10)
            ana = slack.driver.person("ana")
            asking = [threading.Thread(target=ana.slash, args=("/travis", f"show {n}")) for n in range(1, 4)]
            for each in asking[:2]:
                each.start()
                assert begun.acquire(timeout=10)
            asking[2].start()
            for each in asking:
                each.join()
            free.set()
            until(lambda: len(desk.submitted) == 2)
            until(lambda: "dropped a command" in caplog.text)
        finally:
            connection.close()
    assert {kept.request.number for kept in desk.submitted} == {1, 2}
    assert "That took long, but: On it: show 1." in [text for _, _, text in desk.replies]


def test_what_is_being_written_down_is_acknowledged_before_closing(slack: LocalSlack, desk: FakeDesk) -> None:
    client = slack_app.client(BOT_TOKEN, slack.api_url)
    connection = slack_app.connect(intake(client, desk, TENANT), APP_TOKEN, slack.api_url, workers=2)
    assert connection.wait(10)
    begun = threading.Event()

    def slow() -> None:
        begun.set()
        time.sleep(0.3)

    desk.before = slow
    acks = []
    asking = threading.Thread(target=lambda: acks.append(slack.driver.person("ana").slash("/travis", "status")))
    asking.start()
    assert begun.wait(5)
    connection.close()
    asking.join()
    assert acks[0].acked


def test_nothing_of_a_payload_reaches_the_log(
    slack: LocalSlack, desk: FakeDesk, connected: slack_app.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    slack.driver.person("ana").slash("/travis", "status hunter2secret")
    desk.broken = RuntimeError("hunter2secret")
    slack.driver.change_limits(ack_seconds=0.2)
    slack.driver.person("ana").slash("/travis", "restart worker-1 because hunter2secret")
    assert "not acknowledged: RuntimeError" in caplog.text
    assert "hunter2secret" not in caplog.text


def test_closes_soon_and_wholly_whenever_it_is_told_to(slack: LocalSlack, desk: FakeDesk) -> None:
    client = slack_app.client(BOT_TOKEN, slack.api_url)
    before = threading.active_count()
    for moment in range(12):
        connection = slack_app.connect(intake(client, desk, TENANT), APP_TOKEN, slack.api_url, workers=2)
        if moment % 3:
            assert connection.wait(10)
        time.sleep(moment / 100)
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < slack_app.HANG_UP
    until(lambda: threading.active_count() <= before)
    until(lambda: slack.driver.connections() == 0)
