"""The sender: takes letters from the outbox, renders and checks them, and says them in Slack at Slack's pace.

At least once and in order within a channel; a letter leaves the table only as sent or, with a sentence, as dead.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bot.core.archive import archive
from bot.core.chart import Draw, chart_from_json
from bot.core.errors import OpsbotError
from bot.core.outbox import Letter, Outbox
from bot.slack import blocks, check, mrkdwn, questions, status
from bot.slack.blocks import Message
from bot.slack.pace import Pace
from bot.slack.refusals import DROPPED, LATER, code_of, retry_after, rule_for

K = TypeVar("K")
V = TypeVar("V")

log = logging.getLogger(__name__)

IDLE: Final = 5.0  # seconds to sleep in the table's own wait; a new letter wakes it
LONGEST_BACK_OFF: Final = 60.0
REMEMBERED: Final = 1_000
FEW_TRIES: Final = 3  # for a mistake of ours
MOST_TRIES: Final = 12  # for an error that nobody has described; known ones have their own rule
ELSEWHERE: Final = "The answer is long: it is a file in the direct messages between you and me."
QUIET: Final[Mapping[str, Any]] = {"unfurl_links": False, "unfurl_media": False, "parse": "none", "link_names": False}


@dataclass(frozen=True)
class Said:
    """Where a message ended up; `ts` is None for what cannot be edited (files, private words)."""

    ts: str | None


class Sender:
    """Says what the outbox holds. `run` one sender in a few threads: each serves a channel, all keep one pace.

    `channels` and `approvers` (people, groups) are the ids that a text may name; approvers are called to questions.
    Without `draw`, charts are told in words.
    """

    def __init__(
        self,
        outbox: Outbox,
        client: WebClient,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        channels: Collection[str] = (),
        approvers: Collection[str] = (),
        draw: Draw | None = None,
    ) -> None:
        self._outbox = outbox
        self._client = client
        self._now = now
        self._draw = draw
        self._approvers = tuple(approvers)
        self._named = frozenset({*channels, *approvers})  # that a text may name
        self._pace = Pace(clock)
        self._guard = threading.Lock()
        self._failures: dict[str, int] = {}
        self._away = False
        self._filed: dict[str, None] = {}
        self._said: dict[int, Said] = {}

    def run(self, stop: threading.Event) -> None:
        """Send until told to stop; a database or a Slack that is away is waited for."""
        pause = 1.0
        while not stop.is_set():
            try:
                if not self.step():
                    self._outbox.wait(IDLE)
                pause = 1.0
            except Exception as error:  # whatever it was, the letter is still in the table
                detail = str(error) if isinstance(error, OpsbotError) else type(error).__name__
                log.error("the outbox could not be read or written: %s; trying again in %.0f s", detail, pause)
                stop.wait(pause)
                pause = min(pause * 2, LONGEST_BACK_OFF)

    def step(self) -> bool:
        """Serve one letter; False when none is due."""
        with self._outbox.take() as letter:
            if letter is None:
                return False
            self._serve(letter)
            return True

    def _serve(self, letter: Letter) -> None:
        if wait := self._turn(letter):
            self._outbox.later(letter, wait, "Slack takes about one message a second", tried=False)
            return
        try:
            said = self._say_somewhere(letter)
        except SlackApiError as error:
            self._refused(letter, error)
        except DROPPED as error:
            self._postpone(letter, f"Slack cannot be reached ({type(error).__name__})")
        except Exception as error:  # a letter that failed for ever would stop its channel, and all senders one by one
            log.exception("letter %s (%s) failed", letter.id, letter.kind)
            self._give_up(letter, f"it could not be written ({type(error).__name__}; opsbot's log says where)")
        else:
            moved = letter.message is not None and said.ts not in (None, letter.message)
            self._outbox.sent(replace(letter, message=None) if moved else letter, said.ts)
            self._came_through(letter.channel)

    def _turn(self, letter: Letter) -> float:
        if letter.message is None or letter.kind not in ("status", "approval"):
            return self._pace.post(letter.channel)
        prompt = letter.kind == "approval" or bool(letter.run and letter.run.outcome)
        return self._pace.edit(letter.channel, letter.message, prompt)

    # ------------------------------------------------------------ saying it

    def _say_somewhere(self, letter: Letter) -> Said:
        """Where it belongs; in the channel itself when its thread was deleted."""
        try:
            return self._say(letter)
        except SlackApiError as error:
            if rule_for(error).act == "unthread" and letter.thread:
                return self._say(replace(letter, thread=None))
            raise

    def _say(self, letter: Letter) -> Said:
        if letter.kind == "private":
            return self._whisper(letter)
        if letter.kind == "note":
            return self._note(letter)
        message = self._drawn(letter)
        said = self._said.get(letter.id) or self._put(letter, message)
        _keep(self._said, letter.id, said)  # when its file fails, only the file is tried again
        if message.document and self._file_due(letter):
            self._file(letter, message.name, message.document, thread=letter.thread or letter.message or said.ts)
            self._remember_file(letter)
        self._said.pop(letter.id, None)
        return said

    def _drawn(self, letter: Letter) -> Message:
        if letter.kind == "status" and letter.run:
            return status.status(letter.run, letter.story, self._now())
        if letter.kind == "approval" and letter.approval:
            call = () if letter.message else self._approvers  # once, when it is new: an edit tells nobody
            return questions.question(letter.approval, self._now(), letter.run, call)
        if letter.kind == "pointer" and letter.approval:
            return blocks.pointer(letter.approval)
        return blocks.note(str(letter.body.get("text", "")), self._known(letter))

    def _put(self, letter: Letter, message: Message) -> Said:
        """Post or edit. What Slack would not take goes out as its sentence, with the whole text as a file."""
        if faults := check.faults_of_message(message.text, message.blocks):
            log.error("letter %s (%s) could not be drawn: %s", letter.id, letter.kind, "; ".join(faults))
            return self._plain(letter, message)
        try:
            return self._post_or_edit(letter, message)
        except SlackApiError as error:
            rule = rule_for(error)
            if rule.act == "post" and letter.message:
                root = letter.thread == letter.message
                return self._post(replace(letter, thread=None) if root else letter, message)
            if rule.act == "file":
                log.error("Slack would not take letter %s (%s): %s", letter.id, letter.kind, code_of(error))
                return self._plain(letter, message)
            raise

    def _post_or_edit(self, letter: Letter, message: Message) -> Said:
        if letter.message is None or letter.kind not in ("status", "approval"):
            return self._post(letter, message)
        self._client.chat_update(
            channel=letter.channel,
            ts=letter.message,
            text=message.text,
            blocks=list(message.blocks),
            parse="none",
            link_names=False,
        )
        return Said(letter.message)

    def _post(self, letter: Letter, message: Message) -> Said:
        answer = self._client.chat_postMessage(
            channel=letter.channel, thread_ts=letter.thread, text=message.text, blocks=list(message.blocks), **QUIET
        )
        return Said(str(answer["ts"]))

    def _plain(self, letter: Letter, message: Message) -> Said:
        """The sentence alone, without blocks, and beside it a file with everything."""
        said = self._post_or_edit(
            letter, Message(mrkdwn.clip(message.text, 3_500), (blocks.section(message.text[:2_900]),))
        )
        whole = message.document or _whole(letter) or message.text
        if letter.message is None:
            self._file(letter, message.name or f"letter-{letter.id}.txt", whole, letter.thread or said.ts)
        return said

    def _note(self, letter: Letter) -> Said:
        text, known = str(letter.body.get("text", "")), self._known(letter)
        if "chart" in letter.body:
            return self._picture(letter, text)
        if content := _document(letter.body):
            name = str(letter.body.get("file") or f"note-{letter.id}.txt")
            self._file(letter, name, content, letter.thread, text)
            return Said(None)
        if blocks.too_long(text):
            first = text.strip().splitlines()[0] if text.strip() else ""
            self._file(letter, f"note-{letter.id}.txt", text, letter.thread, mrkdwn.clip(first, 200))
            return Said(None)
        return self._put(letter, blocks.note(text, known))

    def _picture(self, letter: Letter, text: str) -> Said:
        said = str(letter.body["said"])
        if (drawn := self._drawing(letter)) is None:
            return self._put(letter, blocks.note(said, self._known(letter)))
        says = blocks.fitted(text, 600, self._known(letter))
        self._upload(letter.channel, str(letter.body["file"]), drawn, letter.thread, says, alt=said)
        return Said(None)

    def _drawing(self, letter: Letter) -> bytes | None:
        """None when it cannot be drawn, for whatever reason: a letter that failed for ever would stop its channel."""
        if self._draw is None:
            return None
        try:
            return self._draw(chart_from_json(letter.body["chart"]))
        except Exception:
            log.exception("the chart of letter %s could not be drawn, and is told in words", letter.id)
            return None

    def _known(self, letter: Letter) -> frozenset[str]:
        """Whom and what this letter may mention: the run's parties, its reader, whom its writer named, our channels."""
        named = [str(each) for each in letter.body.get("people") or ()]
        reader = [letter.user] if letter.user else []
        return blocks.people_of(letter.run, letter.approval, [*named, *reader]) | self._named

    # ------------------------------------------------------------ files

    def _file(self, letter: Letter, name: str, content: str | bytes, thread: str | None, says: str = "") -> None:
        """A document in the thread, under a line that names it and its size."""
        self._upload(
            letter.channel, name, content, thread, blocks.fitted(says, 600, self._known(letter)) if says else ""
        )

    def _upload(
        self, channel: str, name: str, content: str | bytes, thread: str | None, says: str, alt: str | None = None
    ) -> None:
        safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:100] or "text.txt"
        line = f"{safe}, {_size(content)}"
        self._client.files_upload_v2(
            channel=channel,
            thread_ts=thread,
            filename=safe,
            title=safe,
            alt_txt=alt,
            content=content or " ",
            initial_comment=f"{says}\n{line}" if says else line,
        )

    def _file_due(self, letter: Letter) -> bool:
        """A plan's file goes with its first message, a run's when the run has ended."""
        if letter.kind == "approval":
            return letter.message is None
        return bool(letter.run and letter.run.outcome) and _run_key(letter) not in self._filed

    def _remember_file(self, letter: Letter) -> None:
        if letter.kind == "status":
            _keep(self._filed, _run_key(letter), None)

    # ------------------------------------------------------------ private words

    def _whisper(self, letter: Letter) -> Said:
        """Shown to one person in the channel; to somebody who is not there, or a long text, in a direct message."""
        text = str(letter.body.get("text", ""))
        if not letter.user:
            raise OpsbotError(f"letter {letter.id} is private, but names nobody")
        if not letter.channel.startswith(("C", "G")):
            return self._direct(letter, text)
        if blocks.too_long(text):
            said = self._direct(letter, text)
            with suppress(SlackApiError):  # tried again, it would bring the file twice
                self._show_privately(letter, ELSEWHERE)
            return said
        try:
            self._show_privately(letter, text)
        except SlackApiError as error:
            if rule_for(error).act not in ("direct", "dead", "unthread"):
                raise
            return self._direct(letter, text)
        return Said(None)

    def _show_privately(self, letter: Letter, text: str) -> None:
        message = blocks.note(text, mrkdwn.EVERYBODY)
        self._client.chat_postEphemeral(
            channel=letter.channel,
            user=str(letter.user),
            thread_ts=letter.thread,
            text=message.text,
            blocks=list(message.blocks),
            parse="none",
            link_names=False,
        )

    def _direct(self, letter: Letter, text: str) -> Said:
        channel = str(self._client.conversations_open(users=str(letter.user))["channel"]["id"])
        if blocks.too_long(text):
            first = blocks.fitted(text.strip().splitlines()[0], 200) if text.strip() else ""
            self._upload(channel, f"answer-{letter.id}.txt", text, None, first)
            return Said(None)
        message = blocks.note(text, mrkdwn.EVERYBODY)
        self._client.chat_postMessage(channel=channel, text=message.text, blocks=list(message.blocks), **QUIET)
        return Said(None)

    # ------------------------------------------------------------ when it did not work

    def _refused(self, letter: Letter, error: SlackApiError) -> None:
        rule = rule_for(error)
        if rule.act == LATER:
            self._postpone(letter, rule.why, retry_after(error) or rule.after, tried=not rule.paced)
        elif rule.act == "unknown" and letter.tries < MOST_TRIES:
            self._postpone(letter, rule.why)
        else:
            log.error("letter %s (%s) to %s cannot be sent: %s", letter.id, letter.kind, letter.channel, rule.why)
            self._outbox.dead(letter, f"{rule.why} ({code_of(error)})", _unheard(letter, rule.why))

    def _give_up(self, letter: Letter, why: str) -> None:
        """After a few tries: what could not be drawn now may be drawn when its run has gone on."""
        if letter.tries < FEW_TRIES:
            self._postpone(letter, why)
        else:
            self._outbox.dead(letter, why, _unheard(letter, why))

    def _postpone(self, letter: Letter, why: str, after: float = 0.0, tried: bool = True) -> None:
        with self._guard:
            failures = self._failures[letter.channel] = self._failures.get(letter.channel, 0) + 1
            first, self._away = not self._away, True
        seconds = after or min(0.5 * 2 ** min(failures, 8), LONGEST_BACK_OFF)
        if first:
            log.warning("%s; letters wait and are sent later", why)
        self._outbox.later(letter, seconds, why, tried)

    def _came_through(self, channel: str) -> None:
        with self._guard:
            self._failures.pop(channel, None)
            was_away, self._away = self._away, False
        if was_away:
            log.warning("Slack takes letters again")


