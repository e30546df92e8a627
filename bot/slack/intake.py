"""What Slack delivers, taken in: look who it is, read it, write it down, acknowledge. Nothing else happens here.

Nothing is acknowledged before it is committed: `Desk` commits before it returns. When the database does not answer, a
command is told so, an event stays unacknowledged and Slack sends it again, and a click shows Slack's own error.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final, Protocol

from slack_bolt import Ack, App, BoltRequest, BoltResponse
from slack_bolt.authorization import AuthorizeResult
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bot.core.approval import Approval, Click, Verdict
from bot.core.errors import NotUnderstood, OpsbotError, Temporary
from bot.core.people import Actor, Place
from bot.core.request import STARTS, Ask, Request, Vocabulary
from bot.slack import blocks, check, mrkdwn, questions, words
from bot.slack.door import Body, Envelope, Tenant, envelope, refusal
from bot.slack.refusals import DROPPED, code_of

__all__ = ["Desk", "Receipt", "Tenant", "intake"]

log = logging.getLogger(__name__)

PATIENCE: Final = 3.0  # seconds after which Slack has told the person that the command failed
WAITED: Final = "x-opsbot-waited"  # header: seconds between the socket and the listener, set by `app`
LONGEST_ANSWER: Final = 8_000
PERHAPS: Final = "`runs` says whether it was taken at the last moment after all"


@dataclass(frozen=True)
class Receipt:
    """What became of a request: the run it is, whether it came before, and what the ack of a command says."""

    id: int
    duplicate: bool = False
    text: str = ""


class Desk(Protocol):
    """Where everything is written down before it is acknowledged.

    Each commits before it returns, does nothing the second time it gets the same key, and raises Temporary when it
    could not; only an answer that was lost on its way back may mean that it was written all the same.
    """

    def submit(self, request: Request, text: str, actor: Actor, place: Place, key: str) -> Receipt: ...

    def click(self, click: Click, key: str) -> None: ...

    def reply(self, actor: Actor, place: Place, text: str, key: str) -> None:
        """Say something to this person alone, where they are, through the outbox."""
        ...

    def vocabulary(self) -> Vocabulary: ...

    def approval(self, approval: int) -> Approval | None: ...

    def refused(self, actor: Actor, place: Place | None, why: str) -> None:
        """Audit that somebody was turned away."""
        ...


# ---------------------------------------------------------------- the listeners


def intake(client: WebClient, desk: Desk, tenant: Tenant, command: str = "/travis", patience: float = PATIENCE) -> App:
    """A Bolt app that takes in what people do. It needs no answer from Slack to start."""
    app = App(
        name="opsbot",
        logger=quiet_logger("bolt", logging.ERROR),  # it warns of SLACK_BOT_TOKEN, which is for us
        client=_without_token(client),
        authorize=lambda: AuthorizeResult(enterprise_id=None, team_id=tenant.team, bot_token=client.token),
        process_before_response=True,
        request_verification_enabled=False,  # Socket Mode has no signatures; there is no HTTP entrance
        ssl_check_enabled=False,
        url_verification_enabled=False,
    )
    quiet_logger("bolt", logging.WARNING)
    _Listeners(client, desk, tenant, command, patience).attach(app)
    return app


class _Listeners:
    """One method for each thing that Slack can deliver."""

    def __init__(self, client: WebClient, desk: Desk, tenant: Tenant, command: str, patience: float) -> None:
        self.client = client
        self.desk = desk
        self.tenant = tenant
        self.command = command
        self.patience = patience

    def attach(self, app: App) -> None:
        app.use(self.gate)
        app.error(self.trouble)
        app.command(self.command)(self.commanded)
        app.event("app_mention")(self.mentioned)
        for verdict in (Verdict.APPROVE, Verdict.DONE, Verdict.AGAIN, Verdict.STOP):
            app.action(verdict.value)(self.pressed)
        app.action(Verdict.DECLINE.value)(self.asked_why)
        app.action("review")(self.review)
        app.action("page_back")(self.page_back)
        app.view(questions.REASON_DIALOG)(self.reason_given)
        app.view(questions.REVIEW_DIALOG)(self.page_read)
        anything = re.compile(".*", re.S)
        app.command(anything)(self.unknown_command)
        for register in (app.action, app.view, app.view_closed, app.shortcut, app.event):
            register(anything)(self.unknown)

    # before everything else

    def gate(self, body: dict[str, Any], next: Callable[[], Any]) -> BoltResponse | None:
        """Let in only our own workspace's people, in our own channels; everybody else is audited and told."""
        said = envelope(body)
        if not (why := refusal(said, self.tenant)):
            next()
            return None
        self._audit(said, why)
        if said.kind == "command":
            return BoltResponse(status=200, body=private(why))
        if self._is_colleague(said) and said.place and said.place.channel:
            self._tell(said.actor, said.place, why, f"{_key(body)}:refused")
        return BoltResponse(status=200, body="")

    def _is_colleague(self, said: Envelope) -> bool:
        """Of our workspace and not a bot: worth a private sentence. Others get silence."""
        ours = said.app == self.tenant.app and said.home in self.tenant.homes and said.team in self.tenant.homes
        return ours and not said.shared and not said.bot and bool(said.actor.user)

    def _audit(self, said: Envelope, why: str) -> None:
        try:
            self.desk.refused(said.actor, said.place, why)
        except OpsbotError as error:
            log.warning("a refusal could not be audited: %s", error)

    def _tell(self, actor: Actor, place: Place, text: str, key: str) -> None:
        try:
            self.desk.reply(actor, place, text, key)
        except OpsbotError as error:
            log.warning("a private answer could not be kept: %s", error)

    def trouble(self, error: Exception) -> BoltResponse:
        """An unexpected error: nothing is acknowledged, so that Slack says so or sends it again."""
        detail = str(error) if isinstance(error, OpsbotError) else type(error).__name__  # others may quote the payload
        log.error("not acknowledged: %s", detail)
        return BoltResponse(status=500, body="")

    # what people say

    def commanded(self, ack: Ack, body: dict[str, Any], request: BoltRequest) -> BoltResponse:
        """A slash command. One that waited longer than Slack did is dropped: the person was told that it failed."""
        came = time.monotonic() - _waited(request)
        if time.monotonic() - came > self.patience:
            log.warning(
                "dropped a command that waited %.1f s: Slack has told its sender that it failed", _waited(request)
            )
            return BoltResponse(status=500, body="")
        said = envelope(body)
        assert said.place is not None  # the gate let it in by its channel
        answer = self._answer(str(body.get("text") or ""), said.actor, said.place, _key(body))
        if time.monotonic() - came > self.patience:
            self._tell(said.actor, said.place, f"That took long, but: {answer}", f"{_key(body)}:late")
        return ack(private(answer))

    def mentioned(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        """A mention: answered below it by whatever it began; only what could not be begun is answered here."""
        said, event = envelope(body), body["event"]
        assert said.place is not None
        text = _after_mention(str(event.get("text") or ""), _bot_user(body))
        try:
            request = words.read(text, self.desk.vocabulary())
            place = _below(event, said.place) if request.ask in STARTS else said.place
            self.desk.submit(request, text, said.actor, place, _key(body))
        except Temporary:
            raise  # not acknowledged, so Slack sends it again
        except OpsbotError as error:
            self.desk.reply(said.actor, said.place, str(error), f"{_key(body)}:answer")
        return ack()

    def _answer(self, text: str, actor: Actor, place: Place, key: str) -> str:
        vocabulary = self.desk.vocabulary()
        try:
            request = words.read(text, vocabulary)
            receipt = self.desk.submit(request, text, actor, place, key)
        except Temporary as error:
            if request.ask is Ask.HELP:  # it can be given when nothing else can
                return f"{words.guide(vocabulary, request.subject)}\n(At the moment nothing can be started: {error})"
            return f"Not accepted: {str(error).rstrip('.')}. Ask again later; {PERHAPS}."
        except OpsbotError as error:
            return str(error)
        return receipt.text or on_it(request)

    def unknown_command(self, ack: Ack) -> BoltResponse:
        return ack(private(f"I only know {self.command}; try `{self.command} help`."))

    # what people press

    def pressed(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        """A verdict in a button: written down; whether it counts is decided where the rows are."""
        if pointer := self._pointer(body):
            self._click(Verdict(body["actions"][0]["action_id"]), pointer, body)
        return ack()

    def _click(self, verdict: Verdict, pointer: questions.Pointer, body: dict[str, Any], reason: str = "") -> None:
        said = envelope(body)
        place = Place(pointer.channel, pointer.thread or None)
        self.desk.click(
            Click(pointer.approval, verdict, said.actor, reason, pointer.nonce, place, pointer.message), _key(body)
        )

    def _pointer(self, body: dict[str, Any]) -> questions.Pointer | None:
        """The row that a button points at, and the message it stands in; None, and audited, when it is not ours."""
        found = questions.pointer_of(str(body["actions"][0].get("value") or ""))
        if found is None:
            self._audit(envelope(body), "a button without a request of ours was pressed")
            return None
        if view := body.get("view"):
            return questions.pointer_in(str(view.get("private_metadata") or ""))
        box = body.get("container") or {}
        return questions.Pointer(
            found.approval,
            found.nonce,
            str(box.get("channel_id") or ""),
            str(box.get("thread_ts") or ""),
            str(box.get("message_ts") or ""),
        )

    def asked_why(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        """Decline: a dialog for the reason. Opening it is the one call to Slack made before an ack (3 s)."""
        return self._open(ack, body, questions.reason)

    def review(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        return self._open(ack, body, questions.review)

    def _open(
        self, ack: Ack, body: dict[str, Any], draw: Callable[[Approval, questions.Pointer], questions.View]
    ) -> BoltResponse:
        if (pointer := self._pointer(body)) and (approval := self._approval(pointer, body)):
            if approval.state != "open" and draw is questions.reason:
                self._tell_closed(approval, body)
                return ack()
            try:
                self.client.views_open(trigger_id=str(body["trigger_id"]), view=_checked(draw(approval, pointer)))
            except DROPPED as error:
                self._tell_unopened(approval, error, body)
        return ack()

    def _tell_unopened(self, approval: Approval, error: Exception, body: dict[str, Any]) -> None:
        """Slack waits three seconds for a dialog; a press that came later opens none, however often it is repeated."""
        said = envelope(body)
        why = code_of(error) if isinstance(error, SlackApiError) else type(error).__name__
        log.warning("a dialog could not be opened: %s", why)
        if said.place:
            text = (
                f"Slack did not open the dialog ({why}). Press the button once more, or say "
                f"`decline {approval.ask.run} because …` to decline."
            )
            self._tell(said.actor, said.place, text, f"{_key(body)}:dialog")

    def page_back(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        if (pointer := self._pointer(body)) and (approval := self._approval(pointer, body)):
            view = _checked(questions.review(approval, questions.turned(pointer, -1)))
            try:
                self.client.views_update(view_id=body["view"]["id"], hash=body["view"].get("hash"), view=view)
            except SlackApiError as error:  # turned twice, or closed meanwhile
                log.warning("a page could not be turned back: %s", error.response.get("error"))
        return ack()

    def _approval(self, pointer: questions.Pointer, body: dict[str, Any]) -> Approval | None:
        approval = self.desk.approval(pointer.approval)
        if approval is None or approval.nonce != pointer.nonce:
            self._audit(envelope(body), "a button pointed at a request that does not exist")
            return None
        return approval

    def _tell_closed(self, approval: Approval, body: dict[str, Any]) -> None:
        said = envelope(body)
        if said.place:
            self._tell(said.actor, said.place, f"That was {approval.closing}.", f"{_key(body)}:closed")

    # what people fill in

    def reason_given(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> BoltResponse:
        reason = questions.said_reason(view.get("state") or {})
        pointer = questions.pointer_in(str(view.get("private_metadata") or ""))
        if pointer is None:
            return ack()
        if wrong := _wrong_reason(reason):
            return ack(response_action="errors", errors={questions.REASON_INPUT: wrong})
        try:
            self._click(Verdict.DECLINE, pointer, body, reason)
        except Temporary as error:
            return ack(
                response_action="errors", errors={questions.REASON_INPUT: f"Not recorded, try again: {error}"[:300]}
            )
        return ack()

    def page_read(self, ack: Ack, body: dict[str, Any], view: dict[str, Any]) -> BoltResponse:
        """The dialog's submit button: the next page, or Approve on the last one."""
        pointer = questions.pointer_in(str(view.get("private_metadata") or ""))
        if pointer is None or (approval := self._approval(pointer, body)) is None:
            return ack()
        if approval.state == "open" and questions.is_last_page(approval, pointer):
            self._click(Verdict.APPROVE, pointer, body)
            return ack()
        page = pointer if approval.state != "open" else questions.turned(pointer, 1)
        return ack(response_action="update", view=_checked(questions.review(approval, page)))

    def unknown(self, ack: Ack, body: dict[str, Any]) -> BoltResponse:
        """Anything that a newer manifest or another version sends: acknowledged, so that Slack does not repeat it."""
        log.info("acknowledged something unknown: %s", _kind_of(body))
        return ack()


# ---------------------------------------------------------------- small readings


def on_it(request: Request) -> str:
    """What a person reads at once: their own order, as it was understood."""
    if request.ask is not Ask.RUN:
        number = f" {request.number}" if request.number is not None else ""
        return f"On it: {request.ask.value}{number}{f' on {request.site}' if request.site else ''}."
    verb = "diagnose " if request.kind == "diagnose" else ""
    targets = f" {', '.join(request.targets)}" if request.targets else ""
    return f"On it: {verb}{request.subject}{targets} on {request.site}."


def private(text: str) -> dict[str, Any]:
    """The body of an ack that only its reader sees; more than fits is counted."""
    more = "show it on the command line, where all of it fits"
    whole = text if len(text) <= LONGEST_ANSWER else f"{mrkdwn.clip(text, LONGEST_ANSWER)}\n({more})"
    message = _drawn(whole)
    return {"response_type": "ephemeral", "text": message.text, "blocks": list(message.blocks)}


@lru_cache(maxsize=64)
def _drawn(text: str) -> blocks.Message:
    """Most are "One moment.", and drawing that took a tenth of its acknowledgement."""
    return blocks.note(text, mrkdwn.EVERYBODY)


def _below(event: Body, place: Place) -> Place:
    """The thread that a mention begins. What only one person sees cannot begin it: Slack shows nothing private in a
    thread without replies.
    """
    return place if place.thread else replace(place, thread=str(event.get("ts") or "") or None)


def _after_mention(text: str, bot: str) -> str:
    """What follows the bot's own mention; people greet before it."""
    mention = re.search(rf"<@{re.escape(bot)}(?:\|[^>]*)?>" if bot else r"<@[UW][A-Z0-9]+(?:\|[^>]*)?>", text)
    return text[mention.end() :] if mention else text


def _bot_user(body: Body) -> str:
    for each in body.get("authorizations") or ():
        if each.get("is_bot"):
            return str(each.get("user_id") or "")
    return ""


def _key(body: Body) -> str:
    """What tells one delivery from another; the same thing delivered twice has the same."""
    if body.get("type") == "view_submission":
        view = body["view"]
        return f"{view['id']}:{view.get('hash')}"
    return str(body.get("event_id") or body["trigger_id"])


def _waited(request: BoltRequest) -> float:
    given = request.headers.get(WAITED) or ["0"]
    return float(given[0])


def _wrong_reason(reason: str) -> str:
    if not reason:
        return "Say why: the requester reads it."
    if len(reason) > questions.LONGEST_REASON:
        return f"That has {len(reason):,} characters; at most {questions.LONGEST_REASON} are kept."
    return ""


def _checked(view: questions.View) -> questions.View:
    if faults := check.faults_of_view(view):
        raise NotUnderstood(f"a dialog could not be drawn: {'; '.join(faults)}")
    return view


def _kind_of(body: Body) -> str:
    event = body.get("event")
    return f"event {event.get('type')}" if isinstance(event, Mapping) else str(body.get("type") or "command")


def _without_token(client: WebClient) -> WebClient:
    """Bolt's own client: it calls nothing, and would take a token as a wish for its own authorisation."""
    made = WebClient(
        token=None, base_url=client.base_url, timeout=client.timeout, retry_handlers=[], logger=quiet_logger("web")
    )
    made.proxy = client.proxy
    return made


def quiet_logger(part: str, level: int = logging.CRITICAL) -> logging.Logger:
    """For a part of Slack's libraries: they log whole payloads, and each failed try of what we report ourselves."""
    quiet = logging.getLogger(f"{__name__}.{part}")
    quiet.setLevel(level)
    return quiet
