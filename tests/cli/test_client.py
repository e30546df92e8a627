"""The client of `serve`: how long it waits, and what it says about one that hangs."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bot.adapters.console import server
from bot.cli import client
from bot.cli.client import Client, Lost, NotServing
from bot.core.outcome import Outcome
from bot.core.people import Actor
from tests.cli.fakes import ANA, LOOK, ME, TEAM, FakeDesk, outcome, serving

LISTENS = """
import socket, sys
door = socket.socket(socket.AF_UNIX)
door.bind(sys.argv[1])
door.listen(1)
print("listens", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "opsbot.sock"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENT_FOR", 1.0)


@contextmanager
def hanging(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that takes connections, and never says a word."""
    words = [sys.executable, "-c", LISTENS, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listens\n"
        try:
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def test_a_serve_that_hangs_is_named_in_bounded_time(path: Path) -> None:
    began = time.monotonic()
    with hanging(path) as process, pytest.raises(Lost) as lost:
        list(Client(path).say("runs"))
    assert time.monotonic() - began < 10
    assert str(lost.value) == (
        f"`opsbot serve` (process {process.pid}) took the connection at {path}, and has said nothing for 1 s: "
        "it hangs; start it again. What it took goes on after that; `opsbot runs` says what it was"
    )


def test_a_serve_that_was_stopped_is_told_from_one_that_hangs(path: Path) -> None:
    with hanging(path) as process:
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(Lost, match=f"it is stopped, and `kill -CONT {process.pid}` lets it go on"):
            list(Client(path).watch(1))


def test_a_door_with_too_many_before_it_is_no_riddle(path: Path) -> None:
    with hanging(path):
        waiting = [Client(path)._connected() for _ in range(2)]  # the kernel lets one more wait than was asked for
        with pytest.raises(NotServing, match="takes nobody: start it again"):
            list(Client(path).say("runs"))
        for each in waiting:
            each.close()


def test_a_run_with_nothing_to_tell_is_followed_as_long_as_it_takes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ALIVE_EVERY", 0.2)
    desk = FakeDesk()
    desk.begin(Actor(TEAM, ANA))
    desk.tell(1, *LOOK)
    ends = threading.Timer(2.5, desk.tell, [1, *outcome(Outcome.HEALTHY)])
    with serving(desk, path, {ME: ANA}):
        ends.start()
        lines = list(Client(path).watch(1))
        ends.join()
    assert [line["event"] for line in lines] == ["look", "outcome"], "signs of life are for the client alone"


def test_a_run_whose_serve_falls_silent_is_let_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE_EVERY", 60.0)  # as if it hung
    desk = FakeDesk(then=(LOOK,))
    seen: list[str] = []
    with serving(desk, path, {ME: ANA}), pytest.raises(Lost, match="said nothing"):
        seen.extend(line["event"] for line in Client(path).say("status"))
    assert desk.filed, "it was ordered all the same"
