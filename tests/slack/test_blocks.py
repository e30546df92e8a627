"""What a run and its questions look like: the right things first, everything counted, always within Slack's limits."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.approval import Kind, Verdict
from bot.core.outcome import Outcome
from bot.core.people import Actor, Place
from bot.core.run import Run
from bot.core.story import KINDS, Event
from bot.slack import blocks, check, questions, status
from bot.slack.blocks import Message
from tests.slack.fakes import BO, NOW, TEAM, approval, run, story

BROKEN: dict[str, object] = {
    "severity": "BROKEN",
    "target": "worker-2",
    "cause": "worker.amqp-lost",
    "title": "RabbitMQ sees no consumer",
    "evidence": "2 of 3 workers are connected",
    "fixes": ["Restart travis-worker"],
}


def texts(message: Message) -> list[str]:
    return list(_texts(message.blocks))


def _texts(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["text"]] if isinstance(part.get("text"), str) else []
        return own + [text for value in part.values() if not isinstance(value, str) for text in _texts(value)]
    return [text for each in part for text in _texts(each)] if isinstance(part, list | tuple) else []


def _marked_up(part: Any) -> list[str]:
    """Only these texts are read for mentions and links; plain and preformatted text is shown as it is."""
    if isinstance(part, dict):
        own = [part["text"]] if part.get("type") == "mrkdwn" else []
        return own + [text for value in part.values() for text in _marked_up(value)]
    return [text for each in part for text in _marked_up(each)] if isinstance(part, list | tuple) else []


def whole(message: Message) -> str:
    return "\n".join(texts(message))


def drawn(given_run: Run, *events: tuple[str, dict[str, object]]) -> Message:
    message = status.status(given_run, story(*events), NOW)
    assert not check.faults_of_message(message.text, message.blocks)
    return message


class TestStatus:
    def test_of_a_new_run_says_who_asked_for_what(self) -> None:
        message = drawn(run())
        assert message.text == "⏳ Starting: builds not starting on prod (run 12)."
        assert "asked by <@U0ANA>" in whole(message)

    def test_says_what_was_checked_when_all_is_well(self) -> None:
        looked = (
            "look",
            {"no": 1, "asked": ["worker-1", "worker-2"], "checked": ["worker lost rabbitmq", "disk full"]},
        )
        message = drawn(run(outcome=Outcome.HEALTHY, summary="Nothing is wrong."), looked)
        assert texts(message)[0] == "✅ Healthy: builds not starting on prod"
        assert "*In order* · 2 checks on 2 machines: worker lost rabbitmq disk full" in whole(message)
        assert "Nothing is wrong." in message.text

    def test_of_a_healthy_installation_is_a_few_lines_and_the_file_has_the_rest(self) -> None:
        looked = ("look", {"no": 1, "asked": ["a", "b"], "checked": [f"Is part {no} well?" for no in range(42)]})
        message = drawn(run(outcome=Outcome.HEALTHY, summary="Nothing is wrong."), looked)
        assert "Is part 7 well? … and 34 more" in whole(message)
        assert "Is part 8 well?" not in whole(message)
        assert "Not everything fits" not in whole(message)
        assert "Is part 41 well?" in message.document

    def test_what_was_seen_and_needs_a_second_look_is_not_said_to_be_unseen(self) -> None:
        looked = ("look", {"no": 1, "checked": ["Is it on?"], "unknown": ["platform-1: 3 jobs look lost"]})
        said = "Nothing was changed. Not known: platform-1: 3 jobs look lost"
        message = drawn(run(outcome=Outcome.COULD_NOT_LOOK, summary=said), looked)
        assert texts(message)[0] == "⚠️ Not all is known: builds not starting on prod"
        assert whole(message).count("3 jobs look lost") == 1
        unseen = drawn(run(outcome=Outcome.COULD_NOT_LOOK, summary="worker-1 does not answer"))
        assert texts(unseen)[0] == "⚠️ Could not look: builds not starting on prod"

    def test_a_machine_that_cannot_be_reached_is_said_once_and_not_for_every_check(self) -> None:
        why = "worker-2 refused the connection."
        other = "The container of platform-1 cannot be told"
        unknown = [f"worker-2: Is part {no} well?: not known, because {why}" for no in range(9)]
        unknown += [f"platform-1: Do jobs {verb}?: not known, because {other}" for verb in ("come", "go")]
        finding = ("finding", {**BROKEN, "title": why})
        message = whole(drawn(run(), ("look", {"no": 1, "unknown": unknown}), finding))
        assert message.count(why) == 1
        assert "*Could not be told:*\n• 2 checks not known, because The container of platform-1" in message
        assert "Do jobs" not in message

    def test_what_is_not_seen_again_asks_nothing_of_a_person(self) -> None:
        before = ("finding", {**BROKEN, "person": "Look why it ends."})
        message = whole(drawn(run(), ("look", {"no": 1}), before, ("look", {"no": 2})))
        assert "⚪ *Not seen again*" in message
        assert "Look why it ends" not in message

    def test_nothing_waits_any_more_when_a_run_has_ended(self) -> None:
        step: dict[str, object] = {"target": "worker-1", "does": "number of running builds is 0", "result": "waiting"}
        waits = ("step", step)
        assert "⏳ worker-1: number of running builds is 0: waiting" in whole(drawn(run(), waits))
        ended = whole(drawn(run(outcome=Outcome.CANCELLED), waits))
        assert "⏹️ worker-1: number of running builds is 0: given up" in ended

    def test_one_machine_that_cannot_be_reached_is_not_everything(self) -> None:
        looked = ("look", {"no": 1, "checked": ["Is it on?"]})
        message = drawn(run(outcome=Outcome.COULD_NOT_LOOK), looked, ("finding", BROKEN))
        assert texts(message)[0] == "⚠️ Could not look everywhere: builds not starting on prod"

    def test_what_only_a_person_can_cure_is_not_said_to_have_been_tried(self) -> None:
        found = ("finding", {**BROKEN, "fixes": [], "person": "Let TCP 5672 through."})
        message = drawn(run(outcome=Outcome.UNFIXED, summary="Nothing was changed."), found)
        assert texts(message)[0] == "🔴 For a person: builds not starting on prod"
        tried = drawn(run(outcome=Outcome.UNFIXED), found, ("plan", {"no": 1, "fixes": []}))
        assert texts(tried)[0] == "🔴 Not fixed: builds not starting on prod"

    def test_what_nobody_found_broken_is_not_said_to_be_healed(self) -> None:
        proven = ("verified", {"target": "worker-2", "fix": "Drain", "healed": True})
        assert "✅ worker-2: Looked again: as it should be" in whole(drawn(run(), proven))
        assert "✅ worker-2: Looked again: healed" in whole(drawn(run(), ("finding", BROKEN), proven))

    def test_puts_the_worst_first_and_consequences_under_their_cause(self) -> None:
        message = drawn(
            run(),
            ("look", {"no": 1, "checked": ["a", "b"]}),
            ("finding", {**BROKEN, "severity": "WARN", "target": "worker-1", "cause": "disk", "title": "it fills up"}),
            ("finding", {**BROKEN, "target": "worker-3", "title": "has no consumer", "under": "broker.down"}),
            ("finding", {**BROKEN, "target": "platform-1", "cause": "broker.down", "title": "RabbitMQ is down"}),
        )  # fmt: skip
        sections = [text for text in texts(message) if "*Broken*" in text or "*Warning*" in text]
        assert sections[0].startswith("🔴 *Broken* · platform-1: RabbitMQ is down")
        assert "↳ so also · worker-3: has no consumer" in sections[0]
        assert sections[1].startswith("🟠 *Warning* · worker-1: it fills up")
        assert "*In order* · 2 checks: a b" in whole(message)

    def test_a_consequence_without_its_cause_stands_alone(self) -> None:
        assert "🔴 *Broken* · worker-2" in whole(drawn(run(), ("finding", {**BROKEN, "under": "elsewhere"})))

    def test_follows_a_repair_to_its_end(self) -> None:
        plan = {"no": 1, "risk": "interrupts", "needs": 1, "expires": (NOW + timedelta(minutes=30)).isoformat(),
                "fixes": [{"title": "Restart travis-worker", "target": "worker-2"}]}  # fmt: skip
        events: list[tuple[str, dict[str, object]]] = [("finding", dict(BROKEN)), ("plan", plan)]
        message = drawn(run(), *events)
        assert message.text.startswith("⏳ Waiting for approval: ")
        assert "⏳ Waiting for another person to approve, until <!date^" in whole(message)
        events.append(("decision", {"verdict": "approve", "by": "<@U0BO>"}))
        message = drawn(run(), *events)
        assert "Approved by <@U0BO>" in whole(message)
        assert "Waiting for another person" not in whole(message)
        change: dict[str, object] = {"target": "worker-2", "does": "Restart travis-worker", "result": "sent"}
        events.append(("change", dict(change)))
        assert "⏳ worker-2: Restart travis-worker: sent" in whole(drawn(run(), *events))
        events.append(("change", change | {"result": "done"}))
        events.append(("waiting", {"for": "a consumer from worker-2", "until": NOW.isoformat()}))
        message = drawn(run(), *events)
        assert "sent" not in whole(message)
        assert "✅ worker-2: Restart travis-worker: done" in whole(message)
        assert "⏳ Waiting for a consumer from worker-2, at most until <!date^" in whole(message)
        events.append(("verified", {"target": "worker-2", "fix": "Restart travis-worker", "healed": True}))
        events.append(("outcome", {"outcome": "fixed", "text": "worker-2 is healed."}))
        message = drawn(run(), *events)
        assert message.text == "✅ Fixed: builds not starting on prod (run 12). worker-2 is healed."
        assert "✅ *Healed* · before: worker-2" in whole(message)
        assert "Waiting" not in whole(message)

    def test_what_a_later_look_does_not_find_again_is_no_longer_said_to_be_broken(self) -> None:
        message = drawn(
            run(),
            ("look", {"no": 1}),
            ("finding", {**BROKEN, "target": "worker-1"}),
            ("finding", BROKEN),
            ("look", {"no": 2}),
            ("finding", BROKEN),
        )
        sections = [text for text in texts(message) if " · worker-" in text and "asked by" not in text]
        assert [text.split(":")[0] for text in sections] == ["🔴 *Broken* · worker-2", "⚪ *Not seen again* · worker-1"]
        assert message.text.endswith("1 broken so far.")

    def test_a_wait_is_one_line_from_its_beginning_to_its_end(self) -> None:
        wait: dict[str, object] = {"target": "worker-2", "does": "wait until RabbitMQ sees it"}
        begun: tuple[str, dict[str, object]] = ("step", {**wait, "result": "waiting"})
        assert "⏳ worker-2: wait until RabbitMQ sees it: waiting" in whole(drawn(run(), begun))
        ended = whole(drawn(run(), begun, ("step", {**wait, "result": "failed", "said": "it is 0"})))
        assert "🔴 worker-2: wait until RabbitMQ sees it: failed (it is 0)" in ended
        assert "waiting" not in ended

    def test_steps_by_hand_are_decided_alike_and_told_once(self) -> None:
        plan = ("plan", {"no": 1, "risk": "destroys", "fixes": [{"target": "worker-1", "title": "Restore it"}]})
        done: tuple[str, dict[str, object]] = ("decision", {"verdict": "done", "by": "<@U0BO>"})
        assert whole(drawn(run(), plan, done, done, done)).count("Said to be done") == 1

    @pytest.mark.parametrize("outcome", Outcome)
    def test_has_a_sign_and_a_word_for_every_outcome(self, outcome: Outcome) -> None:
        assert outcome.words.capitalize() in drawn(run(outcome=outcome, summary="So it ended.")).text

    def test_evidence_that_has_room_is_not_cut_off(self) -> None:
        seen = f"curl: {'certificate ' * 30}issued by DigiCert"
        assert f">{seen}" in whole(drawn(run(), ("finding", {**BROKEN, "evidence": seen})))

    def test_says_what_could_not_be_told_and_what_a_person_must_do(self) -> None:
        message = drawn(
            run(),
            ("look", {"no": 1, "unknown": ["worker-3 does not answer"]}),
            ("finding", {**BROKEN, "person": "Renew the licence.", "link": "https://docs.example/licence"}),
        )
        assert "⚠️ *Could not be told:*\n• worker-3 does not answer" in whole(message)
        assert "👤 *For a person:* Renew the licence." in whole(message)
        assert "<https://docs.example/licence|Read more>" in whole(message)

    def test_says_what_is_tried_before_what_a_person_does_then(self) -> None:
        message = whole(
            drawn(run(), ("finding", {**BROKEN, "fixes": ["Restart it"], "person": "If that does not last, look."}))
        )
        assert message.index("Can be tried: Restart it") < message.index("If that does not last, look.")

    def test_keeps_the_end_of_what_a_person_must_do(self) -> None:
        told = f"{'Look here and there. ' * 36}Then `restart worker-2 because it was corrected`."
        found = [("finding", {**BROKEN, "target": f"worker-{no}", "title": "t", "person": told}) for no in range(12)]
        assert whole(drawn(run(), *found[:4])).count(told) == 4
        crowd = whole(drawn(run(), *found))  # of many, the beginnings matter more
        assert told not in crowd
        assert crowd.count("👤 *For a person:* Look here") == 12

    def test_counts_what_finds_no_room_and_keeps_it_in_a_document(self) -> None:
        many = [
            ("finding", {**BROKEN, "target": f"worker-{no}", "title": f"title {no} " + "x" * 200}) for no in range(70)
        ]
        message = drawn(run(), *many)
        shown = {int(no) for no in re.findall(r"· worker-(\d+):", whole(message))}
        (left,) = re.findall(r"… and (\d+) more: (\d+) broken", whole(message))
        assert len(shown) + int(left[0]) == 70
        assert left[0] == left[1]
        assert len(shown) >= 10
        assert all(f"title {no} " in message.document for no in range(70))
        assert "`show 12` has all of it" in whole(message)

    def test_the_document_has_every_step_of_a_plan_and_ids_for_mentions(self) -> None:
        fix = {"target": "worker-2", "title": "Restart", "risk": "interrupts", "steps": ["Stop it", "Start it"]}
        plan: dict[str, object] = {
            "no": 1,
            "digest": "9f2c" * 16,
            "fixes": [{**fix, "ensure": ["Start it"], "undo": "nothing"}],
        }
        decision: dict[str, object] = {"verdict": "decline", "by": BO, "reason": "too late"}
        told = status.whole(run(), story(("plan", plan), ("decision", decision))).splitlines()
        place = next(no for no, line in enumerate(told) if "plan 1 (9f2c9f2c9f2c): worker-2: Restart" in line)
        assert told[place + 1 :] == [
            "1. worker-2: Restart",
            "   risk: interrupts (running builds start again, or seconds of downtime)",
            "   a. Stop it",
            "   b. Start it",
            "   if it ends early: Start it",
            "   undo: nothing",
            told[-1],
        ]
        assert told[-1].endswith(f" decline by {BO}: too late")

    def test_has_new_block_ids_for_each_revision(self) -> None:
        first, second = drawn(run()), drawn(run(), ("look", {"no": 1}))
        assert not {block["block_id"] for block in first.blocks} & {block["block_id"] for block in second.blocks}

    def test_names_whom_a_decision_names_but_nobody_else(self) -> None:
        message = drawn(
            run(outcome=Outcome.DECLINED, summary="<@U0BO> declined: ask <@U0CY>"),
            ("decision", {"verdict": "decline", "by": "<@U0BO>", "reason": "ask <@U0CY>"}),
        )
        assert "<@U0BO> declined: ask &lt;@U0CY&gt;" in message.text
        assert "<@U0CY>" not in whole(message)


class TestApproval:
    def test_shows_the_whole_plan_and_who_may_not_decide(self) -> None:
        message = questions.question(approval(), NOW, run(order=replace(run().order, because="builds hang")))
        shown = whole(message)
        assert approval().ask.text in texts(message)
        for part in ("*Asked by:* <@U0ANA>", "*Because:* builds hang", "*Needs:* one other person"):
            assert part in shown
        for part in ("*Rule:* interrupts", "*Plan:* `9f2c9f2c9f2c`", "*Expires:* <!date^"):
            assert part in shown
        expected = "worker-2: Restart travis-worker, asked by <@U0ANA>, expires 2026-11-22 14:30 UTC (run 12)."
        assert message.text == f"Approval needed: {expected}"

    def test_a_button_carries_nothing_but_a_pointer(self) -> None:
        buttons = buttons_of(questions.question(approval(), NOW))
        assert {each["value"] for each in buttons} == {"3:n0nce"}
        assert [each["action_id"] for each in buttons] == ["approve", "review", "decline"]
        assert "worker-2: Restart travis-worker" in buttons[0]["confirm"]["text"]["text"]

    def test_is_approved_only_where_the_plan_is_whole(self) -> None:
        long = approval(text="sudo reboot\n" * 1000)
        message = questions.question(long, NOW)
        assert [each["action_id"] for each in buttons_of(message)] == ["review", "decline"]
        assert message.document == long.ask.text
        assert "12,000 characters" in whole(message)

    @pytest.mark.parametrize("state", [verdict.value for verdict in Verdict] + ["something new"])
    def test_closed_it_has_no_buttons_but_says_who_and_why(self, state: str) -> None:
        closed = approval(state=state, decided_by=(Actor(TEAM, BO),), decided_at=NOW, reason="too late")
        message = questions.question(closed, NOW)
        assert not buttons_of(message)
        assert "too late" in whole(message)
        assert ("<@U0BO>" in whole(message)) == (state != "expire")

    def test_counts_the_first_of_two_approvers(self) -> None:
        message = questions.question(approval(needs=2, decided_by=(Actor(TEAM, BO),)), NOW)
        assert "1 of 2: approved by <@U0BO>" in whole(message)
        assert len(buttons_of(message)) == 3

    def test_a_doubt_asks_how_it_ended(self) -> None:
        message = questions.question(approval(kind=Kind.DOUBT), NOW)
        assert [each["action_id"] for each in buttons_of(message)] == ["done", "again", "stop"]
        assert all("confirm" in each for each in buttons_of(message))

    def test_a_pointer_names_no_way_to_decide(self) -> None:
        message = blocks.pointer(approval(place=Place("C0OPS", "1.2")))
        assert not buttons_of(message)
        assert "in <#C0OPS>" in message.text

    @pytest.mark.parametrize("value", ["", "3", "3:", ":n", "x:n", "-3:n", "3:" + "n" * 201, "٣:n", "9" * 19 + ":n"])
    def test_a_foreign_value_points_at_nothing(self, value: str) -> None:
        assert questions.pointer_of(value) is None

    @pytest.mark.parametrize("kept", ["", "{", "[]", "{}", '{"approval":1,"nonce":"n","more":1}', "1"])
    def test_foreign_metadata_points_at_nothing(self, kept: str) -> None:
        assert questions.pointer_in(kept) is None


def buttons_of(message: Message) -> list[dict[str, Any]]:
    return [each for block in message.blocks if block["type"] == "actions" for each in block["elements"]]


# ---------------------------------------------------------------- hostile and huge

NASTY = st.sampled_from(
    ["<!channel>", "<!here|x>", "<@U0CY>", "<https://evil.example|x>", "```", "&" * 500, "\n\n\n", "x" * 5000, "",
     "🔥" * 300, "<" * 900]
) | st.text(max_size=40)  # fmt: skip
VALUES: st.SearchStrategy[Any] = NASTY | st.none() | st.integers(-3, 3) | st.booleans() | st.lists(NASTY, max_size=40)
FIELDS = st.sampled_from(
    ["target", "cause", "severity", "title", "evidence", "fixes", "under", "person", "link", "no", "asked", "checked",
     "unknown", "risk", "expires", "verdict", "by", "reason", "for", "until", "does", "result", "said", "fix", "healed",
     "text", "outcome"]
)  # fmt: skip
EVENTS = st.tuples(st.sampled_from((*KINDS, "from the future")), st.dictionaries(FIELDS, VALUES, max_size=10))


def dangerous(message: Message) -> list[str]:
    found = re.findall(r"<[^>]*>", "\n".join([message.text, *_marked_up(message.blocks)]))
    ours = re.compile(r"<@U0ANA>|<@U0BO>|<#C0OPS>|<!date\^\d+\^\{date_short_pretty\} \{time\}\|[\d :UTC-]+>")
    return [each for each in found if not ours.fullmatch(each)]


@settings(max_examples=50, deadline=None)
@given(st.lists(EVENTS, max_size=60), st.sampled_from([None, *Outcome]), NASTY)
def test_any_story_makes_a_message_that_slack_takes(
    events: Sequence[tuple[str, dict[str, Any]]], outcome: Outcome | None, because: str
) -> None:
    events = [(kind, data) for kind, data in events if "by" not in data or kind != "decision"]
    told = [Event(12, no, kind, data, NOW) for no, (kind, data) in enumerate(events, 1)]
    message = status.status(run(outcome=outcome, order=replace(run().order, because=because)), told, NOW)
    assert check.faults_of_message(message.text, message.blocks) == []
    assert dangerous(message) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 30), st.data())
def test_the_largest_stories_still_fit(each: int, data: st.DataObject) -> None:
    """Every list full and every text long, so that the budget of 12,000 characters is really met."""
    long = data.draw(st.sampled_from(["&" * 900, "x" * 900, "word " * 200]))
    finding: dict[str, object] = {"severity": "WARN", "title": long, "evidence": long, "person": long}
    finding["fixes"] = [long] * each
    look: dict[str, object] = {"no": 1, "checked": [long] * each, "unknown": [long] * each}
    events: list[tuple[str, dict[str, object]]] = [("look", look)]
    for no in range(each):
        events.append(("finding", finding | {"target": f"{no}{long}", "cause": f"c{no}"}))
        events += [
            ("finding", finding | {"target": f"{no}.{k}", "cause": f"k{k}", "under": f"c{no}"}) for k in range(9)
        ]
        events.append(("step", {"target": long, "does": f"{no}{long}", "result": long, "said": long}))
    events.append(("plan", {"risk": long, "needs": 2, "fixes": [{"title": long, "target": long}] * each}))
    events += [("decision", {"verdict": long, "by": "<@U0BO>", "reason": long})] * each
    events += [("outcome", {"outcome": "not fixed", "text": long})]
    message = status.status(
        run(summary=long, order=replace(run().order, because=long, subject=long)), story(*events), NOW
    )
    assert check.faults_of_message(message.text, message.blocks) == []
    assert "*Warning*" in whole(message)
    assert message.document


@settings(max_examples=40, deadline=None)
@given(NASTY, NASTY, NASTY, st.sampled_from([*Kind]), st.sampled_from(["open", *(each.value for each in Verdict)]),
       st.sampled_from([0, 7_999, 8_000, 8_001, 40_000]))  # fmt: skip
def test_any_question_makes_a_message_and_dialogs_that_slack_takes(
    title: str, rule: str, reason: str, kind: Kind, state: str, length: int
) -> None:
    text = ("sudo rm -rf '<!channel>' &&\n" * 2_000)[:length]
    asked = approval(
        title=title, rule=rule, reason=reason, kind=kind, state=state, text=text, decided_by=(Actor(TEAM, BO),)
    )
    message = questions.question(asked, NOW, run(order=replace(run().order, because=reason)))
    assert check.faults_of_message(message.text, message.blocks) == []
    assert dangerous(message) == []
    pointer = questions.Pointer(3, "n0nce", "C0OPS", "1.2", "1.3")
    seen = ""
    for page in range(50):
        view = questions.review(asked, questions.turned(pointer, page))
        assert check.faults_of_view(view) == []
        seen += "".join(_texts([block for block in view["blocks"] if block["type"] == "rich_text"]))
        if questions.is_last_page(asked, questions.turned(pointer, page)):
            break
    assert seen == (text or " ")
    assert check.faults_of_view(questions.reason(asked, pointer)) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(NASTY, max_size=8).map("\n".join))
def test_any_note_that_is_no_file_is_whole(text: str) -> None:
    if blocks.too_long(text):
        return
    message = blocks.note(text)
    assert check.faults_of_message(message.text or "x", message.blocks) == []
    joined = "".join(texts(message)).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    if "```\n" not in text:
        assert plain(joined) == plain(text)
    assert "".join(plain(joined).split()) == "".join(plain(FENCED.sub(r"\1", text)).split())
    assert dangerous(message) == []


FENCED = re.compile(r"^```\n(.*?)\n```$", re.M | re.S)


def test_a_table_in_a_note_keeps_its_columns() -> None:
    message = blocks.note("Two *of* three:\n```\nno  what\n 7  <!here> & ```x\n```\n`backup show N` says more.")
    before, table, after = message.blocks
    assert before["text"]["text"] == "Two *of* three:"
    (part,) = table["elements"]
    assert part["elements"] == [{"type": "text", "text": "no  what\n 7  <!here> & ```x"}]
    assert after["text"]["text"] == "`backup show N` says more."
    assert message.text.startswith("Two *of* three: no what 7 &lt;!here&gt; &amp; ")


@pytest.mark.parametrize("text", ["```", "```\n", "```\n```", "a ```\nb\n``` c", "```\nopen"])
def test_a_fence_that_does_not_close_is_text(text: str) -> None:
    assert [each["type"] for each in blocks.note(text).blocks] == ["section"]


def plain(text: str) -> str:
    """Without what is put in to keep fences from closing."""
    return text.replace("\u200b", "").replace("ˋ", "`").strip()


@given(st.text(max_size=9000), st.integers(1, 3000))
def test_pieces_are_the_whole(text: str, most: int) -> None:
    cut = blocks.pieces(text, most)
    assert "".join(cut) == text
    assert all(len(piece) <= most for piece in cut)
