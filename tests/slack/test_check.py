"""Our own look at what goes out: each rule refuses its own fault, and agrees with the local Slack about the rest."""

from collections.abc import Callable
from typing import Any

import pytest

from bot.sandbox.slack.blocks_check import check_blocks
from bot.slack import blocks, questions
from bot.slack.check import faults_of_message, faults_of_view
from tests.slack.fakes import NOW, approval

Json = dict[str, Any]


def section(text: str) -> Json:
    return {"type": "section", "text": {"type": "mrkdwn", "text": text}}


def button(**changes: Any) -> Json:
    made: Json = {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}, "value": "v"}
    return made | changes


def row(*elements: Json, **changes: Any) -> Json:
    return {"type": "actions", "elements": list(elements)} | changes


def plain(text: str) -> Json:
    return {"type": "plain_text", "text": text}


CONFIRM = {"title": plain("t" * 101), "text": plain("x"), "confirm": plain("y"), "deny": plain("n" * 31)}

FAULTS: list[tuple[str, list[Json], str]] = [
    ("", [], "no text for notifications"),
    ("x" * 4001, [], "4001 characters"),
    ("hi <!here>", [], "mentions a whole channel"),
    ("hi", [section("x")] * 51, "51 blocks"),
    ("hi", [section("x" * 3001)], "section.text has 3001"),
    ("hi", [section("")], "empty text"),
    ("hi", [section("<!channel|x>")], "mentions a whole channel"),
    ("hi", [section("x" * 2500)] * 5, "12500 characters, 12000 fit"),
    ("hi", [section("x") | {"block_id": "b"}] * 2, "block_id 'b' is used 2 times"),
    ("hi", [row(button(), button())], "action_id 'a' is used 2 times"),
    ("hi", [row(button(style="primary"), button(action_id="b", style="primary"))], "two buttons are primary"),
    ("hi", [row(button(value="v" * 2001))], "button.value has 2001"),
    ("hi", [row(button(text={"type": "plain_text", "text": "x" * 76}))], "button.text has 76"),
    ("hi", [row(button(confirm=CONFIRM))], "confirm.title has 101"),
    ("hi", [row(button(confirm=CONFIRM))], "confirm.deny has 31"),
    ("hi", [row(button(), block_id="b" * 256)], "longer than 255"),
    ("hi", [row(*[button(action_id=str(no)) for no in range(26)])], "actions takes 1 to 25"),
    ("hi", [{"type": "header", "text": {"type": "plain_text", "text": "x" * 151}}], "header.text has 151"),
]


@pytest.mark.parametrize(("text", "made", "says"), FAULTS, ids=[says for *_, says in FAULTS])
def test_finds_the_fault(text: str, made: list[Json], says: str) -> None:
    assert any(says in fault for fault in faults_of_message(text, made))


VIEWS: list[tuple[Callable[[Json], Any], str]] = [
    (lambda view: view["title"].update(text="x" * 25), "view.title has 25"),
    (lambda view: view.update(private_metadata="x" * 3001), "view.private_metadata has 3001"),
    (lambda view: view.pop("submit"), "needs a submit button"),
    (lambda view: view.update(blocks=[section("x")] * 101), "101 blocks"),
    (lambda view: view.update(blocks=[section("x" * 2999)] * 90), "250 kB"),
]


@pytest.mark.parametrize(("spoil", "says"), VIEWS, ids=[says for _, says in VIEWS])
def test_finds_the_fault_of_a_dialog(spoil: Callable[[Json], Any], says: str) -> None:
    view = questions.reason(approval(), questions.Pointer(3, "n"))
    assert faults_of_view(view) == []
    spoil(view)
    assert any(says in fault for fault in faults_of_view(view))


@pytest.mark.parametrize("text", ["x", "x" * 8_000, "x" * 8_001])
def test_the_local_slack_agrees(text: str) -> None:
    message = questions.question(approval(text=text), NOW)
    assert faults_of_message(message.text, message.blocks) == []
    assert not check_blocks(list(message.blocks), "message")
    assert not check_blocks(list(blocks.note("hello\n" * 300).blocks), "message")
