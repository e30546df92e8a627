"""Signals that end a verb which leaves nothing behind."""

import signal
from types import FrameType
from typing import Final, NoReturn

ENDS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def end_cleanly() -> None:
    """Let a closed terminal and `kill` end this process like Ctrl-C: by KeyboardInterrupt, so that every context cleans
    up. What comes after the first is ignored, since a shell that closes sends two. Whoever started us with nohup meant
    it: a signal that is ignored already stays so.
    """
    for number in ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    for number in ENDS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
