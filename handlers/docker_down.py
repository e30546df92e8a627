"""The docker daemon of a worker does not run: on Ubuntu 14.04 builds go back into the queue, later ones stop the worker
with it.
"""

from collections.abc import Iterator
from datetime import timedelta

from bot.core.command import sh
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, worker

UP_WITHIN = timedelta(minutes=2)


@diagnosis(
    "docker down",
    of="builds not starting",
    each=Role.WORKER,
    says="Does docker on the worker run?",
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def docker_down(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(docker.state(machine), worker.init_system(machine))
    if look(docker.state(machine)) != docker.DOWN:
        return
    init = look(worker.init_system(machine))
    look.together(docker.complaints(machine, init), *worker.asked(look, machine))
    yield Finding(
        "docker.down",
        Severity.BROKEN,
        machine,
        f"docker does not run on {machine}",
        evidence=f"its client cannot connect to the daemon; {look(docker.complaints(machine, init))}",
        fixes=(start(machine, init, worker.service(look, machine)),),
    )


def start(machine: Target, init: str, now: worker.Service) -> Fix:
    """The unit of travis-worker requires that of docker, so starting a worker that is down starts both."""
    back = Wait(docker.state(machine), equals(docker.ANSWERS), UP_WITHIN)
    if init == worker.SYSTEMD and not (now.running or now.turning):
        return worker.start(machine, init, back)
    words = ("start", "docker") if init == worker.UPSTART else ("systemctl", "start", "docker")
    return Fix(
        id="docker.start",
        title="Start docker",
        target=machine,
        steps=(Change("Start docker", sh(*words).sudo(), slow=init == worker.SYSTEMD), back),
        risk=Risk.INTERRUPTS,
        undo="stop docker by hand",
    )
