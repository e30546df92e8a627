"""Wires that any start of a program on the host trips over."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

EVENTS = (
    "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.spawn", "os.kill", "pty.", "ctypes.",
)  # fmt: skip


class Tripwires:
    """Python's own audit events: a hook cannot be taken away again, so it listens only while it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self.tripped: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.armed and event.startswith(EVENTS):
            self.tripped.append(f"{event} {arguments!r}")

    @contextmanager
    def across(self) -> Iterator[None]:
        self.armed = True
        try:
            yield
        finally:
            self.armed = False
