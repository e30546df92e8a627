"""A change that outlives its connection: a systemd unit with a name of its own, so that nobody can start it twice.

`start` refuses a name that is taken, `asked` and `state` say how it ended, whoever asks; `stop` and `forget` clean up.
No secrets: a unit's words can be read by everybody on the machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.question import Output

PROPERTIES = ("LoadState", "ActiveState", "SubState", "Result", "ExecMainStatus", "ExecMainCode")
STOP_WITHIN = 10  # seconds between TERM and KILL when a unit is stopped
EXITED = "1"  # CLD_EXITED; the others are signals
TAKEN = ("already exists", "already loaded", "has a fragment file")  # how systemd-run refuses a name, by version


class State(Enum):
    """How far a unit is.

    A unit that ended is kept until it is forgotten, so NEVER_STARTED is certain, unless the machine was restarted
    since.
    """

    NEVER_STARTED = "never started"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Ended:
    """A unit's state; `exit` is its program's exit status, None when a signal, the deadline or nothing ended it."""

    state: State
    exit: int | None = None
    result: str = ""


def name(run: int, change: int, began: datetime) -> str:
    """The unit's name, for ever the same for this change of this run; another database may count the same runs."""
    return f"opsbot-{run}-{change}-{began:%y%m%d%H%M%S}"


def start(command: Command, unit: str, within: timedelta) -> Command:
    """Start the program as a unit and return at once; `within` is its hard bound on the machine.

    Fails, and starts nothing, when a unit of that name runs or ended without being forgotten.
    """
    if command.source is not None or command.secrets:
        raise ValueError(f"{command} cannot run as a unit: only one program without secrets can")
    words = ("systemd-run", f"--unit={unit}", *_set(within), "--", *command.words)
    return sh(*words).sudo()


def _set(within: timedelta) -> tuple[str, ...]:
    wanted = {
        "RemainAfterExit": "yes",
        "RuntimeMaxSec": str(max(1, round(within.total_seconds()))),  # 0 would be no bound at all
        "TimeoutStopSec": str(STOP_WITHIN),
    }
    return tuple(word for key, value in wanted.items() for word in ("-p", f"{key}={value}"))


def asked(unit: str) -> Command:
    """How did it end? Needs no rights."""
    return sh("systemctl", "show", f"{unit}.service", "-p", ",".join(PROPERTIES))


def stop(unit: str) -> Command:
    """End the unit with all that it started."""
    return sh("systemctl", "stop", f"{unit}.service").sudo()


def forget(unit: str) -> tuple[Command, Command]:
    """Free the name: stop what remains of it, then drop the record of a failure. The second may fail: nothing
    failed.
    """
    return stop(unit), sh("systemctl", "reset-failed", f"{unit}.service").sudo()


def taken(output: Output) -> bool:
    """Did `start` refuse because the unit exists: this change was started before?"""
    return not output.ok and any(words in output.err for words in TAKEN)


def ended(output: Output) -> Ended:
    """What `asked` told. Raises Unknown when it does not say."""
    told = dict(line.split("=", 1) for line in output.out.splitlines() if "=" in line)
    if not output.ok or not {"LoadState", "ActiveState", "SubState"} <= told.keys():
        raise Unknown(f"systemd did not say how the unit is: {(output.err or output.out).strip()[:200] or 'no answer'}")
    state, exited = _state(told), told.get("ExecMainCode") == EXITED
    status = told.get("ExecMainStatus", "")
    over = state in (State.DONE, State.FAILED)
    return Ended(state, int(status) if over and exited and status.isdigit() else None, told.get("Result", ""))


def _state(told: Mapping[str, str]) -> State:
    active, ran = told["ActiveState"], told.get("ExecMainCode", "0") != "0"
    if active == "failed":
        return State.FAILED
    if active == "active" and told["SubState"] == "exited":
        return State.DONE
    if active != "inactive":
        return State.RUNNING
    if told["LoadState"] == "not-found" or not ran:
        return State.NEVER_STARTED
    return State.DONE if (told["ExecMainCode"], told.get("ExecMainStatus")) == (EXITED, "0") else State.FAILED
