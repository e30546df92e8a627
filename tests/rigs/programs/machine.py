"""A worker machine's clock, files and processes, and the programs that both kinds of machine answer with."""

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.programs.answers import Answer, Call, become, real, said

WORKER = Path(__file__).parent / "travis_worker.py"
FASTER = 60  # a machine's second: tests cannot wait for the two minutes after which a worker counts as settled
UP = 90_000.0  # seconds that the machine is up when a test begins
SETTLED = 3_600.0  # ... and its worker
AGAIN_AFTER = 0.2  # seconds from a worker's end to its next start
STOP_WITHIN = 5.0  # ... from TERM to KILL
BUILDS_WITHIN = 10.0
LOG_WITHIN = 60.0
REBOOT_SECONDS = 0.8
AMQP = 5672  # the port that the machine believes in


@dataclass
class Clock:
    """Seconds since the machine was booted, in its own time."""

    up: float = UP

    def __post_init__(self) -> None:
        self._from = time.monotonic()

    def now(self) -> float:
        return self.up + (time.monotonic() - self._from) * FASTER


class Supervised:
    """travis-worker under an init system that starts it again whenever it ends by itself."""

    def __init__(self, launch: Callable[[], subprocess.Popen[bytes]], clock: Callable[[], float]) -> None:
        self._launch = launch
        self._clock = clock
        self._changed = threading.RLock()
        self._wanted = False
        self.process: subprocess.Popen[bytes] | None = None
        self.started = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int:
        process = self.process
        return process.pid if process is not None else 0

    @property
    def wanted(self) -> bool:
        return self._wanted

    def start(self) -> None:
        with self._changed:
            self._wanted = True
            if self.process is None:
                self._begin()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        with self._changed:
            self._wanted = False
            process, self.process = self.process, None
        if process is not None:
            process.send_signal(number)
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _begin(self) -> None:
        self.process, self.started = self._launch(), self._clock()
        threading.Thread(target=self._watch, args=[self.process], name="supervisor", daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        with self._changed:
            if self.process is not process:
                return
            self.process = None
        time.sleep(AGAIN_AFTER)
        with self._changed:
            if self._wanted and self.process is None:
                self.restarts += 1
                self._begin()


class Machine:
    """What a worker machine is beside its sshd. `power` turns that off and on again; `stuck` is a machine on which
    every worker loses its connection at once, until it is rebooted.
    """

    def __init__(self, name: str, address: str, folder: Path, worker_env: Mapping[str, str]) -> None:
        self.name = name
        self.address = address
        self.folder = folder
        self.root = folder / "root"
        self.jobs = folder / "jobs"
        self.log = folder / "worker.log"
        self.stuck = False
        self.clock = Clock()
        self.boot_id = str(uuid.uuid4())
        self.power: Callable[[bool], None] = lambda on: None
        self._worker_env = dict(worker_env)
        self._rebooting: list[threading.Thread] = []
        self.worker = Supervised(self._start_worker, self.now)
        self._furnish()

    def _furnish(self) -> None:
        self.jobs.mkdir(parents=True)
        self.log.touch()
        self.write("/etc/default/travis-worker", "export QUEUE_NAME='builds.xenial'\n")

    def write(self, path: str, text: str) -> None:
        """A file of this machine; what has none is read from the real one."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def on(self) -> None:
        self.worker.start()

    def off(self) -> None:
        """For good, with everything that was started."""
        for thread in self._rebooting:
            thread.join(30)
        self.worker.stop(signal.SIGKILL)

    def now(self) -> float:
        return self.clock.now()  # another one after each boot

    def settle(self) -> None:
        """As if the worker had been started an hour ago."""
        self.worker.started -= SETTLED

    def tell_worker(self, order: str) -> None:
        """`lose`: its connection is closed in good order, and it lives on. `finish`: builds end, now and to come."""
        process = self.worker.process
        assert process is not None, f"no worker runs on {self.name}"
        assert process.stdin is not None
        process.stdin.write(f"{order}\n".encode())
        process.stdin.flush()

    def wait_for_builds(self, count: int) -> None:
        """Until so many run here."""
        deadline = time.monotonic() + BUILDS_WITHIN
        while (seen := len(list(self.jobs.iterdir()))) != count:
            assert time.monotonic() < deadline, f"{seen} builds run on {self.name}, not {count}"
            time.sleep(0.02)

    def wait_for_log(self, word: str) -> None:
        deadline = time.monotonic() + LOG_WITHIN
        while word not in self.log.read_text():
            assert time.monotonic() < deadline, f"{self.name} did not log {word}"
            time.sleep(0.02)

    def logged(self, *words: str) -> list[str]:
        """Which of these words the worker's log holds, in its order."""
        lines = self.log.read_text().splitlines()
        return [word for line in lines for word in words if word in line]

    def _start_worker(self) -> subprocess.Popen[bytes]:
        env = {
            **self._worker_env,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "ADDRESS": self.address,
            "JOBS": str(self.jobs),
            "LOST": "yes" if self.stuck else "no",
        }
        for left in self.jobs.iterdir():
            left.unlink()
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, str(WORKER)], env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
            )

    # ------------------------------------------------------------ programs

    def programs(self) -> dict[str, Answer]:
        return {
            "cat": self._cat,
            "stat": self._stat,
            "hostname": lambda call: said(f"{self.address} \n") if call.has("-I") else real(call),
            "shutdown": self._shutdown,
        }

    def paths(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The same words, with this machine's files in place of the real one's."""
        return tuple(self._path(word) for word in words)

    def _path(self, word: str) -> str:
        own = self.root / word.lstrip("/")
        return str(own) if word.startswith("/") and own.exists() else word

    def _cat(self, call: Call) -> str:
        known = {
            "/proc/sys/kernel/random/boot_id": lambda: self.boot_id,
            "/proc/uptime": lambda: f"{self.clock.now():.2f} {self.clock.now():.2f}",
        }
        if len(call.words) == 1 and call.words[0] in known:
            return said(f"{known[call.words[0]]()}\n")
        return become("/usr/bin/cat", self.paths(call.words))

    def _stat(self, call: Call) -> str:
        if call.has("-c", "%n"):
            found = [path for path in call.words[2:] if self._path(path) != path]
            missing = [path for path in call.words[2:] if path not in found]
            err = "".join(f"stat: cannot stat '{path}': No such file or directory\n" for path in missing)
            return said("".join(f"{path}\n" for path in found), err, 1 if missing else 0)
        return become("/usr/bin/stat", self.paths(call.words))

    def last_lines(self, count: str) -> str:
        """The worker's log: the programs that show it differ in name only."""
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        return said("".join(lines[-int(count) :]))

    def sockets(self) -> str:
        """`ss -tn state established` to the broker, as it would look on the vendor's port."""
        port = int(self._worker_env["AMQP_URI"].rsplit(":", 1)[1].partition("/")[0])
        lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        pairs = ((_endpoint(fields[1]), _endpoint(fields[2])) for fields in lines if fields[3] == "01")
        mine = [near for near, far in pairs if near[0] == self.address and far[1] == port]
        rows = "".join(f"0 0 {host}:{local} 10.0.0.10:{AMQP}\n" for host, local in mine)
        return f"Recv-Q Send-Q Local Address:Port Peer Address:Port\n{rows}"

    # ------------------------------------------------------------ rebooting

    def _shutdown(self, call: Call) -> str | None:
        if not call.root:
            return said(err="shutdown: you must be root\n", status=1)
        if call.words != ("-r", "now"):
            return None
        thread = threading.Thread(target=self._reboot, name=f"reboot {self.name}")
        self._rebooting.append(thread)
        thread.start()
        return said()

    def _reboot(self) -> None:
        time.sleep(0.1)
        self.going_down()
        self.power(False)
        time.sleep(REBOOT_SECONDS)
        self.boot_id, self.clock, self.stuck = str(uuid.uuid4()), Clock(up=1.0), False
        self.power(True)
        if self.starts_at_boot():
            self.worker.start()

    def going_down(self) -> None:
        self.worker.stop()

    def starts_at_boot(self) -> bool:
        return True


def _endpoint(text: str) -> tuple[str, int]:
    """From `1F00007F:1628`, as the kernel writes 127.0.0.31:5672."""
    host, _, port = text.partition(":")
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(host))), int(port, 16)
