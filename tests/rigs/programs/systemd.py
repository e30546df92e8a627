"""A worker machine with systemd and Docker, as Ubuntu 16.04 and later have it: the worker runs in a container."""

import os
import signal
import subprocess
import threading
from dataclasses import dataclass

from tests.rigs.programs.answers import Answer, Call, real, said
from tests.rigs.programs.machine import Machine

SERVICE = "travis-worker"
ENABLED = "enabled"
EXITED, KILLED = "1", "2"  # CLD_EXITED, CLD_KILLED


@dataclass
class Transient:
    """A unit that systemd-run started; it is kept with its result until it is stopped or forgotten."""

    process: subprocess.Popen[bytes]
    result: str = "success"
    over: bool = False

    @property
    def failed(self) -> bool:
        return self.over and (self.result != "success" or self.process.returncode != 0)

    def properties(self) -> dict[str, str]:
        told = {"LoadState": "loaded", "ActiveState": "active", "SubState": "running", "Result": self.result}
        if not self.over:
            return {**told, "ExecMainCode": "0", "ExecMainStatus": "0"}
        status = self.process.returncode
        ended = {"ExecMainCode": EXITED if status >= 0 else KILLED, "ExecMainStatus": str(abs(status))}
        state = {"ActiveState": "failed", "SubState": "failed"} if self.failed else {"SubState": "exited"}
        result = {"Result": "exit-code"} if self.failed and self.result == "success" else {}
        return {**told, **ended, **state, **result}


NEVER_LOADED = {
    "LoadState": "not-found",
    "ActiveState": "inactive",
    "SubState": "dead",
    "Result": "success",
    "ExecMainCode": "0",
    "ExecMainStatus": "0",
}


