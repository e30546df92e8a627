"""`python -m tests.accuracy [--pairs N] [--seed N] [--only WORDS] [--broker WAY] [--mistake] [--write]`: a table, and
the gates.

Every fault alone on a worker of each generation, what can be wrong with opsbot's own records, every state that only
looks wrong, and pairs of faults drawn by a seed. Exit 1 when a gate is missed.
"""

import argparse
import multiprocessing
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Final

from tests.accuracy.mistake import the_last_consumer_is_overlooked
from tests.accuracy.scenario import EVERY, PLATFORM, SHAPES, Injected, Outcome, Verdict, can_be, play, singles
from tests.bench.gates import Figure, at_least, exactly, info, missed, say, table, write
from tests.installation.practice import Practice
from tests.rigs import postgres

WORKERS: Final = ("worker-1", "worker-2", "worker-3", "worker-4")
PROCESSES: Final = 2
RIGHT: Final = 98.0  # percent
PAIRS, ODD = 100, 15  # at least so many have to be played

Scenario = tuple[Injected, ...]
Played = list[tuple[Scenario, Outcome]]


def main() -> int:
    arguments = _arguments()
    drawn = list(pairs(arguments.pairs, arguments.seed))
    scenarios = [each for each in (*singles(WORKERS), *drawn) if arguments.only in _said(each)]
    began = time.monotonic()
    with the_last_consumer_is_overlooked() if arguments.mistake else nullcontext():
        played = list(_all(scenarios, arguments.broker))
    figures = [*(extent(played) if not arguments.only else ()), *judged(played)]
    ending = "every gate held" if not missed(figures) else f"{missed(figures)} gates missed"
    said = f"{len(played)} scenarios in {time.monotonic() - began:.0f} s; {ending}."
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    where = f"{datetime.now(UTC):%d %B %Y}, load average at the end {load}"
    heading = f"## Naming the right cause\n\n`{_command()}`, {where}. {said}"
    text = "\n\n".join((heading, table("Gates", figures), f"### By cause\n\n{confusion(played)}"))
    say(text)
    for line in ("", *complaints(played)):
        sys.stdout.write(f"{line}\n")
    if arguments.write:
        write("accuracy", text)
    return missed(figures)


def _command() -> str:
    return " ".join(["python -m tests.accuracy", *sys.argv[1:]]).replace(" --write", "")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.accuracy", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pairs", type=int, default=120, help="pairs of faults that are drawn")
    parser.add_argument("--seed", type=int, default=1, help="of the draw")
    parser.add_argument("--only", default="", help="scenarios with these words alone")
    parser.add_argument("--broker", default="container", choices=("container", "http"), help="how RabbitMQ is asked")
    parser.add_argument("--mistake", action="store_true", help="with a parser that overlooks RabbitMQ's last consumer")
    parser.add_argument("--write", action="store_true", help="put the table into docs/measurements.md")
    return parser.parse_args()


def pairs(count: int, seed: int) -> Iterator[Scenario]:
    """Two different causes, each on a machine of its role, that can be there together."""
    rng = random.Random(seed)
    broken = [fault for fault in EVERY.values() if fault.cause]
    while count:
        faults = rng.sample(broken, 2)
        pair = tuple(Injected(rng.choice(_machines(fault.role.value)), fault) for fault in faults)
        if pair[0].expected != pair[1].expected and all(each.expected for each in pair) and can_be(pair):
            yield pair
            count -= 1


def _machines(role: str) -> Sequence[str]:
    return WORKERS if role == "worker" else (PLATFORM,)


def _all(scenarios: Sequence[Scenario], broker: str) -> Iterator[tuple[Scenario, Outcome]]:
    names = [[str(each) for each in scenario] for scenario in scenarios]
    with _databases() as dsns, ProcessPoolExecutor(PROCESSES) as processes:
        outcomes = processes.map(_one, names, [dsns] * len(names), [broker] * len(names))
        for scenario, outcome in zip(scenarios, outcomes, strict=True):
            sys.stderr.write("." if not outcome.unhealed and not outcome.alarms else "x")
            sys.stderr.flush()
            yield scenario, outcome
    sys.stderr.write("\n")


