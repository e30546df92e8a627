"""The docker daemon of a worker does not run: on Ubuntu 14.04 builds go back into the queue, later ones stop the worker
with it.
"""

from collections.abc import Iterator

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, worker


@diagnosis(
    "docker down",
    of="builds not starting",
    each=Role.WORKER,
    says="Does docker on the worker run?",
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def docker_down(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(docker.state(machine), worker.init_system(machine))
    if look(docker.state(machine)) == docker.ABSENT and not look(worker.is_snap(machine)):
        raise Unknown(f"there is no docker on {machine}, and no snap of travis-worker that needs none")
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
        fixes=(docker.start(machine, init, worker.service(look, machine)),),
    )
