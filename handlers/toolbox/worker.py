"""Facts about a worker machine: systemd with Docker (Ubuntu 16.04 and later) and upstart (14.04).

Source: https://docs.travis-ci.com/user/enterprise/worker-cli-commands/
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Target

SERVICE = "travis-worker"
SYSTEMD, UPSTART = "systemd", "upstart"
DOCKER = "172.17.0.1"  # every machine with Docker has it, so a consumer seen from there may be anybody's
LONGEST = 400  # characters of its log that enter a sentence
JUST_STARTED = timedelta(minutes=2)  # it connects within seconds; sooner than this, its absence says nothing
SETTLED = timedelta(minutes=2)  # a worker that has been up for less may be one that keeps ending
BROKER_PORTS = "( dport = :5672 or dport = :4567 or dport = :5671 )"
LOG = f"/var/log/upstart/{SERVICE}.log"  # of Ubuntu 14.04, which puts it away every night
ROTATED = (*(f"{LOG}.{night}.gz" for night in range(7, 0, -1)), f"{LOG}.1")
# Of a worker whose builds run in LXD: a program of its own, no container.
SNAP = f"/var/snap/{SERVICE}/common/worker.env"
SETTINGS = (f"/etc/default/{SERVICE}", SNAP)  # one of them makes a machine a worker's
PLATFORM = ("/etc/replicated.conf", "/etc/replicated.alias", "/var/lib/replicated", "/etc/kubernetes")
ORDERS = "worker started|SIG(USR2|INT) received"
SHOWN = "ActiveState,SubState,MainPID,UnitFileState,WantedBy,ExecMainStartTimestampMonotonic,NRestarts"


@dataclass(frozen=True)
class Service:
    """The travis-worker service: `since` is how long its process has been up, None when that is not known; `turning`
    is between an end and the next start, where nobody has to start it. `restarts` counts those that nobody ordered,
    since it was last started by hand; None where the init system does not count them (upstart, systemd before 235).
    """

    running: bool
    turning: bool
    pid: int
    state: str
    since: timedelta | None
    at_boot: bool
    restarts: int | None = None


# ---------------------------------------------------------------- facts


@fact
def init_system(machine: Target) -> Fact[str]:
    """`systemd` or `upstart`."""
    return Fact(f"Which init system runs on {machine}?", machine, sh("ps", "-p", "1", "-o", "comm="), _init_system)


def _init_system(said: Output) -> str:
    names = {"systemd": SYSTEMD, "init": UPSTART}
    if (name := said.out.strip()) not in names:
        raise Unknown(f"process 1 is `{name[:40]}`, neither systemd nor upstart")
    return names[name]


@fact
def addresses(machine: Target) -> Fact[tuple[str, ...]]:
    """Every address of its own that the machine has, the configured one first: the broker sees one of them."""

    def parse(said: Output) -> tuple[str, ...]:
        own = (each for each in said.out.split() if each != DOCKER and not each.startswith("fe80:"))
        return tuple(dict.fromkeys(filter(None, (machine.address, *own))))

    return Fact(f"Which addresses has {machine}?", machine, sh("hostname", "-I"), parse)


@fact
def boot_id(machine: Target) -> Fact[str]:
    """A value that changes with every boot."""
    question = sh("cat", "/proc/sys/kernel/random/boot_id")
    return Fact(f"boot id of {machine}", machine, question, _line)


def _line(said: Output) -> str:
    if not said.ok or not said.out.strip():
        raise Unknown(f"no answer: {said.err.strip() or 'empty'}")
    return said.out.strip()


@fact
def uptime(machine: Target) -> Fact[timedelta]:
    return Fact(f"How long is {machine} up?", machine, sh("cat", "/proc/uptime"), _uptime)


def _uptime(said: Output) -> timedelta:
    return timedelta(seconds=float(_line(said).split()[0]))


@fact
def unit(machine: Target) -> Fact[dict[str, str]]:
    """The properties of the systemd unit."""
    question = sh("systemctl", "show", SERVICE, f"--property={SHOWN}")
    return Fact(f"Is {SERVICE} running on {machine}?", machine, question, _properties)


def _properties(said: Output) -> dict[str, str]:
    return dict(line.split("=", 1) for line in _line(said).splitlines() if "=" in line)


@fact
def upstart_status(machine: Target) -> Fact[str]:
    question = sh("status", SERVICE).sudo()
    return Fact(f"Is {SERVICE} running on {machine}?", machine, question, _line)


@fact
def process_age(machine: Target) -> Fact[timedelta | None]:
    """How long the worker's own process is up on an upstart machine, where it is no container."""
    question = sh("ps", "-C", SERVICE, "-o", "etimes=")
    return Fact(f"How long is {SERVICE} up on {machine}?", machine, question, _age)


