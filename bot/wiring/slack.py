"""What stands between Slack and the engine: the desk as its intake wants it, and who people are without it."""

import time
from collections.abc import Callable

from bot.core.approval import Approval, Click
from bot.core.errors import OpsbotError, Temporary
from bot.core.people import Actor, Person, Place
from bot.core.request import Request, Vocabulary
from bot.core.shown import Redactor
from bot.engine.desk import Desk
from bot.slack.intake import Receipt
from bot.wiring.foundation import Foundation

NAMES_KEPT = 600.0  # seconds


class NobodyKnows:
    """The directory of an opsbot without Slack: people cannot be looked up, so only listed ones may decide."""

    def person(self, actor: Actor) -> Person:
        raise Temporary(f"there is no Slack to ask who {actor.user} is")

    def members(self, usergroup: str) -> tuple[str, ...]:
        raise Temporary(f"there is no Slack to ask who is in {usergroup}")


class Names:
    """What people are called, for terminals. Remembered for a while, and not asked for while nobody can say."""

    def __init__(self, ask: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}
        self._silent_until = 0.0

    def __call__(self, user: str) -> str:
        since, name = self._known.get(user, (-NAMES_KEPT, ""))
        now = self._clock()
        if now - since < NAMES_KEPT or now < self._silent_until:
            return name
        try:
            self._known[user] = (now, self._ask(user))
        except OpsbotError:
            self._silent_until = self._clock() + NAMES_KEPT
            return name
        return self._known[user][1]


class SlackDesk:
    """The engine's desk as Slack's intake wants it."""

    def __init__(self, desk: Desk, vocabulary: Vocabulary, base: Foundation, redactor: Redactor) -> None:
        self._desk = desk
        self._vocabulary = vocabulary
        self._base = base
        self._redactor = redactor

    def submit(self, request: Request, _text: str, actor: Actor, place: Place, key: str) -> Receipt:
        filed = self._desk.file(request, actor, place, key)
        return Receipt(filed.run or 0, filed.duplicate, filed.text)

    def click(self, click: Click, key: str) -> None:
        self._desk.click(click, key)

    def reply(self, actor: Actor, place: Place, text: str, key: str) -> None:
        with self._base.durable.transaction() as tx:
            if self._base.store.accept(tx, key, "reply", {}, actor) is not None:
                self._base.store.reply(tx, actor, place, self._redactor.show(text))

    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def approval(self, approval: int) -> Approval | None:
        return self._desk.approval(approval)

    def refused(self, actor: Actor, place: Place | None, why: str) -> None:
        self._desk.refused(actor, f"{why} ({place.channel if place else 'nowhere'})")
