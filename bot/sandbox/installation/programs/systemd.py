"""systemctl, as Ubuntu 16.04 and 18.04 have it."""

import re

from bot.sandbox.installation.programs import (
    Call,
    Reply,
    Usage,
    on_systemd,
    options,
    program,
    unsupported,
)
from bot.sandbox.installation.state import Machine, Unit

INTERACTIVE = "Interactive authentication required.\n"
_EXIT_OF_STATE = {"active": 0, "activating": 3, "deactivating": 3, "inactive": 3, "failed": 3}
SETTLE = 200.0  # seconds that systemctl waits at most for a unit to start or stop


def full(name: str) -> str:
    return name if re.search(r"\.(service|target|socket|timer|scope|mount)$", name) else f"{name}.service"


def unit_of(machine: Machine, name: str) -> Unit | None:
    return machine.units.get(full(name).removesuffix(".service"))


@program("systemctl", where=on_systemd)
def systemctl(call: Call) -> Reply:
    longs = {"property": True, "no-pager": False, "quiet": False, "value": False, "no-block": False, "all": False}
    longs |= {"full": False, "now": False, "no-ask-password": False, "lines": True, "plain": False, "no-legend": False}
    longs |= {"state": True, "type": True, "failed": False}
    try:
        read = options(call.words, flags="qal", values="pnt", longs=longs)
    except Usage as usage:
        return unsupported(call, str(usage))
    if not read.words:
        return unsupported(call, "list-units")
    verb, *names = read.words
    if verb in _ASKS:
        return _ASKS[verb](call, names, read.all("p", "property"), "value" in read)
    if verb in _CHANGES:
        return _change(call, verb, names, wait="no-block" not in read)
    if verb in ("reboot", "daemon-reload"):
        return _whole(call, verb)
    return unsupported(call, verb)


def _is_active(call: Call, names: list[str], _properties: list[str], _value: bool) -> Reply:
    states = [unit.active if (unit := unit_of(call.machine, name)) else "inactive" for name in names]
    return Reply(0 if "active" in states else 3, "".join(f"{state}\n" for state in states))


def _is_enabled(call: Call, names: list[str], _properties: list[str], _value: bool) -> Reply:
    unit = unit_of(call.machine, names[0])
    if unit is None:
        return Reply(1, err=f"Failed to get unit file state for {full(names[0])}: No such file or directory\n")
    state = "transient" if unit.transient else unit.enabled
    return Reply(0 if state in ("enabled", "static", "transient") else 1, f"{state}\n")


def _is_failed(call: Call, names: list[str], _properties: list[str], _value: bool) -> Reply:
    states = [unit.active if (unit := unit_of(call.machine, name)) else "inactive" for name in names]
    return Reply(0 if "failed" in states else 1, "".join(f"{state}\n" for state in states))


def _show(call: Call, names: list[str], properties: list[str], value: bool) -> Reply:
    if not names:
        return unsupported(call, "show of the manager")
    wanted = [name for given in properties for name in given.split(",")]
    blocks = [_block(call.machine, name, wanted, value) for name in names]
    return Reply(out="\n".join(blocks))


def _block(machine: Machine, name: str, wanted: list[str], value: bool) -> str:
    all = _properties(machine, name)
    if not machine.counts_restarts:
        del all["NRestarts"]
    # As systemd does: in its own order, whatever was asked first, and silent about what it does not know.
    lines = [(key, text) for key, text in all.items() if not wanted or key in wanted]
    return "".join(f"{text}\n" if value else f"{key}={text}\n" for key, text in lines)


def _properties(machine: Machine, name: str) -> dict[str, str]:
    unit = unit_of(machine, name)
    if unit is None:
        return {
            "Type": "simple", "Restart": "no", "MainPID": "0", "Result": "success", "NRestarts": "0",
            "ExecMainStartTimestamp": "", "ExecMainStartTimestampMonotonic": "0",
            "ExecMainExitTimestamp": "", "ExecMainExitTimestampMonotonic": "0",
            "ExecMainPID": "0", "ExecMainCode": "0", "ExecMainStatus": "0",
            "Id": full(name), "Description": full(name), "LoadState": "not-found", "ActiveState": "inactive",
            "SubState": "dead", "UnitFileState": "", "WantedBy": "",
            "ActiveEnterTimestamp": "", "ActiveEnterTimestampMonotonic": "0",
        }  # fmt: skip
    return {
        "Type": "simple",
        "Restart": "no" if unit.transient else "always",
        "MainPID": str(unit.main.pid if unit.main else 0),
        "Result": unit.result,
        "NRestarts": str(unit.restarts),
        "ExecMainStartTimestamp": _stamp(machine, unit.started),
        "ExecMainStartTimestampMonotonic": _monotonic(machine, unit.started),
        "ExecMainExitTimestamp": _stamp(machine, None if unit.main else unit.exited),
        "ExecMainExitTimestampMonotonic": _monotonic(machine, None if unit.main else unit.exited),
        "ExecMainPID": str(unit.main.pid if unit.main else 0),
        "ExecMainCode": str(unit.exit_code),
        "ExecMainStatus": str(unit.exit_status),
        "Id": full(unit.name),
        "Description": unit.description,
        "LoadState": "loaded",
        "ActiveState": unit.active,
        "SubState": unit.sub,
        "UnitFileState": "transient" if unit.transient else unit.enabled,
        "WantedBy": "multi-user.target" if unit.enabled == "enabled" or unit.copied else "",
        "ActiveEnterTimestamp": _stamp(machine, unit.started),
        "ActiveEnterTimestampMonotonic": _monotonic(machine, unit.started),
    }