def _age(said: Output) -> timedelta | None:
    ages = [int(word) for word in said.out.split() if word.isdigit()]
    return timedelta(seconds=max(ages)) if ages else None


@fact
def upstart_conf(machine: Target) -> Fact[bool]:
    """Does upstart start it at boot?"""
    files = (f"/etc/init/{SERVICE}.conf", f"/etc/init/{SERVICE}.override")
    question = sh("grep", "-h", "-E", "^(start on|manual)", *files)
    return Fact(f"Does {SERVICE} start at boot on {machine}?", machine, question, _starts)


def _starts(said: Output) -> bool:
    return "start on" in said.out and "manual" not in said.out.split()


@fact
def not_to_reboot(machine: Target) -> Fact[str]:
    """Why it must not be rebooted, empty when it may: only what is a worker's machine, and no platform's as well."""
    question = sh("stat", "-c", "%n", *SETTINGS, *PLATFORM)
    return Fact(f"Is {machine} a worker machine and no platform?", machine, question, _not_to_reboot)


@fact
def is_snap(machine: Target) -> Fact[bool]:
    """Does travis-worker come as a snap there, with builds in LXD? The same question as `not_to_reboot`."""
    question = sh("stat", "-c", "%n", *SETTINGS, *PLATFORM)
    return Fact(f"Is {SERVICE} a snap on {machine}?", machine, question, lambda said: SNAP in said.out.split())


def _not_to_reboot(said: Output) -> str:
    """`stat` names what is there, and ends with 1 for what is not."""
    there = said.out.split()
    if said.exit is None or not any(each in SETTINGS for each in there):
        return "no settings of travis-worker were found on it"
    if found := [each for each in there if each in PLATFORM]:
        return f"it has a platform on it as well ({', '.join(found)})"
    return ""


@fact
def running_builds(machine: Target) -> Fact[int]:
    """How many build containers run."""
    question = sh("docker", "ps", "-q", "--filter", "name=travis-job-").sudo()
    return Fact(f"number of running builds on {machine}", machine, question, _count_lines, sampled=True)


@fact
def running_instances(machine: Target) -> Fact[int]:
    """The same where builds run in LXD."""
    question = sh("lxc", "list", "travis-job-", "-c", "n", "--format", "csv").sudo()
    return Fact(f"number of running builds on {machine}", machine, question, _count_lines, sampled=True)


def builds(machine: Target, snap: bool) -> Fact[int]:
    return running_instances(machine) if snap else running_builds(machine)


def _count_lines(said: Output) -> int:
    if not said.ok:
        raise Unknown(f"its builds cannot be listed: {said.err.strip()[:200] or 'no answer in time'}")
    return len(said.out.split())


@fact
def still_process(machine: Target, init: str, pid: int) -> Fact[bool]:
    """Is it still the process that was seen? A restart gives it another one."""
    if init == UPSTART:
        return Fact(
            f"{SERVICE} on {machine} is still process {pid}",
            machine,
            sh("status", SERVICE).sudo(),
            lambda said: _upstart_pid(_line(said)) == pid,
        )
    question = sh("systemctl", "show", SERVICE, f"--property={SHOWN}")
    return Fact(
        f"{SERVICE} on {machine} is still process {pid}",
        machine,
        question,
        lambda said: _main_pid(said) == pid,
    )


def _main_pid(said: Output) -> int:
    if not (pid := _properties(said).get("MainPID", "")).isdigit():
        raise Unknown(f"systemd did not say which process {SERVICE} is")
    return int(pid)


@fact
def still_on_boot(machine: Target, boot: str) -> Fact[bool]:
    """Has the machine not been rebooted since that boot id was read?"""
    question = sh("cat", "/proc/sys/kernel/random/boot_id")
    return Fact(f"{machine} is still on boot {boot}", machine, question, lambda said: _line(said) == boot)


@fact
def paused(machine: Target, init: str) -> Fact[bool]:
    """Has the worker been told to drain, and not been told otherwise since? Its log says so."""
    return Fact(f"{SERVICE} on {machine} is paused", machine, orders(init), _paused)


@fact
def not_paused(machine: Target, init: str) -> Fact[bool]:
    """The same, asked before pausing: one that is up for longer than logs are kept was hardly paused all along."""
    asks = f"{SERVICE} on {machine} is not paused"
    return Fact(asks, machine, orders(init), lambda said: not pausing(since_start(said)[0]))


def log(init: str) -> Command:
    """How the end of the worker's log is read."""
    if init == UPSTART:
        return sh("tail", "-n", "500", LOG).sudo()
    return sh("journalctl", "-u", SERVICE, "-n", "500", "-o", "cat", "--no-pager").sudo()


