"""What is said in Slack: order, pace, edits, files, private words, and every way in which Slack refuses."""

import threading
import time
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from bot.core.chart import Chart
from bot.core.errors import Temporary
from bot.core.outbox import Letter
from bot.core.outcome import Outcome
from bot.sandbox.slack import Limits, LocalSlack
from bot.slack import app as slack_app
from bot.slack.outbox import ELSEWHERE, Sender
from bot.slack.refusals import RULES
from tests.core.test_archive import unpacked
from tests.core.test_chart import CHART
from tests.slack.conftest import BOT_TOKEN
from tests.slack.fakes import ANA, BO, NOW, OPS, FakeOutbox, approval, run, story, until

PNG = b"\x89PNG\r\n\x1a\n and so on"


class Clock:
    """Seconds that a test turns."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox() -> FakeOutbox:
    return FakeOutbox()


@pytest.fixture
def sender(slack: LocalSlack, outbox: FakeOutbox, clock: Clock) -> Sender:
    client = slack_app.client(BOT_TOKEN, slack.api_url)
    return Sender(outbox, client, clock=clock, now=lambda: NOW, channels=[OPS])


def letter(number: int, kind: str = "note", **changes: Any) -> Letter:
    return replace(Letter(number, kind, OPS, None, None, body={"text": f"letter {number}"}), **changes)


def posted(slack: LocalSlack) -> list[str]:
    return [message.text for message in slack.driver.messages("ops")]


class TestNotes:
    def test_go_out_quietly_and_safe(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        text = "<!channel> see <https://evil.example|docs> & <@U0CY>, thanks <@U0ANA> in <#C0OPS>"
        kept = outbox.put(letter(1, body={"text": text}, run=run()))
        assert sender.step()
        (message,) = slack.driver.messages("ops")
        safe = "&lt;!channel&gt; see &lt;https://evil.example|docs&gt; &amp; &lt;@U0CY&gt;, thanks <@U0ANA> in <#C0OPS>"
        assert message.text == safe
        assert message.blocks[0]["text"]["text"] == safe
        assert kept.state == "sent"
        (call,) = slack.driver.calls("chat.postMessage")
        wanted = {"unfurl_links": False, "unfurl_media": False, "parse": "none", "link_names": False}
        assert {name: call["args"][name] for name in wanted} == wanted

    def test_long_ones_are_files_named_in_a_line(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        root = slack.driver.person("ana").say("builds hang")
        text = "the log of worker-2\n" + "x <!here> y\n" * 500
        outbox.put(letter(7, thread=root.ts, body={"text": text}))
        sender.step()
        message = slack.driver.messages("ops")[-1]
        assert message.thread_ts == root.ts
        assert message.text == "the log of worker-2\nnote-7.txt, 6,020 bytes, 501 lines"
        assert slack.driver.file(message.files[0]["id"]).decode() == text

    def test_go_to_the_channel_when_their_thread_is_gone(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        outbox.put(letter(1, thread="1.000001"))
        sender.step()
        assert posted(slack) == ["letter 1"]
        long = outbox.put(letter(2, thread="1.000001", body={"text": "x\n" * 3000}))
        sender.step()
        assert long.state == "sent"

    def test_documents_keep_their_name(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        body = {"text": "Evidence of run 12", "file": "../evidence run 12.txt", "content": "uptime\n"}
        outbox.put(letter(7, body=body))
        sender.step()
        message = slack.driver.messages("ops")[-1]
        assert message.files[0]["name"] == "..-evidence-run-12.txt"
        assert message.text == "Evidence of run 12\n..-evidence-run-12.txt, 7 bytes, 1 lines"

    def test_several_files_are_one_archive(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        files = {"worker-1/log.txt": "started\n", "mail.txt": "Dear support\n"}
        outbox.put(letter(7, body={"text": "The bundle", "file": "support-bundle.tar.gz", "files": files}))
        sender.step()
        message = slack.driver.messages("ops")[-1]
        assert message.text.startswith("The bundle\nsupport-bundle.tar.gz, ")
        assert unpacked(slack.driver.file(message.files[0]["id"])) == files


class TestCharts:
    BODY: ClassVar = {
        "text": "The last 3 backups of <!here>",
        "file": "backups.png",
        "said": "The last 3 backups of <!here>, size and duration: 1 proven restorable.",
        "chart": CHART.to_json(),
    }

    def test_are_drawn_when_they_go_out(self, slack: LocalSlack, outbox: FakeOutbox) -> None:
        drawn: list[Chart] = []

        def draw(chart: Chart) -> bytes:
            drawn.append(chart)
            return PNG

        root = slack.driver.person("ana").say("how are the backups?")
        kept = outbox.put(letter(7, thread=root.ts, body=self.BODY))
        Sender(outbox, slack_app.client(BOT_TOKEN, slack.api_url), draw=draw).step()
        message = slack.driver.messages("ops")[-1]
        assert (kept.state, message.thread_ts, drawn) == ("sent", root.ts, [CHART])
        assert message.text == f"The last 3 backups of &lt;!here&gt;\nbackups.png, {len(PNG)} bytes"
        (file,) = message.files
        assert (file["name"], file["mimetype"], file["alt_txt"]) == ("backups.png", "image/png", self.BODY["said"])
        assert slack.driver.file(file["id"]) == PNG

    @pytest.mark.parametrize("given", [BODY, BODY | {"chart": {"bars": "of another version"}}])
    def test_what_cannot_be_drawn_is_told_in_words(
        self, slack: LocalSlack, outbox: FakeOutbox, given: dict[str, Any]
    ) -> None:
        def fail(chart: Chart) -> bytes:
            raise RuntimeError("no font")

        kept = outbox.put(letter(7, body=given))
        Sender(outbox, slack_app.client(BOT_TOKEN, slack.api_url), draw=fail).step()
        message = slack.driver.messages("ops")[-1]
        assert (kept.state, message.files) == ("sent", [])
        assert message.text == "The last 3 backups of &lt;!here&gt;, size and duration: 1 proven restorable."

    def test_a_failed_upload_is_tried_again(self, slack: LocalSlack, outbox: FakeOutbox) -> None:
        slack.driver.fault("files.completeUploadExternal", status=503)
        kept = outbox.put(letter(7, body=self.BODY))
        sender = Sender(outbox, slack_app.client(BOT_TOKEN, slack.api_url), draw=lambda _: PNG)
        sender.step()
        assert (kept.state, posted(slack)) == ("waiting", [])
        sender.step()
        assert (kept.state, len(slack.driver.messages("ops"))) == ("sent", 1)


class TestStatus:
    def test_is_posted_once_and_then_edited(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        first = outbox.put(letter(1, "status", run=run()))
        sender.step()
        done = run(outcome=Outcome.HEALTHY, summary="Nothing is wrong.")
        outbox.put(letter(2, "status", message=first.ts, run=done, story=story(("look", {"no": 1, "checked": ["x?"]}))))
        sender.step()
        (message,) = slack.driver.messages("ops")
        assert message.ts == first.ts
        assert message.edited
        assert "Healthy: builds not starting on prod" in message.text
        assert "x?" in message.all_text

    def test_is_posted_again_when_its_message_is_gone(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        kept = outbox.put(letter(1, "status", message="1.000001", thread="1.000001", run=run()))
        sender.step()
        (message,) = slack.driver.messages("ops")
        assert (kept.state, kept.ts, kept.posted) == ("sent", message.ts, True)
        assert message.thread_ts is None

    def test_is_edited_once_a_second_but_its_outcome_at_once(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, clock: Clock
    ) -> None:
        first = outbox.put(letter(1, "status", run=run()))
        sender.step()
        for number in (2, 3):
            outbox.put(letter(number, "status", message=first.ts, run=run()))
            sender.step()
        assert [(number, seconds) for number, seconds, _ in outbox.waits] == [(3, 1.0)]
        clock.seconds += 1.0
        sender.step()
        outbox.put(letter(4, "status", message=first.ts, run=run(outcome=Outcome.FIXED, summary="Healed.")))
        sender.step()
        assert "Fixed" in slack.driver.messages("ops")[0].text

    def test_what_found_no_room_is_a_file_when_the_run_has_ended(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        finding: dict[str, object] = {"severity": "BROKEN", "title": "x" * 250, "evidence": "y" * 250, "cause": "c"}
        events = story(*[("finding", finding | {"target": f"worker-{no}"}) for no in range(60)])
        first = outbox.put(letter(1, "status", run=run(), story=events))
        sender.step()
        assert len(slack.driver.messages("ops")) == 1
        ended = run(outcome=Outcome.FOUND, summary="60 are broken.")
        for number in (2, 3):
            outbox.put(letter(number, "status", message=first.ts, run=ended, story=events))
            sender.step()
        status, file = slack.driver.messages("ops")
        assert "more: " in status.all_text
        assert file.thread_ts == status.ts
        assert "worker-59" in slack.driver.file(file.files[0]["id"]).decode()


class TestApprovals:
    def test_are_posted_in_the_thread_and_closed_in_place(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        root = slack.driver.person("ana").say("builds hang")
        kept = outbox.put(letter(1, "approval", thread=root.ts, approval=approval(), run=run()))
        sender.step()
        message = slack.driver.messages("ops", root.ts)[-1]
        assert message.actions == ["approve", "review", "decline"]
        closed = approval(state="approve", decided_by=(actor_bo(),), decided_at=NOW)
        outbox.put(letter(2, "approval", thread=root.ts, message=kept.ts, approval=closed, run=run()))
        sender.step()
        message = slack.driver.messages("ops", root.ts)[-1]
        assert message.actions == []
        assert "Approved* by <@U0BO>" in message.all_text

    def test_call_the_approvers_once(self, slack: LocalSlack, outbox: FakeOutbox) -> None:
        client = slack_app.client(BOT_TOKEN, slack.api_url)
        sender = Sender(outbox, client, clock=lambda: 0.0, now=lambda: NOW, approvers=["S0ONCALL", "U0CY"])
        kept = outbox.put(letter(1, "approval", approval=approval(needs=2)))
        sender.step()
        assert "*For:* <!subteam^S0ONCALL> <@U0CY>" in slack.driver.messages("ops")[0].all_text
        half = approval(needs=2, decided_by=(actor_bo(),))
        outbox.put(letter(2, "approval", message=kept.ts, approval=half))
        sender.step()
        outbox.put(letter(3, body={"text": "Still waiting for a decision of <!subteam^S0ONCALL>."}))
        sender.step()
        first, reminder = slack.driver.messages("ops")
        assert "1 of 2: approved by <@U0BO>" in first.all_text
        assert "subteam" not in first.all_text
        assert reminder.text == "Still waiting for a decision of <!subteam^S0ONCALL>."

    def test_a_plan_too_long_for_a_message_is_a_file_beside_it(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        text = "sudo systemctl restart travis-worker\n" * 400
        outbox.put(letter(1, "approval", approval=approval(text=text)))
        sender.step()
        message, file = slack.driver.messages("ops")
        assert message.actions == ["review", "decline"]
        assert file.thread_ts == message.ts
        assert slack.driver.file(file.files[0]["id"]).decode() == text

    def test_a_file_that_failed_is_tried_again_without_a_second_message(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        slack.driver.fault("files.completeUploadExternal", status=503)
        kept = outbox.put(letter(1, "approval", approval=approval(text="x\n" * 9000)))
        sender.step()
        assert kept.state == "waiting"
        sender.step()
        assert kept.state == "sent"
        message, file = slack.driver.messages("ops")
        assert file.thread_ts == message.ts == kept.ts

    def test_a_pointer_has_no_buttons(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        outbox.put(letter(1, "pointer", approval=approval()))
        sender.step()
        (message,) = slack.driver.messages("ops")
        assert message.actions == []
        assert "Run 12 waits for an approval" in message.text


class TestPrivate:
    def test_is_seen_by_one_person_in_the_thread(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        root = slack.driver.person("ana").say("builds hang")
        text = "It was decided already by <@U0CY>, of <!subteam^S0ONCALL>; <!here> <https://x.example|x>"
        outbox.put(letter(1, "private", thread=root.ts, user=BO, body={"text": "nobody sees this: no thread is there"}))
        sender.step()
        slack.driver.person("bo").say("which ones?", thread_ts=root.ts)
        outbox.put(letter(2, "private", thread=root.ts, user=BO, body={"text": text}))
        sender.step()
        (message,) = slack.driver.ephemerals("bo")
        safe = "&lt;!here&gt; &lt;https://x.example|x&gt;"
        assert message.text == f"It was decided already by <@U0CY>, of <!subteam^S0ONCALL>; {safe}"
        assert message.thread_ts == root.ts

    @pytest.mark.parametrize("channel", ["C0INCIDENT", "C0GENERAL", "U0CY", "D0CY", ""])
    def test_goes_to_a_direct_message_for_who_is_not_there(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, channel: str
    ) -> None:
        outbox.put(letter(1, "private", channel=channel, user="U0CY", body={"text": "You may not."}))
        sender.step()
        assert outbox.kept[0].state == "sent"
        assert [message.text for message in slack.driver.messages("D0CY")] == ["You may not."]

    def test_a_long_one_is_a_file_in_a_direct_message(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        outbox.put(letter(1, "private", user=ANA, body={"text": "run 12\n" + "line\n" * 900}))
        sender.step()
        (message,) = slack.driver.messages("D0ANA")
        assert message.files
        (pointer,) = slack.driver.ephemerals("ana")
        assert (pointer.channel, pointer.text) == ("C0OPS", ELSEWHERE)

    def test_its_file_comes_once_though_the_channel_cannot_be_told(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        slack.driver.fault("chat.postEphemeral", error="ratelimited")
        outbox.put(letter(1, "private", user=ANA, body={"text": "run 12\n" + "line\n" * 900}))
        sender.step()
        sender.step()
        assert outbox.kept[0].state == "sent"
        assert len(slack.driver.messages("D0ANA")) == 1


class TestPace:
    def test_three_at_once_then_one_a_second(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, clock: Clock
    ) -> None:
        for number in range(1, 6):
            outbox.put(letter(number))
        for _ in range(4):
            sender.step()
        assert posted(slack) == ["letter 1", "letter 2", "letter 3"]
        assert [(number, seconds) for number, seconds, _ in outbox.waits] == [(4, 1.0)]
        clock.seconds += 1.0
        sender.step()
        assert posted(slack)[-1] == "letter 4"

    def test_slacks_own_wait_is_kept(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        slack.driver.fault("chat.postMessage", status=429, retry_after=17)
        outbox.put(letter(1))
        sender.step()
        assert outbox.waits == [(1, 17.0, "Slack asks to wait")]
        sender.step()
        assert posted(slack) == ["letter 1"]

    def test_order_survives_every_failure(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, clock: Clock
    ) -> None:
        for fault in ({"status": 500}, {"drop": "before"}, {"error": "internal_error"}, {"error": "ratelimited"}):
            slack.driver.fault("chat.postMessage", **fault)
        for number in (1, 2, 3):
            outbox.put(letter(number))
        for _ in range(7):
            sender.step()
            clock.seconds += 1
        assert posted(slack) == ["letter 1", "letter 2", "letter 3"]


class TestRefusals:
    @pytest.mark.parametrize("code", sorted(RULES))
    def test_every_known_error_has_its_end(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, code: str
    ) -> None:
        slack.driver.fault("chat.postMessage", error=code)
        kept = outbox.put(letter(1))
        sender.step()
        rule = RULES[code]
        wanted = {"later": "waiting", "file": "sent"}.get(rule.act, "dead")
        assert kept.state == wanted
        assert bool(outbox.waits) == (rule.act == "later")

    def test_says_what_to_do_about_a_channel_without_the_bot(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender
    ) -> None:
        kept = outbox.put(letter(1, channel="C0GENERAL", run=run()))
        sender.step()
        assert kept.why == "the bot is not in the channel: type `/invite @opsbot` there (not_in_channel)"
        (word,) = outbox.words
        assert word == (
            "I cannot post in <#C0GENERAL>: the bot is not in the channel: type `/invite @opsbot` there. Run 12 goes "
            "on all the same; `show 12` says how it is."
        )
        outbox.put(letter(2, "private", channel=ANA, user=ANA, body={"text": word}))
        sender.step()
        (told,) = slack.driver.messages("D0ANA")
        assert "<#C0GENERAL>" in told.text

    def test_nobody_is_told_of_a_private_word_that_could_not_be_said(
        self, outbox: FakeOutbox, sender: Sender, slack: LocalSlack
    ) -> None:
        slack.driver.fault("chat.postMessage", error="user_disabled")
        kept = outbox.put(letter(1, "private", channel=ANA, user=ANA, run=run()))
        sender.step()
        assert kept.state == "dead"
        assert outbox.words == []

    def test_an_unheard_of_error_is_tried_a_few_times(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, clock: Clock
    ) -> None:
        slack.driver.fault("chat.postMessage", error="cosmic_rays", times=100)
        kept = outbox.put(letter(1))
        for _ in range(13):
            sender.step()
            clock.seconds += 1
        assert (kept.state, kept.why) == ("dead", "Slack answers cosmic_rays (cosmic_rays)")
        assert len(outbox.waits) == 12

    def test_a_letter_that_cannot_be_drawn_does_not_stop_the_others(
        self,
        slack: LocalSlack,
        outbox: FakeOutbox,
        sender: Sender,
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def broken(*_: object) -> None:
            raise KeyError("a part that nobody wrote")

        monkeypatch.setattr("bot.slack.outbox.status.status", broken)
        poison = outbox.put(letter(1, "status", run=run(), story=story()))
        note = outbox.put(letter(2))
        for _ in range(6):
            sender.step()
            clock.seconds += 1
        assert poison.state == "dead"
        assert "KeyError" in poison.why
        assert note.state == "sent"
        assert posted(slack) == ["letter 2"]

    def test_patience_that_slack_asks_for_is_no_try(
        self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender, clock: Clock
    ) -> None:
        slack.driver.fault("chat.postMessage", error="ratelimited", times=20)
        kept = outbox.put(letter(1))
        for _ in range(20):
            sender.step()
            clock.seconds += 1
        assert (kept.state, kept.letter.tries, len(outbox.waits)) == ("waiting", 0, 20)
        sender.step()
        assert kept.state == "sent"

    def test_nothing_is_cut_off_silently(self, slack: LocalSlack, outbox: FakeOutbox, sender: Sender) -> None:
        slack.driver.fault("chat.postMessage", error="msg_blocks_too_long")
        outbox.put(letter(1, "approval", approval=approval(text="the whole plan\n" * 10)))
        sender.step()
        message, file = slack.driver.messages("ops")
        assert "Approval needed" in message.text
        assert slack.driver.file(file.files[0]["id"]).decode() == "the whole plan\n" * 10
        assert message.actions == []


class TestRunning:
    def test_waits_for_a_slack_that_is_away_and_says_so_once(
        self, outbox: FakeOutbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        with LocalSlack() as first:
            port = first.port
        client = slack_app.client(BOT_TOKEN, f"http://127.0.0.1:{port}/api/")
        kept = outbox.put(letter(1))
        with running(Sender(outbox, client)):
            until(lambda: len(outbox.waits) > 2)
            with LocalSlack(port=port, limits=Limits(rate_limited=False)) as slack:
                until(lambda: kept.state == "sent")
                assert posted(slack) == ["letter 1"]
        assert caplog.text.count("letters wait") == 1
        assert "Slack takes letters again" in caplog.text

    def test_waits_for_a_database_that_is_away(
        self, slack: LocalSlack, outbox: FakeOutbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(FakeOutbox):
            def take(self) -> Any:
                raise Temporary("the database does not answer")

        broken = Broken()
        with running(Sender(broken, slack_app.client(BOT_TOKEN, slack.api_url))):
            until(lambda: "the database does not answer" in caplog.text)

    def test_several_threads_keep_the_order_of_each_channel(self, slack: LocalSlack, outbox: FakeOutbox) -> None:
        sender = Sender(outbox, slack_app.client(BOT_TOKEN, slack.api_url), clock=lambda: time.monotonic() * 50)
        for number in range(1, 25):
            outbox.put(letter(number, channel=OPS if number % 2 else "C0INCIDENT"))
        with running(sender, sender, sender):
            until(lambda: all(kept.state == "sent" for kept in outbox.kept))
        assert posted(slack) == [f"letter {number}" for number in range(1, 25, 2)]


class running:  # noqa: N801
    """Senders at work in threads of their own."""

    def __init__(self, *senders: Sender) -> None:
        self.stop = threading.Event()
        self.threads = [threading.Thread(target=each.run, args=(self.stop,)) for each in senders]

    def __enter__(self) -> None:
        for each in self.threads:
            each.start()

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for each in self.threads:
            each.join(10)
            assert not each.is_alive()


def actor_bo() -> Any:
    return replace(approval().requester, user=BO)
