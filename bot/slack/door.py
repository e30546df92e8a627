"""Who may come in at all: whose payload it is, who acted where, and why it is refused. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.core.people import Actor, Place
from bot.slack import mrkdwn, questions

Body = Mapping[str, Any]


@dataclass(frozen=True)
class Tenant:
    """Whose opsbot this is: the workspace (and its organisation), the app, and the channels it listens in."""

    team: str
    app: str
    channels: frozenset[str]
    approvals: str = ""
    enterprise: str = ""
    homes: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "homes", frozenset({self.team, self.enterprise} - {""}))

    @property
    def listens_in(self) -> str:
        return " and ".join(mrkdwn.channel(each) for each in sorted(self.channels)) or "no channel yet"


@dataclass(frozen=True)
class Envelope:
    """Who acted where, as Slack's envelope says it; `kind` is `command`, `event` or `interaction`."""

    kind: str
    actor: Actor
    place: Place | None
    team: str
    app: str
    home: str | None
    bot: bool = False
    shared: bool = False


def envelope(body: Body) -> Envelope:
    """Read the outside of any payload; what is missing is empty, and an empty team is nobody's."""
    app, team = str(body.get("api_app_id") or ""), _team(body)
    if "command" in body:
        actor = Actor(team, str(body.get("user_id") or ""))
        return Envelope("command", actor, Place(str(body.get("channel_id") or "")), team, app, team)
    if isinstance(event := body.get("event"), Mapping):
        return _event_envelope(body, event, team, app)
    user = body.get("user") or {}
    return Envelope(
        "interaction",
        Actor(team, str(user.get("id") or "")),
        _place_of_interaction(body),
        team,
        app,
        user.get("team_id"),
        shared=bool(body.get("is_ext_shared_channel")),
    )


def _event_envelope(body: Body, event: Body, team: str, app: str) -> Envelope:
    user = event.get("user")
    channel = str(event.get("channel") or "")
    return Envelope(
        "event",
        Actor(team, user if isinstance(user, str) else ""),
        Place(channel, str(event.get("thread_ts") or "") or None) if channel else None,
        team,
        app,
        event.get("user_team") or event.get("team") or team,
        bot=bool(event.get("bot_id") or event.get("bot_profile")) or not isinstance(user, str),
        shared=bool(body.get("is_ext_shared_channel")),
    )


def _team(body: Body) -> str:
    team = body.get("team")
    return str((team.get("id") if isinstance(team, Mapping) else None) or body.get("team_id") or "")


def _place_of_interaction(body: Body) -> Place | None:
    """The message's place; a dialog's is in its private metadata, which only we write."""
    container, view = body.get("container") or {}, body.get("view") or {}
    if channel := container.get("channel_id") or (body.get("channel") or {}).get("id"):
        return Place(str(channel), str(container.get("thread_ts") or "") or None)
    kept = questions.pointer_in(str(view.get("private_metadata") or ""))
    return Place(kept.channel, kept.thread or None) if kept and kept.channel else None


def refusal(said: Envelope, tenant: Tenant) -> str:
    """Why this may not come in at all, as a sentence; empty when it may."""
    reasons: tuple[tuple[bool, str], ...] = (
        (said.app != tenant.app, "This was meant for another app."),
        (said.team not in tenant.homes, "This opsbot belongs to another workspace."),
        (said.bot, "Bots may not use opsbot."),
        (not said.actor.user, "Slack did not say who this was."),
        (said.shared or said.home not in tenant.homes, "People of other workspaces may not use opsbot."),
        (not _listens(said, tenant), f"opsbot does not work here; it listens in {tenant.listens_in}."),
    )
    return next((why for true, why in reasons if true), "")


def _listens(said: Envelope, tenant: Tenant) -> bool:
    allowed = tenant.channels | ({tenant.approvals} if said.kind == "interaction" else set())
    return said.place is not None and said.place.channel in allowed
