"""Every cause that opsbot can name, read from the handlers' source: nothing has to run for it."""

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bot.core.handler import Diagnosis
from bot.engine.discovery import discover


@dataclass(frozen=True)
class Cause:
    """A stable id such as `worker.amqp-lost`, and the diagnosis that finds it."""

    id: str
    severity: str
    diagnosis: str
    situation: str


def causes(folders: Iterable[Path] = ()) -> list[Cause]:
    """The causes of our handlers and of those in the folders, in order; raises Permanent for an unsafe folder."""
    found = {cause for each in discover(folders).diagnoses.values() for cause in _of(each)}
    return sorted(found, key=lambda cause: (cause.id, cause.diagnosis, cause.severity))


def _of(diagnosis: Diagnosis) -> Iterator[Cause]:
    """The findings of the diagnosis' own file, but not those of another diagnosis in it."""
    file = Path(inspect.getfile(diagnosis.look))
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for part in tree.body:
        if not _is_another(part, diagnosis.look.__name__):
            yield from (Cause(*words, diagnosis.name, diagnosis.of) for words in _findings(part))


def _is_another(part: ast.stmt, own: str) -> bool:
    return (
        isinstance(part, ast.FunctionDef)
        and part.name != own
        and any("diagnosis" in ast.unparse(d) for d in part.decorator_list)
    )


def _findings(part: ast.AST) -> Iterator[tuple[str, str]]:
    for call in ast.walk(part):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "Finding":
            match call.args:
                case [ast.Constant(value=str(cause)), ast.Attribute(attr=severity), *_]:
                    yield cause, severity
