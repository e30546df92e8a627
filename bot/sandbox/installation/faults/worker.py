"""What can go wrong with workers and with the way to them."""

from bot.core.target import Role
from bot.sandbox.installation.faults import SUSPICIOUS, CannotBe, fault, no_snap, worker_of
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.worker import EFFECTIVE, RUN_DIR, UNIT, UPSTART_LOG, main_settings

WAITING = 5  # builds that wait when nobody takes them
LONG = 1800.0  # seconds that such a build takes


@fault("lost RabbitMQ", cause="worker.amqp-lost")
def lost_rabbitmq(installation: Installation, machine: Machine) -> None:
    """The broker closed the worker's connection cleanly; the process lives on and waits for builds that never come."""
    worker = worker_of(installation, machine)
    if worker.connection is None:
        raise CannotBe(f"{machine.name} is not connected to RabbitMQ, so it has no connection to lose")
    installation.broker.close(worker.connection)


@fault("lost RabbitMQ until it reboots", cause="worker.amqp-lost")
def lost_until_reboot(installation: Installation, machine: Machine) -> None:
    """Like `lost RabbitMQ`, and its kernel gives no new container or connection a network: a restart does not help.

    `docker run` waits for ever then (moby#5618); on 14.04, without a container, the kernel drops what is sent.
    """
    no_snap(machine)
    lost_rabbitmq(installation, machine)
    machine.wedged.add("network")
    stuck = "unregister_netdevice: waiting for lo to become free. Usage count = 1"
    full = "nf_conntrack: table full, dropping packet"
    machine.log("kernel", stuck if machine.systemd else full, "kernel")


@fault("docker hangs", cause="docker.hung")
def docker_hangs(installation: Installation, machine: Machine) -> None:
    """The docker daemon takes requests and answers none; the worker's connection is gone as well."""
    no_snap(machine)
    connection = worker_of(installation, machine).connection
    if connection is not None:
        installation.broker.close(connection)
    machine.wedged.add("docker")


@fault("lost part of its pool", cause="worker.pool-shrunk")
def pool_shrunk(installation: Installation, machine: Machine) -> None:
    """One consumer's channel was closed; the worker goes on with fewer builds at a time."""
    worker = worker_of(installation, machine)
    processor = next((p for p in worker.processors if p.consumer), None)
    if processor is None or processor.consumer is None:
        raise CannotBe(f"{machine.name} listens to no queue, so it has no place for a build to lose")
    installation.broker.cancel(processor.consumer)
    processor.consumer = None


@fault("lost its canceller", cause="worker.canceller-lost")
def canceller_gone(installation: Installation, machine: Machine) -> None:
    """The channel for cancel commands was closed: builds run, the cancel button does nothing."""
    worker = worker_of(installation, machine)
    if worker.commands is None or worker.commands.queue not in installation.broker.queues:
        raise CannotBe(f"{machine.name} has no canceller at RabbitMQ that it could lose")
    queue = worker.commands.queue
    installation.broker.cancel(worker.commands)
    installation.broker.queues.remove(queue)
    worker.commands = None


@fault("is stopped", cause="worker.stopped")
def stopped(installation: Installation, machine: Machine) -> None:
    """Somebody stopped travis-worker and forgot it."""
    worker = worker_of(installation, machine)
    worker.lose_power(worker.unit)


@fault("has just started", cause=SUSPICIOUS)
def just_started(installation: Installation, machine: Machine) -> None:
    """travis-worker was started this moment, and has not connected yet."""
    worker = worker_of(installation, machine)
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("runs builds", cause=SUSPICIOUS)
def runs_builds(installation: Installation, machine: Machine) -> None:
    """Builds run on it, and end after a while."""
    worker = worker_of(installation, machine)
    for other in installation.workers():
        for processor in installation.worker(other.name).processors:
            if other is not machine and processor.consumer is not None:
                processor.consumer.prefetch = 0
    installation.push(len(worker.processors))
    for other in installation.workers():
        for processor in installation.worker(other.name).processors:
            if processor.consumer is not None:
                processor.consumer.prefetch = 1


@fault("holds builds and does nothing", cause="worker.zombie")
def zombie(installation: Installation, machine: Machine) -> None:
    """It hangs: RabbitMQ has given it builds, which nobody else can have now, and it runs none of them."""
    worker = worker_of(installation, machine)
    if worker.connection is None or not any(each.consumer for each in worker.processors):
        raise CannotBe(f"{machine.name} takes no builds from RabbitMQ, so it can hold none")
    worker.hangs = True
    runs_builds(installation, machine)


@fault("is behind NAT", cause=SUSPICIOUS)
def behind_nat(installation: Installation, machine: Machine) -> None:
    """The broker sees another address than the machine's own."""
    worker = worker_of(installation, machine)
    machine.seen_as = "192.0.2.77"
    if worker.connection is not None:
        worker.connection.peer_host = machine.seen_as


@fault("was cut off by RabbitMQ", cause="worker.ended", harmless_on=("14.04", "16.04", "18.04"))
def cut_off(installation: Installation, machine: Machine) -> None:
    """RabbitMQ ends its connection with an error: it ends, and is started again; but a snap stays ended."""
    connection = worker_of(installation, machine).connection
    if connection is None or connection.on_error is None:
        raise CannotBe(f"{machine.name} is not connected to RabbitMQ, so nothing can be cut off")
    installation.broker.close(connection)
    connection.on_error()


