"""The manifest asks for exactly what the code uses: one scope too few fails at night, one too many is a risk."""

import ast
import re
from pathlib import Path

import pytest
import yaml
from slack_sdk import WebClient

import bot.slack
from bot.core.errors import Permanent
from bot.sandbox.slack import LocalSlack, example
from bot.sandbox.slack.web_api import METHODS
from bot.slack.manifest import DELIVERED, SCOPES, WHERE, manifest

SOURCES = sorted(Path(bot.slack.__file__).parent.glob("*.py"))


def called() -> set[str]:
    """Every method of WebClient that is called anywhere in bot.slack."""
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text())))
    calls = {node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)}
    return {name for name in calls if re.fullmatch(r"[a-z]+_[A-Za-z_0-9]+", name) and hasattr(WebClient, name)}


def test_every_method_that_is_called_has_its_scope_in_the_table() -> None:
    assert called() == set(SCOPES)


def test_the_file_asks_for_these_scopes_and_no_others() -> None:
    wanted = {scope for scope in SCOPES.values() if scope} | set(DELIVERED.values()) | set(WHERE)
    asked = yaml.safe_load(manifest())["oauth_config"]["scopes"]["bot"]
    assert sorted(wanted) == asked


def test_the_table_agrees_with_what_slack_demands() -> None:
    parts = {"files_upload_v2": ["files.getUploadURLExternal", "files.completeUploadExternal"]}
    for name, scope in SCOPES.items():
        for method in parts.get(name, [name.replace("_", ".") if name.count("_") == 1 else "usergroups.users.list"]):
            assert METHODS[method].scopes == ((scope,) if scope else ())


def test_the_command_can_be_another() -> None:
    commands = yaml.safe_load(manifest("/Ci-ops_2"))["features"]["slash_commands"]
    assert [each["command"] for each in commands] == ["/ci-ops_2"]


@pytest.mark.parametrize("command", ["travis", "/", "/a b", "/" + "x" * 32, "/x\nname: y"])
def test_what_is_no_command_is_refused(command: str) -> None:
    with pytest.raises(Permanent, match="no slash command"):
        manifest(command)


def test_the_local_slack_takes_it() -> None:
    with LocalSlack(example(manifest=yaml.safe_load(manifest()))) as slack:
        client = WebClient(token="xoxb-local-1", base_url=slack.api_url)
        assert client.chat_postMessage(channel="C0OPS", text="hello")["ok"]
        assert client.conversations_open(users="U0ANA")["ok"]
