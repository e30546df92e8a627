"""A simulated installation with as many workers as are wanted, as a process: one JSON line there, one back."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bot.sandbox.installation import Running, Shape, start

PLATFORM = Shape("platform-1", "127.0.0.21", worker=False, release="16.04")
UPSTART_EACH = 4  # every fourth worker is an old one, whose changes no unit guards


def shapes(workers: int) -> tuple[Shape, ...]:
    made = [PLATFORM]
    for no in range(1, workers + 1):
        old = no % UPSTART_EACH == 0
        made.append(Shape(f"worker-{no}", f"127.0.1.{no}", systemd=not old, release="14.04" if old else "18.04"))
    return tuple(made)


def answer(running: Running, asked: dict[str, Any]) -> dict[str, Any]:
    if asked["do"] == "inject":
        return {"fault": running.inject(asked["what"]).name}
    return running.state()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=24)
    parser.add_argument("--speed", type=float, default=40.0)
    given = parser.parse_args()
    running = start(given.folder, given.speed, "chaos", shapes(given.workers))
    _say({"installation": running.configuration(), "log": str(running.received.path)})
    for line in sys.stdin:
        _say(answer(running, json.loads(line)))
    running.stop()


def _say(said: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
