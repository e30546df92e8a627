"""systemctl, systemd-run and journalctl, as Ubuntu 16.04 and 18.04 have them."""

import itertools
import re
import threading
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from bot.sandbox.installation.programs import (
    Call,
    Reply,
    Usage,
    find,
    on_systemd,
    options,
    program,
    run,
    unsupported,
)
from bot.sandbox.installation.state import Line, Machine, Service, Unit
from bot.sandbox.installation.timeline import Ended

_INTERACTIVE = "Interactive authentication required.\n"
_EXIT_OF_STATE = {"active": 0, "activating": 3, "deactivating": 3, "inactive": 3, "failed": 3}
EXITED, KILLED = 1, 2  # CLD_EXITED, CLD_KILLED
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
            "SubState": "dead", "UnitFileState": "", "ActiveEnterTimestamp": "", "ActiveEnterTimestampMonotonic": "0",
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
            return Reply(1, err=f"Failed to {verb} {full(name)}: {_INTERACTIVE}")
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
        return Reply(1, err=f"Failed to {verb}: {_INTERACTIVE}")
    call.changes()
    if verb == "reboot":
        call.context.installation.reboot(call.machine)
    return Reply()


# ---------------------------------------------------------------- transient units


_run_numbers = itertools.count(1)


@dataclass(eq=False)
class Transient(Service):
    """A command that runs as a unit of its own: it outlives the connection it was started from."""

    call: Call
    words: tuple[str, ...]
    remain: bool
    longest: float
    stopped: bool = False

    def start(self, unit: Unit) -> None:
        machine = self.call.machine
        unit.turn("active", "running")
        unit.started = machine.timeline.now()
        unit.main = machine.spawn(self.words[0].rsplit("/", 1)[-1], " ".join(self.words), "root")
        threading.Thread(target=self._run, args=(unit, machine.boot_id), daemon=True).start()

    def _run(self, unit: Unit, boot: str) -> None:
        machine = self.call.machine
        with machine.timeline.held():
            end = machine.timeline.now() + self.longest

            def gone() -> bool:
                return self.stopped or not machine.up or machine.boot_id != boot

            def ended() -> bool:
                return gone() or machine.timeline.now() >= end

            here = replace(self.call.context, user="root", inside=None, network=None, ended=ended)
            try:
                reply = run(here, self.words)
            except Ended:
                if not gone():
                    self._end(unit, KILLED, 15, "timeout")
                return
            if not gone():
                self._log(unit, reply)
                self._end(unit, EXITED, reply.exit, "exit-code" if reply.exit else "success")

    def _log(self, unit: Unit, reply: Reply) -> None:
        for text in (reply.out + reply.err).splitlines():
            self.call.machine.log(unit.name, text, self.words[0].rsplit("/", 1)[-1])

    def _end(self, unit: Unit, code: int, status: int, result: str) -> None:
        machine = self.call.machine
        machine.end(unit.main)
        unit.main = None
        unit.exited, unit.exit_code, unit.exit_status, unit.result = machine.timeline.now(), code, status, result
        if result != "success":
            unit.turn("failed", "failed")
        elif self.remain:
            unit.turn("active", "exited")
        else:
            unit.turn("inactive", "dead")
            machine.units.pop(unit.name, None)

    def stop(self, unit: Unit) -> None:
        self.stopped = True
        self.call.machine.end(unit.main)
        unit.main = None
        unit.turn("inactive", "dead")


@program("systemd-run", where=on_systemd)
def systemd_run(call: Call) -> Reply:
    at = _program_at(call.words)
    try:
        read = options(call.words[:at], flags="rqGPtd", values="pE", longs=_RUN_LONGS)
    except Usage as usage:
        return unsupported(call, str(usage))
    words = call.words[at:]
    name = full(read.get("unit") or f"run-u{next(_run_numbers)}").removesuffix(".service")
    refusal = _refusal(call, name, words)
    if refusal is not None:
        return refusal
    settings = dict(given.split("=", 1) for given in read.all("p", "property") if "=" in given)
    unknown = settings.keys() - {"RemainAfterExit", "RuntimeMaxSec", "TimeoutStopSec", "Type", "User", "KillMode"}
    if unknown:
        return unsupported(call, f"property {', '.join(sorted(unknown))}")
    remain = "remain-after-exit" in read or "r" in read or settings.get("RemainAfterExit") in ("yes", "true", "1")
    longest = float(settings.get("RuntimeMaxSec", "inf").removesuffix("s"))
    return _start_transient(call, Unit(name, " ".join(words), Transient(call, words, remain, longest)), "wait" in read)


_RUN_LONGS = {
    "unit": True, "remain-after-exit": False, "property": True, "description": True, "wait": False, "quiet": False,
    "collect": False, "no-ask-password": False, "service-type": True, "pipe": False, "no-block": False,
    "setenv": True, "uid": True, "slice": True, "same-dir": False,
}  # fmt: skip


