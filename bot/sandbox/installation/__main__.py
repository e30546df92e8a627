"""The simulated installation as a process of its own.

It prints one JSON line when it is ready, answers JSON lines on standard input with one JSON line each, and ends when
that is closed: `{"do": "inject", "what": "worker-2 lost RabbitMQ"}`, `{"do": "state"}`, `{"do": "push", "count": 3}`,
`{"do": "stop"}`.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bot.sandbox.installation.faults import FAULTS, NoSuchFault
from bot.sandbox.installation.running import Running, start

Json = Mapping[str, Any]


def main() -> None:
    arguments = _arguments()
    running = start(arguments.folder, arguments.speed, arguments.name, dsn=arguments.database)
    try:
        for text in arguments.fault:
            running.inject(text)
        _say(_ready(running))
        _serve(running)
    except NoSuchFault as unknown:
        sys.exit(str(unknown))
    except KeyboardInterrupt:
        pass
    finally:
        running.stop()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bot.sandbox.installation", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--folder", type=Path, required=True, help="where keys, pins and the log of commands go")
    parser.add_argument("--fault", action="append", default=[], help="what is broken at the start; may be repeated")
    parser.add_argument("--speed", type=float, default=20.0, help="seconds on the machines for each second outside")
    parser.add_argument("--name", default="try", help="what the installation is called in the configuration")
    parser.add_argument("--database", metavar="DSN", help="a PostgreSQL database to empty and use as the platform's")
    return parser.parse_args()


def _ready(running: Running) -> Json:
    return {
        "ready": True,
        "installation": running.configuration(),
        "addresses": running.addresses(),
        "known_hosts": str(running.known_hosts),
        "key_file": str(running.key_file),
        "log": str(running.received.path),
        "faults": {fault.name: fault.says for fault in FAULTS.values()},
    }


def _serve(running: Running) -> None:
    for line in sys.stdin:
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise ValueError("an order is an object with `do`")
            if asked.get("do") == "stop":
                return
            _say(_DO[asked["do"]](running, asked))
        except (NoSuchFault, ValueError) as error:
            _say({"error": str(error)})
        except KeyError as error:
            _say({"error": f"{error} is missing or unknown; do is one of {', '.join((*_DO, 'stop'))}"})


def _inject(running: Running, asked: Json) -> Json:
    fault = running.inject(asked["what"])
    return {"fault": fault.name, "says": fault.says}


def _push(running: Running, asked: Json) -> Json:
    with running.installation.timeline.held():
        jobs = running.installation.push(int(asked.get("count", 1)), seconds=float(asked.get("seconds", 120)))
    return {"jobs": [job.number for job in jobs]}


_DO: dict[str, Callable[[Running, Json], Json]] = {
    "inject": _inject,
    "push": _push,
    "state": lambda running, _asked: running.state(),
}


def _say(line: Json) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