@contextmanager
def _databases() -> Iterator[tuple[str, ...]]:
    """One for each process."""
    with ExitStack() as stack:
        server = stack.enter_context(postgres.server("18"))
        yield tuple(stack.enter_context(server.database()) for _ in range(PROCESSES))


def _one(names: Sequence[str], dsns: Sequence[str], broker: str) -> Outcome:
    number = int(multiprocessing.current_process().name.rpartition("-")[2])  # they are counted from one
    injected = [Injected(name.split(" ", 1)[0], EVERY[name.split(" ", 1)[1].lower()]) for name in names]
    return play(Practice(dsns[(number - 1) % PROCESSES], SHAPES, broker), injected)


def extent(played: Played) -> list[Figure]:
    """How much was played, which a part chosen by its words need not be."""
    every = [each for scenario, _ in played for each in scenario]
    faults = sum(len(outcome.verdicts) for _, outcome in played)
    return [
        at_least("kinds of faults", len({each.fault.name for each in every if each.expected}), len(_kinds())),
        at_least("... faults injected, alone and in pairs", faults, len(_kinds())),
        at_least("... pairs", sum(len(scenario) == 2 for scenario, _ in played), PAIRS),
        at_least("kinds of healthy states that look wrong", len({e.fault.name for e in every if not e.expected}), ODD),
        exactly(
            "generations of workers, a snap among them", len({e.machine for e in every if e.on_worker}), len(WORKERS)
        ),
    ]


def judged(played: Played) -> list[Figure]:
    verdicts = Counter(verdict for _, outcome in played for verdict in outcome.verdicts.values())
    faults = sum(verdicts.values())
    right = sum(count for verdict, count in verdicts.items() if verdict.right)
    return [
        at_least("right cause", 100 * right / max(1, faults), RIGHT, " %"),
        *(info(f"... {verdict.value}", verdicts[verdict]) for verdict in Verdict),
        exactly("false alarms", sum(len(outcome.alarms) for _, outcome in played), 0),
        info("automatic fixes carried out", sum(outcome.offered for _, outcome in played)),
        exactly("findings with an automatic fix that did not end healed", _count(played, "unhealed"), 0),
        exactly("changes that nobody had ordered", _count(played, "meddled"), 0),
        exactly("programs asked for that do not exist", _count(played, "strange"), 0),
    ]


def _kinds() -> list[str]:
    return [fault.name for fault in EVERY.values() if fault.cause]


def _count(played: Played, what: str) -> int:
    return sum(len(getattr(outcome, what)) for _, outcome in played)


def confusion(played: Played) -> str:
    """For each cause: how often it was there, what became of it, and what was said instead."""
    rows: dict[str, Counter[str]] = {}
    for scenario, outcome in played:
        for each in scenario:
            if str(each) in outcome.verdicts:
                verdict = outcome.verdicts[str(each)]
                said = f"missed, said: {outcome.instead[str(each)]}" if verdict is Verdict.MISSED else verdict.value
                rows.setdefault(each.expected, Counter())[said] += 1
    lines = [
        f"| `{cause}` | {sum(seen.values())} | {'; '.join(f'{count} {said}' for said, count in seen.most_common())} |"
        for cause, seen in sorted(rows.items())
    ]
    return "\n".join(("| cause | injected | what was said |", "|---|---|---|", *lines))


def complaints(played: Played) -> Iterator[str]:
    """What went wrong, scenario by scenario."""
    for scenario, outcome in played:
        for what in ("instead", "alarms", "unhealed", "meddled", "strange"):
            if found := getattr(outcome, what):
                yield f"{_said(scenario)}: {what}: {found}"


def _said(scenario: Scenario) -> str:
    return " + ".join(map(str, scenario))


if __name__ == "__main__":
    sys.exit(main())
