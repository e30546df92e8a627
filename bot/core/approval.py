"""A question that a run puts to people: may this plan be applied, how did this change end, is this done by hand?"""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from bot.core.people import Actor, Place


class Kind(Enum):
    """May this be done? How did this change end? And: this is for a person to do."""

    PLAN = "plan"
    DOUBT = "doubt"
    HAND = "hand"


class Verdict(Enum):
    """`approve`, `decline` answer a plan; `done`, `again`, `stop` answer a doubt, `done` and `stop` what was to be done
    by hand; `expire` is written by the clock.
    """

    APPROVE = "approve"
    DECLINE = "decline"
    DONE = "done"
    AGAIN = "again"
    STOP = "stop"
    EXPIRE = "expire"
    CANCEL = "cancel"


ANSWERS = {
    Kind.PLAN: (Verdict.APPROVE, Verdict.DECLINE),
    Kind.DOUBT: (Verdict.DONE, Verdict.AGAIN, Verdict.STOP),
    Kind.HAND: (Verdict.DONE, Verdict.STOP),
}

# They order a change, or keep one from the person who asked: never that person's to say, by any route. `done` and
# `stop` order nothing that others have not agreed to: they tell what a person saw, or end the run.
OF_OTHERS = (Verdict.APPROVE, Verdict.DECLINE, Verdict.AGAIN)

PLAN_IN_MESSAGE = 8_000  # characters of a plan that one message shows whole; Slack takes about 12,000 of all blocks
SHORTEST_DIGEST = 6  # characters of a digest that name a plan, where a run may have put several


@dataclass(frozen=True)
class Ask:
    """A question as it is put. `needs` people must say yes; `digest` binds what was shown; `text` is the whole
    plan,     Shown.
    """

    run: int
    no: int
    kind: Kind
    digest: str
    needs: int
    expires: datetime
    title: str
    text: str
    rule: str = ""

    @property
    def is_long(self) -> bool:
        """Whether one message cannot show it whole."""
        return len(self.text) > PLAN_IN_MESSAGE


CLOSED = {  # what closed a question -> how it is said
    "approve": "approved",
    "decline": "declined",
    "done": "answered with `done`",
    "again": "answered with `again`",
    "stop": "answered with `stop`",
    "expire": "over",
    "cancel": "cancelled",
}


@dataclass(frozen=True)
class Approval:
    """A stored question. `state` is `open`, or the verdict that closed it. `place` is where the message that binds
    it     stands.
    """

    id: int
    ask: Ask
    nonce: str
    state: str
    requester: Actor
    decided_by: tuple[Actor, ...] = ()
    reason: str = ""
    decided_at: datetime | None = None
    place: Place | None = None
    message: str | None = None

    @property
    def closing(self) -> str:
        """How it was closed, in words: `approved already by <@U0BO>`."""
        by = f" by {' and '.join(map(str, self.decided_by))}" if self.decided_by else ""
        return f"{CLOSED[self.state]} already{by}"


@dataclass(frozen=True)
class Click:
    """What a person pressed or typed, as it was delivered: a pointer (approval id and nonce), never a right.

    `nonce`, `message` and `place` are None on the command line, where the socket's peer uid names the actor instead.
    """

    approval: int
    verdict: Verdict
    actor: Actor
    reason: str = ""
    nonce: str | None = None
    place: Place | None = None
    message: str | None = None
