"""The append-only log of the commands that the machines received: what was really done, whatever the bot believes."""

import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bot.sandbox.installation.programs import Sent


@dataclass(frozen=True)
class Received:
    """One command: when (outside), where, its exact text, and whether it was one that changes something."""

    at: str
    machine: str
    text: str
    changed: bool


class ReceivedLog:
    """In memory and, line by line, in a file that is only ever appended to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: list[Received] = []
        self._lock = threading.Lock()
        self._file: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, sent: Sent) -> None:
        line = Received(datetime.now(UTC).isoformat(), sent.machine, sent.text, sent.changed)
        with self._lock:
            self._lines.append(line)
            if self._file is not None:  # a program may end after the log: its number is another file by then
                os.write(self._file, (json.dumps(asdict(line)) + "\n").encode())

    def lines(self) -> Sequence[Received]:
        with self._lock:
            return tuple(self._lines)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
            self._file = None
