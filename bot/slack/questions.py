"""What people are asked: to approve a plan, to settle a doubt, to do a step by hand; and the two dialogs. Pure.

A button carries `APPROVAL:NONCE` and nothing else: it points at a row. The plan is shown whole wherever Approve stands.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from slack_sdk.models.blocks import ButtonElement, InputBlock, PlainTextInputElement, PlainTextObject

from bot.core.approval import PLAN_IN_MESSAGE, Approval, Kind, Verdict
from bot.core.run import Run
from bot.slack import mrkdwn
from bot.slack.blocks import (
    Block,
    Message,
    Paper,
    actions,
    button,
    confirm,
    context,
    fitted,
    people_of,
    pieces,
    preformatted,
    section,
)

PAGE: Final = 9_000  # characters of plan on one page of the dialog
LONGEST_REASON: Final = 500

REVIEW_DIALOG: Final = "review"
REASON_DIALOG: Final = "reason"
REASON_INPUT: Final = "reason"

View = dict[str, Any]


@dataclass(frozen=True)
class Pointer:
    """What a button or dialog points at, and the message it stood in when it was pressed."""

    approval: int
    nonce: str
    channel: str = ""
    thread: str = ""
    message: str = ""
    page: int = 0

    @property
    def value(self) -> str:
        return f"{self.approval}:{self.nonce}"

    def dumped(self) -> str:
        return json.dumps(self.__dict__, separators=(",", ":"))


def pointer_of(value: str) -> Pointer | None:
    """Read a button's value; None when it is not one of ours."""
    number, colon, nonce = value.partition(":")
    if not colon or not number.isascii() or not number.isdigit() or len(number) > 18 or not 0 < len(nonce) <= 200:
        return None
    return Pointer(int(number), nonce)


def pointer_in(dumped: str) -> Pointer | None:
    """Read a dialog's private metadata; None when it is not one of ours."""
    try:
        return Pointer(**json.loads(dumped))
    except (ValueError, TypeError):
        return None


# ---------------------------------------------------------------- messages


def question(approval: Approval, now: datetime, run: Run | None = None, call: Collection[str] = ()) -> Message:
    """The message of a stored question, of any kind, open or closed; `call` names (by id) who is called to it."""
    return _DRAWN[approval.ask.kind](approval, now, run, call)


def plan(approval: Approval, now: datetime, run: Run | None = None, call: Collection[str] = ()) -> Message:
    """May this plan be applied? Whole plan and buttons; when it does not fit, Review alone, and a file beside it."""
    ask = approval.ask
    paper = Paper(_revision(approval), people_of(run, approval), room=12_000)
    fits = not ask.is_long
    open_ = approval.state == "open"
    paper.header(f"{'🔐 Approval needed' if open_ else _closed_word(approval)}: run {ask.run}")
    paper.section(f"*{paper.fit(ask.title, 600)}*")
    paper.section("\n".join(_terms(approval, run, paper, call)))
    if fits:
        _show_plan(paper, ask.text)
    else:
        paper.section(
            f"The plan has {len(ask.text):,} characters, too many for one message: it is whole in the file below, "
            "and under *Review*, where it can be approved."
        )
    _close(paper, approval, _plan_buttons(approval, fits))
    text = _announcement(approval, "Approval needed", now)
    return Message(text, tuple(paper.blocks), "" if fits else ask.text, f"plan-of-run-{ask.run}-{ask.no}.txt")


def doubt(approval: Approval, now: datetime, run: Run | None = None, call: Collection[str] = ()) -> Message:
    """How did this change end? Nobody knows, so a person looks and says."""
    return _to_a_person(approval, now, run, call, ("❓", "In doubt"), _DOUBT_BUTTONS)


def hand(approval: Approval, now: datetime, run: Run | None = None, call: Collection[str] = ()) -> Message:
    """A step that a person does, with the exact way."""
    return _to_a_person(approval, now, run, call, ("✋", "By hand"), _HAND_BUTTONS)


def _to_a_person(
    approval: Approval, now: datetime, run: Run | None, call: Collection[str], word: tuple[str, str], buttons: "Choices"
) -> Message:
    ask = approval.ask
    paper = Paper(_revision(approval), people_of(run, approval), room=12_000)
    fits = not ask.is_long
    open_ = approval.state == "open"
    paper.header(f"{' '.join(word) if open_ else _closed_word(approval)}: run {ask.run}")
    paper.section(f"*{paper.fit(ask.title, 600)}*")
    paper.section("\n".join(_terms(approval, run, paper, call)))
    shown = ask.text if fits else mrkdwn.clip(ask.text, PLAN_IN_MESSAGE)
    _show_plan(paper, shown)
    _close(paper, approval, _choices(approval, buttons))
    text = _announcement(approval, word[1], now)
    name = f"{ask.kind.value}-of-run-{ask.run}-{ask.no}.txt"
    return Message(text, tuple(paper.blocks), "" if fits else ask.text, name)


