"""Who acts, and where they said it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True)
class Actor:
    """A person as the envelope named them: workspace and user id, never a display name. `via` is `slack` or `cli`."""

    team: str
    user: str
    via: str = "slack"

    def __str__(self) -> str:
        return f"<@{self.user}>"

    @property
    def nobody(self) -> bool:
        """No person of the workspace: a schedule, or a uid of this machine that is nobody's."""
        return self.via != "slack" and not self.user.startswith(("U", "W"))

    def same_person(self, other: "Actor") -> bool:
        return (self.team, self.user) == (other.team, other.user)


class Part(Enum):
    """What somebody did in a run: asked for it, decided in it, or typed in it as another person (`--as`)."""

    ASKED = "asked"
    DECIDED = "decided"
    TYPED = "typed"


@dataclass(frozen=True)
class Place:
    """A channel, and the thread in it (the root message's ts) when there is one already."""

    channel: str
    thread: str | None = None


@dataclass(frozen=True)
class Person:
    """What the directory says of an actor now; every flag that is not known to be harmless is True (fail closed)."""

    actor: Actor
    name: str
    active: bool
    guest: bool
    external: bool
    bot: bool

    @property
    def barred(self) -> str:
        """Why this person may do nothing at all, or an empty text."""
        reasons = {
            "the account is deactivated": not self.active,
            "guests may not use opsbot": self.guest,
            "people of other workspaces may not use opsbot": self.external,
            "bots may not use opsbot": self.bot,
        }
        return next((why for why, true in reasons.items() if true), "")


def person_of(uid: int, people: Mapping[int, str]) -> str | None:
    """The one person that this uid of the machine is; a person with two uids may be two people, so is nobody."""
    user = people.get(uid)
    shared = sum(1 for other in people.values() if other == user) > 1
    return None if shared else user
