"""Chaos: `python -m tests.chaos [--short] [--write] [--without RULE] [SCENARIO …]`; exits 1 when a gate was missed."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tests.bench.gates import Figure, missed, note, say, table, write
from tests.chaos import broken, clicks, cuts, stale, storm, twins
from tests.chaos.world import Terms, World, world

BREAKS = ("intent", "needed", "lock", "fence", "letter", "commit")
REST = 4.5  # seconds after which a restarted worker counts as running: two minutes on the machines
TITLES = {
    "storm": "Storm: a process that carries a run is killed each second",
    "clicks": "A thousand clicks on one approval",
    "cuts": "One run, killed before each of its journal writes",
    "stale": "A process that sleeps over its lease, between intent and sending",
    "twins": "Two runs for one machine",
    "broken": "With a rule taken out, the same counts go red",
}


def scenarios(short: bool) -> dict[str, Callable[[World], list[Figure]]]:
    size = storm.Size(40, restarts=1, calm=8, within=180) if short else storm.Size()
    lanes, times = (4, 1) if short else (8, 3)
    return {
        "storm": lambda made: storm.run(made, size, REST),
        "clicks": clicks.run,
        "cuts": lambda made: cuts.run(made, made.workers[:lanes], REST),
        "stale": lambda made: stale.run(made, made.workers[:lanes], times, REST),
        "twins": lambda made: twins.run(made, made.workers[:lanes]),
        "broken": lambda made: broken.run(made, made.workers[:lanes], REST),
    }


def main() -> int:
    given = _arguments()
    began, tables, misses = time.monotonic(), list[str](), 0
    wanted = scenarios(given.short)
    with world(Terms(12 if given.short else 24, breaks=tuple(given.without))) as made:
        for name in given.scenario or TITLES:
            note(f"{TITLES[name]} …")
            time.sleep(REST)
            figures = wanted[name](made)
            tables.append(table(TITLES[name], figures))
            say(f"\n{tables[-1]}\n")
            misses += missed(figures)
    took = time.monotonic() - began
    said = f"{took:.0f} s in all; {'every gate held' if not misses else f'{misses} gates MISSED'}."
    say(said)
    if given.write:
        write(_section(given), "\n\n".join([_heading(given, said), *tables]))
    return 1 if misses else 0


def _section(given: argparse.Namespace) -> str:
    return " ".join(["chaos", *(f"without {rule}" for rule in given.without)])


def _heading(given: argparse.Namespace, said: str) -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    where = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, Python {sys.version.split()[0]}, PostgreSQL 18"
    title = f"Without: {', '.join(given.without)}" if given.without else "Chaos"
    how = " ".join(["python -m tests.chaos", *sys.argv[1:]]).replace(" --write", "")
    return f"## {title}\n\n`{how}`, {where}, load average at the end {load}. {said}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("scenario", nargs="*", choices=[*TITLES, []], help="which; all of them without")
    parser.add_argument("--short", action="store_true", help="a fifth of it, for every day")
    parser.add_argument("--without", action="append", default=[], choices=BREAKS, help="take a rule out: it goes red")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/measurements.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