def _refusal(call: Call, name: str, words: tuple[str, ...]) -> Reply | None:
    if not words:
        return Reply(1, err="Command line to execute required.\n")
    failed = "Failed to start transient service unit:"
    if not call.root:
        return Reply(1, err=f"{failed} {_INTERACTIVE}")
    taken = call.machine.units.get(name)
    if taken is not None and taken.active == "failed":
        return Reply(1, err=f"{failed} Unit {full(name)} was already loaded or has a fragment file.\n")
    if taken is not None:
        return Reply(1, err=f"{failed} Unit {full(name)} already exists.\n")
    if find(call.context, words[0]) is None:
        call.run(words)  # remembers it
        return Reply(1, err=f"Failed to find executable {words[0]}: No such file or directory\n")
    return None


def _start_transient(call: Call, unit: Unit, wait: bool) -> Reply:
    call.changes()
    unit.transient = True
    call.machine.units[unit.name] = unit
    unit.start()
    said = f"Running as unit: {full(unit.name)}\n"
    if wait:
        call.until(lambda: unit.main is None, 24 * 3600.0)
    return Reply(unit.exit_status if wait else 0, err=said)


def _program_at(words: tuple[str, ...]) -> int:
    """Where the command begins: the first word that is neither an option nor an option's value."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        if words[at] == "--":
            return at + 1
        takes = words[at] in ("-p", "-E") or ("=" not in words[at] and _RUN_LONGS.get(words[at][2:], False))
        at += 2 if takes else 1
    return at


# ---------------------------------------------------------------- the journal


@program("journalctl", where=on_systemd)
def journalctl(call: Call) -> Reply:
    longs = {"unit": True, "no-pager": False, "lines": True, "since": True, "until": True, "output": True}
    longs |= {"quiet": False, "utc": False, "boot": False, "reverse": False, "grep": True, "no-hostname": False}
    try:
        read = options(call.words, flags="qrba", values="unoSUg", longs=longs)
    except Usage as usage:
        return unsupported(call, str(usage))
    machine = call.machine
    units = {full(name).removesuffix(".service") for name in read.all("u", "unit")}
    units |= {word.partition("=")[2] for word in read.words if word.startswith("CONTAINER_NAME=")}
    lines = [line for line in machine.journal if not units or line.unit in units or _about(line, units)]
    if since := read.get("S", "since"):
        start = _moment(machine, since)
        if start is None:
            return Reply(1, err=f"Failed to parse timestamp: {since}\n")
        lines = [line for line in lines if machine.timeline.date(line.at) >= start]
    if "b" in read or "boot" in read:
        lines = [line for line in lines if line.at >= machine.booted]
    if pattern := read.get("g", "grep"):
        lines = [line for line in lines if re.search(pattern, line.text)]
    if not call.root:
        lines = []
    if count := read.get("n", "lines"):
        lines = lines[-int(count) :] if count.isdigit() and int(count) else lines if count == "all" else []
    if "r" in read or "reverse" in read:
        lines.reverse()
    return _journal(machine, lines, read.get("o", "output") or "short", "q" in read or "quiet" in read)


def _about(line: Line, units: set[str]) -> bool:
    return line.unit == "systemd" and any(name.replace("-", " ") in line.text.lower() for name in units)


def _moment(machine: Machine, text: str) -> datetime | None:
    """`10 minutes ago`, `-10min`, `@seconds`, `2026-11-22 03:00:00`."""
    now = machine.timeline.date()
    if found := re.fullmatch(r"(?:-\s*)?(\d+)\s*(s|sec|seconds?|m|min|minutes?|h|hours?|d|days?)(?: ago)?", text):
        unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2][0]]
        return now - timedelta(**{unit: int(found[1])})
    if text.startswith("@"):
        return datetime.fromtimestamp(float(text[1:]), now.tzinfo)
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC")).replace(tzinfo=now.tzinfo)
    except ValueError:
        return None


def _journal(machine: Machine, lines: list[Line], form: str, quiet: bool) -> Reply:
    if not lines:
        return Reply(out="" if quiet or form == "cat" else "-- No entries --\n")
    if form == "cat":
        return Reply(out="".join(f"{line.text}\n" for line in lines))
    stamp = "%Y-%m-%dT%H:%M:%S+0000" if form == "short-iso" else "%b %d %H:%M:%S"
    said = "".join(
        f"{machine.timeline.date(line.at).strftime(stamp)} {machine.name} {line.tag}[{1000}]: {line.text}\n"
        for line in lines
    )
    first, last = (
        machine.timeline.date(line.at).strftime("%a %Y-%m-%d %H:%M:%S UTC") for line in (lines[0], lines[-1])
    )
    head = "" if quiet or form not in ("short", "short-iso") else f"-- Logs begin at {first}, end at {last}. --\n"
    return Reply(out=head + said)
