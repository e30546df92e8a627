"""Run the local Slack as a process: `python -m bot.sandbox.slack`. Prints one JSON line with its addresses."""

import argparse
import json
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.sandbox.slack.limits import Limits
from bot.sandbox.slack.server import LocalSlack, PortInUse
from bot.sandbox.slack.workspace import Workspace, example


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    limits = Limits(rate_limited=not given.no_rate_limits)
    slack = LocalSlack(_workspace(given), given.host, given.port, given.clock_factor, limits, given.hint)
    try:
        slack.start()
    except PortInUse as error:
        sys.stderr.write(f"{error}\n")
        return 2
    addresses = {"api_url": slack.api_url, "page_url": slack.page_url} | slack.address
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    ended = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: ended.set())
    ended.wait()
    slack.stop()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bot.sandbox.slack", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--clock-factor", type=float, default=1.0)
    parser.add_argument("--no-rate-limits", action="store_true")
    parser.add_argument("--workspace", type=Path, help="JSON of a Workspace")
    parser.add_argument("--manifest", type=Path, help="JSON of the app's manifest")
    parser.add_argument("--hint", action="append", default=[])
    return parser


def _workspace(given: argparse.Namespace) -> Workspace:
    known = Workspace.from_dict(_json(given.workspace)) if given.workspace else example()
    return replace(known, manifest=_json(given.manifest)) if given.manifest else known


def _json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


if __name__ == "__main__":
    sys.exit(main())