def _keep(kept: dict[K, V], key: K, value: V) -> None:
    kept[key] = value
    if len(kept) > REMEMBERED:
        kept.pop(next(iter(kept)))


def _unheard(letter: Letter, why: str) -> str:
    """What the person who asked is told when nothing of their run can be said where it belongs."""
    if letter.run is None or letter.kind == "private":
        return ""
    run = letter.run.id
    return f"I cannot post in <#{letter.channel}>: {why}. Run {run} goes on all the same; `show {run}` says how it is."


def _run_key(letter: Letter) -> str:
    return f"{letter.channel}:{letter.run.id if letter.run else 0}"


def _whole(letter: Letter) -> str:
    if letter.kind == "status" and letter.run:
        return status.whole(letter.run, letter.story)
    if letter.approval:
        return letter.approval.ask.text
    return str(letter.body.get("text", ""))


def _document(body: Mapping[str, Any]) -> str | bytes:
    """What a note brings along: a text, an archive of several, or nothing."""
    if files := body.get("files"):
        return archive({str(path): str(text) for path, text in files.items()})
    return str(body.get("content") or "")


def _size(content: str | bytes) -> str:
    size = len(content.encode() if isinstance(content, str) else content)
    said = f"{size:,} bytes" if size < 10_000 else f"{size / 1000:,.0f} kB"
    if isinstance(content, bytes):
        return said
    return f"{said}, {content.count(chr(10)) + (not content.endswith(chr(10))):,} lines"
