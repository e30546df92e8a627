"""journalctl: what units and containers wrote, as systemd keeps it."""

import re
from datetime import datetime, timedelta

from bot.sandbox.installation.programs import Call, Reply, Usage, on_systemd, options, program, unsupported
from bot.sandbox.installation.programs.systemd import full
from bot.sandbox.installation.state import Line, Machine


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
    """What systemd says of a unit, by its description or by its name: `Started Travis Worker.`"""
    spoken = [text for name in units for text in (name.replace("-", " "), f"{name}.service:")]
    return line.unit == "systemd" and any(text in line.text.lower() for text in spoken)


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
