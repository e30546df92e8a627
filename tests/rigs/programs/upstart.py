"""A worker machine with upstart, as Ubuntu 14.04 has it: the worker is a program of its own."""

import os
import re
import signal

from tests.rigs.programs.answers import Answer, Call, become, real, said
from tests.rigs.programs.machine import Machine

SERVICE = "travis-worker"
LOG = "/var/log/upstart/travis-worker.log"
CONF = 'description "Travis Worker"\n\nstart on (started networking)\nstop on runlevel [!2345]\n\nrespawn\n'


class UpstartMachine(Machine):
    def _furnish(self) -> None:
        super()._furnish()
        self.write(f"/etc/init/{SERVICE}.conf", CONF)

    def programs(self) -> dict[str, Answer]:
        jobs = dict.fromkeys(("status", "start", "stop", "restart"), self._job)
        return {
            **super().programs(),
            **jobs,
            "ps": self._ps,
            "kill": self._kill,
            "tail": self._tail,
            "grep": lambda call: become("/usr/bin/grep", self.paths(call.words)),
            "zgrep": self._zgrep,
            "ss": lambda call: said(self.sockets()) if call.has("-tn", "state", "established") else None,
            "docker": self._docker,
        }

    def _job(self, call: Call) -> str:
        if call.words != (SERVICE,):
            return said(err=f"{call.program}: Unknown job: {' '.join(call.words)}\n", status=1)
        if call.program == "status":
            return said(self._status())
        if not call.root:
            return said(err=f"{call.program}: Rejected send message\n", status=1)
        return self._turn(call.program)

    def _turn(self, order: str) -> str:
        if order == "start" and self.worker.wanted:
            return said(err=f"start: Job is already running: {SERVICE}\n", status=1)
        if order != "start" and not self.worker.wanted:
            return said(err=f"{order}: Unknown instance: \n", status=1)
        if order != "start":
            self.worker.stop()
        if order != "stop":
            self.worker.start()
        return said(self._status())

    def _status(self) -> str:
        if not self.worker.wanted:
            return f"{SERVICE} stop/waiting\n"
        pid = self.worker.pid
        return f"{SERVICE} start/running, process {pid}\n" if pid else f"{SERVICE} start/post-stop\n"

    def _ps(self, call: Call) -> str | None:
        if call.words == ("-p", "1", "-o", "comm="):
            return said("init\n")
        if call.words != ("-C", SERVICE, "-o", "etimes="):
            return real(call)
        if not self.worker.pid:
            return said(status=1)
        return said(f"{int(self.clock.now() - self.worker.started):7}\n")

    def _kill(self, call: Call) -> str | None:
        if len(call.words) != 3 or not call.has("-s"):
            return real(call)
        _, name, pid = call.words
        if not call.root:
            return said(err=f"kill: ({pid}) - Operation not permitted\n", status=1)
        if pid != str(self.worker.pid):
            return said(err=f"kill: ({pid}) - No such process\n", status=1)
        os.kill(int(pid), getattr(signal, f"SIG{name}"))
        return said()

    def _tail(self, call: Call) -> str:
        if len(call.words) == 3 and call.has("-n") and call.words[2] == LOG:
            return self.last_lines(call.words[1])
        return become("/usr/bin/tail", self.paths(call.words))

    def _zgrep(self, call: Call) -> str | None:
        if call.words[:2] != ("-h", "-E") or call.words[-1] != LOG:
            return None
        lines = self.log.read_text(errors="replace").splitlines(keepends=True)
        missing = "".join(f"gzip: {path}: No such file or directory\n" for path in call.words[3:-1])
        return said("".join(line for line in lines if re.search(call.words[2], line)), missing, 2)

    def _docker(self, call: Call) -> str | None:
        if call.words == ("ps", "-q", "--filter", "name=travis-job-"):
            return said("".join(f"{abs(hash(job.name)):x}"[:12] + "\n" for job in self.jobs.iterdir()))
        return None
