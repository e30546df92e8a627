"""The SQL files beside this module: `-- name: add_run` begins a statement; each file is read once."""

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).with_name("sql")
_NAME = re.compile(r"^-- name: (\w+)$", re.M)


class Queries:
    """The statements of one file: `Queries("runs")["add"]`; bytes, because psycopg trusts text in the source only."""

    def __init__(self, file: str) -> None:
        self._statements = _read(file)

    def __getitem__(self, name: str) -> bytes:
        return self._statements[name]


@cache
def _read(file: str) -> dict[str, bytes]:
    _, *parts = _NAME.split((_FOLDER / f"{file}.sql").read_text())
    return {name: text.strip().encode() for name, text in zip(parts[::2], parts[1::2], strict=True)}
