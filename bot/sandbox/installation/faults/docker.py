"""What can go wrong with Docker on workers, and what only looks so."""

from bot.core.target import Role
from bot.sandbox.installation.broker import Job
from bot.sandbox.installation.faults import SUSPICIOUS, CannotBe, fault, no_snap, worker_of
from bot.sandbox.installation.faults.worker import runs_builds
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Docker, Machine
from bot.sandbox.installation.worker import UNIT, TravisWorker

MINUTE, HOUR = 60.0, 3600.0
STUCK = "unregister_netdevice: waiting for lo to become free. Usage count = 1"


@fault("hangs in docker with a stuck network", cause="docker.hung")
def hung_by_the_kernel(_installation: Installation, machine: Machine) -> None:
    """The kernel cannot take a container's network down, and docker waits for it: it answers nothing any more."""
    no_snap(machine)
    machine.wedged.add("docker")
    for _ in range(12):
        machine.log("kernel", STUCK, "kernel")


@fault("has no docker daemon", cause="docker.down")
def down(installation: Installation, machine: Machine) -> None:
    """docker has stopped; where travis-worker runs in a container it stopped as well, for its unit requires docker."""
    no_snap(machine)
    worker = worker_of(installation, machine)
    if machine.systemd:
        worker.lose_power(worker.unit)
    for container in list(machine.containers):
        machine.remove_container(container)
    machine.units["docker"].turn("inactive", "dead")


@fault("has a docker that is too old", cause="docker.too-old")
def too_old(_installation: Installation, machine: Machine) -> None:
    """It was installed before November 2017, with a docker that travis-worker cannot work with."""
    no_snap(machine)
    machine.docker = Docker("17.03.2-ce", "1.27", "1.12")


@fault("has a docker that wants a newer API", cause="docker.api-too-new")
def api_too_new(_installation: Installation, machine: Machine) -> None:
    """`apt upgrade` brought Docker 29, which refuses the API 1.24 that travis-worker speaks: no build starts."""
    no_snap(machine)
    machine.docker = Docker("29.0.1", "1.52", "1.44")


@fault("has an orphaned build", cause="worker.orphan-containers")
def orphaned(installation: Installation, machine: Machine) -> None:
    """A build container of four hours ago is still there, and no worker knows of it."""
    no_snap(machine)
    worker_of(installation, machine)
    _container(machine, Job(3001, "octo-org/rockets", 0), 4 * HOUR)


@fault("was killed while builds ran", cause="worker.orphan-containers")
def killed(installation: Installation, machine: Machine) -> None:
    """The worker was killed and started again; the containers of its builds stayed, an hour old by now."""
    no_snap(machine)
    worker = worker_of(installation, machine)
    if not worker.processors:
        raise CannotBe(f"{machine.name} has no place for a build, so none can have been running")
    for number in range(3100, 3100 + len(worker.processors)):
        _container(machine, Job(number, "acme/billing-service", 0), HOUR)
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("has no image for builds", cause="worker.no-image")
def no_image(installation: Installation, machine: Machine) -> None:
    """Somebody cleaned up its images, those of builds too: what it takes it has to give back."""
    no_snap(machine)
    _takes_builds(installation, machine)
    machine.docker.images.clear()
    runs_builds(installation, machine)


@fault("has more places than CPUs", cause="worker.cpu-sets")
def cpu_sets(installation: Installation, machine: Machine) -> None:
    """Each build was given four CPUs, two may run at once, and there are four."""
    no_snap(machine)
    _takes_builds(installation, machine)
    machine.files["/etc/default/travis-worker"].text += "export TRAVIS_WORKER_DOCKER_CPUS=4\n"
    _at_once(worker_of(installation, machine))
    runs_builds(installation, machine)


@fault("puts builds back for ever", cause="worker.requeue-loop")
def requeue_loop(installation: Installation, machine: Machine) -> None:
    """docker answers and starts nothing: its file system is full."""
    no_snap(machine)
    _takes_builds(installation, machine)
    machine.docker.refuses = " mkdir /var/lib/docker/overlay2/6f0b: no space left on device"
    runs_builds(installation, machine)


@fault("makes no build scripts", on=Role.PLATFORM, cause="platform.no-script", also=("worker.no-script",))
def no_scripts(installation: Installation, _machine: Machine) -> None:
    """travis-build has ended: workers take builds, get no script for them, and give them up."""
    _without_scripts(installation)


@fault("asks a silent proxy for build scripts", cause="worker.no-script")
def scripts_by_proxy(installation: Installation, machine: Machine) -> None:
    """A proxy takes what it sends to port 443, and passes nothing on: it takes builds, and each one errors."""
    _takes_builds(installation, machine)
    machine.proxied.add(443)
    runs_builds(installation, machine)


def _without_scripts(installation: Installation) -> None:
    installation.app.services["travis-build"].stop()
    queue = installation.broker.queue("builds.trusty")
    if queue is None or not queue.consumers:
        raise CannotBe("no worker takes builds, so none gives one up")
    installation.push(len(queue.consumers))


def _takes_builds(installation: Installation, machine: Machine) -> None:
    worker = worker_of(installation, machine)
    if worker.connection is None or len([each for each in worker.processors if each.consumer]) < 2:
        raise CannotBe(f"{machine.name} takes no two builds at once, so none of them can fail to start")


