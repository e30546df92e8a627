"""Every handler against recorded answers: one YAML file per case in `cases/`, which needs no Python to add.

A case names the diagnosis, the machines with what they answer (the question as it is shown, and the text or the rows
that came back), and what has to be found. A question that the case does not answer fails it, so a case also says what
is not asked. `earlier` are the samples that were kept some minutes before; without them nobody has looked so early.
"""

from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
import yaml

from bot.core.question import Answer, Question
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser, Report
from tests.engine.machines import Machines, diagnoses, table

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
MOST_ROUNDS = 3  # how deep a diagnosis may ask, so that a look at a hundred machines stays quick


class Counting(Machines):
    """Counts how often each machine was turned to."""

    def ask(self, target: Target, questions: Any, abort: Event) -> Any:
        self.turns = {**getattr(self, "turns", {}), target.name: getattr(self, "turns", {}).get(target.name, 0) + 1}
        return super().ask(target, questions, abort)


def installation(case: dict[str, Any]) -> Site:
    workers = {name: str(address) for name, address in case.get("workers", {"worker-1": "10.0.0.11"}).items()}
    machines = [Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")]
    machines += [Target(name, Role.WORKER, "prod", address) for name, address in workers.items()]
    options = tuple((str(key), str(value)) for key, value in case.get("options", {}).items())
    return Site("prod", "travis.example.com", str(case.get("version", "2.2")), tuple(machines), options)


def look(case: dict[str, Any], machines: Machines) -> Report:
    site = installation(case)
    machines.away = set(case.get("away", ()))
    samples = Machines(table(case.get("earlier", {})))

    def earlier(target: Target, question: Question, span: timedelta) -> Answer | None:
        known = str(question) in samples.answers.get(target.name, {})
        return cast(Answer, samples.ask(target, [question], Event())[0]) if known else None

    diagnoser = Diagnoser(site, machines, earlier)
    return diagnoser.look(diagnoses(case), site, Event())


def seen(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "cause": found.finding.cause,
            "on": found.finding.target.name,
            "severity": found.finding.severity.name,
            "fixes": [fix.title for fix in found.finding.fixes],
        }
        for found in report.findings
    ]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    machines = Counting(table(case["answers"]))
    report = look(case, machines)
    assert seen(report) == case.get("finds", [])
    for words in case.get("unknown", []):
        assert any(words in sentence for sentence in report.unknown), report.unknown
    assert bool(report.unknown) == bool(case.get("unknown")), report.unknown
    assert max(machines.turns.values()) <= MOST_ROUNDS + case.get("more_rounds", 0)
