"""systemd-run: a command that becomes a unit of its own, outlives its connection, and cannot be started twice."""

import itertools
import threading
from dataclasses import dataclass, replace

from bot.sandbox.installation.programs import Call, Reply, Usage, find, on_systemd, options, program, run, unsupported
from bot.sandbox.installation.programs.systemd import INTERACTIVE, full
from bot.sandbox.installation.state import Service, Unit
from bot.sandbox.installation.timeline import Ended

EXITED, KILLED = 1, 2  # CLD_EXITED, CLD_KILLED
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
        return Reply(1, err=f"{failed} {INTERACTIVE}")
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
