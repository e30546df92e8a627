"""What goes wrong with the platform itself is called by its cause, healed by what is offered, and odd is not wrong."""

from threading import Event as Flag

import pytest

from bot.core.finding import Finding
from bot.engine.rounds import Report
from bot.sandbox.installation.platform import CERTIFICATE
from tests.installation.practice import CATALOGUE, Practice
from tests.installation.tripwires import Tripwires

NAMES = (
    "platform disk full", "rabbitmq certificate is a directory", "license for another host", "license expired",
    "platform app not ready", "platform does not answer", "github login mismatch", "github too many statuses",
    "github webhooks silent", "platform memory short",
)  # fmt: skip
OURS = tuple(CATALOGUE.diagnoses[name] for name in NAMES)
DOWN, ANSWERS, SILENT = "platform.not-ready", "platform.uptime-failed", "github.webhooks-silent"
BOTH = {DOWN, ANSWERS}
# A fault, after how many seconds it is looked at, the cause that stands alone, and what is shown under it.
FOUND = [
    ("does not get ready", 200, DOWN, {ANSWERS}),
    ("has its app stopped", 200, DOWN, {ANSWERS}),
    ("lost its container", 200, DOWN, {ANSWERS}),
    ("has a web service that ended", 200, ANSWERS, set[str]()),
    ("has a directory for a certificate", 200, "platform.rabbitmq-cert-directory", BOTH),
    ("has its certificate in a directory", 200, "platform.rabbitmq-cert-directory", BOTH),
    ("has the license of another host", 900, "platform.license-host", BOTH),
    ("has an expired license", 900, "platform.license-expired", BOTH),
    ("has a license that ends soon", 200, "platform.license-expiring", set[str]()),
    ("is unknown to GitHub", 900, "platform.oauth-mismatch", BOTH),
    ("has a full disk", 200, "platform.disk-full", set[str]()),
    ("has a disk that fills up", 200, "platform.disk-full", set[str]()),
    ("has no inodes left", 200, "platform.disk-full", set[str]()),
    ("runs out of memory", 200, "platform.memory-short", set[str]()),
    ("has too many statuses", 200, "github.too-many-statuses", set[str]()),
    ("hears nothing from GitHub", 200, SILENT, set[str]()),
]
ODD = (
    "was restarted", "has an old container", "has a license for sixty days", "has a busy disk",
    "heard nothing over night", "has a slow disk", "has a large archive",
)  # fmt: skip


def look(practice: Practice) -> Report:
    return practice.diagnoser.look(OURS, practice.site, Flag())


def trouble(practice: Practice) -> Finding:
    [found] = look(practice).troubles()
    return found.finding


@pytest.mark.parametrize(("fault", "seconds", "cause", "under"), FOUND, ids=[each[0] for each in FOUND])
def test_a_fault_is_called_by_its_cause(
    practice: Practice, tripwires: Tripwires, fault: str, seconds: int, cause: str, under: set[str]
) -> None:
    with tripwires.across():
        practice.inject(f"platform-1 {fault}")
        practice.pass_time(seconds)
        report = look(practice)
    assert [found.finding.cause for found in report.findings if not found.under] == [cause]
    assert {found.finding.cause for found in report.findings if found.under} == under
    assert practice.machines.unknown() == practice.machines.changes() == tripwires.tripped == []


@pytest.mark.parametrize("fault", ODD)
def test_what_is_odd_is_no_fault(practice: Practice, fault: str) -> None:
    practice.inject(f"platform-1 {fault}")
    for seconds in (5, 30, 60, 200):
        practice.pass_time(seconds)
        assert [found.finding.title for found in look(practice).troubles() if found.by] == []
    assert practice.machines.unknown() == []


HEALS = ["does not get ready", "has its app stopped", "lost its container", "has a web service that ended"]


@pytest.mark.parametrize("fault", HEALS)
def test_the_app_is_brought_back(practice: Practice, fault: str) -> None:
    practice.inject(f"platform-1 {fault}")
    practice.pass_time(200)
    [fix] = trouble(practice).fixes
    assert practice.apply(fix)
    assert look(practice).findings == ()
    assert practice.installation.app.state == "started"


def test_the_empty_directory_goes_and_then_the_app_starts(practice: Practice) -> None:
    practice.inject("platform-1 has a directory for a certificate")
    practice.pass_time(200)
    [remove] = trouble(practice).fixes
    assert practice.apply(remove)
    assert trouble(practice).cause == DOWN
    assert practice.apply(trouble(practice).fixes[0])
    assert look(practice).findings == ()


def test_a_directory_that_holds_something_is_left_alone(practice: Practice) -> None:
    practice.inject("platform-1 has its certificate in a directory")
    practice.pass_time(200)
    assert trouble(practice).fixes == ()
    assert "rm -r" in trouble(practice).person
    assert CERTIFICATE in practice.installation.platform.files


def test_a_restart_that_fails_half_way_starts_the_app_again(practice: Practice) -> None:
    practice.inject("platform-1 has a web service that ended")
    practice.pass_time(200)
    [fix] = trouble(practice).fixes
    practice._target = fix.target
    assert practice.carry_out(fix.steps[:2])  # stopped, and then opsbot is told to stop
    assert practice.installation.app.state == "stopped"
    assert practice.carry_out(fix.ensure)
    practice.pass_time(120)
    assert practice.installation.app.state == "started"


def test_a_start_that_is_under_way_is_said_as_not_known(practice: Practice) -> None:
    practice.inject("platform-1 was restarted")
    practice.pass_time(30)
    report = look(practice)
    assert [found for found in report.findings if found.by] == []
    assert any("starting for" in each for each in report.unknown)
