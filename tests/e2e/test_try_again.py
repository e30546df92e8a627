"""`opsbot try` in a terminal: what ends it, what does not, and what it leaves."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import bot
from bot.tryout import OWN

PATIENCE = 90.0  # seconds
MOMENT = 5.0
ENVIRONMENT = {key: value for key, value in os.environ.items() if not key.startswith(OWN)} | {
    "PYTHONPATH": str(Path(bot.__file__).parents[1])
}


class Terminal:
    """A try, and the lines that it printed so far."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(line.rstrip("\n") for line in self.process.stdout)

    def wait_for(self, words: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while not (found := [line for line in self.lines if words in line]):
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.1)
        return found[0]

    @property
    def folder(self) -> Path:
        """Where its configuration lies."""
        return Path(self.wait_for("From a terminal:").split("--config ")[1].split()[0]).parent

    def runs(self) -> list[int]:
        words = [sys.executable, "-m", "bot.cli", "--config", str(self.folder / "opsbot.yaml"), "runs", "--json"]
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT)
        return [each["run"] for each in json.loads(asked.stdout or "{}").get("runs", [])]

    def ask(self) -> None:
        """Start a run, and do not wait for it."""
        words = [sys.executable, "-m", "bot.cli", "--config", str(self.folder / "opsbot.yaml"), "status", "--detach"]
        subprocess.run(words, capture_output=True, timeout=60, check=True, env=ENVIRONMENT)


@contextmanager
def trying(*words: str) -> Iterator[Terminal]:
    line = [sys.executable, "-m", "bot.cli", "try", *words]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    ) as process:
        terminal = Terminal(process)
        try:
            terminal.wait_for("Ctrl-C ends it all")
            yield terminal
        finally:
            process.send_signal(signal.SIGTERM)  # a shell lets what it starts in the background ignore SIGINT
            process.wait(PATIENCE)


def at_work_in(folder: Path) -> dict[int, str]:
    """Processes that were started with a file of that folder."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in words and int(process.name) != os.getpid():
                found[int(process.name)] = words
    return found


def still_at_work_in(folder: Path) -> dict[int, str]:
    """Those that a moment does not end: what watches over the database looks for its users from time to time."""
    deadline = time.monotonic() + MOMENT
    while (left := at_work_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def database_in(folder: Path) -> int:
    """The process of its embedded PostgreSQL, which a link may have led elsewhere."""
    pid = (folder / "state/database/postgres/data/postmaster.pid").read_text().splitlines()[0]
    assert is_alive(int(pid))
    return int(pid)


def is_alive(pid: int) -> bool:
    """A zombie, which a container without an init keeps, is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_whatever_ends_a_try_leaves_nothing(number: signal.Signals) -> None:
    with trying() as terminal:
        folder = terminal.folder
        assert (folder / "backups.key").exists()
        assert at_work_in(folder)
        terminal.process.send_signal(number)
        terminal.process.send_signal(number)  # a shell that closes sends two
        assert terminal.process.wait(PATIENCE) == 0
        assert not folder.exists()
        assert still_at_work_in(folder) == {}


@pytest.mark.timeout(300)
def test_a_try_that_is_killed_takes_everything_with_it(tmp_path: Path) -> None:
    with trying("--folder", str(tmp_path)) as terminal:
        pids = [*at_work_in(tmp_path), database_in(tmp_path)]
        assert any(" serve " in words for words in at_work_in(tmp_path).values())
        terminal.process.kill()
        terminal.process.wait(PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while left := [pid for pid in pids if is_alive(pid)]:
            assert time.monotonic() < deadline, [at_work_in(tmp_path).get(pid, pid) for pid in left]
            time.sleep(0.1)
    with trying("--folder", str(tmp_path)) as terminal:
        assert terminal.runs() == []
    assert still_at_work_in(tmp_path) == {}


@pytest.mark.timeout(300)
def test_a_killed_serve_comes_back_and_a_named_folder_remembers(tmp_path: Path) -> None:
    with trying("--folder", str(tmp_path)) as terminal:
        terminal.ask()
        (serve,) = (number for number, words in at_work_in(tmp_path).items() if " serve " in words)
        os.kill(serve, signal.SIGKILL)
        terminal.wait_for("serve ended by itself (exit status -9). It is started again")
        deadline = time.monotonic() + PATIENCE
        while not (runs := terminal.runs()):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        assert runs == [1]
    assert still_at_work_in(tmp_path) == {}
    with trying("--folder", str(tmp_path)) as terminal:
        assert terminal.runs() == [1]
        terminal.ask()
        assert terminal.runs() == [2, 1]
    assert still_at_work_in(tmp_path) == {}
