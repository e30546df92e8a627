"""Builds that end in an error at once are what people call failing: what keeps their scripts away is named there."""

import pytest

from tests.installation.practice import CATALOGUE, Practice

SETTLED, TAKEN = 300, 1200  # seconds until workers are connected; until each has taken builds and given them up


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("platform-1 makes no build scripts", "platform.no-script"),
        ("worker-2 cannot fetch build scripts", "net.port-blocked"),
        ("worker-2 cannot resolve the platform", "net.dns"),
        ("worker-2 gets build scripts from elsewhere", "worker.host-mismatch"),
        ("worker-2 has no build endpoint", "worker.build-api"),
    ],
)
def test_what_keeps_scripts_away_is_named(fault: str, cause: str) -> None:
    practice = Practice()
    practice.pass_time(SETTLED)
    practice.inject(fault)
    practice.pass_time(TAKEN)
    assert named(practice) == {cause}


def test_nothing_is_named_where_builds_run() -> None:
    practice = Practice()
    practice.pass_time(SETTLED)
    practice.inject("worker-2 runs builds")
    assert named(practice) == set()


def named(practice: Practice) -> set[str]:
    """The causes, but for the database: there is none here."""
    found = practice.look_with(CATALOGUE.about("builds failing")).troubles()
    return {each.finding.cause for each in found if "database" not in each.finding.cause}
