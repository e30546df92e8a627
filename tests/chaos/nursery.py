"""A process that has imported opsbot and forks what is asked for: a new `opsbot serve` takes milliseconds.

Importing takes more than a second here, and a process is killed each second. What is forked is a process of its own
with its own connections and threads; only the imported modules are shared.

It reads a JSON line for each child (`{"run": "serve", …}`), forks, and answers with the child's pid. Each child's
words go to its own log file.
"""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
Json = Mapping[str, Any]


@dataclass
class Nursery:
    """The side that asks. Everything it bore is killed when its context ends."""

    process: subprocess.Popen[str]
    logs: Path
    born: list[int] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def bear(self, run: str, **how: Any) -> int:
        """Fork a child that runs this program (a key of PROGRAMS); its pid."""
        with self._guard:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            log = self.logs / f"{run}-{len(self.born)}.log"
            self.process.stdin.write(json.dumps({"run": run, "log": str(log), **how}) + "\n")
            self.process.stdin.flush()
            pid = int(self.process.stdout.readline())
            self.born.append(pid)
            return pid


@contextmanager
def nursery(logs: Path) -> Iterator[Nursery]:
    logs.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "tests.chaos.nursery"]
    with (logs / "nursery.log").open("w") as errors:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
    made = Nursery(process, logs)
    try:
        yield made
    finally:
        for pid in made.born:
            kill(pid)
        process.terminate()
        process.wait(10)


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def lives(pid: int) -> bool:
    """A zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


# ---------------------------------------------------------------- the side that forks


def main() -> None:
    from tests.chaos import programs

    assert threading.active_count() == 1, "a process with threads cannot be forked safely"
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        asked: Json = json.loads(line)
        if (pid := os.fork()) == 0:
            _live(asked, programs.PROGRAMS[asked["run"]])
        sys.stdout.write(f"{pid}\n")
        sys.stdout.flush()


def _live(asked: Json, program: Callable[[Json], None]) -> None:
    """Be the child: a session, standard streams and signals of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    status = 1
    try:
        program(asked)
        status = 0
    except SystemExit as over:
        status = over.code if isinstance(over.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
