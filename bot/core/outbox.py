"""Letters: what is to be said in Slack, in order, at least once, never lost.

A letter points at rows (`status`: a run and its story, `approval`: a question) or carries Shown text (`note`,
`private`). It is rendered when it is sent, so that a status message shows the newest state and ten waiting updates
become one.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from bot.core.approval import Approval
from bot.core.run import Run
from bot.core.story import Event


@dataclass(frozen=True)
class Letter:
    """One row of the outbox with what it points at.

    `kind`: `status` (post once, then edit in place; it is the thread's root when the order had none), `approval`
    (posted in the run's thread, edited when it closes), `pointer` (one line without buttons in the approvals channel),
    `note` (text in the run's thread, or where somebody asked; `body` has `text`, with `file` and `content` it is a
    document, with `file` and `files` an archive, with `file` and `chart` a picture, of which `said` tells what is to be
    seen), `private` (`body.text` to `user` only). `message` is the ts to edit, None to post; `thread` the ts to post
    under, None for the channel itself.
    """

    id: int
    kind: str
    channel: str
    thread: str | None
    message: str | None
    user: str | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    run: Run | None = None
    story: Sequence[Event] = ()
    approval: Approval | None = None
    tries: int = 0


class Outbox(Protocol):
    """The table as the sender sees it."""

    def take(self) -> AbstractContextManager[Letter | None]:
        """The oldest due letter of a channel that no other process serves now; None when there is none. Inside the
        context the channel is ours; leaving it without `sent`, `later` or `dead` (a crash) leaves the letter as it
        was.
        """
        ...

    def sent(self, letter: Letter, ts: str | None) -> None:
        """It is out; `ts` is kept as the message to edit (status, approval), and as the run's thread when it had
        none.
        """
        ...

    def later(self, letter: Letter, seconds: float, why: str, tried: bool = True) -> None:
        """Not now; the whole channel waits, in every process, so that order is kept. Counts a try, unless it was only
        paced (`tried` is False): by us, by Slack's rate limit.
        """
        ...

    def dead(self, letter: Letter, why: str, word: str = "") -> None:
        """It can never be sent (channel gone); kept and said on the command line, never silently dropped. `word` is
        told to the person who asked for the run, in their own conversation with the bot, once per run.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Sleep until a letter is written by any process, or that long."""
        ...
