"""The shell text that goes over SSH: many questions in one script, and the answers told apart again.

Pure text, shared by the SSH adapter and the simulated machines. Every answer ends with a marker on both streams that
holds a nonce, so that no program's output can pass for the end of its own answer.
"""

import re
from collections.abc import Sequence

from bot.core.command import Command
from bot.core.question import Output

KILL_AFTER = 2  # seconds between TERM and KILL for a program past its time


def questions_script(commands: Sequence[Command], nonce: str, seconds: int) -> str:
    """One script that runs each command in turn, each program bounded by `timeout`, a marker after each on both
    streams.
    """
    bound = f"timeout -k {KILL_AFTER} {seconds}"
    mark = f"m() {{ printf '\\n%s %s\\n' {nonce} \"$1\"; printf '\\n%s %s\\n' {nonce} \"$1\" >&2; }}"
    asks = (f"{command.text(bound=bound)} </dev/null; m $?" for command in commands)
    return "\n".join((mark, *asks))


def read_answers(out: str, err: str, nonce: str, asked: int, truncated: bool = False) -> list[Output | None]:
    """An output for each command asked, None for those whose marker never came (the connection or machine went
    away).
    """
    outs, errs = _split(out, nonce), _split(err, nonce)
    both = [
        Output(_exit(status), text, errs[no][0] if no < len(errs) else "", truncated)
        for no, (text, status) in enumerate(outs[:asked])
    ]
    return [*both, *[None] * (asked - len(both))]


def _split(stream: str, nonce: str) -> list[tuple[str, int]]:
    found = re.findall(rf"(.*?)\n{re.escape(nonce)} (\d+)\n", stream, re.S)
    return [(text, int(status)) for text, status in found]


def _exit(status: int) -> int | None:
    """124 and 137 are `timeout` ending the program: it did not say anything itself."""
    return None if status in (124, 137) else status