@fault("has the wrong password", cause="worker.amqp-auth")
def wrong_password(installation: Installation, machine: Machine) -> None:
    """Its AMQP_URI holds an old password: it is refused, ends, and is started again, for ever."""
    _edit(installation, machine, installation.password, "0ld-pa55word")


@fault("listens on another queue", cause="worker.queue-mismatch")
def wrong_queue(installation: Installation, machine: Machine) -> None:
    """It was installed for another image, and takes builds from a queue that nobody fills."""
    _edit(installation, machine, "builds.trusty", "builds.focal")


@fault("cannot reach RabbitMQ", cause="net.port-blocked")
def firewall(installation: Installation, machine: Machine) -> None:
    """A firewall drops what it sends to the AMQP ports."""
    worker = worker_of(installation, machine)
    machine.blocked |= {5672, 4567}
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("has no run directory", cause="worker.run-dir-missing", harmless_on=("14.04",))
def no_run_directory(installation: Installation, machine: Machine) -> None:
    """/var/tmp/travis-run.d is missing, so that the worker's wrapper fails each time (14.04 makes it itself)."""
    no_snap(machine)
    worker = worker_of(installation, machine)
    machine.files.pop(RUN_DIR, None)
    machine.files.pop(EFFECTIVE, None)
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("does not start at boot", cause=SUSPICIOUS)
def not_enabled(_installation: Installation, machine: Machine) -> None:
    """travis-worker is disabled: after a reboot it would stay down."""
    machine.units[UNIT].enabled = "disabled"


@fault("was installed without a network", cause=SUSPICIOUS)
def unit_copied(_installation: Installation, machine: Machine) -> None:
    """The installer put its unit itself where the link belongs: it starts at boot, and is not called enabled."""
    if machine.systemd:
        machine.units[UNIT].enabled, machine.units[UNIT].copied = "", True


@fault("was paused some days ago", cause="worker.paused")
def paused(installation: Installation, machine: Machine) -> None:
    """Somebody told it to drain and pause; since then its log was put away twice (later: it has said much more)."""
    worker = worker_of(installation, machine)
    if worker.connection is None:
        raise CannotBe(f"{machine.name} is not connected to RabbitMQ, so it would be nothing but lost")
    worker.usr2()
    chatter = 'level=debug msg="heartbeat" pid=1 self=cli'
    if machine.systemd:
        for _ in range(600):
            machine.log(UNIT, chatter)
        return
    machine.write(f"{UPSTART_LOG}.2.gz", machine.read(UPSTART_LOG) or "", mode=0o640)
    for path in (f"{UPSTART_LOG}.1.gz", UPSTART_LOG):
        machine.write(path, f"{chatter}\n" * 600, mode=0o640)


@fault("asks for a sudo password", cause="worker.sudo-denied")
def sudo_asks(_installation: Installation, machine: Machine) -> None:
    """The rule in sudoers is gone: nothing can be done as root."""
    machine.sudo_without_password = False


@fault("has another host key", cause="worker.host-key-changed")
def rekeyed(_installation: Installation, machine: Machine) -> None:
    """Somebody set the machine up anew, or stands in its place: its host key is not the pinned one."""
    machine.rekeyed = True


@fault("has no docker endpoint", cause="worker.crash-loop")
def no_endpoint(installation: Installation, machine: Machine) -> None:
    """A line that every worker needs was taken out of its settings: it ends at once, and is started again, for ever."""
    no_snap(machine)
    _edit(installation, machine, "export TRAVIS_WORKER_DOCKER_ENDPOINT=", "# TRAVIS_WORKER_DOCKER_ENDPOINT=")


@fault("is full")
def alarm(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ raises its disk alarm and blocks whoever publishes."""
    installation.broker.alarms.add("free disk space")


@fault("has no RabbitMQ", on=Role.PLATFORM, cause="broker.down")
def broker_down(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ on the platform has stopped."""
    installation.broker.stop()


@fault("is unreachable", cause="worker.unreachable")
def unreachable(installation: Installation, machine: Machine) -> None:
    """The machine is off: nothing answers on its address."""
    installation.switch_off(machine)


@fault("is switched on")
def switched_on(installation: Installation, machine: Machine) -> None:
    """The cure for `is unreachable`: the machine boots."""
    installation.switch_on(machine)


@fault("has builds waiting", on=Role.PLATFORM, cause="capacity.saturated")
def waiting(installation: Installation, _machine: Machine) -> None:
    """More builds are queued than all workers can take at once."""
    places = sum(len(queue.consumers) for queue in installation.broker.queues if queue.name == "builds.trusty")
    installation.push(places + WAITING, seconds=LONG)


def _edit(installation: Installation, machine: Machine, old: str, new: str) -> None:
    worker = worker_of(installation, machine)
    file = machine.files[main_settings(machine)]
    file.text = file.text.replace(old, new)
    worker.lose_power(worker.unit)
    worker.unit.start()
