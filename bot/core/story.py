"""The story of a run: events in order. Slack, the command line and the audit tell the same one.

Every text in an event's data is Shown. Kinds and their data:

- `look`: `no` (1 is the first look), `asked` (machines), `checked` (what each diagnosis asks), `unknown` (what could
  not be told, as sentences)
- `finding`: `look` (its number), `target`, `cause`, `severity` (name), `title`, `evidence`, `fixes` (titles), `under`
  (the cause that explains it, or empty), `person`, `link`
- `plan`: `no`, `digest`, `risk`, `rule`, `needs`, `expires` (ISO time), `fixes`: each with `title`, `target`, `risk`,
  `steps` (texts), `undo`, `machine` (address and host key), `saves` (what is kept first), `ensure` (steps)
- `decision`: `approval` (id), `verdict`, `by` (user id), `via`, `reason`
- `waiting`: `for`, `until` (ISO time)
- `change`: `fix`, `target`, `does`, `command`, `result` (`sent`, `done`, `failed`, `not needed`, `not sent`,
  `in doubt`), `said`
- `step`: `fix`, `target`, `does`, `result` (`waiting`, `done`, `failed`)
- `verified`: `target`, `fix`, `healed`
- `note`: `text`; with `file` (name) and `content` it is a document, with `file` and `files` (path to text) an archive
- `outcome`: `outcome` (name), `text`, `exit`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

KINDS = (
    "look", "finding", "plan", "decision", "waiting", "change", "step", "verified", "note", "outcome",
)  # fmt: skip


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run. `no` counts from 1 within the run."""

    run: int
    no: int
    kind: str
    data: Mapping[str, Any]
    at: datetime


# ---------------------------------------------------------------- reading data, which another version may have written


def text(value: Any) -> str:
    return "" if value is None else str(value)


def texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (value,)
    return tuple(text(each) for each in value) if isinstance(value, Sequence) else ()


def fixes(plan: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = plan.get("fixes")
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, Sequence) else []


def moment(value: Any) -> datetime | None:
    """A time as events carry it (ISO 8601 with its zone), or None."""
    if isinstance(value, datetime):
        return value
    try:
        found = datetime.fromisoformat(text(value))
    except ValueError:
        return None
    return found if found.tzinfo else None
