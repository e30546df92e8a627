"""rabbitmqctl says what the real one said, over the same connections, queues and messages."""

import re
import shlex
from pathlib import Path

import pytest

from bot.core.command import Command
from bot.sandbox.installation import SHAPES, Installation, settled
from tests.installation import records
from tests.installation.console import Console, standing_still

FILES = sorted((records.FOLDER / "rabbitmq").glob("*.txt"))
LOST = {"list_consumers.none", "list_queues.none"}  # both clients had gone
ALARMED = {"diagnostics.alarm", "diagnostics.alarms", "list_connections.blocked"}
DOWN = {"down", "diagnostics.down"}
FIRST_LINE = {"list_queues.badcol", "unknown", "down"}  # help follows, which nobody reads


@pytest.fixture
def recorded() -> Installation:
    """The state of the broker when the records were made."""
    installation = settled(standing_still(), SHAPES[:3])
    broker = installation.broker
    for name in list(broker.drains):
        broker.undrain(name)  # there were no services of the platform
    broker.queues = [queue for queue in broker.queues if not queue.name.startswith("reporting.")]
    broker.users["travis"] = "s3cret"
    installation.push(6)
    return installation


def _like(installation: Installation, name: str) -> None:
    if name in LOST:
        for connection in list(installation.broker.connections):
            installation.broker.close(connection)
    if name in ALARMED:
        installation.broker.alarms.add("memory")
    if name in DOWN:
        installation.broker.running = False


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_what_the_real_one_said(path: Path, recorded: Installation) -> None:
    [record] = records.read(path)
    _like(recorded, path.stem)
    words = ("docker", "exec", "sleepy_dewdney", *shlex.split(record.command))
    [said] = Console(recorded, "platform-1").ask(Command(words).sudo())
    assert said.exit == record.exit
    if path.stem in FIRST_LINE:
        assert said.err.strip().splitlines()[0].split("'")[0] == record.err.strip().splitlines()[0].split("'")[0]
    else:
        assert _plain(said.err) == _plain(record.err)
        assert _plain(said.out) == _plain(record.out)


def _plain(text: str) -> list[str]:
    """Without what differs from broker to broker; rows in any order, the header first."""
    text = re.sub(r"<rabbit@[\w-]+\.\d+\.\d+\.\d+>", "<pid>", text)
    text = re.sub(r"#PID<\d+\.\d+\.\d+>", "#PID<>", text)
    text = re.sub(r"rabbit@[\w-]+", "rabbit@node", text)
    text = re.sub(r"amq\.gen-[\w-]{22}", "amq.gen-x", text)
    text = re.sub(r"127\.0\.0\.\d+:5672", "broker:5672", text)
    text = re.sub(r"\b17\d{11}\b", "milliseconds", text)
    text = re.sub(r"(127\.0\.0\.2\d:)\d{5}|(127\.0\.0\.2\d\t)\d{5}", r"\1\2port", text)
    text = re.sub(r" \([123]\)|(?<=<pid>\t)[123]\ttravis", " number", text)  # which channel is the canceller's
    head, *rows = text.splitlines() or [""]
    return [head, *sorted(row.strip(",") for row in rows)]