class SystemdMachine(Machine):
    def _furnish(self) -> None:
        super()._furnish()
        self.path = ""  # where the programs of a unit are found; the rig fills it in
        self.enabled = ENABLED
        self._units: dict[str, Transient] = {}
        self._guard = threading.Lock()

    def programs(self) -> dict[str, Answer]:
        return {
            **super().programs(),
            "ps": lambda call: said("systemd\n") if call.words == ("-p", "1", "-o", "comm=") else real(call),
            "systemctl": self._systemctl,
            "systemd-run": self._systemd_run,
            "journalctl": self._journalctl,
            "docker": self._docker,
            "nsenter": self._nsenter,
        }

    def going_down(self) -> None:
        with self._guard:
            units, self._units = self._units, {}
        for unit in units.values():
            unit.process.kill()
        super().going_down()

    def off(self) -> None:
        super().off()
        self.going_down()

    def starts_at_boot(self) -> bool:
        return self.enabled == ENABLED

    # ------------------------------------------------------------ systemctl

    def _systemctl(self, call: Call) -> str | None:
        if not call.words:
            return None
        verb, *rest = call.words
        if verb == "show":
            return self._show(rest)
        if len(rest) != 1:
            return None
        name = rest[0].removesuffix(".service")
        if verb == "is-active":
            return said(f"{self._service()['ActiveState']}\n", status=0 if self.worker.pid else 3)
        if verb == "is-enabled":
            return said(f"{self.enabled}\n", status=0 if self.starts_at_boot() else 1)
        if not call.root:
            return said(err=f"Failed to {verb} {name}.service: Interactive authentication required.\n", status=1)
        orders = {"start": self._start, "stop": self._stop, "restart": self._restart, "reset-failed": self._reset}
        return orders[verb](name) if verb in orders else None

    def _show(self, rest: list[str]) -> str | None:
        wanted = [word.removeprefix("--property=") for word in rest[1:] if word != "-p"]
        name = rest[0].removesuffix(".service")
        with self._guard:
            unit = self._units.get(name)
            told = self._service() if name == SERVICE else unit.properties() if unit else NEVER_LOADED
        names = ",".join(wanted).split(",")
        return said("".join(f"{name}={told[name]}\n" for name in names if name in told))

    def _service(self) -> dict[str, str]:
        pid, wanted = self.worker.pid, self.worker.wanted
        active, sub = (
            ("active", "running") if pid else ("activating", "auto-restart") if wanted else ("inactive", "dead")
        )
        return {
            "LoadState": "loaded",
            "ActiveState": active,
            "SubState": sub,
            "MainPID": str(pid),
            "UnitFileState": self.enabled,
            "WantedBy": "multi-user.target" if self.starts_at_boot() else "",
            "ExecMainStartTimestampMonotonic": str(int(self.worker.started * 1e6)),
            "NRestarts": str(self.worker.restarts),
            "Result": "success",
        }

    def _start(self, name: str) -> str:
        if name != SERVICE:
            return said(err=f"Failed to start {name}.service: Unit {name}.service not found.\n", status=5)
        self.worker.start()
        return said()

    def _restart(self, name: str) -> str:
        if name == SERVICE:
            self.worker.stop()
        return self._start(name)

    def _stop(self, name: str) -> str:
        if name == SERVICE:
            self.worker.stop()
            return said()
        with self._guard:
            unit = self._units.get(name)
        if unit is None:
            return said(err=f"Failed to stop {name}.service: Unit {name}.service not loaded.\n", status=5)
        if not unit.over:
            unit.process.terminate()
            unit.process.wait(10)
        with self._guard:
            if not unit.failed:
                self._units.pop(name, None)
        return said()

    def _reset(self, name: str) -> str:
        with self._guard:
            if name in self._units and self._units[name].failed:
                del self._units[name]
                return said()
        why = f"Failed to reset failed state of unit {name}.service: Unit {name}.service not loaded.\n"
        return said(err=why, status=1)

    # ------------------------------------------------------------ systemd-run

    def _systemd_run(self, call: Call) -> str | None:
        if "--" not in call.words or not call.words[0].startswith("--unit="):
            return None
        if not call.root:
            return said(err="Failed to start transient service unit: Interactive authentication required.\n", status=1)
        name = call.words[0].removeprefix("--unit=").removesuffix(".service")
        split = call.words.index("--")
        properties = dict(word.split("=", 1) for word in call.words[1:split] if word != "-p")
        with self._guard:
            if name in self._units:
                why = f"Failed to start transient service unit: Unit {name}.service already exists.\n"
                return said(err=why, status=1)
            self._units[name] = unit = Transient(self._run(call.words[split + 1 :]))
        within = float(properties["RuntimeMaxSec"])
        threading.Thread(target=self._watch, args=[unit, within], name=name, daemon=True).start()
        return said(err=f"Running as unit: {name}.service\n")

    def _run(self, words: tuple[str, ...]) -> subprocess.Popen[bytes]:
        env = {"PATH": self.path, "LANG": "C.UTF-8"}
        quiet = subprocess.DEVNULL
        return subprocess.Popen(words, env=env, stdin=quiet, stdout=quiet, stderr=quiet, cwd="/")

    def _watch(self, unit: Transient, within: float) -> None:
        try:
            unit.process.wait(within)
        except subprocess.TimeoutExpired:
            unit.result = "timeout"
            unit.process.kill()
            unit.process.wait()
        unit.over = True

    # ------------------------------------------------------------ docker and the journal

    def _journalctl(self, call: Call) -> str | None:
        if call.words[:3] == ("-u", SERVICE, "-n") and call.words[4:] == ("-o", "cat", "--no-pager"):
            return self.last_lines(call.words[3])
        if call.words == ("-u", SERVICE, "-b", "-o", "cat", "--no-pager"):
            return self.last_lines("0")
        return None

    def _docker(self, call: Call) -> str | None:
        if not call.root:
            return said(err="permission denied while trying to connect to the Docker daemon socket\n", status=1)
        if call.words == ("ps", "-q", "--filter", "name=travis-job-"):
            return said("".join(f"{abs(hash(job.name)):012x}"[:12] + "\n" for job in self.jobs.iterdir()))
        if call.words == ("inspect", "-f", "{{.State.Pid}}", SERVICE):
            return said(f"{self.worker.pid}\n") if self.worker.pid else _no_container()
        if len(call.words) == 4 and call.has("kill", "-s") and call.words[3] == SERVICE:
            return self._signal(call.words[2])
        return None

    def _signal(self, name: str) -> str:
        if not (pid := self.worker.pid):
            return _no_container()
        os.kill(pid, getattr(signal, f"SIG{name}"))
        return said(f"{SERVICE}\n")

    def _nsenter(self, call: Call) -> str | None:
        if not call.root:
            return said(err="nsenter: reassociate to namespace 'ns/net' failed: Operation not permitted\n", status=1)
        inside = ("-t", str(self.worker.pid), "-n", "ss", "-tn", "state", "established")
        return said(self.sockets()) if call.has(*inside) else None


def _no_container() -> str:
    why = f"Error response from daemon: Cannot kill container: {SERVICE}: No such container: {SERVICE}\n"
    return said(err=why, status=1)
