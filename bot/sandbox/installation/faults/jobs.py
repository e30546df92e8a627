"""What can go wrong with jobs between the database, RabbitMQ and the workers, and what only looks so."""

from bot.core.target import Role
from bot.sandbox.installation.broker import Job
from bot.sandbox.installation.database import TravisDatabase
from bot.sandbox.installation.faults import SUSPICIOUS, NoSuchFault, fault
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine

MINUTE, HOUR = 60.0, 3600.0
LASTING = 3 * HOUR  # seconds of a build that does not end while somebody looks


def database_of(installation: Installation) -> TravisDatabase:
    if installation.database is None:
        raise NoSuchFault("this installation has no database, so nothing can go wrong in it")
    return installation.database


@fault("has jobs for a queue without worker", on=Role.PLATFORM, cause="queue.no-consumers")
def no_consumers(installation: Installation, _machine: Machine) -> None:
    """Jobs wait for builds.xenial: a worker listened there once, and none does now."""
    installation.broker.declare("builds.xenial")
    _waiting(installation, "builds.xenial", 3, 25 * MINUTE)


@fault("has jobs for a queue that is not there", on=Role.PLATFORM, cause="queue.absent")
def absent(installation: Installation, _machine: Machine) -> None:
    """Jobs were sent to builds.focal, where no worker ever listened: RabbitMQ dropped them."""
    _waiting(installation, "builds.focal", 2, 20 * MINUTE)


@fault("does not route jobs", on=Role.PLATFORM, cause="jobs.not-routed")
def not_routed(installation: Installation, _machine: Machine) -> None:
    """The scheduler marks jobs as queued, and never gets to telling where."""
    for _ in range(2):
        database_of(installation).add_job("queued", None, 15 * MINUTE)


@fault("lost the messages of queued jobs", on=Role.PLATFORM, cause="jobs.stuck-queued")
def lost(installation: Installation, _machine: Machine) -> None:
    """RabbitMQ was set up anew while jobs waited: the database still has them as queued."""
    for no in range(3):
        database_of(installation).add_job("queued", "builds.trusty", 2 * HOUR + no * MINUTE)


@fault("has jobs that were just queued", on=Role.PLATFORM, cause=SUSPICIOUS)
def just_queued(installation: Installation, _machine: Machine) -> None:
    """Jobs were queued a moment ago, some of them not routed yet."""
    database_of(installation).add_job("queued", None, 2.0)
    database_of(installation).add_job("queued", "builds.bionic", 3.0)
    installation.timeline.after(MINUTE, lambda: _canceled(installation))


def _canceled(installation: Installation) -> None:
    database_of(installation).run("UPDATE jobs SET state = 'canceled', finished_at = now() WHERE state = 'queued'")


@fault("holds jobs back by a limit", on=Role.PLATFORM, cause=SUSPICIOUS)
def held_back(installation: Installation, _machine: Machine) -> None:
    """An owner has more jobs than may run at once: the others stay `created` for hours."""
    for no in range(4):
        database_of(installation).add_job("created", None, 3 * HOUR + no)


@fault("has a queue that nobody uses", on=Role.PLATFORM, cause=SUSPICIOUS)
def unused(installation: Installation, _machine: Machine) -> None:
    """A worker was taken away: its queue is still there, and nothing is sent to it."""
    installation.broker.declare("builds.precise")


@fault("runs a job for hours", on=Role.PLATFORM, cause=SUSPICIOUS)
def long_running(installation: Installation, _machine: Machine) -> None:
    """A job has been running for two hours, which it may."""
    number = database_of(installation).add_job("started", "builds.trusty", 2 * HOUR)
    installation.broker.publish("builds.trusty", Job(number, "acme/billing-service", LASTING))


@fault("has jobs that waited long and start now", on=Role.PLATFORM, cause=SUSPICIOUS)
def starting_now(installation: Installation, _machine: Machine) -> None:
    """Jobs waited for over an hour; now workers have them, and the database does not know it yet."""
    for _ in range(2):
        number = database_of(installation).add_job("queued", "builds.trusty", 2 * HOUR)
        installation.broker.publish("builds.trusty", Job(number, "octo-org/website", LASTING))


def _waiting(installation: Installation, queue: str, count: int, ago: float) -> None:
    """Jobs that are queued in the database, and their messages where RabbitMQ takes them."""
    for no in range(count):
        number = database_of(installation).add_job("queued", queue, ago - no)
        installation.broker.publish(queue, Job(number, "octo-org/rockets", 120.0))
