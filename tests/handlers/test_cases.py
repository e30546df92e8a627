"""Every handler against recorded answers: one YAML file per case in `cases/`, which needs no Python to add.

A case names the diagnosis, the machines with what they answer (the question as it is shown, and the text or the rows
that came back), and what has to be found. A question that the case does not answer fails it, so a case also says what
is not asked. `earlier` are the samples that were kept some minutes before; without them nobody has looked so early.

A finding may also say which words must stand in its `title`, `evidence`, `person` or `link`, one or a list of them, as
they are shown: without secrets, and without what looks like one;
`under` is the cause that it is a consequence of, and then it has to be one. `never` are words that may stand in none
of them. `at` are the machines that are looked at, all of them without it.
"""

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
import yaml

from bot.core.fact import Fact
from bot.core.finding import Finding
from bot.core.fix import Change, Fix, Wait
from bot.core.question import Answer, Question
from bot.core.shown import Redactor
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser, Report
from tests.engine.machines import Machines, diagnoses, table

CASES = sorted((Path(__file__).parent / "cases").glob("*.yaml"))
WORDS = ("title", "evidence", "person", "link")  # of a finding; a case names what has to stand in them
OF_A_CASE = {
    "what", "why", "diagnosis", "answers", "earlier", "away", "at", "workers", "platforms", "options", "version",
    "finds", "unknown", "never",
}  # fmt: skip
OF_A_FINDING = {"cause", "on", "severity", "fixes", "under", *WORDS}
MOST_ROUNDS = 3  # how deep a diagnosis may ask, so that a look at a hundred machines stays quick


class Counting(Machines):
    """Counts how often each machine was turned to."""

    def ask(self, target: Target, questions: Any, abort: Event) -> Any:
        self.turns = {**getattr(self, "turns", {}), target.name: getattr(self, "turns", {}).get(target.name, 0) + 1}
        return super().ask(target, questions, abort)


def installation(case: dict[str, Any]) -> Site:
    workers = {name: str(address) for name, address in case.get("workers", {"worker-1": "10.0.0.11"}).items()}
    platforms = {name: str(address) for name, address in case.get("platforms", {"platform-1": "10.0.0.10"}).items()}
    machines = [Target(name, Role.PLATFORM, "prod", address) for name, address in platforms.items()]
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
    return diagnoser.look(diagnoses(case), looked_at(case, site), Event())


def looked_at(case: dict[str, Any], site: Site) -> list[Target]:
    return [target for target in site if target.name in case.get("at", [each.name for each in site])]


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


def said(finding: Finding) -> dict[str, str]:
    return {part: Redactor().show(getattr(finding, part)) for part in WORDS}


def facts(fix: Fix) -> Iterator[Fact[Any]]:
    """Everything that a fix will ask."""
    yield from fix.saves
    for step in (*fix.steps, *fix.ensure):
        if isinstance(step, Wait):
            yield step.fact
        elif isinstance(step, Change) and step.needed is not None:
            yield step.needed


def checked(case: dict[str, Any]) -> dict[str, Any]:
    """A word that is misspelled would check nothing, and the case would pass."""
    assert not (strange := case.keys() - OF_A_CASE), f"a case has no {strange}, only {sorted(OF_A_CASE)}"
    for each in case.get("finds", []):
        assert not (strange := each.keys() - OF_A_FINDING), f"a finding has no {strange}, only {sorted(OF_A_FINDING)}"
    return case


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    case = checked(yaml.safe_load(path.read_text()))
    machines = Counting(table(case["answers"]))
    report = look(case, machines)
    finds = case.get("finds", [])
    assert seen(report) == [{key: each[key] for key in each if key not in (*WORDS, "under")} for each in finds]
    for found, wanted in zip(report.findings, finds, strict=True):
        assert found.under == wanted.get("under", found.under)
        _says(found.finding, wanted, case.get("never", []))
        for fix in found.finding.fixes:
            _stays_with_its_machines(fix)
            _waits_for_places(fix)
    for words in case.get("unknown", []):
        assert any(words in sentence for sentence in report.unknown), report.unknown
    assert bool(report.unknown) == bool(case.get("unknown")), report.unknown
    assert max(machines.turns.values()) <= MOST_ROUNDS


@pytest.mark.parametrize(
    ("case", "said"), [({"nevr": ["full"]}, "a case has no {'nevr'}"), ({"finds": [{"evidnce": "x"}]}, "{'evidnce'}")]
)
def test_a_misspelled_word_of_a_case_is_named(case: dict[str, Any], said: str) -> None:
    with pytest.raises(AssertionError, match=re.escape(said)):
        checked(case)


def _says(finding: Finding, wanted: dict[str, Any], never: list[str]) -> None:
    for part, text in said(finding).items():
        words = wanted.get(part, [])
        for each in [words] if isinstance(words, str) else words:
            assert each in text, f"{part}: {text}"
        for each in never:
            assert each not in text, f"{part}: {text}"


def _waits_for_places(fix: Fix) -> None:
    """A worker that starts listens for cancelled builds first: that one consumer is no proof that it takes any."""
    for step in fix.steps:
        if isinstance(step, Wait) and step.fact.asks.startswith("number of consumers of"):
            assert not step.until.met_by(1), f"{fix}: {step}"


def _stays_with_its_machines(fix: Fix) -> None:
    """What a fix asks, it asks of machines that it names, and of its own where that has the role."""
    for fact in facts(fix):
        assert isinstance(fact.on, Target), f"{fix}: {fact} may be asked of any {fact.on.value}"
        assert fact.on == fix.target or fact.on.role is not fix.target.role, f"{fix}: {fact} is asked of {fact.on}"
