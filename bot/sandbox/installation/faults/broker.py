"""What can go wrong with RabbitMQ itself and with the services that empty its queues, and what only looks so."""

from bot.core.target import Role
from bot.sandbox.installation.broker import NODE, Job
from bot.sandbox.installation.faults import SUSPICIOUS, fault
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine

REPORTS, LOGS = "reporting.jobs.builds", "reporting.jobs.logs"


@fault("has a stopped RabbitMQ", on=Role.PLATFORM, cause="broker.down")
def stopped(installation: Installation, _machine: Machine) -> None:
    """Somebody said `rabbitmqctl stop_app` and went: its node runs, RabbitMQ in it does not."""
    installation.broker.stop_app()


@fault("is short of memory", on=Role.PLATFORM, cause="broker.alarm")
def memory(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ uses more memory than it may, and blocks whoever publishes."""
    installation.broker.alarms.add("memory")


@fault("has no room for RabbitMQ", on=Role.PLATFORM, cause="broker.alarm")
def disk(installation: Installation, _machine: Machine) -> None:
    """The disk that RabbitMQ writes to is nearly full, and it blocks whoever publishes."""
    installation.broker.alarms.add("free disk space")


@fault("has a split RabbitMQ", on=Role.PLATFORM, cause="broker.partition")
def split(installation: Installation, _machine: Machine) -> None:
    """The nodes of the cluster lost each other, and each goes on alone."""
    installation.broker.split = {NODE: ("rabbit@te-main-2",), "rabbit@te-main-2": (NODE,)}


@fault("has no hub drain", on=Role.PLATFORM, cause="platform.hub-drain-down")
def no_hub_drain(installation: Installation, _machine: Machine) -> None:
    """travis-hub-drain has ended: what workers report waits in RabbitMQ, and the page shows old states."""
    _pile_up(installation, REPORTS)


@fault("has no logs drain", on=Role.PLATFORM, cause="broker.logs-drain-down")
def no_logs_drain(installation: Installation, _machine: Machine) -> None:
    """travis-logs-drain has ended: the logs of builds stay empty."""
    _pile_up(installation, LOGS)


@fault("has a little backlog", on=Role.PLATFORM, cause=SUSPICIOUS)
def backlog(installation: Installation, _machine: Machine) -> None:
    """Many builds report at once, and their messages wait a moment for the drain, which is at work."""
    installation.broker.declare(REPORTS).ready.extend(_reports(40))


@fault("has an unused queue", on=Role.PLATFORM, cause=SUSPICIOUS)
def unused_queue(installation: Installation, _machine: Machine) -> None:
    """A queue of a worker that was taken out of service: empty, and without consumers."""
    installation.broker.declare("builds.precise")


@fault("had a quiet hour without drains", on=Role.PLATFORM, cause=SUSPICIOUS)
def quiet(installation: Installation, _machine: Machine) -> None:
    """travis-logs-drain is started again while nothing runs: no consumer for a moment, and nothing waits."""
    installation.broker.undrain(LOGS)


def _pile_up(installation: Installation, name: str) -> None:
    installation.broker.undrain(name)
    installation.broker.declare(name).ready.extend(_reports(12))


def _reports(count: int) -> list[Job]:
    return [Job(number, "octo-org/rockets", 0.0) for number in range(count)]
