"""How a drill is told: a row for each piece, what was done, how long it took, and whether it passed."""

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from bot.cli.screen import FINE, TROUBLE, Screen
from bot.core.backup import Stored
from bot.core.drill import Drilled
from bot.core.fix import readable
from bot.engine.drills import Task
from bot.engine.words import size

if TYPE_CHECKING:
    from bot.drilling import Drill

HEADS: Final = ("piece", "result", "took", "what was done")
FAILED: Final = 1


def play(drill: "Drill", screen: Screen) -> int:
    """Restore every piece; returns the exit status."""
    if not screen.as_json:
        screen.say(drill.title, "bold")
    if drill.note and not screen.as_json:
        screen.complain(drill.note)
    results: list[Drilled] = []
    try:
        results.extend(_drilled(drill, task, screen) for task in drill.tasks)
    finally:  # those that came before one that could not be tried, too
        if not screen.as_json:
            screen.table(HEADS, map(_row, results))
    passed = bool(results) and all(result.passed for result in results)
    if screen.as_json:
        screen.data({"event": "drilled", "backup": drill.number or None, "passed": passed, "note": drill.note})
    else:
        screen.say(_conclusion(results, passed), "bold green" if passed else TROUBLE)
    return FINE if passed else FAILED


def _drilled(drill: "Drill", task: Task, screen: Screen) -> Drilled:
    there = f", {size(task.stored.stored_bytes)}" if isinstance(task.stored, Stored) else ""
    with screen.busy(f"{task.name}{there}"):
        result = drill.results(task)
    if screen.as_json:
        screen.data(_line(drill, result))
    return result


def _line(drill: "Drill", result: Drilled) -> dict[str, Any]:
    told = {"kind": result.kind, "name": result.name, "passed": result.passed, "said": result.said}
    return {"event": "drill", "backup": drill.number or None, **told, "seconds": round(result.seconds, 3)}


def _row(result: Drilled) -> tuple[str, ...]:
    took = timedelta(seconds=result.seconds)
    return (result.name, "passed" if result.passed else "FAILED", readable(took), result.said)


def _conclusion(results: list[Drilled], passed: bool) -> str:
    if passed:
        all_of_it = f"All {len(results)} pieces were" if len(results) > 1 else f"The only piece, {results[0].name}, was"
        return f"{all_of_it} restored from the store. Nothing of it is left here."
    failed = [result.name for result in results if not result.passed]
    return f"{len(failed)} of {len(results)} FAILED: {', '.join(failed)}. Take a new backup now, and look at the store."