def orders(init: str) -> Command:
    """How the worker's starts, and what it was told by signals, are found in all that is kept of its log: a pause lasts
    longer than the end of a log goes back.
    """
    if init == UPSTART:
        return sh("zgrep", "-h", "-E", ORDERS, *ROTATED, LOG).sudo()
    whole = sh("journalctl", "-u", SERVICE, "-b", "-o", "cat", "--no-pager").sudo()
    return whole | sh("grep", "-E", ORDERS)


def since_start(said: Output) -> tuple[str, bool]:
    """The orders since the last start, and whether that start is there; raises Unknown when nothing can be read."""
    wrong = [line for line in said.err.splitlines() if "No such file" not in line]
    if said.exit is None or (wrong and not said.out):
        raise Unknown(f"the worker's log cannot be read: {' '.join(wrong)[:200] or 'no answer in time'}")
    _, started, since = said.out.rpartition("worker started")
    return since, bool(started)


def pausing(since: str) -> bool:
    """USR2 toggles: an odd number since the process began is a pause, and the second one ends it."""
    return since.count("SIGUSR2 received") % 2 == 1


def _paused(said: Output) -> bool:
    since, started = since_start(said)
    if not started and not pausing(since):
        raise Unknown("the worker's log does not go back to its start, so nobody knows whether it was told to pause")
    return pausing(since)


@fact
def last_error(machine: Target, init: str) -> Fact[str]:
    """The last error in the worker's log and its reason, empty when there is none."""
    return Fact(f"last error in the log of {SERVICE} on {machine}", machine, log(init), _last_error)


# What the wrapper's shell says of the settings is left out: it repeats what it could not read of them.
_ERROR = re.compile(
    r"\blevel=(error|fatal|panic)\b|^docker: |: line \d+: /var/tmp/travis-run\.d[^\s:]*: [A-Z][A-Za-z ]+$"
)


def _last_error(said: Output) -> str:
    lines = [line for line in said.out.splitlines() if _ERROR.search(line)]
    return (words_of(lines[-1]) or lines[-1][:LONGEST]) if said.ok and lines else ""


@fact
def last_words(machine: Target) -> Fact[str]:
    """The error that the worker's log ends with, empty when it ends otherwise, as after a signal."""
    return Fact(f"last words in the log of {SERVICE} on {machine}", machine, log(SYSTEMD), _last_words)


def _last_words(said: Output) -> str:
    """What systemd adds has no level."""
    if not said.ok:
        raise Unknown(f"the worker's log cannot be read: {said.err.strip()[:200] or 'no answer in time'}")
    last = next((line for line in reversed(said.out.splitlines()) if " level=" in line), "")
    return words_of(last) if _ERROR.search(last) else ""


def words_of(line: str) -> str:
    """What a line of the worker's log says, and why: `couldn't connect to AMQP: x509: …`."""
    return ": ".join(filter(None, (_field("msg", line), _field("err", line))))[:LONGEST]


def _field(name: str, line: str) -> str:
    """Go names what it could not read of an address, which may be a piece of the password."""
    found = re.search(rf'\b{name}=("(?:[^"\\]|\\.)*"|\S+)', line)
    plain = re.sub(r"\\(.)", r"\1", found[1].removeprefix('"').removesuffix('"')) if found else ""
    plain = re.sub(r'(parse |invalid (?:port|URL escape|userinfo|character) )"[^"]*"', r"\1[masked]", plain)
    return re.sub(r"(://)\S*@", r"\1[masked]@", plain)


@fact
def last_progress(machine: Target, init: str) -> Fact[datetime | None]:
    """When the worker's log last said something of a build, None when the end of it says nothing of any."""
    return Fact(f"What did {SERVICE} on {machine} do last?", machine, log(init), _last_progress)


_PROGRESS = re.compile("received amqp delivery|starting job|started instance|finished job|requeue|erroring job")


def _last_progress(said: Output) -> datetime | None:
    if not said.ok:
        raise Unknown(f"the worker's log cannot be read: {said.err.strip()[:200] or 'no answer in time'}")
    found = [line for line in said.out.splitlines() if _PROGRESS.search(line)]
    return moment_of(found[-1]) if found else None


def moment_of(line: str) -> datetime | None:
    """When a line of the worker's log was written."""
    try:
        at = datetime.fromisoformat(_field("time", line))
    except ValueError:
        return None
    return at if at.tzinfo is not None else None


@fact
def amqp_sockets(machine: Target) -> Fact[int]:
    """Established connections to the broker's ports."""
    question = sh("ss", "-tn", "state", "established", BROKER_PORTS)
    return Fact(f"Is the worker on {machine} connected to RabbitMQ?", machine, question, _sockets)


