"""Who people are, as the workspace says now: asked at most once a minute, and never guessed when it cannot be asked."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bot.core.errors import Permanent, Temporary
from bot.core.people import Actor, Person
from bot.slack.refusals import DROPPED

T = TypeVar("T")

FRESH: Final = 60.0  # seconds that an answer may be used
_NOBODY: Final = ("user_not_found", "user_not_visible", "users_not_found")
_NO_GROUP: Final = ("no_such_subteam", "subteam_not_found", "permission_denied", "invalid_arguments")


class SlackDirectory:
    """The `Directory` over Slack's Web API."""

    def __init__(
        self,
        client: WebClient,
        team: str,
        enterprise: str = "",
        fresh: float = FRESH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._homes = {team, enterprise} - {""}
        self._fresh = min(fresh, FRESH)
        self._clock = clock
        self._guard = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, Any]] = {}

    def person(self, actor: Actor) -> Person:
        """Who this is now; a stranger to the workspace is external. Raises Temporary when Slack cannot be asked."""
        if actor.team not in self._homes:
            return _stranger(actor)
        return self._kept(("person", actor.user), lambda: self._ask_person(actor))

    def members(self, usergroup: str) -> tuple[str, ...]:
        """The user ids in a group now. Raises Temporary when Slack is away, Permanent when there is no such group."""
        return self._kept(("group", usergroup), lambda: self._ask_members(usergroup))

    def _kept(self, key: tuple[str, str], ask: Callable[[], T]) -> T:
        asked = self._clock()
        with self._guard:
            since, known = self._known.get(key, (-FRESH * 2, None))
        if asked - since < self._fresh:
            found: T = known
            return found
        answer = ask()
        with self._guard:
            self._known[key] = (asked, answer)  # as old as the question, not as its answer
        return answer

    def _ask_person(self, actor: Actor) -> Person:
        try:
            user = self._client.users_info(user=actor.user)["user"]
        except SlackApiError as error:
            if error.response.get("error") in _NOBODY:
                return _stranger(actor)
            raise _unasked(f"who {actor.user} is", error) from error
        except DROPPED as error:
            raise _unasked(f"who {actor.user} is", error) from error
        return _person(actor, user, self._homes)

    def _ask_members(self, usergroup: str) -> tuple[str, ...]:
        try:
            return tuple(self._client.usergroups_users_list(usergroup=usergroup)["users"])
        except SlackApiError as error:
            if error.response.get("error") in _NO_GROUP:
                raise Permanent(
                    f"Slack knows no user group {usergroup}; correct `people.approvers.usergroup`"
                ) from error
            raise _unasked(f"who is in the group {usergroup}", error) from error
        except DROPPED as error:
            raise _unasked(f"who is in the group {usergroup}", error) from error


def _person(actor: Actor, user: Mapping[str, Any], homes: set[str]) -> Person:
    """Every flag that is not known to be harmless counts as true."""
    teams = {user.get("team_id"), *(user.get("enterprise_user") or {}).get("teams", ())}
    profile = user.get("profile") or {}
    return Person(
        actor=actor,
        name=str(profile.get("display_name") or user.get("real_name") or user.get("name") or actor.user),
        active=user.get("deleted") is False and user.get("id") == actor.user,
        guest=user.get("is_restricted") is not False or user.get("is_ultra_restricted") is not False,
        external=bool(user.get("is_stranger")) or not teams & homes,
        bot=user.get("is_bot") is not False or actor.user == "USLACKBOT",
    )


def _stranger(actor: Actor) -> Person:
    return Person(actor, actor.user, active=True, guest=False, external=True, bot=False)


def _unasked(what: str, error: Exception) -> Temporary:
    why = error.response.get("error") if isinstance(error, SlackApiError) else type(error).__name__
    return Temporary(f"Slack could not be asked {what} ({why}), so nothing is allowed; try again in a minute")
