"""Processes: ps, pgrep, kill, uptime."""

import re
from collections.abc import Callable

from bot.sandbox.installation.programs import Call, Reply, Usage, options, program, unsupported
from bot.sandbox.installation.state import Machine, Process

SIGNALS = {"1": "HUP", "2": "INT", "9": "KILL", "10": "USR1", "12": "USR2", "15": "TERM"}


@program("ps")
def ps(call: Call) -> Reply:
    try:
        read = options(
            call.words, flags="eAfaxu", values="poC", longs={"pid": True, "format": True, "no-headers": False}
        )
    except Usage as usage:
        return unsupported(call, str(usage))
    if read.words not in ([], ["aux"], ["ax"]):
        return unsupported(call, " ".join(read.words))
    columns = [column for given in read.all("o", "format") for column in given.split(",")] or ["pid", "comm"]
    unknown = [column for column in columns if column.rstrip("=") not in _COLUMNS]
    if unknown:
        return unsupported(call, f"column {unknown[0]}")
    processes = [
        process for process in call.machine.processes.values() if _wanted(process, read.all("p", "pid"), read.all("C"))
    ]
    rows = [[_COLUMNS[column.rstrip("=")](call.machine, process) for column in columns] for process in processes]
    bare = all(column.endswith("=") for column in columns)
    heads = (
        [] if bare or "no-headers" in read else [[_HEADS.get(c.rstrip("="), c.rstrip("=").upper()) for c in columns]]
    )
    return Reply(0 if rows else 1, _table(heads + rows, columns))


def _wanted(process: Process, pids: list[str], names: list[str]) -> bool:
    if not pids and not names:
        return True
    listed = {pid for given in pids for pid in re.split(r"[ ,]", given)}
    return str(process.pid) in listed or process.name[:15] in {n for given in names for n in given.split(",")}


def _table(rows: list[list[str]], columns: list[str]) -> str:
    """Numbers to the right, words to the left, the last column not padded."""
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(len(columns))]
    widths = [max(width, _LEAST.get(columns[at].rstrip("="), 0)) for at, width in enumerate(widths)]
    return "".join(" ".join(_cell(row, columns, widths, at) for at in range(len(row))) + "\n" for row in rows)


def _cell(row: list[str], columns: list[str], widths: list[int], at: int) -> str:
    if columns[at].rstrip("=") in _NUMBERS:
        return row[at].rjust(widths[at])
    return row[at] if at == len(row) - 1 else row[at].ljust(widths[at])


def _elapsed(machine: Machine, process: Process) -> int:
    return int(machine.timeline.now() - process.started)


def _etime(machine: Machine, process: Process) -> str:
    minutes, seconds = divmod(_elapsed(machine, process), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}-" if days else "") + (f"{hours:02}:" if hours or days else "") + f"{minutes:02}:{seconds:02}"


_COLUMNS: dict[str, Callable[[Machine, Process], str]] = {
    "pid": lambda _m, p: str(p.pid),
    "ppid": lambda _m, p: "0" if p.pid == 1 else "1",
    "comm": lambda _m, p: p.name[:15],
    "cmd": lambda _m, p: p.line,
    "args": lambda _m, p: p.line,
    "command": lambda _m, p: p.line,
    "user": lambda _m, p: p.user,
    "stat": lambda _m, _p: "Ssl",
    "state": lambda _m, _p: "S",
    "etimes": lambda m, p: str(_elapsed(m, p)),
    "etime": _etime,
    "lstart": lambda m, p: m.timeline.date(p.started).strftime("%a %b %d %H:%M:%S %Y"),
}
_HEADS = {"etimes": "ELAPSED", "etime": "ELAPSED", "comm": "COMMAND", "args": "COMMAND", "lstart": "STARTED"}
_NUMBERS = {"pid", "ppid", "etimes", "etime"}
_LEAST = {"comm": 15, "pid": 5, "ppid": 5, "etimes": 7, "etime": 11}


@program("pgrep", "pidof")
def pgrep(call: Call) -> Reply:
    try:
        read = options(call.words, flags="xfco", values="u")
    except Usage as usage:
        return unsupported(call, str(usage))
    pattern = read.words[0] if read.words else ""
    exact = "x" in read or call.name == "pidof"
    found = [
        p for p in call.machine.processes.values() if _matches(pattern, p.line if "f" in read else p.name[:15], exact)
    ]
    if "c" in read:
        return Reply(0 if found else 1, f"{len(found)}\n")
    if call.name == "pidof":
        return Reply(0 if found else 1, " ".join(str(p.pid) for p in found) + "\n" if found else "")
    return Reply(0 if found else 1, "".join(f"{p.pid}\n" for p in found))


def _matches(pattern: str, text: str, exact: bool) -> bool:
    return bool(re.fullmatch(pattern, text) if exact else re.search(pattern, text))


@program("kill")
def kill(call: Call) -> Reply:
    words = list(call.words)
    signal = "TERM"
    if words[:1] == ["-s"] and len(words) > 1:
        signal, words = words[1], words[2:]
    elif words and words[0].startswith("-") and words[0] != "--":
        signal, words = words[0][1:], words[1:]
    words = words[1:] if words[:1] == ["--"] else words
    signal = SIGNALS.get(signal, signal.upper().removeprefix("SIG"))
    if not words or not all(word.isdigit() for word in words):
        return Reply(
            1, err="kill: usage: kill [-s sigspec | -n signum | -sigspec] pid | jobspec ... or kill -l [sigspec]\n"
        )
    return _signal(call, signal, [int(word) for word in words])


def _signal(call: Call, signal: str, pids: list[int]) -> Reply:
    errors = []
    for pid in pids:
        process = call.machine.processes.get(pid)
        if process is None:
            errors.append(f"kill: ({pid}): No such process\n")
        elif not call.root and process.user != call.context.user:
            errors.append(f"kill: ({pid}): Operation not permitted\n")
        elif signal != "0":
            if signal != "USR1":  # only asks the worker to write into its log
                call.changes()
            _deliver(call.machine, process, signal)
    return Reply(1 if errors else 0, err="".join(errors))


def _deliver(machine: Machine, process: Process, signal: str) -> None:
    if process.on_signal is not None:
        process.on_signal(signal)
    elif signal in ("TERM", "KILL", "INT", "HUP") and process.pid != 1:
        machine.end(process)


@program("uptime")
def uptime(call: Call) -> Reply:
    machine = call.machine
    if call.words == ("-s",):
        return Reply(out=machine.timeline.date(machine.booted).strftime("%Y-%m-%d %H:%M:%S") + "\n")
    up = int(machine.uptime() / 60)
    now = machine.timeline.date().strftime("%H:%M:%S")
    return Reply(out=f" {now} up {up // 60:2}:{up % 60:02},  0 users,  load average: 0.08, 0.03, 0.01\n")
