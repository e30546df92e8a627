"""Locks that end with whoever holds them, and waiting in bounded time."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event as Flag
from typing import IO

from bot.core.errors import Permanent

TICK = 0.02  # seconds between two looks
LONGEST = 90.0  # seconds that another process may take to start or stop a server


@contextmanager
def one_at_a_time(folder: Path, mode: str = "ab", abort: Flag | None = None) -> Iterator[None]:
    with opened(folder / "postgres.lock", mode) as lock:
        if not within(LONGEST, lambda: locked(lock, fcntl.LOCK_EX), abort):
            raise Permanent(f"Another process has been starting or stopping the database in {folder} for too long.")
        yield


def opened(path: Path, mode: str = "ab") -> IO[bytes]:
    """For appending, unless told; closed to other users, who could lock what they can read."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, 0o600))


def locked(file: IO[bytes], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def within(seconds: float, done: Callable[[], bool], abort: Flag | None = None) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        heed(abort)
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def heed(abort: Flag | None) -> None:
    """The flag is looked at, never waited on: it may be two flags in one."""
    if abort is not None and abort.is_set():
        raise Permanent("Nobody wants the PostgreSQL any more that was to be started.")
