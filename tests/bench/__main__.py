"""Speed: `python -m tests.bench [--write] [NAME …]`. Exit status 1 when a gate was missed."""

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

from tests.bench import claiming, decision, diagnosing, fanout, intake, waiting
from tests.bench.gates import Figure, missed, note, say, table, write
from tests.chaos.world import Terms, World, world


def in_world(measure: Callable[[World], list[Figure]]) -> Callable[[], list[Figure]]:
    """A world of its own for each: what one leaves behind would slow the next."""

    def measured() -> list[Figure]:
        with world(Terms(workers=24)) as made:
            return measure(made)

    return measured


MEASURES: dict[str, tuple[str, Callable[[], list[Figure]]]] = {
    "claiming": ("Claiming with 300,000 runs that ended", claiming.measure),
    "diagnosing": ("Diagnosing a healthy fleet, beside one script on each machine", diagnosing.measure),
    "fanout": ("Asking 100 machines, beside OpenSSH's client", fanout.measure),
    "decision": ("From an approval to the machine", in_world(decision.measure)),
    "intake": ("Taking in 100 commands a second", in_world(intake.measure)),
    "waiting": ("500 runs that wait for an approval", in_world(waiting.measure)),
}


def main() -> int:
    given = _arguments()
    misses = 0
    for name in given.name or MEASURES:
        title, measure = MEASURES[name]
        note(f"{title} …")
        figures = measure()
        said = table(title, figures)
        say(f"\n{said}\n")
        misses += missed(figures)
        if given.write:
            write(f"bench {name}", f"{said}\n\n{_circumstances()}")
    say("Every gate held." if not misses else f"{misses} gates MISSED.")
    return 1 if misses else 0


def _circumstances() -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    where = f"{datetime.now(UTC):%d %B %Y}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    return f"`make bench`, {where}; load average {load}."


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[*MEASURES, []], help="which; all of them without")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/measurements.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