def _stamp(machine: Machine, at: float | None) -> str:
    return "" if at is None else machine.timeline.date(at).strftime("%a %Y-%m-%d %H:%M:%S UTC")


def _monotonic(machine: Machine, at: float | None) -> str:
    return "0" if at is None else str(int((at - machine.booted) * 1_000_000))


def _status(call: Call, names: list[str], _properties: list[str], _value: bool) -> Reply:
    unit = unit_of(call.machine, names[0])
    if unit is None:
        return Reply(4, err=f"Unit {full(names[0])} could not be found.\n")
    since = _stamp(call.machine, unit.started)
    lines = [
        f"● {full(unit.name)} - {unit.description}",
        f"   Loaded: loaded (/etc/systemd/system/{full(unit.name)}; {unit.enabled}; vendor preset: enabled)",
        f"   Active: {unit.active} ({unit.sub}) since {since}",
    ]
    if unit.main is not None:
        lines.append(f" Main PID: {unit.main.pid} ({unit.main.name})")
    return Reply(_EXIT_OF_STATE[unit.active], "\n".join(lines) + "\n")


_ASKS = {
    "is-active": _is_active, "is-enabled": _is_enabled, "is-failed": _is_failed, "show": _show, "status": _status,
}  # fmt: skip
_CHANGES = {"start": Unit.start, "stop": Unit.stop, "restart": Unit.restart, "reset-failed": None, "try-restart": None}


def _change(call: Call, verb: str, names: list[str], wait: bool) -> Reply:
    units = [unit_of(call.machine, name) for name in names]
    for name, unit in zip(names, units, strict=True):
        if unit is None:
            return Reply(1 if verb == "reset-failed" else 5, err=_not_found(verb, name))
        if not call.root:
            return Reply(1, err=f"Failed to {verb} {full(name)}: {INTERACTIVE}")
    call.changes()
    found = [unit for unit in units if unit is not None]
    for unit in found:
        _apply(unit, verb)
        if verb == "reset-failed" or (verb == "stop" and unit.transient):
            _forget(call.machine, unit)
    if wait:
        call.until(lambda: all(_arrived(unit, verb) for unit in found), SETTLE)
    failed = next((unit for unit in found if verb in ("start", "restart") and unit.active == "failed"), None)
    if failed is not None:
        return Reply(1, err=f"Job for {full(failed.name)} failed because the control process exited with error code.\n")
    return Reply()


def _apply(unit: Unit, verb: str) -> None:
    if verb == "reset-failed":
        unit.result = "success"
        unit.restarts = 0
        if unit.active == "failed":
            unit.turn("inactive", "dead")
    elif verb == "try-restart":
        if unit.active == "active":
            unit.restart()
    else:
        {"start": Unit.start, "stop": Unit.stop, "restart": Unit.restart}[verb](unit)


def _forget(machine: Machine, unit: Unit) -> None:
    """A transient unit that is not loaded any more is gone, and its name is free again."""
    if unit.transient and unit.active == "inactive":
        machine.units.pop(unit.name, None)


def _arrived(unit: Unit, verb: str) -> bool:
    if verb in ("start", "restart"):
        return unit.active in ("active", "failed") and not unit.then_start
    return unit.active in ("inactive", "failed")


def _not_found(verb: str, name: str) -> str:
    doing = "reset failed state of unit" if verb == "reset-failed" else verb
    return f"Failed to {doing} {full(name)}: Unit {full(name)} not {'found' if verb == 'start' else 'loaded'}.\n"


def _whole(call: Call, verb: str) -> Reply:
    if not call.root:
        return Reply(1, err=f"Failed to {verb}: {INTERACTIVE}")
    call.changes()
    if verb == "reboot":
        call.context.installation.reboot(call.machine)
    return Reply()
