"""Which finding explains another away, and the situations that a diagnosis belongs to."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bot.core.errors import Permanent
from bot.core.finding import Finding, Severity
from bot.core.handler import Catalogue, Diagnosis
from bot.core.look import Look
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser
from tests.engine.machines import Machines

HALL = Target("hall", Role.WORKER, "house")
SITE = Site("house", "house.example.com", "2.2", (HALL,))


def dark(_look: Look, machine: Target) -> Iterator[Finding]:
    yield Finding("lamp.dark", Severity.BROKEN, machine, "dark")


DARK = Diagnosis("lamp dark", "darkness", Role.WORKER, "Is it dark?", dark, unless=("grid.weak@BROKEN",))


def weak(severity: Severity) -> Diagnosis:
    def look(_look: Look, machine: Target) -> Iterator[Finding]:
        yield Finding("grid.weak", severity, machine, "weak")

    return Diagnosis("grid weak", "darkness", Role.WORKER, "Is the grid weak?", look, also=("cold",))


@pytest.mark.parametrize(("severity", "under"), [(Severity.BROKEN, "grid.weak"), (Severity.WARN, "")])
def test_a_cause_may_explain_only_where_it_is_bad_enough(severity: Severity, under: str) -> None:
    report = Diagnoser(SITE, Machines(), lambda *_: None).look((DARK, weak(severity)), SITE, Machines().abort)
    assert [found.under for found in report.findings if found.finding.cause == "lamp.dark"] == [under]


def test_a_diagnosis_may_belong_to_several_situations() -> None:
    catalogue = Catalogue()
    catalogue.add(weak(Severity.WARN), "a")
    assert (
        [each.name for each in catalogue.about("cold")]
        == ["grid weak"]
        == [each.name for each in catalogue.about("darkness")]
    )
    with pytest.raises(Permanent, match="share one name"):
        catalogue.add(replace(DARK, name="cold"), "b")
    with pytest.raises(Permanent, match="share one name"):
        catalogue.add(replace(DARK, also=("grid weak",)), "b")


def lamp(no: int) -> Target:
    return Target(f"lamp-{no}", Role.WORKER, "house")


GRID = Target("grid", Role.PLATFORM, "house")


def night(blamed: tuple[Target, ...] | None) -> Diagnosis:
    def look(_look: Look, machine: Target) -> Iterator[Finding]:
        yield Finding("night.fell", Severity.BROKEN, machine, "night", blamed=blamed)

    return Diagnosis("night", "darkness", Role.PLATFORM, "Is it night?", look, unless=("lamp.*", "grid.*"))


def out(*names: str) -> Diagnosis:
    def look(_look: Look, machine: Target) -> Iterator[Finding]:
        if machine.name in names:
            yield Finding("lamp.dark", Severity.BROKEN, machine, "dark")

    return Diagnosis("lamps", "darkness", Role.WORKER, "Which are out?", look)


@pytest.mark.parametrize(
    ("blamed", "dark", "under"),
    [
        (None, ("lamp-1",), "lamp.dark"),
        ((lamp(1),), ("lamp-1",), "lamp.dark"),
        ((lamp(1), lamp(2)), ("lamp-1", "lamp-2"), "lamp.dark"),
        ((lamp(1), lamp(2)), ("lamp-1",), ""),
        ((lamp(2),), ("lamp-1",), ""),
        ((), ("lamp-1",), ""),
    ],
)
def test_what_blames_machines_is_explained_only_by_trouble_with_all_of_them(
    blamed: tuple[Target, ...] | None, dark: tuple[str, ...], under: str
) -> None:
    site = Site("house", "house.example.com", "2.2", (GRID, lamp(1), lamp(2)))
    report = Diagnoser(site, Machines(), lambda *_: None).look((night(blamed), out(*dark)), site, Machines().abort)
    assert [found.under for found in report.findings if found.finding.cause == "night.fell"] == [under]


def test_what_blames_machines_is_still_explained_by_its_own() -> None:
    site = Site("house", "house.example.com", "2.2", (GRID, lamp(1)))
    grid = Diagnosis("grid", "darkness", Role.PLATFORM, "?", lambda _, machine: iter((fallen(machine),)))
    report = Diagnoser(site, Machines(), lambda *_: None).look((night((lamp(1),)), grid), site, Machines().abort)
    assert [found.under for found in report.findings if found.finding.cause == "night.fell"] == ["grid.down"]


def fallen(machine: Target) -> Finding:
    return Finding("grid.down", Severity.BROKEN, machine, "no power")