_DRAWN: Final = {Kind.PLAN: plan, Kind.DOUBT: doubt, Kind.HAND: hand}


def _revision(approval: Approval) -> str:
    return f"a{approval.id}.{approval.state}.{len(approval.decided_by)}"


def _terms(approval: Approval, run: Run | None, paper: Paper, call: Collection[str]) -> list[str]:
    ask = approval.ask
    who = "one other person" if ask.needs == 1 else f"{ask.needs} other people"
    lines = [f"*Asked by:* {mrkdwn.person(approval.requester.user)}"]
    lines += [f"*For:* {' '.join(map(mrkdwn.anyone, call))}"] if call and approval.state == "open" else []
    if run is not None:
        lines.append(f"*On:* {paper.fit(run.order.site, 80)} · *About:* {paper.fit(run.order.subject, 150)}")
        lines += [f"*Because:* {paper.fit(run.order.because, 600)}"] if run.order.because else []
    if approval.state == "open":
        lines += [f"*Needs:* {who}"] if ask.kind is Kind.PLAN else []
        lines.append(f"*Expires:* {mrkdwn.date(ask.expires)}; silence is never consent")
    lines += [f"*Rule:* {paper.fit(ask.rule, 300)}"] if ask.rule else []
    return [*lines, f"*Plan:* {mrkdwn.code(ask.digest[:12])}"] if ask.digest else lines


def _show_plan(paper: Paper, text: str) -> None:
    for piece in pieces(text):
        paper.blocks.append(preformatted(piece, f"{paper.revision}.p{len(paper.blocks)}"))


def _close(paper: Paper, approval: Approval, buttons: Sequence[ButtonElement]) -> None:
    """Buttons while it is open, and who said what already; afterwards who decided, when and why."""
    if line := _decided(approval, paper):
        paper.section(line)
    if approval.state == "open":
        paper.blocks.append(actions(buttons, f"{_revision(approval)}.buttons"))


def _decided(approval: Approval, paper: Paper) -> str:
    who = " and ".join(mrkdwn.person(actor.user) for actor in approval.decided_by)
    if approval.state == "open":
        return f"✅ {len(approval.decided_by)} of {approval.ask.needs}: approved by {who}" if who else ""
    by = f" by {who}" if who and approval.state != Verdict.EXPIRE.value else ""
    when = f" {mrkdwn.date(approval.decided_at)}" if approval.decided_at else ""
    why = f": {paper.fit(approval.reason, 700)}" if approval.reason else ""
    return f"*{_closed_word(approval)}*{by}{when}{why}"


_CLOSED: Final = {
    Verdict.APPROVE.value: "✅ Approved",
    Verdict.DECLINE.value: "⛔ Declined",
    Verdict.EXPIRE.value: "⌛ Expired: nobody decided in time",
    Verdict.CANCEL.value: "⏹️ Withdrawn",
    Verdict.DONE.value: "✅ Said to be done",
    Verdict.AGAIN.value: "🔁 To be sent again",
    Verdict.STOP.value: "⏹️ Stopped",
}


def _closed_word(approval: Approval) -> str:
    return _CLOSED.get(approval.state, f"Closed ({mrkdwn.clip(approval.state, 30)})")


def _announcement(approval: Approval, word: str, now: datetime) -> str:
    ask = approval.ask
    title = fitted(ask.title, 400)
    if approval.state != "open":
        return f"{mrkdwn.escape(_closed_word(approval))}: {title} (run {ask.run})."
    late = " (its time is over)" if ask.expires <= now else ""
    asker = mrkdwn.person(approval.requester.user)
    return f"{word}: {title}, asked by {asker}, expires {mrkdwn.utc(ask.expires)}{late} (run {ask.run})."


def _plan_buttons(approval: Approval, fits: bool) -> list[ButtonElement]:
    ask, value = approval.ask, _value(approval)
    sure = confirm("Approve this plan?", f"{ask.title}. Exactly the plan that is shown will run, once.", "Approve")
    about = f"run {ask.run}"
    approve = [button("Approve", Verdict.APPROVE.value, value, f"Approve the plan of {about}", "primary", sure)]
    return [
        *(approve if fits else []),
        button("Review", "review", value, f"Review the plan of {about}", None if fits else "primary"),
        button("Decline", Verdict.DECLINE.value, value, f"Decline the plan of {about}", "danger"),
    ]


