"""Changes that outlive their connection: how they are started, asked about and cleaned up."""

from datetime import UTC, datetime, timedelta

import pytest

from bot.core import unit
from bot.core.command import Secret, sh
from bot.core.errors import Unknown
from bot.core.question import Output
from bot.core.unit import Ended, State

BEGAN = datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


def shown(load: str, active: str, sub: str, result: str, status: int, code: int) -> Output:
    """As `systemctl show` prints it, in systemd's own order."""
    return Output(
        0,
        f"Result={result}\nExecMainCode={code}\nExecMainStatus={status}\nLoadState={load}\nActiveState={active}\n"
        f"SubState={sub}\n",
    )


@pytest.mark.parametrize(
    ("output", "ended"),
    [
        (shown("not-found", "inactive", "dead", "success", 0, 0), Ended(State.NEVER_STARTED, None, "success")),
        (shown("loaded", "activating", "start", "success", 0, 0), Ended(State.RUNNING, None, "success")),
        (shown("loaded", "active", "running", "success", 0, 0), Ended(State.RUNNING, None, "success")),
        (shown("loaded", "deactivating", "stop-sigterm", "success", 15, 2), Ended(State.RUNNING, None, "success")),
        (shown("loaded", "active", "exited", "success", 0, 1), Ended(State.DONE, 0, "success")),
        (shown("loaded", "failed", "failed", "exit-code", 7, 1), Ended(State.FAILED, 7, "exit-code")),
        (shown("loaded", "failed", "failed", "signal", 9, 2), Ended(State.FAILED, None, "signal")),
        (shown("loaded", "failed", "failed", "timeout", 15, 2), Ended(State.FAILED, None, "timeout")),
        (shown("loaded", "inactive", "dead", "success", 0, 1), Ended(State.DONE, 0, "success")),
        (shown("loaded", "inactive", "dead", "success", 15, 2), Ended(State.FAILED, None, "success")),
        (shown("loaded", "inactive", "dead", "success", 0, 0), Ended(State.NEVER_STARTED, None, "success")),
    ],
)
def test_what_systemd_shows_says_how_far_a_unit_is(output: Output, ended: Ended) -> None:
    assert unit.ended(output) == ended


@pytest.mark.parametrize(
    "output",
    [
        Output(0, ""),
        Output(1, "", "Failed to connect to bus: No such file or directory"),
        Output(None, "LoadState=loaded\nActiveState=active\nSubState=running\n"),
        Output(127, "", "sh: systemctl: not found"),
    ],
)
def test_what_does_not_say_is_never_taken_for_an_answer(output: Output) -> None:
    with pytest.raises(Unknown):
        unit.ended(output)


def test_a_unit_is_started_by_name_as_root_with_its_bound() -> None:
    command = unit.start(sh("travis-backup", "a b"), unit.name(12, 3, BEGAN), timedelta(minutes=20))
    assert command.text().startswith("sudo -n systemd-run --unit=opsbot-12-3-260131235959 -p RemainAfterExit=yes ")
    assert "-p RuntimeMaxSec=1200" in command.text()
    assert command.text().endswith(" -- travis-backup 'a b'")


def test_no_time_at_all_is_still_a_bound() -> None:
    assert "-p RuntimeMaxSec=1 " in unit.start(sh("a"), "opsbot-1-1", timedelta(milliseconds=1)).text()


@pytest.mark.parametrize("command", [sh("a") | sh("b"), sh("printf", Secret("password"))])
def test_pipes_and_secrets_cannot_run_as_a_unit(command: object) -> None:
    with pytest.raises(ValueError, match="cannot run as a unit"):
        unit.start(command, "opsbot-1-1", timedelta(seconds=5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "said",
    [
        "Failed to start transient service unit: Unit opsbot-1-1.service already exists.",
        "Failed to start transient service unit: Unit opsbot-1-1.service was already loaded or has a fragment file.",
    ],
)
def test_a_name_that_is_taken_is_told_from_other_failures(said: str) -> None:
    assert unit.taken(Output(1, "", said))
    assert not unit.taken(Output(1, "", "sudo: a password is required"))
    assert not unit.taken(Output(0, "", "Running as unit: opsbot-1-1.service"))


def test_asking_and_cleaning_up_name_the_service() -> None:
    assert unit.asked("opsbot-1-1").text().startswith("systemctl show opsbot-1-1.service -p LoadState,")
    assert [str(command) for command in unit.forget("opsbot-1-1")] == [
        "sudo -n systemctl stop opsbot-1-1.service",
        "sudo -n systemctl reset-failed opsbot-1-1.service",
    ]
