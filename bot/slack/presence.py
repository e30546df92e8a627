"""Whether Slack knows the bot, and whether it is in the channels that it was given: asked before anybody needs it."""

from collections.abc import Iterable, Iterator

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError

from bot.core.errors import Permanent, Temporary
from bot.slack.refusals import DROPPED, code_of, rule_for


def presence(client: WebClient, team: str, channels: Iterable[str], enterprise: str = "") -> str:
    """Who the bot is and where, as a sentence; raises Permanent with what is wrong, Temporary when Slack is away."""
    try:
        bot = client.auth_test()
        missing = (_absent(client, each) for each in channels)
        wrong = [
            *_elsewhere(str(bot.get("team_id")), team),
            *_organisation(bot.get("enterprise_id") or "", enterprise),
            *filter(None, missing),
        ]
    except SlackApiError as error:
        raise Permanent(rule_for(error).why) from error
    except DROPPED as error:
        raise Temporary(f"Slack cannot be reached ({type(error).__name__})") from error
    if wrong:
        raise Permanent("; ".join(wrong))
    return f"the tokens are those of {bot.get('user')} in {bot.get('team')}, and it is in every channel"


def _elsewhere(found: str, wanted: str) -> Iterator[str]:
    if found != wanted:
        yield f"the token belongs to the workspace {found}, and `slack.team_id` is {wanted}"


def _organisation(found: str, wanted: str) -> Iterator[str]:
    """On Enterprise Grid every click would be refused as a stranger's."""
    if found and found != wanted:
        yield f"the workspace belongs to the organisation {found}: set `slack.enterprise_id` to it"
    elif found != wanted:
        yield "the workspace belongs to no organisation: take `slack.enterprise_id` out"


def _absent(client: WebClient, channel: str) -> str:
    """Why nothing can be posted there, or an empty text."""
    try:
        seen = client.conversations_info(channel=channel)["channel"]
    except SlackApiError as error:
        if code_of(error) == "missing_scope":
            return f"whether the bot is in {channel} cannot be told: install the app anew with `opsbot manifest`"
        return f"{channel}: {rule_for(error).why}"
    if seen.get("is_member"):
        return ""
    return f"the bot is not in #{seen.get('name', channel)}: type `/invite @opsbot` there"
