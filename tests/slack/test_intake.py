"""What people do in Slack, over real Bolt and Socket Mode: what is written down, and what they are told."""

import pytest

from bot.core.approval import Click, Kind, Verdict
from bot.core.errors import Temporary
from bot.core.people import Actor, Place
from bot.core.request import Ask
from bot.sandbox.slack import LocalSlack
from bot.sandbox.slack.driver import Message
from bot.slack import app as slack_app
from bot.slack import questions
from bot.slack.blocks import Message as Drawn
from tests.slack.conftest import BOT_TOKEN, TENANT
from tests.slack.fakes import ANA, BO, NOW, OPS, TEAM, TWO_SITES, FakeDesk, approval

pytestmark = pytest.mark.usefixtures("connected")


def post(slack: LocalSlack, drawn: Drawn, thread: str | None = None) -> Message:
    client = slack_app.client(BOT_TOKEN, slack.api_url)
    answer = client.chat_postMessage(channel=OPS, text=drawn.text, blocks=list(drawn.blocks), thread_ts=thread)
    return Message(dict(answer["message"]), OPS)


class TestCommands:
    def test_is_written_down_before_it_is_acknowledged(self, slack: LocalSlack, desk: FakeDesk) -> None:
        ack = slack.driver.person("ana").slash("/travis", "diagnose builds not starting")
        assert ack.acked
        assert ack.shown == "On it: diagnose builds not starting on prod."
        (kept,) = desk.submitted
        assert (kept.request.ask, kept.request.subject, kept.request.site) == (Ask.RUN, "builds not starting", "prod")
        assert (kept.actor, kept.place) == (Actor(TEAM, ANA), Place(OPS))
        assert kept.key == ack.trigger_id

    def test_the_same_delivery_twice_is_one_request(self, slack: LocalSlack, desk: FakeDesk) -> None:
        ack = slack.driver.person("ana").slash("/travis", "builds not starting")
        assert ack.envelope_id
        assert slack.driver.deliver_again(ack.envelope_id).acked
        assert len(desk.submitted) == 1

    def test_what_is_not_understood_is_told_and_starts_nothing(self, slack: LocalSlack, desk: FakeDesk) -> None:
        ack = slack.driver.person("ana").slash("/travis", "diagnoze bilds not starting <!channel>")
        assert ack.shown is not None
        assert "Did you mean `builds not starting`" in ack.shown
        assert "<!channel>" not in str(ack.reply)
        assert not desk.submitted

    def test_with_several_sites_it_asks_which(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.words = TWO_SITES
        shown = slack.driver.person("ana").slash("/travis", "status").shown
        assert shown == "On which installation? Add `on prod`; there is `prod` and `staging`."

    def test_is_not_accepted_when_the_database_is_away(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.broken = Temporary("the database does not answer")
        ack = slack.driver.person("ana").slash("/travis", "builds not starting")
        assert ack.shown == (
            "Not accepted: the database does not answer. Ask again later; `runs` says whether it was taken at the last "
            "moment after all."
        )
        assert not desk.submitted

    def test_an_unexpected_error_is_slacks_own_error(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.change_limits(ack_seconds=0.5)
        desk.broken = RuntimeError("xoxb-secret in here")
        ack = slack.driver.person("ana").slash("/travis", "builds not starting")
        assert not ack.acked

    def test_help_works_without_a_database(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.broken = Temporary("the database does not answer")
        shown = slack.driver.person("ana").slash("/travis", "help restart").shown
        assert shown
        assert "restart worker-1 because" in shown

    def test_elsewhere_it_says_where(self, slack: LocalSlack, desk: FakeDesk) -> None:
        shown = slack.driver.person("ana").slash("/travis", "status", channel="general").shown
        assert shown == "opsbot does not work here; it listens in <#C0INCIDENT> and <#C0OPS>."
        ((actor, place, why),) = desk.refusals
        assert (actor, place) == (Actor(TEAM, ANA), Place("C0GENERAL"))
        assert "does not work here" in why


class TestStrangers:
    @pytest.mark.parametrize(
        ("change", "why"),
        [
            ({"team_id": "T0OTHER"}, "another workspace"),
            ({"api_app_id": "A0OTHER"}, "another app"),
            ({"team_id": ""}, "another workspace"),
            ({"user_id": ""}, "who this was"),
        ],
    )
    def test_other_workspaces_and_apps_are_refused_and_audited(
        self, slack: LocalSlack, desk: FakeDesk, change: dict[str, str], why: str
    ) -> None:
        slack.driver.person("ana").slash("/travis", "status")
        payload = slack.driver.deliveries("slash_commands")[-1]["payload"] | {"trigger_id": "1.2.3"} | change
        desk.submitted.clear()
        assert slack.driver.deliver("slash_commands", payload).acked
        assert not desk.submitted
        assert why in desk.refusals[-1][2]

    def test_an_event_from_a_shared_channel_is_refused(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.person("ana").mention("status")
        payload = slack.driver.deliveries("events_api")[-1]["payload"] | {
            "is_ext_shared_channel": True,
            "event_id": "E2",
        }
        before = len(desk.submitted)
        assert slack.driver.deliver("events_api", payload).acked
        assert len(desk.submitted) == before
        assert "other workspaces" in desk.refusals[-1][2]

    def test_an_outsiders_click_is_refused(self, slack: LocalSlack, desk: FakeDesk) -> None:
        asked = post(slack, questions.question(approval(), NOW))
        slack.driver.person("bo").click(asked, "approve")
        payload = slack.driver.deliveries("interactive")[-1]["payload"]
        outside = payload | {"user": payload["user"] | {"id": "U0EVE", "team_id": "T0PARTNER"}, "trigger_id": "9.9"}
        slack.driver.deliver("interactive", outside)
        assert [click.actor.user for click, _ in desk.clicks] == [BO]
        assert "other workspaces" in desk.refusals[-1][2]

    def test_other_bots_are_refused(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.person("ana").mention("status")
        payload = slack.driver.deliveries("events_api")[-1]["payload"] | {"event_id": "E3"}
        desk.submitted.clear()
        slack.driver.deliver("events_api", payload | {"event": payload["event"] | {"bot_id": "B0OTHER"}})
        assert not desk.submitted
        assert "Bots" in desk.refusals[-1][2]


class TestMentions:
    def test_in_a_thread_is_a_request_there(self, slack: LocalSlack, desk: FakeDesk) -> None:
        root = slack.driver.person("ana").say("builds hang")
        slack.driver.person("ana").mention("hello, builds not starting", thread_ts=root.ts)
        assert desk.replies[-1][1] == Place(OPS, root.ts)  # `hello` is no word of ours
        slack.driver.person("ana").mention("builds not starting?", thread_ts=root.ts)
        (kept,) = desk.submitted
        assert kept.place == Place(OPS, root.ts)
        assert kept.request.subject == "builds not starting"
        assert kept.key.startswith("Ev")

    def test_that_cannot_be_begun_is_answered_privately_in_the_channel(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.person("bo").mention("status on mars")
        text = "I know no installation `mars`; there is `prod`."
        assert desk.replies == [(Actor(TEAM, BO), Place(OPS), text)]  # its thread has no reply: nobody would see it
        slack.driver.person("bo").mention("runs")
        assert len(desk.replies) == 1  # what was begun answers by itself
        assert desk.submitted[-1].place == Place(OPS)

    def test_begins_a_thread_with_a_run(self, slack: LocalSlack, desk: FakeDesk) -> None:
        said = slack.driver.person("bo").mention("status")
        assert desk.submitted[-1].place == Place(OPS, said.ts)

    def test_comes_again_until_it_is_written_down(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.change_limits(ack_seconds=0.2)
        desk.broken = Temporary("the database does not answer")
        said = slack.driver.person("ana").mention("builds not starting")
        assert not said.acked
        desk.broken = None
        slack.driver.wait_for(lambda _: bool(desk.submitted), 5)
        assert len(desk.submitted) == 1

    def test_elsewhere_is_told_so(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.change_channel("general", members=["U0ANA", "U0OPSBOT"])
        slack.driver.person("ana").mention("status", channel="general")
        assert not desk.submitted
        assert "does not work here" in desk.replies[-1][2]


class TestButtons:
    def test_approve_is_written_down_with_where_it_was_pressed(self, slack: LocalSlack, desk: FakeDesk) -> None:
        root = slack.driver.person("ana").say("incident")
        asked = post(slack, questions.question(approval(), NOW), root.ts)
        ack = slack.driver.person("bo").click(asked, "approve")
        assert ack.acked
        ((click, key),) = desk.clicks
        assert click == Click(3, Verdict.APPROVE, Actor(TEAM, BO), "", "n0nce", Place(OPS, root.ts), asked.ts)
        assert key == slack.driver.deliveries("interactive")[-1]["payload"]["trigger_id"]

    def test_is_not_acknowledged_when_it_was_not_written_down(self, slack: LocalSlack, desk: FakeDesk) -> None:
        slack.driver.change_limits(ack_seconds=0.3)
        asked = post(slack, questions.question(approval(), NOW))
        desk.broken = Temporary("the database does not answer")
        assert not slack.driver.person("bo").click(asked, "approve").acked

    def test_decline_asks_for_a_reason_and_keeps_it(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.approvals[3] = approval()
        asked = post(slack, questions.question(desk.approvals[3], NOW))
        bo = slack.driver.person("bo")
        assert bo.click(asked, "decline").acked
        assert bo.view()["callback_id"] == "reason"
        assert bo.submit({"reason": "   "}).errors == {"reason": "Say why: the requester reads it."}
        assert not desk.clicks
        assert not bo.submit({"reason": "not in the evening"}).errors
        click = desk.clicks[0][0]
        assert (click.verdict, click.reason, click.message) == (Verdict.DECLINE, "not in the evening", asked.ts)
        assert slack.driver.view("bo") is None

    def test_a_reason_that_cannot_be_kept_stays_in_the_dialog(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.approvals[3] = approval()
        asked = post(slack, questions.question(desk.approvals[3], NOW))
        bo = slack.driver.person("bo")
        bo.click(asked, "decline")
        bo.view()
        desk.broken = Temporary("the database does not answer")
        errors = bo.submit({"reason": "no"}).errors
        assert errors == {"reason": "Not recorded, try again: the database does not answer"}
        assert slack.driver.view("bo") is not None

    def test_review_shows_every_page_before_it_offers_approve(self, slack: LocalSlack, desk: FakeDesk) -> None:
        text = "".join(f"{no:05d} sudo systemctl restart travis-worker\n" for no in range(600))
        desk.approvals[3] = approval(text=text)
        asked = post(slack, questions.question(desk.approvals[3], NOW))
        assert "approve" not in asked.actions
        bo = slack.driver.person("bo")
        bo.click(asked, "review")
        seen, pages = "", 0
        while (view := bo.view())["submit"]["text"] == "Next page":
            seen += plan_in(view)
            assert not desk.clicks
            assert not bo.submit().errors
            pages += 1
        assert bo.click_in_view("page_back").acked
        assert bo.view()["submit"]["text"] == "Next page"
        bo.submit()
        view = bo.view()
        assert seen + plan_in(view) == text
        assert view["submit"]["text"] == "Approve"
        bo.submit()
        click = desk.clicks[0][0]
        assert (click.verdict, click.actor.user, click.message) == (Verdict.APPROVE, BO, asked.ts)
        assert pages == 2

    def test_review_of_a_closed_one_offers_nothing(self, slack: LocalSlack, desk: FakeDesk) -> None:
        asked = post(slack, questions.question(approval(), NOW))
        desk.approvals[3] = approval(state="decline")
        bo = slack.driver.person("bo")
        bo.click(asked, "review")
        assert bo.view()["submit"] is None
        bo.close()
        bo.click(asked, "decline")
        assert slack.driver.view("bo") is None
        assert desk.replies[-1][2] == "That was declined already."

    def test_one_that_closes_under_review_cannot_be_approved_there(self, slack: LocalSlack, desk: FakeDesk) -> None:
        desk.approvals[3] = approval()
        asked = post(slack, questions.question(desk.approvals[3], NOW))
        bo = slack.driver.person("bo")
        bo.click(asked, "review")
        assert bo.view()["submit"]["text"] == "Approve"
        desk.approvals[3] = approval(state="expire")
        bo.submit()
        assert not desk.clicks
        assert bo.view()["submit"] is None

    @pytest.mark.parametrize("button", ["review", "decline"])
    def test_a_dialog_that_slack_does_not_open_is_said(self, slack: LocalSlack, desk: FakeDesk, button: str) -> None:
        desk.approvals[3] = approval()
        asked = post(slack, questions.question(desk.approvals[3], NOW))
        slack.driver.fault("views.open", error="expired_trigger_id", times=1)
        bo = slack.driver.person("bo")
        assert bo.click(asked, button).acked
        assert desk.replies[-1][2].startswith("Slack did not open the dialog (expired_trigger_id). Press the button")
        assert not desk.clicks
        bo.click(asked, button)
        assert slack.driver.view("bo") is not None

    def test_a_button_with_a_foreign_nonce_opens_nothing(self, slack: LocalSlack, desk: FakeDesk) -> None:
        asked = post(slack, questions.question(approval(nonce="other"), NOW))
        desk.approvals[3] = approval()
        assert slack.driver.person("bo").click(asked, "review").acked
        assert slack.driver.view("bo") is None
        assert "does not exist" in desk.refusals[-1][2]

    @pytest.mark.parametrize("verdict", [Verdict.DONE, Verdict.AGAIN, Verdict.STOP])
    def test_a_doubt_is_answered(self, slack: LocalSlack, desk: FakeDesk, verdict: Verdict) -> None:
        asked = post(slack, questions.question(approval(kind=Kind.DOUBT), NOW))
        assert slack.driver.person("bo").click(asked, verdict.value).acked
        assert desk.clicks[0][0].verdict is verdict

    def test_anything_unknown_is_acknowledged(self, slack: LocalSlack, desk: FakeDesk) -> None:
        block = {
            "type": "actions",
            "elements": [
                {"type": "button", "action_id": "new", "text": {"type": "plain_text", "text": "x"}, "value": "1"}
            ],
        }
        asked = post(slack, Drawn("hello", (block,)))
        assert slack.driver.person("bo").click(asked, "new").acked
        assert not desk.clicks


def plan_in(view: dict[str, object]) -> str:
    blocks = view["blocks"]
    assert isinstance(blocks, list)
    return "".join(part["text"] for block in blocks if block["type"] == "rich_text"
                   for element in block["elements"] for part in element["elements"])  # fmt: skip


def test_the_tenant_of_the_tests_is_the_local_slacks(slack: LocalSlack) -> None:
    assert slack.driver.ask("everything")["bot"]
    assert TENANT.homes == {TEAM}
