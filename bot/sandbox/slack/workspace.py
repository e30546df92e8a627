"""The workspace that a local Slack pretends to be: people, channels, groups and one installed app.

Plain frozen records, so that a test says what it needs with `replace` or with a dict. What changes while the server
runs (messages, views, files) is in `state`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, Self, TypeVar

Json = dict[str, Any]

TEAM = "T0ACME"
OTHER_TEAM = "T0PARTNER"
APP = "A0OPSBOT"
BOT_USER = "U0OPSBOT"
OWNER, ANA, BO, CY = "U0OLGA", "U0ANA", "U0BO", "U0CY"
GUEST, SINGLE_CHANNEL_GUEST, EXTERNAL, DEACTIVATED = "U0GUS", "U0SIA", "U0EVE", "U0DEE"
OTHER_BOT = "U0DEPLOYBOT"
OPS, GENERAL, INCIDENT, PARTNER = "C0OPS", "C0GENERAL", "C0INCIDENT", "C0PARTNER"
ONCALL = "S0ONCALL"

ChannelKind = Literal["public", "private", "im"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody (or another bot) in the workspace. `team` empty means: of this workspace."""

    id: str
    name: str
    real_name: str = ""
    about: str = ""
    team: str = ""
    owner: bool = False
    admin: bool = False
    guest: bool = False
    single_channel_guest: bool = False
    deactivated: bool = False
    bot: bool = False
    timezone: str = "Europe/Berlin"
    utc_offset: int = 3600


@dataclass(frozen=True, slots=True)
class Channel:
    """A conversation. `shared` means shared with another workspace through Slack Connect."""

    id: str
    name: str
    kind: ChannelKind = "public"
    members: tuple[str, ...] = ()
    purpose: str = ""
    archived: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A user group, mentioned as `<!subteam^ID>`."""

    id: str
    handle: str
    name: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Workspace:
    """Everything the local Slack knows at its start; see `example()` for one that is ready to use."""

    people: tuple[Person, ...]
    channels: tuple[Channel, ...]
    groups: tuple[Group, ...] = ()
    manifest: Mapping[str, Any] = field(default_factory=lambda: MANIFEST)
    team: str = TEAM
    name: str = "Acme"
    domain: str = "acme"
    app: str = APP
    bot: str = "B0OPSBOT"
    bot_user: str = BOT_USER

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Self:
        """Read what `dataclasses.asdict` wrote; a field that does not exist is refused by its name."""
        rest = _known(cls, given)
        rest["people"] = tuple(Person(**_known(Person, one)) for one in given["people"])
        rest["channels"] = tuple(_with_members(Channel, one) for one in given["channels"])
        rest["groups"] = tuple(_with_members(Group, one) for one in given.get("groups", ()))
        return cls(**rest)

    @property
    def bot_name(self) -> str:
        name: str = self.manifest["features"]["bot_user"]["display_name"]
        return name

    @property
    def scopes(self) -> tuple[str, ...]:
        return tuple(self.manifest["oauth_config"]["scopes"]["bot"])

    @property
    def events(self) -> frozenset[str]:
        subscriptions = self.manifest["settings"].get("event_subscriptions", {})
        return frozenset(subscriptions.get("bot_events", ()))

    @property
    def commands(self) -> Mapping[str, Mapping[str, Any]]:
        return {one["command"]: one for one in self.manifest["features"].get("slash_commands", ())}


def _known(kind: type, given: Mapping[str, Any]) -> Json:
    names = {one.name for one in fields(kind)}
    unknown = set(given) - names
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}; it has {', '.join(sorted(names))}.")
    return dict(given)


def _with_members(kind: type[T], given: Mapping[str, Any]) -> T:
    return kind(**_known(kind, given) | {"members": tuple(given.get("members", ()))})


MANIFEST: Mapping[str, Any] = MappingProxyType(
    {
        "display_information": {"name": "opsbot", "description": "Diagnoses and recovers a Travis CI installation"},
        "features": {
            "bot_user": {"display_name": "opsbot", "always_online": True},
            "slash_commands": [
                {
                    "command": "/travis",
                    "description": "Diagnose, repair and back up Travis CI",
                    "usage_hint": "diagnose builds not starting",
                    "should_escape": True,
                }
            ],
        },
        "oauth_config": {
            "scopes": {
                "bot": [
                    "commands", "chat:write", "app_mentions:read", "im:history", "im:read", "im:write", "users:read",
                    "usergroups:read", "channels:read", "groups:read", "files:write", "reactions:write", "team:read",
                ]
            }
        },
        "settings": {
            "event_subscriptions": {"bot_events": ["app_mention", "message.im", "app_home_opened"]},
            "interactivity": {"is_enabled": True},
            "socket_mode_enabled": True,
        },
    }
)  # fmt: skip


def direct_messages(person: str) -> str:
    """The id of the conversation between a person and the app's bot."""
    return f"D{person[1:]}"


def example(**changes: Any) -> Workspace:
    """A small company: who asks, who approves, and everybody who must be refused."""
    home = (OWNER, ANA, BO, CY)
    talkers = (*home, GUEST, SINGLE_CHANNEL_GUEST)
    people = (
        Person(ANA, "ana", "Ana Lima", "on call, asks"),
        Person(BO, "bo", "Bo Svensson", "approver"),
        Person(CY, "cy", "Cy Marsh", "approver"),
        Person(OWNER, "olga", "Olga Novak", "workspace owner", owner=True, admin=True),
        Person(GUEST, "gus", "Gus Weber", "guest", guest=True),
        Person(SINGLE_CHANNEL_GUEST, "sia", "Sia Rossi", "single-channel guest", guest=True, single_channel_guest=True),
        Person(EXTERNAL, "eve", "Eve Stone", "from another company", team=OTHER_TEAM),
        Person(DEACTIVATED, "dee", "Dee Okafor", "deactivated", deactivated=True),
        Person(OTHER_BOT, "deploybot", "Deploy Bot", "another app's bot", bot=True),
    )
    ops = (*home, GUEST, DEACTIVATED, OTHER_BOT, BOT_USER)
    channels = (
        Channel(OPS, "ops", "public", ops, "Running Travis CI"),
        Channel(GENERAL, "general", "public", (*home, GUEST, SINGLE_CHANNEL_GUEST), "Everybody"),
        Channel(INCIDENT, "incident-42", "private", (ANA, BO, BOT_USER), "Builds are not starting"),
        Channel(PARTNER, "acme-partner", "public", (*home, EXTERNAL, BOT_USER), "With another company", shared=True),
        *(Channel(direct_messages(one.id), "", "im", (one.id, BOT_USER)) for one in people if one.id in talkers),
    )
    groups = (Group(ONCALL, "oncall-leads", "On-call leads", (BO, CY)),)
    return replace(Workspace(people, channels, groups), **changes)