Choices = tuple[tuple[Verdict, str, str, str | None], ...]
_DOUBT_BUTTONS: Final[Choices] = (
    (Verdict.DONE, "It was done", "The change has taken effect: go on after it.", "primary"),
    (Verdict.AGAIN, "Send it again", "The change has not taken effect: send it once more.", None),
    (Verdict.STOP, "Stop here", "Send nothing more, clean up and end the run.", "danger"),
)
_HAND_BUTTONS: Final[Choices] = (
    (Verdict.DONE, "It is done", "It was done as it says, and it worked: go on after it.", "primary"),
    (Verdict.STOP, "Stop here", "Go no further, clean up and end the run.", "danger"),
)


def _choices(approval: Approval, choices: Choices) -> list[ButtonElement]:
    ask, value = approval.ask, _value(approval)
    return [
        button(label, verdict.value, value, f"{label}: run {ask.run}", style,
               confirm(f"{label}?", f"{meaning} {ask.title}", label, style or "primary"))
        for verdict, label, meaning, style in choices
    ]  # fmt: skip


def _value(approval: Approval) -> str:
    return Pointer(approval.id, approval.nonce).value


# ---------------------------------------------------------------- dialogs


def review(approval: Approval, pointer: Pointer) -> View:
    """The plan, page by page; Approve is the last page's button, so nobody approves what was not in front of them."""
    pages = pieces(approval.ask.text, PAGE)
    page = min(max(pointer.page, 0), len(pages) - 1)
    last = page == len(pages) - 1
    key = f"a{approval.id}.page{page}"
    body: list[Block] = [section(f"*{fitted(approval.ask.title, 600)}*", f"{key}.title")]
    body += [preformatted(piece, f"{key}.{no}") for no, piece in enumerate(pieces(pages[page]))]
    body.append(context(_place_in_plan(approval, page, len(pages)), f"{key}.place"))
    if page:
        back = button("Back", "page_back", _value(approval), f"Back to page {page} of {len(pages)}")
        body.append(actions([back], f"{key}.back"))
    view = _dialog(REVIEW_DIALOG, f"Plan of run {approval.ask.run}", body, _moved(pointer, page))
    if approval.state == "open" and approval.ask.kind is Kind.PLAN:
        view["submit"] = _plain("Approve" if last else "Next page")
    return view


def is_last_page(approval: Approval, pointer: Pointer) -> bool:
    return pointer.page >= len(pieces(approval.ask.text, PAGE)) - 1


def turned(pointer: Pointer, pages: int) -> Pointer:
    return _moved(pointer, max(0, pointer.page + pages))


def _moved(pointer: Pointer, page: int) -> Pointer:
    return Pointer(pointer.approval, pointer.nonce, pointer.channel, pointer.thread, pointer.message, page)


def _place_in_plan(approval: Approval, page: int, pages: int) -> str:
    ask = approval.ask
    where = f"Page {page + 1} of {pages} · plan {mrkdwn.code(ask.digest[:12])}"
    if approval.state != "open":
        return f"{where} · {_closed_word(approval)}"
    rest = "Approve runs exactly this, once." if page == pages - 1 else "Approve is on the last page."
    return f"{where} · {rest}"


def reason(approval: Approval, pointer: Pointer) -> View:
    """Why not? Declining takes a reason, and the requester reads it."""
    ask = approval.ask
    field = InputBlock(
        block_id=REASON_INPUT,
        label=PlainTextObject(text="Why? The requester reads it."),
        element=PlainTextInputElement(action_id=REASON_INPUT, multiline=True, max_length=LONGEST_REASON),
    )
    body = [section(f"*{fitted(ask.title, 600)}*", "title"), field.to_dict()]
    return _dialog(REASON_DIALOG, f"Decline run {ask.run}", body, pointer) | {"submit": _plain("Decline")}


def said_reason(state: Mapping[str, Any]) -> str:
    """What was typed into the reason's field."""
    field = state.get("values", {}).get(REASON_INPUT, {}).get(REASON_INPUT, {})
    return " ".join(str(field.get("value") or "").split())


def _dialog(callback: str, title: str, body: Sequence[Block], pointer: Pointer) -> View:
    return {
        "type": "modal",
        "callback_id": callback,
        "title": _plain(title[:24]),
        "close": _plain("Close"),
        "private_metadata": pointer.dumped(),
        "blocks": list(body),
    }


def _plain(text: str) -> Block:
    return {"type": "plain_text", "text": text, "emoji": True}
