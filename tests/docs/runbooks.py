"""The runbooks, written from the handlers and their cases: `python -m tests.docs.runbooks [--write]`.

What is asked, found, offered and left to a person is what the cases showed when they ran just now, so that no line
says more than a handler does.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from bot.core.finding import Finding
from bot.core.fix import Fix
from bot.core.handler import Diagnosis
from bot.engine.discovery import discover
from bot.engine.rounds import PERSON, Report, own_causes
from tests.engine.machines import Machines, table
from tests.handlers.test_cases import CASES, look

PAGE: Final = Path(__file__).parents[2] / "docs" / "runbooks.md"
FIRST: Final = "builds not starting"
MOST_ASKED: Final = 12
HEAD: Final = """\
# Runbooks

Written by `make runbooks` from the handlers and their cases; a test keeps it current. Do not edit.

Each situation is one command. Everything it lists is looked at at once, in at most three rounds of questions; what is
wrong is ranked worst first, a consequence stands under its cause, and nothing is said about what could not be seen.
The vendor's manual says to try its remedies one after the other, and begins with a reboot; here evidence comes first,
then the gentlest fix that helps, each after another person's approval and proven by the same diagnosis. Names and
addresses below are those of the cases.
"""


@dataclass
class Shown:
    """What the cases of one diagnosis showed."""

    asked: dict[str, None] = field(default_factory=dict)
    found: dict[str, Finding] = field(default_factory=dict)
    fixes: dict[str, dict[str, Fix]] = field(default_factory=dict)
    healthy: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def add(self, case: dict[str, Any], asked: Sequence[str], findings: Sequence[Finding], report: Report) -> None:
        self.asked.update(dict.fromkeys(asked))
        for finding in findings:
            self.found.setdefault(finding.cause, finding)
            self.fixes.setdefault(finding.cause, {}).update({fix.title: fix for fix in finding.fixes})
        if not findings and not report.findings:
            (self.unknown if report.unknown else self.healthy).append(_line(case["what"]))


def page() -> str:
    """The whole page."""
    catalogue, shown = discover(), played()
    groups = sorted(catalogue.situations().items(), key=lambda group: (group[0] != FIRST, group[0]))
    parts = [HEAD, *(_situation(name, diagnoses, shown) for name, diagnoses in groups), _any_look(), _by_name()]
    return "\n".join(parts).rstrip() + "\n"


def played() -> dict[str, Shown]:
    """Every case, by the diagnosis that it is about; first those of an installation as the vendor makes it."""
    shown: dict[str, Shown] = {}
    for case in sorted((yaml.safe_load(path.read_text()) for path in CASES), key=_is_special):
        names = [case["diagnosis"]] if isinstance(case["diagnosis"], str) else case["diagnosis"]
        machines = Machines(table(case["answers"]))
        report = look(case, machines)
        asked = [question for _, question in machines.asked]
        for name in names:
            found = [each.finding for each in report.findings if each.by == name and not each.under]
            shown.setdefault(name, Shown()).add(case, asked if len(names) == 1 else (), found, report)
    return shown


def _is_special(case: dict[str, Any]) -> bool:
    """What is shown as an example is of a usual installation, where there is one."""
    elsewhere = any(option.endswith(".via") for option in case.get("options", ()))
    return elsewhere or bool({"version", "platforms"} & case.keys())


def _situation(name: str, diagnoses: Sequence[Diagnosis], shown: dict[str, Shown]) -> str:
    ordered = sorted(diagnoses, key=lambda each: (len(each.unless), each.name))
    checks = "\n".join(f"{no}. {each.says} ({_role(each)})" for no, each in enumerate(ordered, 1))
    parts = [f"## {name}", f"`/travis diagnose {name}`", f"What is looked at, what explains others first:\n\n{checks}"]
    return "\n\n".join([*parts, *(_diagnosis(each, shown.get(each.name, Shown())) for each in ordered)]) + "\n"


def _diagnosis(each: Diagnosis, shown: Shown) -> str:
    return "\n\n".join(
        filter(
            None,
            (
                f"### {each.name}",
                _about(each),
                _causes(shown),
                _persons(shown),
                _listed("Healthy, though it may look odd", shown.healthy),
                _listed("Said to be not known", shown.unknown),
                _questions(shown),
            ),
        )
    )


def _about(each: Diagnosis) -> str:
    module = sys.modules[each.look.__module__].__doc__ or ""
    said = [_line(module.strip().split("\n\n")[0])]
    said += [f"Explained away by {_and(each.unless)}."] if each.unless else []
    said += [f"[The vendor's page]({each.runbook})."] if each.runbook else []
    return " ".join(said)


def _causes(shown: Shown) -> str:
    if not shown.found:
        return ""
    rows = [
        f"| `{cause}` | {finding.severity.name} | {_cell(finding.title)} | {_fixes(shown.fixes[cause])} |"
        for cause, finding in sorted(shown.found.items())
    ]
    return "\n".join(("| cause | severity | for example | fixes, gentlest first |", "|---|---|---|---|", *rows))


def _fixes(fixes: dict[str, Fix]) -> str:
    return "; ".join(f"{_cell(fix.title)} ({fix.risk.value})" for fix in fixes.values()) or "for a person"


def _persons(shown: Shown) -> str:
    told = [f"- `{cause}`: {_line(found.person)}" for cause, found in sorted(shown.found.items()) if found.person]
    return "\n".join(("What a person must do:\n", *told)) if told else ""


def _listed(title: str, whats: Sequence[str]) -> str:
    return "\n".join((f"{title}:\n", *(f"- {what}" for what in whats))) if whats else ""


def _questions(shown: Shown) -> str:
    asked = sorted(shown.asked, key=list(shown.asked).index)[:MOST_ASKED]
    more = f"\n… and {len(shown.asked) - len(asked)} more" if len(shown.asked) > len(asked) else ""
    return "What is asked:\n\n```\n" + "\n".join(_short(each) for each in asked) + f"{more}\n```" if asked else ""


def _any_look() -> str:
    """What keeps opsbot from looking, whatever it looks for."""
    rows = [f"| `{cause}` | {PERSON[cause.partition('.')[2]]} |" for cause in sorted(own_causes())]
    head = (
        "## Whatever is looked at",
        "",
        "Being unable to look at a machine is a finding, and hides nothing else.",
        "",
    )
    return "\n".join((*head, "| cause | what a person must do |", "|---|---|", *rows, ""))


def _by_name() -> str:
    catalogue = discover()
    actions = [
        f"| `{each.name}` | {each.says} | {each.each.value} | {each.risk.value} |"
        for each in _sorted(catalogue.actions)
    ]
    jobs = [f"| `{each.name}` | {each.says} |" for each in _sorted(catalogue.jobs)]
    by_name = ["## By name", "| action | what it does | on a | risk |", "|---|---|---|---|", *actions]
    return "\n".join([*by_name, "", "| job | what it does |", "|---|---|", *jobs])


def _sorted(handlers: dict[str, Any]) -> Iterator[Any]:
    return (handlers[name] for name in sorted(handlers))


def _role(each: Diagnosis) -> str:
    return "the installation" if each.once else f"each {each.each.value}"


def _and(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _line(text: object) -> str:
    return " ".join(str(text).split())


def _cell(text: str) -> str:
    return _line(text).replace("|", "\\|")


def _short(question: str) -> str:
    line = _line(question)
    return line if len(line) <= 160 else f"{line[:157]}…"


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        sys.stdout.write(page())