def _container(machine: Machine, job: Job, age: float) -> None:
    made = machine.run_container(job.container, "travis:default", "bash", "/sbin/init")
    made.labels = (("travis.job_id", str(job.number)), ("travis.repo", job.repo))
    made.created = made.started = machine.timeline.now() - age


# ---------------------------------------------------------------- odd, and healthy


@fault("had a build that did not start", cause=SUSPICIOUS)
def started_later(installation: Installation, machine: Machine) -> None:
    """One build could not be started some hours ago, was tried again, and ran."""
    worker = worker_of(installation, machine)
    for level, text, more in (
        ("error", "couldn't start instance, attempting requeue", "job_id=4201 self=step_start_instance"),
        ("info", "started instance", "job_id=4201 self=step_start_instance"),
    ):
        worker.say(level, text, more)


@fault("made no build scripts for a while", on=Role.PLATFORM, cause=SUSPICIOUS)
def scripts_again(installation: Installation, _machine: Machine) -> None:
    """travis-build had ended and was started again: some builds were given up, and nobody has pushed since."""
    _without_scripts(installation)
    installation.timeline.after(2 * MINUTE, installation.app.services["travis-build"].start)


@fault("has a slow docker", cause=SUSPICIOUS)
def slow(_installation: Installation, machine: Machine) -> None:
    """Its disk is busy, and docker answers after some seconds."""
    no_snap(machine)
    machine.docker.delay = 4.0


@fault("has an old docker that is still supported", cause=SUSPICIOUS)
def old_but_supported(_installation: Installation, machine: Machine) -> None:
    """17.06.2-ce is the oldest docker that travis-worker works with, and it takes the worker's API."""
    no_snap(machine)
    machine.docker = Docker("17.06.2-ce", "1.30", "1.12")


@fault("speaks the API of its new docker", cause=SUSPICIOUS)
def api_matches(installation: Installation, machine: Machine) -> None:
    """Docker 29, and a worker that was told to speak its API."""
    no_snap(machine)
    worker = worker_of(installation, machine)
    machine.docker = Docker("29.0.1", "1.52", "1.44")
    file = machine.files["/etc/default/travis-worker"]
    file.text += "export TRAVIS_WORKER_DOCKER_API_VERSION=1.44\n"
    _at_once(worker)


@fault("has run a build for 170 minutes", cause=SUSPICIOUS)
def long_build(installation: Installation, machine: Machine) -> None:
    """One of its builds is slow; its time-out was raised to three hours."""
    _build(installation, machine, 179 * MINUTE, 170 * MINUTE)


@fault("is draining", cause=SUSPICIOUS)
def draining(installation: Installation, machine: Machine) -> None:
    """It was told to finish what it does and to end: a build of an hour still runs, its other places are given up."""
    _build(installation, machine, HOUR, 5 * MINUTE)
    worker_of(installation, machine).signal("INT")


@fault("has nothing to do", cause=SUSPICIOUS)
def idle(_installation: Installation, machine: Machine) -> None:
    """Nobody has pushed for days; docker said something odd once, and that was before the worker was started."""
    old = 'level=error msg="couldn\'t start instance, attempting requeue" err="Error response from daemon: '
    said = "client version 1.24 is too old. Minimum supported API version is 1.44, please upgrade your client"
    line = f'time="2026-11-01T03:00:00Z" {old}{said}" pid=1 self=step_start_instance'
    started = 'time="2026-11-01T03:10:00Z" level=info msg="worker started" pid=1 self=cli'
    file = machine.files.get("/var/log/upstart/travis-worker.log")
    for text in (line, started):
        machine.log(UNIT, text)
        if file is not None:
            file.text += f"{text}\n"


@fault("has builds on all its workers", on=Role.PLATFORM, cause=SUSPICIOUS)
def saturated(installation: Installation, _machine: Machine) -> None:
    """Every place for a build is taken, and nothing waits."""
    queue = installation.broker.queue("builds.trusty")
    installation.push(len(queue.consumers) if queue else 0, seconds=HOUR)


def _build(installation: Installation, machine: Machine, seconds: float, age: float) -> None:
    """One build runs on this machine, and has been for a while."""
    others = [worker for worker in _workers(installation) if worker.machine is not machine]
    consumers = [each.consumer for worker in others for each in worker.processors if each.consumer is not None]
    for consumer in consumers:
        consumer.prefetch = 0
    installation.push(1, seconds=seconds - age)
    for consumer in consumers:
        consumer.prefetch = 1
    for processor in worker_of(installation, machine).processors:
        if processor.container is not None:
            processor.container.created = processor.container.started = machine.timeline.now() - age


def _workers(installation: Installation) -> list[TravisWorker]:
    return [installation.worker(machine.name) for machine in installation.workers()]


def _at_once(worker: TravisWorker) -> None:
    """Started anew with other settings, long enough ago."""
    started = worker.unit.started
    worker.lose_power(worker.unit)
    worker.connect_at_once()
    worker.unit.started = started
    if worker.process is not None and started is not None:
        worker.process.started = started
