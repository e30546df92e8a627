"""What the nursery can fork. Importing this module imports all of opsbot, which is the point of it."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import bot.adapters.embedded
import bot.cli  # noqa: F401
from bot import wiring
from bot.settings import load

Json = Mapping[str, Any]


def serve(asked: Json) -> None:
    """`opsbot serve --config FILE --simulator URL`, unchanged."""
    os.environ.update(asked["environment"])
    raise SystemExit(wiring.serve(load(Path(asked["config"]), os.environ), asked.get("simulator")))


PROGRAMS: dict[str, Callable[[Json], None]] = {"serve": serve}
