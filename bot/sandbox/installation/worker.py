"""The life of travis-worker on one machine: started by its init system, connected to RabbitMQ, running builds.

systemd hosts run it in a container through a wrapper, Ubuntu 14.04 runs the program itself; it is always started again
when it ends, five seconds later. A snap is a program of the machine too, and stays ended. USR2 drains and pauses, a
second USR2 ends it, INT drains and ends it, TERM puts running builds back and ends it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from bot.sandbox.installation.broker import PORT, TLS_PORT, AmqpRefused, Broker, Connection, Consumer, Job
from bot.sandbox.installation.state import Container, File, Machine, Process, Service, Unit
from bot.sandbox.installation.timeline import Event

UNIT = "travis-worker"
IMAGE = "travisci/worker:v6.2.2"
IMPLIED = 5671  # where Go's AMQP client goes with TLS when no port is named
RUN_DIR = "/var/tmp/travis-run.d"
EFFECTIVE = f"{RUN_DIR}/travis-worker"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PROGRAM = "\x7fELF\2\1\1\0"
SNAP = "/var/snap/travis-worker/common/worker.env"
SNAP_PROGRAM = "/snap/travis-worker/current/bin/travis-worker"
UPSTART_LOG = "/var/log/upstart/travis-worker.log"
SETTINGS = tuple(
    f"/etc/default/{name}"
    for name in (
        "travis-enterprise",
        "travis-worker-chef",
        "travis-worker",
        "travis-worker-cloud-init",
        "travis-worker-local",
    )
)

# How long things take, in seconds of the simulated machine.
WRAPPER = 1.0
CONNECTING = 2.0
DIAL_TIMEOUT = 30.0
STOPPING = 1.0
POST_STOP = 5.0
STOP_TIMEOUT = 90.0
SIGNAL_POLL = 1.0
REQUEUE = 5.0
SCRIPT_TIMEOUT = 60.0
CPUS = 4  # of every machine
LONGEST_LOG = 1_000_000  # characters; then the beginning is forgotten, as logrotate does


@dataclass(eq=False)
class Processor:
    """One place for a build: at most one consumer, at most one job."""

    consumer: Consumer | None = None
    job: Job | None = None
    container: Container | None = None
    process: Process | None = None


@dataclass(eq=False)
class TravisWorker(Service):
    machine: Machine
    broker: Broker
    connection: Connection | None = None
    commands: Consumer | None = None
    processors: list[Processor] = field(default_factory=list)
    draining: bool = False
    pausing: bool = False
    hangs: bool = False  # it takes builds and does nothing with them
    processed: int = 0
    container: Container | None = None
    process: Process | None = None
    _events: list[Event] = field(default_factory=list)

    @property
    def unit(self) -> Unit:
        return self.machine.units[UNIT]

    # ------------------------------------------------------------ what the init system does

    def start(self, unit: Unit) -> None:
        unit.turn("active", "running")
        unit.result, unit.started = "success", self.machine.timeline.now()
        if self.machine.systemd:
            self.machine.log("systemd", "Started Travis Worker.", "systemd")
        if self.machine.contained:
            self.machine.units["docker"].start()  # its unit requires it
            unit.main = self.machine.spawn("docker", f"docker run --rm --name {UNIT} {IMAGE} {UNIT}", "travis")
        self._later(WRAPPER if self.machine.contained else 0.1, self._run)

    def stop(self, unit: Unit) -> None:
        """TERM: running builds go back to the queue. A wedged docker answers to nothing but the time-out."""
        unit.respawns = False
        if self.process is not None and not self.machine.wedged:
            self._say_terminated()
        unit.turn("deactivating", "stop-sigterm")
        self._later(STOP_TIMEOUT if "docker" in self.machine.wedged else STOPPING, self._stopped)

    def _stopped(self) -> None:
        self._end()
        self.unit.turn("deactivating", "stop-post")
        self._later(POST_STOP, self.unit.stopped)

    def restarted(self) -> None:
        """It ended by itself: it is started again after the pause that its unit prescribes, if it prescribes one."""
        self._end()
        if self.machine.snap:
            self.unit.turn("inactive", "dead")
            return
        self.unit.respawns = True
        self.unit.turn("deactivating", "stop-post")
        self._later(POST_STOP, self._again)

    def _again(self) -> None:
        self.unit.restarts += 1
        self.unit.respawns = False
        if self.machine.counts_restarts:
            counted = f"{UNIT}.service: Scheduled restart job, restart counter is at {self.unit.restarts}."
            self.machine.log("systemd", counted, "systemd")
        self.start(self.unit)

    # ------------------------------------------------------------ what the program does

    def _run(self) -> None:
        """The wrapper has done its part: the program itself starts."""
        if self.machine.wedged and self.machine.contained:
            return  # the wrapper waits for docker for ever: for its daemon, or for a network for the new container
        if not self.machine.snap and (complaint := self._no_run_dir() or self._unreadable()):
            self._say(complaint)
            self.unit.exit_status = 1
            self.restarted()
            return
        self._begin()
        self._later(CONNECTING, self._connect)

    def _begin(self) -> None:
        if self.machine.contained:
            self.container = self.machine.run_container(UNIT, IMAGE, UNIT, UNIT, "root")
            self.container.environment = (*(f"{key}={value}" for key, value in self._lines()), PATH)
            self.container.hostname = self.machine.name
            self.process = self.container.process
        else:
            program, user = (SNAP_PROGRAM, "root") if self.machine.snap else (EFFECTIVE, "travis")
            self.process = self.machine.spawn(UNIT, program, user)
            self.process.environment = (PATH, *(f"{key}={value}" for key, value in self.variables().items()))
            self.unit.main = self.process
        if self.process:
            self.process.on_signal = self.signal

    def connect_at_once(self) -> None:
        """For the state at the start: as if it had been started long ago."""
        self.start(self.unit)
        for event in self._events:
            event.cancelled = True
        if not self.machine.snap:
            self._no_run_dir()
        self._begin()
        self._connect()

    def _no_run_dir(self) -> str:
        """The wrapper puts the settings together into one file; what it says when it cannot."""
        if not self.machine.systemd:
            return self._no_copy()
        folder, file = self.machine.files.get(RUN_DIR), self.machine.files.get(EFFECTIVE)
        problem = ""
        if folder is None:
            problem = "No such file or directory"
        elif file is not None and file.folder:
            problem = "Is a directory"
        elif not _writes(file or folder):
            problem = "Permission denied"
        if not problem:
            self.machine.write(EFFECTIVE, self._combined(), "travis")
        return f"/usr/local/bin/travis-combined-env: line 13: {EFFECTIVE}: {problem}" if problem else ""

    def _no_copy(self) -> str:
        """The job of 14.04 makes the directory itself, copies the program into it and runs the copy."""
        if RUN_DIR not in self.machine.files:
            self.machine.folder(RUN_DIR, "travis")
        folder, file = self.machine.files[RUN_DIR], self.machine.files.get(EFFECTIVE)
        if file is not None and file.folder:
            self.machine.write(f"{EFFECTIVE}/{UNIT}", PROGRAM, "travis", 0o755)
            return f"/proc/self/fd/9: 27: exec: {EFFECTIVE}: Permission denied"
        if not _writes(file or folder):
            return f"cp: cannot create regular file '{EFFECTIVE}': Permission denied"
        self.machine.write(EFFECTIVE, PROGRAM, "travis", 0o755)
        return ""

    def _unreadable(self) -> str:
        """The settings are read by a shell, on systemd without their quotes: what it says of the first bad line."""
        texts = "".join(filter(None, (self.machine.read(path) for path in SETTINGS)))
        lines = (
            self._combined()
            if self.machine.systemd
            else re.sub(r"^export |\"[^\"\n]*\"|'[^'\n]*'", "", texts, flags=re.M)
        )
        for number, bare in enumerate(lines.splitlines(), 1):
            found = re.match(r"(?!\s*#)[^=]*=[^ \t&;|<>()`]*([ \t&;|<>()`]+)([^ \t&;|<>()`]+)", bare)
            if found is not None and not found[2].startswith("#"):
                what = "Is a directory" if found[2].startswith("/") else "command not found"
                return f"{EFFECTIVE}: line {number}: {found[2]}: {what}"
        return ""

    def _connect(self) -> None:
        settings = self.settings()
        if not self.machine.snap and not settings.get("DOCKER_ENDPOINT", ""):
            self.say("error", "couldn't create backend provider", 'err="expected config key endpoint" self=cli')
            self.restarted()
            return
        user, password, host, port, vhost = _amqp(settings.get("AMQP_URI", "amqp://"))
        if host not in (self.broker.host, *self.machine.names):
            self._give_up(f"dial tcp: lookup {host}: no such host")
            return
        if (address := self.machine.names.get(host, host)) not in (self.broker.host, self.broker.balancer):
            self._later(DIAL_TIMEOUT, lambda: self._give_up(f"dial tcp {address}:{port}: i/o timeout"))
            return
        if "network" in self.machine.wedged or port in self.machine.blocked:
            self._later(DIAL_TIMEOUT, lambda: self._give_up(f"dial tcp {self.broker.host}:{port}: i/o timeout"))
            return
        if port in self.machine.proxied:
            ours = f"{self.machine.address}:44122->{self.broker.host}:{port}"
            self._later(DIAL_TIMEOUT, lambda: self._give_up(f"read tcp {ours}: i/o timeout"))
            return
        if not self.broker.serves or port not in self.broker.ports or port in self.machine.rejected:
            self._give_up(f"dial tcp {self.broker.host}:{port}: connect: connection refused")
            return
        insecure = settings.get("AMQP_INSECURE", "") == "true"
        if port == TLS_PORT and (why := self.broker.distrusted(host, insecure)):
            self._give_up(why)
            return
        try:
            self.connection = self.broker.connect(self.machine.seen_as or self.machine.address, user, password, vhost)
        except AmqpRefused as refused:
            self._give_up(str(refused))
            return
        self.connection.on_error = self._connection_errored
        self._consume(settings.get("QUEUE_NAME", ""), int(settings.get("POOL_SIZE", "1")))

    def _consume(self, queue: str, pool: int) -> None:
        assert self.connection is not None
        builds = self.broker.declare(queue)
        channel = self.broker.channel(self.connection)
        exclusive = self.broker.declare("", owner=self.connection)
        self.commands = self.broker.consume(channel, exclusive, "commands")
        self.say("info", "worker started", "self=cli")
        for _ in range(pool):
            processor = Processor()
            self.processors.append(processor)
            channel = self.broker.channel(self.connection)
            # The processor is known before the first delivery, which comes at once when builds wait.
            take = partial(self._take, processor)
            processor.consumer = self.broker.consume(channel, builds, "build-job-consumer", take)

    def _give_up(self, err: str) -> None:
        """Setup errors end the program with status 0, and the init system starts it again."""
        self.say("error", "couldn't connect to AMQP", f'err="{err}" self=cli')
        self.say("error", "couldn't create job queue and canceller", f'err="{err}" self=cli')
        self.restarted()

    def _connection_errored(self) -> None:
        """An end with a reason heals itself: the program ends and is started again. A clean close tells it nothing."""
        self.say("error", "amqp connection errored, terminating", 'err="Exception (320) Reason: CONNECTION_FORCED"')
        self.restarted()

    # ------------------------------------------------------------ builds

    def _take(self, processor: Processor, consumer: Consumer, job: Job) -> None:
        processor.job, job.asleep = job, self.hangs
        if self.hangs:
            return
        self.say("info", "received amqp delivery", f"job_id={job.number} self=amqp_job_queue")
        if why := self.broker.no_script(self.machine.name, self.settings().get("BUILD_API_URI", "")):
            more = f'err="{why}" job_id={job.number} self=step_generate_script'
            self._later(SCRIPT_TIMEOUT, lambda: self._errored(processor, consumer, job, more))
            return
        refused, own = self._refused_by_docker(), self._no_place()
        if own and not refused:
            self.say("error", own[0], f'err="{own[1]}" job_id={job.number} self=backend/docker')
        if refused or own:
            why = f"Error response from daemon:{refused}" if refused else own[1]
            more = f'err="{why}" job_id={job.number} self=step_start_instance'
            self.say("error", "couldn't start instance, attempting requeue", more)
            self._later(REQUEUE, lambda: self._put_back(processor, consumer, job))
            return
        processor.container = self.machine.run_container(job.container, "travis:default", "bash", "/sbin/init")
        processor.container.labels = (("travis.job_id", str(job.number)), ("travis.repo", job.repo))
        self.say("info", "started instance", f"job_id={job.number} self=step_start_instance")
        self._later(job.seconds, lambda: self._finish(processor, consumer, job))

    def _refused_by_docker(self) -> str:
        """What the daemon says to a client that it cannot or will not work with."""
        if self.machine.snap:
            return ""
        daemon, speaks = self.machine.docker, self.settings().get("DOCKER_API_VERSION", "1.24")
        if self.machine.units["docker"].active != "active":
            return " Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
        if _numbers(daemon.version) < (17, 6, 2):
            return f"client and server don't have same version (client : {speaks}, server: {daemon.api})"
        if _numbers(speaks) < _numbers(daemon.oldest_api):
            least = f"Minimum supported API version is {daemon.oldest_api}"
            return f" client version {speaks} is too old. {least}, please upgrade your client to a newer version"
        return daemon.refuses

    def _no_place(self) -> tuple[str, ...]:
        """What the worker itself says when it has no image, or no CPUs, for a build; nothing when it has both."""
        if self.machine.snap:
            return ()
        if "travis:default" not in self.machine.docker.images:
            return "couldn't select image", "failed to find an image with name travis:default"
        busy = sum(processor.container is not None for processor in self.processors)
        if (busy + 1) * int(self.settings().get("DOCKER_CPUS", "2")) > CPUS:
            return "couldn't checkout CPUSets", "not enough free CPUSets"
        return ()

    def _errored(self, processor: Processor, consumer: Consumer, job: Job, more: str) -> None:
        """It has tried for a minute: the build is given up."""
        self.say("error", "couldn't generate build script, erroring job", more)
        processor.job = None
        self.broker.ack(consumer, job)

    def _put_back(self, processor: Processor, consumer: Consumer, job: Job) -> None:
        """The build goes back to the queue, and comes again: to this worker or to another one."""
        processor.job = None
        if job in consumer.unacked:
            consumer.unacked.remove(job)
            self.broker.publish(consumer.queue.name, job)

    def _finish(self, processor: Processor, consumer: Consumer, job: Job) -> None:
        if processor.job is not job:
            return
        self.say("info", "finished job", f"job_id={job.number} state=passed self=amqp_job")
        self.processed += 1
        self._put_down(processor)
        if self.draining and processor.consumer is not None:
            self._leave(processor)
        self.broker.ack(consumer, job)
        self._drained()

    def _put_down(self, processor: Processor) -> None:
        if processor.container is not None:
            self.machine.remove_container(processor.container)
        processor.job = processor.container = None

    # ------------------------------------------------------------ signals

    def signal(self, name: str) -> None:
        """The worker looks once a second whether a signal came; TERM and KILL take effect at once."""
        actions = {"USR2": self.usr2, "INT": self._int, "USR1": self._usr1, "TERM": self._term, "KILL": self._kill}
        action = actions.get(name)
        if action is not None:
            self._later(0.1 if name in ("TERM", "KILL") else SIGNAL_POLL, action)

    def usr2(self) -> None:
        """It drains and pauses; the second time it ends, and is started again."""
        self.say("warning", "SIGUSR2 received, toggling graceful shutdown and pause", "self=cli")
        if self.pausing:
            self.restarted()
            return
        self.pausing = True
        self._drain()

    def _int(self) -> None:
        self.say("warning", "SIGINT received, starting graceful shutdown", "self=cli")
        self._drain()

    def _term(self) -> None:
        self._say_terminated()
        self.restarted()

    def _say_terminated(self) -> None:
        self.say("warning", "SIGTERM received, shutting down immediately", "self=cli")

    def _kill(self) -> None:
        self.unit.exit_status = 137
        self.restarted()

    def _usr1(self) -> None:
        uptime = int((self.machine.timeline.now() - (self.process.started if self.process else 0)) / 60)
        self.say(
            "info",
            "received SIGUSR1",
            f"version=v6.2.2 uptime_min={uptime} pool_size={len(self.processors)} total_processed={self.processed}",
        )
        for n, processor in enumerate(self.processors):
            status = "processing" if processor.job else "waiting"
            self.say("info", "processor info", f"n={n} status={status} last_job_id={_number(processor.job)}")

    def _drain(self) -> None:
        """No new builds; those that run come to their end."""
        self.draining = True
        for processor in self.processors:
            if processor.job is None and processor.consumer is not None:
                self._leave(processor)
        self._drained()

    def _leave(self, processor: Processor) -> None:
        consumer, processor.consumer = processor.consumer, None
        if consumer is not None and self.connection is not None and self.connection.open:
            # A build that has just ended is acknowledged before its consumer goes.
            consumer.unacked.clear()
            self.broker.cancel(consumer)

    def _drained(self) -> None:
        if self.draining and not self.pausing and not any(processor.job for processor in self.processors):
            self.say("info", "worker finished", "self=cli")
            self.restarted()

    # ------------------------------------------------------------ the end

    def lose_power(self, unit: Unit) -> None:
        unit.respawns = False
        self._end()
        super().lose_power(unit)

    def _end(self) -> None:
        for event in self._events:
            event.cancelled = True
        self._events.clear()
        for processor in self.processors:
            self._put_down(processor)
        self.processors.clear()
        if self.connection is not None:
            self.broker.close(self.connection)
        if self.container is not None:
            self.machine.remove_container(self.container)
        self.machine.end(self.process)
        self.machine.end(self.unit.main)
        self.connection = self.commands = self.container = self.process = self.unit.main = None
        self.draining = self.pausing = self.hangs = False
        self.unit.exited = self.machine.timeline.now()

    # ------------------------------------------------------------ settings and words

    def settings(self) -> dict[str, str]:
        """What the program makes of its variables: `TRAVIS_WORKER_X` wins over `X`."""
        found = self.variables()
        return found | {
            key.removeprefix("TRAVIS_WORKER_"): value
            for key, value in found.items()
            if key.startswith("TRAVIS_WORKER_")
        }

    def variables(self) -> dict[str, str]:
        """What its files say, the last one winning."""
        found: dict[str, str] = {}
        for key, value in self._lines():
            found[key] = value if self.machine.systemd else _filled(value, found)
        return found

    def _lines(self) -> list[tuple[str, str]]:
        return re.findall(r"^(?:export )?([A-Z_0-9]+)=(.*)$", self._combined(), re.M)

    def _combined(self) -> str:
        texts = (self.machine.read(path) for path in ((SNAP,) if self.machine.snap else SETTINGS))
        return "".join(
            re.sub(r"^export ", "", text, flags=re.M).replace('"', "").replace("'", "") for text in texts if text
        )

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        now = self.machine.timeline.now()
        self._events = [event for event in self._events if event.due >= now]
        self._events.append(self.machine.timeline.after(seconds, do))

    def say(self, level: str, msg: str, more: str) -> None:
        at = self.machine.timeline.date().strftime("%Y-%m-%dT%H:%M:%SZ")
        self._say(f'time="{at}" level={level} msg="{msg}" pid=1 {more}'.rstrip())

    def _say(self, text: str) -> None:
        if self.machine.systemd:
            self.machine.log(UNIT, text)
        else:
            log = self.machine.files.get(UPSTART_LOG)
            if log is not None:
                log.text = (log.text + text + "\n")[-LONGEST_LOG:]


def main_settings(machine: Machine) -> str:
    """The file that the installer writes a worker's settings into."""
    return SNAP if machine.snap else SETTINGS[2]


def _amqp(uri: str) -> tuple[str, str, str, int, str]:
    """User, password, host, port and vhost of an AMQP address."""
    found = re.fullmatch(r"(amqps?)://(?:([^:@/]*):([^@/]*)@)?([^:/]*)(?::(\d+))?(?:/(.*))?", uri)
    if found is None:
        return "guest", "guest", "", PORT, "/"
    port = int(found[5]) if found[5] else IMPLIED if found[1] == "amqps" else PORT
    return found[2] or "guest", found[3] or "guest", found[4], port, found[6] or "/"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def _writes(file: File) -> bool:
    return bool((file.owner == "travis" and file.mode & 0o200) or file.mode & 0o002)


def _filled(value: str, others: dict[str, str]) -> str:
    """`$NAME` and `${NAME:-default}`, as the shell of 14.04 fills them in."""
    return re.sub(
        r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})",
        lambda found: others.get(found[1] or found[2], "") or found[3] or "",
        value,
    )


def _number(job: Job | None) -> str:
    return str(job.number) if job else ""
