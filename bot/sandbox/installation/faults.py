"""What can go wrong: each fault is a change of the state that everything else follows from, never a switched answer.

A fault is a function with one line that says what happens; its name is what people say after the machine's:
`worker-2 lost RabbitMQ`. Put a new one below the others and it is there.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.worker import RUN_DIR, SETTINGS, UNIT, TravisWorker

Apply = Callable[[Installation, Machine], None]


@dataclass(frozen=True)
class Fault:
    name: str
    says: str
    apply: Apply


FAULTS: dict[str, Fault] = {}
DEFAULT = "worker-2 lost RabbitMQ"
WAITING = 5  # builds that wait when nobody takes them


class NoSuchFault(ValueError):
    """The text names no machine or no fault that is known; it says which there are."""


def fault(name: str) -> Callable[[Apply], Apply]:
    def put(apply: Apply) -> Apply:
        FAULTS[name.lower()] = Fault(name, (apply.__doc__ or "").strip().splitlines()[0], apply)
        return apply

    return put


def inject(installation: Installation, text: str) -> Fault:
    """Apply what is said: a machine and a fault, `worker-2 lost RabbitMQ`."""
    name, _, what = text.strip().partition(" ")
    found = FAULTS.get(what.strip().lower())
    if name not in installation.machines or found is None:
        known = ", ".join(f.name for f in FAULTS.values())
        machines = ", ".join(installation.machines)
        raise NoSuchFault(f"`{text}`: say one of {machines}, and then one of: {known}")
    with installation.timeline.held():
        found.apply(installation, installation.machine(name))
    return found


def _worker(installation: Installation, machine: Machine) -> TravisWorker:
    if UNIT not in machine.units:
        raise NoSuchFault(f"{machine.name} is not a worker")
    return installation.worker(machine.name)


@fault("lost RabbitMQ")
def lost_rabbitmq(installation: Installation, machine: Machine) -> None:
    """The broker closed the worker's connection cleanly; the process lives on and waits for builds that never come."""
    worker = _worker(installation, machine)
    if worker.connection is not None:
        installation.broker.close(worker.connection)


@fault("lost RabbitMQ until it reboots")
def lost_until_reboot(installation: Installation, machine: Machine) -> None:
    """Like `lost RabbitMQ`, and its kernel gives no new container or connection a network: a restart does not help.

    `docker run` waits for ever then (moby#5618); on 14.04, without a container, the kernel drops what is sent.
    """
    lost_rabbitmq(installation, machine)
    machine.wedged.add("network")
    stuck = "unregister_netdevice: waiting for lo to become free. Usage count = 1"
    full = "nf_conntrack: table full, dropping packet"
    machine.log("kernel", stuck if machine.systemd else full, "kernel")


@fault("docker hangs")
def docker_hangs(installation: Installation, machine: Machine) -> None:
    """The docker daemon takes requests and answers none; the worker's connection is gone as well."""
    lost_rabbitmq(installation, machine)
    machine.wedged.add("docker")


@fault("lost part of its pool")
def pool_shrunk(installation: Installation, machine: Machine) -> None:
    """One consumer's channel was closed; the worker goes on with fewer builds at a time."""
    worker = _worker(installation, machine)
    processor = next((p for p in worker.processors if p.consumer), None)
    if processor is not None and processor.consumer is not None:
        installation.broker.cancel(processor.consumer)
        processor.consumer = None


@fault("lost its canceller")
def canceller_gone(installation: Installation, machine: Machine) -> None:
    """The channel for cancel commands was closed: builds run, the cancel button does nothing."""
    worker = _worker(installation, machine)
    if worker.commands is not None:
        queue = worker.commands.queue
        installation.broker.cancel(worker.commands)
        installation.broker.queues.remove(queue)
        worker.commands = None


@fault("is stopped")
def stopped(installation: Installation, machine: Machine) -> None:
    """Somebody stopped travis-worker and forgot it."""
    worker = _worker(installation, machine)
    worker.lose_power(worker.unit)


@fault("has just started")
def just_started(installation: Installation, machine: Machine) -> None:
    """travis-worker was started this moment, and has not connected yet."""
    worker = _worker(installation, machine)
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("runs builds")
def runs_builds(installation: Installation, machine: Machine) -> None:
    """Builds run on it, and end after a while."""
    worker = _worker(installation, machine)
    for other in installation.workers():
        for processor in installation.worker(other.name).processors:
            if other is not machine and processor.consumer is not None:
                processor.consumer.prefetch = 0
    installation.push(len(worker.processors))
    for other in installation.workers():
        for processor in installation.worker(other.name).processors:
            if processor.consumer is not None:
                processor.consumer.prefetch = 1


@fault("is behind NAT")
def behind_nat(installation: Installation, machine: Machine) -> None:
    """The broker sees another address than the machine's own."""
    worker = _worker(installation, machine)
    machine.seen_as = "192.0.2.77"
    if worker.connection is not None:
        worker.connection.peer_host = machine.seen_as


@fault("has the wrong password")
def wrong_password(installation: Installation, machine: Machine) -> None:
    """Its AMQP_URI holds an old password: it is refused, ends, and is started again, for ever."""
    _edit(installation, machine, installation.password, "0ld-pa55word")


@fault("listens on another queue")
def wrong_queue(installation: Installation, machine: Machine) -> None:
    """It was installed for another image, and takes builds from a queue that nobody fills."""
    _edit(installation, machine, "builds.trusty", "builds.focal")


@fault("cannot reach RabbitMQ")
def firewall(installation: Installation, machine: Machine) -> None:
    """A firewall drops what it sends to the AMQP ports."""
    worker = _worker(installation, machine)
    machine.blocked |= {5672, 4567}
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("has no run directory")
def no_run_directory(installation: Installation, machine: Machine) -> None:
    """/var/tmp/travis-run.d is missing, so that the worker's wrapper fails each time."""
    worker = _worker(installation, machine)
    machine.files.pop(RUN_DIR, None)
    worker.lose_power(worker.unit)
    worker.unit.start()


@fault("does not start at boot")
def not_enabled(_installation: Installation, machine: Machine) -> None:
    """travis-worker is disabled: after a reboot it would stay down."""
    machine.units[UNIT].enabled = "disabled"


@fault("asks for a sudo password")
def sudo_asks(_installation: Installation, machine: Machine) -> None:
    """The rule in sudoers is gone: nothing can be done as root."""
    machine.sudo_without_password = False


@fault("is full")
def alarm(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ raises its disk alarm and blocks whoever publishes."""
    installation.broker.alarms.add("free disk space")


@fault("has no RabbitMQ")
def broker_down(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ on the platform has stopped."""
    installation.broker.stop()


@fault("is unreachable")
def unreachable(installation: Installation, machine: Machine) -> None:
    """The machine is off: nothing answers on its address."""
    installation.switch_off(machine)


@fault("is switched on")
def switched_on(installation: Installation, machine: Machine) -> None:
    """The cure for `is unreachable`: the machine boots."""
    installation.switch_on(machine)


@fault("has builds waiting")
def waiting(installation: Installation, _machine: Machine) -> None:
    """More builds are queued than all workers can take at once."""
    installation.push(sum(len(q.consumers) for q in installation.broker.queues if q.name == "builds.trusty") + WAITING)


def _edit(installation: Installation, machine: Machine, old: str, new: str) -> None:
    worker = _worker(installation, machine)
    file = machine.files[SETTINGS[2]]
    file.text = file.text.replace(old, new)
    worker.lose_power(worker.unit)
    worker.unit.start()
