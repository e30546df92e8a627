"""Build containers that no worker process watches any more: they hold memory and disk, and nobody will ever end them.

A worker that was killed leaves them behind: RabbitMQ delivers the build again, the old container stays.
"""

from collections.abc import Iterator
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, worker

OLDEST = timedelta(seconds=12000)  # after so long the vendor's own cleaner removes them; no build may run so long
SLACK = timedelta(minutes=2)  # the clocks of docker and of the init system are read one after the other
SHOWN = 5
TOO_MANY = f"More than {docker.TOO_MANY} at once are not removed by machine: find out first why nobody does"


@diagnosis(
    "worker has orphaned containers",
    of="builds not starting",
    each=Role.WORKER,
    says="Does every build container belong to a running worker?",
    unless=("docker.*",),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def worker_orphans(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), docker.state(machine))
    if look(docker.state(machine)) != docker.ANSWERS:
        return
    orphans = _orphans(look, machine)
    if not orphans:
        return
    now, many = look(docker.now(machine)), len(orphans) > docker.TOO_MANY
    yield Finding(
        "worker.orphan-containers",
        Severity.WARN,
        machine,
        f"{machine} has {_counted(orphans)} left behind: no running build can be theirs",
        evidence="; ".join(
            f"{each.name} ({each.id[:12]}, {readable(now - each.created)} old)" for each in orphans[:SHOWN]
        )
        + (f"; and {len(orphans) - SHOWN} more" if len(orphans) > SHOWN else ""),
        fixes=() if many else (docker.remove(machine, orphans),),
        person=f"{TOO_MANY}; `docker ps -a --filter name={docker.JOB}` lists them." if many else "",
    )


def _orphans(look: Look, machine: Target) -> tuple[docker.Container, ...]:
    """Older than any build may be, or made before the worker's present process, which knows nothing of them."""
    about = worker.asked(look, machine)
    look.together(docker.build_containers(machine), docker.now(machine), *about)
    now, there = look(docker.now(machine)), look(docker.build_containers(machine))
    service = worker.service(look, machine)
    orphans = tuple(each for each in there if _orphaned(now - each.created, service))
    if service.turning and len(orphans) < len(there):
        raise Unknown("travis-worker is on its way up or down and may still be clearing up its build containers")
    return orphans


def _orphaned(age: timedelta, service: worker.Service) -> bool:
    """A worker that is on its way up or down may still be clearing up."""
    if age > OLDEST:
        return True
    if service.turning:
        return False
    if not service.running:
        return age > SLACK
    return service.since is not None and age > service.since + SLACK


def _counted(orphans: tuple[docker.Container, ...]) -> str:
    return "a build container" if len(orphans) == 1 else f"{len(orphans)} build containers"
