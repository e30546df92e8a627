"""The tour as a newcomer plays it: a process of its own, one incident, and how long until the first word."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bot
from bot.tryout import OWN, QUESTION

FIRST_WORD_WITHIN = 30.0  # seconds; 10 on a machine that does nothing else
WHOLE_WITHIN = 240.0


def played() -> Iterator[tuple[float, str]]:
    """Each line of the tour with the moment when it came; the last is its exit status."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
    environment["PYTHONPATH"] = str(Path(bot.__file__).parents[1])
    words = [sys.executable, "-m", "bot.cli", "try", "--tour"]
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        over = threading.Timer(WHOLE_WITHIN, process.terminate)
        over.start()
        yield from ((time.monotonic(), line.rstrip("\n")) for line in process.stdout)
        over.cancel()
        yield time.monotonic(), str(process.wait(30))


@pytest.mark.timeout(300)
def test_the_tour_ends_fixed_and_its_first_word_comes_soon() -> None:
    lines = list(played())
    said = "\n".join(line for _, line in lines)
    asked = next(at for at, line in lines if line == f"ana: /travis {QUESTION}")
    first = next(at for at, line in lines if line.startswith("| opsbot:"))
    print(f"the first word came {first - asked:.1f} s after the order, the end {lines[-1][0] - asked:.1f} s after it")
    assert lines[-1][1] == "0", said
    assert "The run ended FIXED, approved by 1 who did not ask." in said
    assert "is not simulated" not in said
    assert first - asked < FIRST_WORD_WITHIN, said
