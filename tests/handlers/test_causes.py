"""`opsbot causes` tells of every cause there is: those that any case, or any fault that is practised, shows."""

import ast
from typing import Any

import pytest
import yaml

from bot.cli.causes import Cause, causes, findings
from bot.core.handler import Diagnosis
from bot.engine.discovery import discover
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS
from tests.handlers.test_cases import CASES

CATALOGUE = discover()
KNOWN = tuple(causes())
LISTED = frozenset(each.id for each in KNOWN)
DIAGNOSES = [pytest.param(each, id=name) for name, each in sorted(CATALOGUE.diagnoses.items())]


def test_every_cause_of_a_case_is_listed_with_its_diagnosis() -> None:
    for path in CASES:
        case: dict[str, Any] = yaml.safe_load(path.read_text())
        names = {case["diagnosis"]} if isinstance(case["diagnosis"], str) else set(case["diagnosis"])
        of_these = {each.id for name in names for each in KNOWN if each.diagnosis in ("", *_called(name))}
        assert {find["cause"] for find in case.get("finds") or ()} <= of_these, path.name


def _called(subject: str) -> set[str]:
    return {each.name for each in CATALOGUE.about(subject)}


def test_every_cause_that_is_practised_is_listed() -> None:
    practised = {cause for fault in FAULTS.values() for cause in (fault.cause, *fault.also) if cause}
    assert practised - LISTED - {SUSPICIOUS} == set()


def test_what_any_look_can_find_is_listed_without_a_diagnosis() -> None:
    assert Cause("worker.sudo-denied", "BROKEN", "", "") in KNOWN
    assert {"platform.host-key-changed", "platform.database-unreachable", "worker.unreachable"} <= LISTED
    assert "worker.database-unreachable" not in LISTED


@pytest.mark.parametrize("diagnosis", DIAGNOSES)
def test_a_diagnosis_declares_the_causes_that_its_source_does_not_name(diagnosis: Diagnosis) -> None:
    computed = [call for call in findings(diagnosis) if not isinstance(call.args[0], ast.Constant)]
    assert bool(diagnosis.causes) == bool(computed)
    assert {each.diagnosis for each in KNOWN} >= {diagnosis.name}
