"""What people read in their terminal, and what scripts read: JSON lines, one for each event."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bot.cli.kept import keep
from bot.core.approval import SHORTEST_DIGEST
from bot.core.story import KINDS, Event
from bot.engine.words import event_line, fixes_lines

Line = dict[str, Any]

FINE: Final = 0
NOT_ALLOWED: Final = 6
_STYLES: Final = {
    "HEALTHY": "bold green",
    "FIXED": "bold green",
    "DONE": "bold green",
    "PARTLY_FIXED": "bold yellow",
    "EXPIRED": "bold yellow",
    "DECLINED": "bold yellow",
    "CANCELLED": "bold yellow",
}
TROUBLE: Final = "bold red"
MOST_BELOW: Final = 20  # lines of an answer that are printed while a run is followed
MINUTES, SECONDS = "%Y-%m-%d %H:%M UTC", "%Y-%m-%d %H:%M:%S UTC"
_MENTION: Final = re.compile(r"<(?:@|!subteam\^)([A-Z0-9]+)>")


class Screen:
    """Prints the lines of an answer as they come, and knows the exit status that they mean."""

    def __init__(self, as_json: bool = False, folders: Sequence[Path] = ()) -> None:
        self.as_json = as_json
        self.folders = folders  # where archives are kept, the first that can be written
        self.run = 0  # the one that is followed
        self._out = Console(highlight=False, markup=False, soft_wrap=True)
        self._errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def follow(self, lines: Iterable[Line]) -> int:
        """Print every line; returns the exit status of the last one that means something."""
        status = FINE
        for line in lines:
            self.run = line.get("run", self.run) if line["event"] in ("run", *KINDS) else self.run
            self._json(line) if self.as_json else self._show(_named(line))
            status = exit_status(line, status)
        return status

    def say(self, text: str, style: str = "") -> None:
        """A line; anywhere but on a terminal it is left as it is, tabs and all."""
        if self._out.is_terminal:
            self._out.print(Text(text, style))
        else:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def complain(self, text: str) -> None:
        if self._errors.is_terminal:
            self._errors.print(Text(text, TROUBLE))
        else:
            sys.stderr.write(f"{text}\n")

    def verdict(self, fine: bool, text: str) -> None:
        """What was looked at: good news are an answer, bad ones go where trouble goes."""
        if self.as_json:
            self._json({"ok": fine, "text": text})
        elif fine:
            self.say(text)
        else:
            self.complain(text)

    @contextmanager
    def busy(self, with_what: str) -> Iterator[None]:
        """Tells somebody at a terminal what goes on meanwhile."""
        if self.as_json or not self._errors.is_terminal:
            yield
            return
        with self._errors.status(Text(with_what)):
            yield

    def data(self, line: Line) -> None:
        """One object for a script, whatever was asked for."""
        self._json(line)

    def table(self, heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """A table on a terminal, tab-separated lines anywhere else."""
        if not self._out.is_terminal:
            for row in rows:
                self.say("\t".join(row))
            return
        table = Table(*heads, box=None, pad_edge=False, header_style="bold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self._out.print(table)

    def _json(self, line: Line) -> None:
        sys.stdout.write(json.dumps(line, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def _show(self, line: Line, at: str = "") -> None:
        """`at` is in front of what was long ago."""
        if line["event"] == "error":
            self.complain(line["text"])
        elif line["event"] == "answer":
            self._answer(line)
        elif line["event"] == "run":
            self.say(line["text"])
        elif line["event"] == "outcome":
            self.say(f"{at}{_told(line)}", _STYLES.get(line["outcome"], TROUBLE))
        else:
            first, *below = story(line)
            if not at and len(below) > MOST_BELOW and line["event"] == "note":  # evidence would push the plan away
                below = [f"    ({len(below)} lines: `opsbot show {line['run']}` prints them)"]
            for each in (f"{at}{first}", *below):
                self.say(each)
            if line.get("files"):
                self.say(f"    {keep(self.folders, line.get('run', 0), line['file'], line['files'])}")

    def _answer(self, line: Line) -> None:
        if line.get("runs"):
            people = line.get("people", {})
            rows = (
                (
                    str(run["run"]),
                    when(run["created"]),
                    run["order"],
                    people.get(run["by"], run["by"]),
                    run["outcome"] or run["state"],
                )
                for run in line["runs"]
            )
            self.table(("run", "when", "what", "asked by", "outcome"), rows)
        elif "story" in line:
            self.say(line["text"].partition("\n")[0])
            for event in line["story"]:
                self._show({"run": line["run"], **event}, f"{when(event['at'], SECONDS)}  ")
        else:
            self.say(line["text"])


def when(written: str, shape: str = MINUTES) -> str:
    """A time of a JSON line, as people read it."""
    return datetime.fromisoformat(written).astimezone(UTC).strftime(shape)


def exit_status(line: Line, before: int) -> int:
    """What this line says to a script; one that says nothing leaves it as it was."""
    if line["event"] in ("outcome", "error"):
        return int(line.get("exit", before))
    return NOT_ALLOWED if line["event"] == "answer" and line.get("can") is False else before


def story(line: Line) -> Iterator[str]:
    """An event as lines: its own, and below it what somebody needs in order to decide."""
    yield _told({**line, "unknown": []} if line["event"] == "look" else line)
    if below := _BELOW.get(line["event"]):
        yield from (f"    {part}" for each in below(line) if each for part in each.split("\n"))


def _named(line: Line) -> Line:
    """With names for ids, but for a plan: that is shown as it would run."""
    return line if line["event"] == "plan" else dict(_plain(line, line.get("people", {})))


def _plain(value: Any, people: Mapping[str, str]) -> Any:
    """The same with names where Slack's mark-up mentions people and groups: a terminal shows it as it is."""
    if isinstance(value, str):
        return _MENTION.sub(lambda found: f"@{people.get(found[1], found[1])}", value)
    if isinstance(value, dict):
        return {key: _plain(each, people) for key, each in value.items()}
    return [_plain(each, people) for each in value] if isinstance(value, list) else value


def _told(line: Line) -> str:
    if line["event"] not in KINDS:
        return str(line.get("text", line["event"]))
    event = Event(line.get("run", 0), line.get("seq", 0), line["event"], line, datetime.now(UTC))
    return str(_named({**line, "said": event_line(event)})["said"])


def _plan_whole(line: Line) -> Iterator[str]:
    """Exactly what would run: whoever approves from here has seen it."""
    yield from fixes_lines(line)
    asks = line["needs"] > 0  # none are needed, or a rule forbids it
    yield f"rule: {line['rule']}" + (f"; open until {when(line['expires'])}" if asks else "")
    if asks:
        words = f"opsbot approve {line['run']} {line['digest'][:SHORTEST_DIGEST]}"
        yield f"another person decides, in Slack or with `{words}`"


_BELOW: Final[dict[str, Callable[[Line], Iterable[str]]]] = {
    "look": lambda line: (f"not known: {each}" for each in line["unknown"]),
    "plan": _plan_whole,
    "finding": lambda line: (line["evidence"], line["person"], line["link"]),
    "note": lambda line: line.get("content", "").splitlines(),
}