@fact
def container_pid(machine: Target) -> Fact[int]:
    question = sh("docker", "inspect", "-f", "{{.State.Pid}}", SERVICE).sudo()
    return Fact(f"Which process is the worker's container on {machine}?", machine, question, _pid)


@fact
def container_sockets(machine: Target, pid: int) -> Fact[int]:
    """The same inside the worker's container: it has a network of its own, so the host's `ss` does not see its
    sockets.
    """
    question = sh("nsenter", "-t", str(pid), "-n", "ss", "-tn", "state", "established", BROKER_PORTS).sudo()
    return Fact(f"Is the worker on {machine} connected to RabbitMQ?", machine, question, _sockets)


def _pid(said: Output) -> int:
    if not _line(said).isdigit():
        raise Unknown("docker knows no process of the worker's container")
    return int(_line(said))


def _sockets(said: Output) -> int:
    """Rows begin with the lengths of two queues, below a header that `ss` always writes: `-H` is unknown to the one of
    Ubuntu 14.04 and 16.04.
    """
    if not said.ok or not said.out.lstrip().startswith("Recv-Q"):
        raise Unknown(f"its connections cannot be seen: {said.err.strip()[:200] or 'no answer'}")
    return sum(1 for line in said.out.splitlines() if line.lstrip()[:1].isdigit())


def before_sockets(machine: Target, init: str) -> tuple[Fact[Any], ...]:
    """What has to be known before `sockets` can be asked, so that it is asked in the same round as something else."""
    return () if init == UPSTART else (is_snap(machine), container_pid(machine))


def sockets(look: Look, machine: Target, init: str) -> Fact[int]:
    """The fact that says how many AMQP connections the worker itself holds."""
    look.together(*before_sockets(machine, init))
    if init == UPSTART or look(is_snap(machine)):
        return amqp_sockets(machine)
    return container_sockets(machine, look(container_pid(machine)))


# ---------------------------------------------------------------- putting facts together


def service(look: Look, machine: Target, *also: Fact[Any]) -> Service:
    """The worker's service, whatever starts it; `also` are other facts to ask in the same round."""
    look.together(*asked(look, machine), *also)
    if look(init_system(machine)) == UPSTART:
        return _upstart_service(look(upstart_status(machine)), look(process_age(machine)), look(upstart_conf(machine)))
    return _systemd_service(look(unit(machine)), look(uptime(machine)))


def asked(look: Look, machine: Target) -> tuple[Fact[Any], ...]:
    """The facts that say how the service is, on its init system."""
    if look(init_system(machine)) == UPSTART:
        return upstart_status(machine), process_age(machine), upstart_conf(machine)
    return unit(machine), uptime(machine)


def ended(look: Look, machine: Target, *also: Fact[Any]) -> str:
    """With which error a snap has ended by itself, empty for anything else that is stopped: only a snap is not started
    again. `also` are other facts to ask in the same round.
    """
    if look(init_system(machine)) == UPSTART:
        return ""
    look.together(is_snap(machine), last_words(machine), *also)
    return look(last_words(machine)) if look(is_snap(machine)) else ""


def _systemd_service(properties: dict[str, str], up: timedelta) -> Service:
    """Some of the vendor's installers put the unit itself where its link belongs: it starts at boot, and is not called
    enabled.
    """
    known = properties.get("UnitFileState") or properties.get("WantedBy")
    if properties.get("ActiveState") == "inactive" and not known:
        raise Unknown(f"systemd knows no unit {SERVICE}: it is not installed there, or has another name")
    started = properties.get("ExecMainStartTimestampMonotonic", "")
    since = up - timedelta(microseconds=int(started)) if started.isdigit() and started != "0" else None
    restarts = properties.get("NRestarts", "")
    return Service(
        running=properties.get("ActiveState") == "active" and properties.get("SubState") == "running",
        turning=properties.get("ActiveState") in ("activating", "deactivating"),
        pid=int(properties.get("MainPID", "0") or 0),
        state=f"{properties.get('ActiveState')} ({properties.get('SubState')})",
        since=since,
        at_boot=properties.get("UnitFileState") == "enabled" or "multi-user.target" in properties.get("WantedBy", ""),
        restarts=int(restarts) if restarts.isdigit() else None,
    )


def _upstart_service(status: str, age: timedelta | None, at_boot: bool) -> Service:
    state = status.removeprefix(SERVICE).split(",")[0].strip()
    running = state == "start/running"
    turning = not running and state != "stop/waiting"
    return Service(running, turning, _upstart_pid(status), state, age, at_boot)


def _upstart_pid(status: str) -> int:
    """From `travis-worker start/running, process 1234`."""
    last = status.strip().rsplit(" ", 1)[-1]
    return int(last) if "process" in status and last.isdigit() else 0
