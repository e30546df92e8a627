"""A worker's service does not run at all."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Wait, at_least
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import worker


@diagnosis(
    "worker stopped",
    of="builds not starting",
    each=Role.WORKER,
    says="Is travis-worker running?",
    unless=("docker.down",),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def worker_stopped(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine))
    now = worker.service(look, machine)
    if now.running or now.turning:
        return
    back = Wait(worker.connected(look, machine), at_least(1), worker.BACK_WITHIN)
    yield Finding(
        "worker.stopped",
        Severity.BROKEN,
        machine,
        f"travis-worker is not running on {machine}: it is {now.state}",
        evidence="the init system says so",
        fixes=(worker.start(machine, look(worker.init_system(machine)), back),),
    )
