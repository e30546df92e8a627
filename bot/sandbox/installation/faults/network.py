"""What can go wrong between workers and the platform, and what only looks so."""

from bot.core.target import Role
from bot.sandbox.installation.broker import PORT, TLS_PORT
from bot.sandbox.installation.faults import SUSPICIOUS, fault, worker_of
from bot.sandbox.installation.installation import DOMAIN, Installation
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.worker import main_settings

OTHER_NAME = "rabbitmq.example.com"
SLOW = 3.0  # seconds that a slow network takes for each answer


@fault("cannot resolve the platform", cause="net.dns")
def no_name(installation: Installation, machine: Machine) -> None:
    """Its name servers no longer know the platform's name."""
    machine.names.pop(DOMAIN, None)
    _connect_anew(installation, machine)


@fault("is refused by RabbitMQ's port", cause="net.port-refused")
def refused(installation: Installation, machine: Machine) -> None:
    """A firewall rejects what it sends to RabbitMQ's plain port; only the one with TLS is let through."""
    machine.rejected.add(PORT)
    _connect_anew(installation, machine)


@fault("offers RabbitMQ by TLS alone", on=Role.PLATFORM, cause="net.port-refused")
def tls_alone(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ was told to listen with TLS only, on 4567, and the workers still come to 5672."""
    installation.broker.ports = {TLS_PORT}
    for worker in installation.workers():
        _connect_anew(installation, worker)


@fault("uses TLS and names no port", cause="net.port-refused")
def tls_without_port(installation: Installation, machine: Machine) -> None:
    """Its address was changed to amqps:// and names no port: it goes to 5671, and RabbitMQ listens on 4567."""
    file = machine.files[main_settings(machine)]
    file.text = file.text.replace("amqp://", "amqps://")
    _connect_anew(installation, machine)


@fault("meets a silent proxy", cause="net.amqp-silent")
def silent_proxy(installation: Installation, machine: Machine) -> None:
    """A proxy in between takes its connections to RabbitMQ, and passes nothing on."""
    machine.proxied |= {PORT, TLS_PORT}
    _connect_anew(installation, machine)


@fault("cannot fetch build scripts", cause="net.port-blocked")
def no_scripts(_installation: Installation, machine: Machine) -> None:
    """A firewall drops what it sends to port 443: it takes builds, and each one errors."""
    machine.blocked.add(443)


@fault("dashboard is down", on=Role.PLATFORM, cause="platform.dashboard-unreachable")
def dashboard_down(installation: Installation, _machine: Machine) -> None:
    """The container replicated-ui has ended, so that nothing listens on 8800."""
    platform = installation.platform
    for container in [each for each in platform.containers if each.name == "replicated-ui"]:
        platform.remove_container(container)


@fault("has a slow network", cause=SUSPICIOUS)
def slow_network(_installation: Installation, machine: Machine) -> None:
    """Every connection takes seconds until it stands."""
    machine.latency = SLOW


@fault("may not see the dashboard", cause=SUSPICIOUS)
def dashboard_closed(_installation: Installation, machine: Machine) -> None:
    """Port 8800 of the platform is closed for workers, as it should be, and so is 22."""
    machine.blocked |= {8800, 22}


@fault("knows RabbitMQ by another name", cause=SUSPICIOUS)
def another_name(installation: Installation, machine: Machine) -> None:
    """Its configuration names RabbitMQ by a virtual address of its own, and it is connected."""
    machine.names[OTHER_NAME] = installation.platform.address
    file = machine.files[main_settings(machine)]
    file.text = file.text.replace(f"@{DOMAIN}/", f"@{OTHER_NAME}/")
    _connect_anew(installation, machine)


@fault("has a firewall that came later", cause=SUSPICIOUS)
def later_firewall(installation: Installation, machine: Machine) -> None:
    """New connections to RabbitMQ are dropped; the one that stands is let through, and works."""
    worker_of(installation, machine)
    machine.blocked |= {PORT, TLS_PORT}


def _connect_anew(installation: Installation, machine: Machine) -> None:
    worker = worker_of(installation, machine)
    worker.lose_power(worker.unit)
    worker.unit.start()
