"""Starting, stopping, and the workspace that a test describes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bot.sandbox.slack import Driver, LocalSlack, NotLoopback, NotSeen, PortInUse, Refused, Workspace, example

ROOT = Path(__file__).parents[2]


def test_port_in_use_is_a_sentence(slack: LocalSlack) -> None:
    with pytest.raises(PortInUse, match=f"Port {slack.port} on 127.0.0.1 cannot be used"):
        LocalSlack(port=slack.port).start()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_other_machines_can_never_reach_it(host: str) -> None:
    with pytest.raises(NotLoopback, match="this machine only"):
        LocalSlack(host=host)


def test_it_stops_twice_and_starts_again_where_it_was() -> None:
    slack = LocalSlack()
    slack.start()
    port = slack.port
    slack.driver.person("ana").say("kept", "ops")
    slack.stop()
    slack.stop()
    with pytest.raises(RuntimeError, match="not running"):
        slack.driver.connections()
    slack.start()
    assert slack.port == port
    assert [one.text for one in slack.driver.messages("ops")] == ["kept"]
    slack.stop()


def test_workspace_can_be_a_dict(slack: LocalSlack) -> None:
    given = json.loads(json.dumps(asdict(replace(example(), manifest=dict(example().manifest)))))
    assert Workspace.from_dict(given) == replace(example(), manifest=dict(example().manifest))
    given["people"][0]["nickname"] = "a"
    with pytest.raises(ValueError, match="Person has no field 'nickname'"):
        Workspace.from_dict(given)


def test_waiting_ends_with_what_was_seen_instead(slack: LocalSlack) -> None:
    slack.driver.person("ana").say("something else", "ops")
    with pytest.raises(NotSeen, match="U0ANA: something else"):
        slack.driver.wait_for(lambda s: s.find("ops", "the report"), timeout=0.1)


@pytest.fixture
def process() -> Iterator[dict[str, str]]:
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = [sys.executable, "-m", "bot.sandbox.slack", "--hint", "`/travis help`", "--no-rate-limits"]
    with subprocess.Popen(command, cwd=ROOT, env=clean, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield json.loads(running.stdout.readline())
        running.terminate()
        assert running.wait(10) == 0


def test_it_runs_as_a_process_of_its_own(process: dict[str, str]) -> None:
    slack = Driver.connect(process["base_url"], process["secret"])
    slack.person("ana").say("hello", "ops")
    assert [one.text for one in slack.messages("ops")] == ["hello"]
    with pytest.raises(Refused, match="There is nobody called 'zoe'"):
        slack.person("zoe").say("hello", "ops")
    with pytest.raises(Refused, match="There is no action 'fly'"):
        slack.ask("fly")
    slack.close()
    stranger = Driver.connect(process["base_url"], "wrong")
    with pytest.raises(Refused, match="secret is missing or wrong"):
        stranger.connections()
    stranger.close()
