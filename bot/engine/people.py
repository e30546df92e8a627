"""Who may decide: the configured approvers as the workspace knows them now, never the one who asked."""

from dataclasses import dataclass

from bot.core.errors import Temporary
from bot.core.people import Actor, Person
from bot.core.ports import Directory


@dataclass(frozen=True)
class Approvers:
    """A user group and single people. Without either, anybody in the command channels may decide, except who asked."""

    usergroup: str = ""
    users: tuple[str, ...] = ()
    admins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"<!subteam^{self.usergroup}>" if self.usergroup else ", ".join(f"<@{user}>" for user in self.users)

    def listed(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.users, *self.admins)))


@dataclass(frozen=True)
class Gate:
    """Lets people in: asks the directory afresh, and fails closed when it does not answer.

    On the command line the operating system has named the actor, so a workspace that is away bars nobody there; but
    then only people who are listed one by one can decide, since nobody can say who is in the group.
    """

    directory: Directory
    approvers: Approvers

    def barred(self, actor: Actor) -> str:
        """Why this actor may do nothing here, or an empty text; raises Temporary when nobody can tell."""
        if actor.nobody:
            return ""  # the operating system or a schedule; it may only look, which its order says
        try:
            return self.directory.person(actor).barred
        except Temporary:
            if actor.via == "cli":
                return ""
            raise

    def name(self, actor: Actor) -> str:
        person: Person = self.directory.person(actor)
        return person.name

    def deciders(self, via: str = "slack") -> tuple[str, ...]:
        """The user ids that may decide now; raises Temporary when the group cannot be read (from Slack)."""
        if not self.approvers.usergroup:
            return self.approvers.listed()
        try:
            members = self.directory.members(self.approvers.usergroup)
        except Temporary:
            if via != "cli":
                raise
            members = ()
        return tuple(dict.fromkeys((*members, *self.approvers.listed())))

    def may_decide(self, actor: Actor, deciders: tuple[str, ...]) -> bool:
        open_to_all = not self.approvers.usergroup and not self.approvers.listed()
        return open_to_all or actor.user in deciders
