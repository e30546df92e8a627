"""Every cause that opsbot can name, read from the handlers' source: nothing has to run for it.

A cause that stands in no source, since a diagnosis works it out, is declared by the diagnosis.
"""

import ast
import inspect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bot.core.finding import Severity
from bot.core.handler import Diagnosis
from bot.engine.discovery import discover
from bot.engine.rounds import own_causes


@dataclass(frozen=True)
class Cause:
    """A stable id such as `worker.amqp-lost`, and the diagnosis that finds it; none where any look can."""

    id: str
    severity: str
    diagnosis: str
    situation: str


def causes(folders: Iterable[Path] = ()) -> list[Cause]:
    """The causes of our handlers and of those in the folders, in order; raises Permanent for an unsafe folder."""
    found = {cause for each in discover(folders).diagnoses.values() for cause in _of(each)}
    found |= {Cause(cause, Severity.BROKEN.name, "", "") for cause in own_causes()}
    return sorted(found, key=lambda cause: (cause.id, cause.diagnosis, cause.severity))


def _of(diagnosis: Diagnosis) -> Iterator[Cause]:
    for call in findings(diagnosis):
        names = (call.args[0].value,) if isinstance(call.args[0], ast.Constant) else diagnosis.causes
        told = tuple(_severities(call.args[1])) or tuple(_severities(ast.parse(_source(diagnosis))))
        for name, severity in itertools.product(names, told):
            yield Cause(str(name), severity, diagnosis.name, diagnosis.of)


def findings(diagnosis: Diagnosis) -> Iterator[ast.Call]:
    """Where the diagnosis' own file makes findings, but not those of another diagnosis in it."""
    for part in ast.parse(_source(diagnosis)).body:
        if not _is_another(part, diagnosis.look.__name__):
            yield from (each for each in ast.walk(part) if isinstance(each, ast.Call) and _makes_a_finding(each))


def _source(diagnosis: Diagnosis) -> str:
    return Path(inspect.getfile(diagnosis.look)).read_text(encoding="utf-8")


def _makes_a_finding(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "Finding" and len(call.args) > 1


def _severities(word: ast.AST) -> Iterator[str]:
    """Each one that it can be: `Severity.WARN if stays else Severity.BROKEN` is two. A word that names none was worked
    out elsewhere in the file, from those that stand there.
    """
    known = Severity.__members__
    return (each.attr for each in ast.walk(word) if isinstance(each, ast.Attribute) and each.attr in known)


def _is_another(part: ast.stmt, own: str) -> bool:
    return (
        isinstance(part, ast.FunctionDef)
        and part.name != own
        and any("diagnosis" in ast.unparse(d) for d in part.decorator_list)
    )
