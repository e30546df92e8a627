"""A worker's service does not run at all."""

from collections.abc import Iterator

from bot.core.errors import Refused
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk
from bot.core.handler import action, diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq, recovery, worker


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
    if now.running or now.turning or worker.ended(look, machine, *rabbitmq.ahead(look)):
        return
    yield Finding(
        "worker.stopped",
        Severity.BROKEN,
        machine,
        f"travis-worker is not running on {machine}: it is {now.state}",
        evidence="the init system says so",
        fixes=(recovery.start_stopped(look, machine),),
    )


@action(
    "start",
    each=Role.WORKER,
    says="Start travis-worker",
    risk=Risk.INTERRUPTS,
    makes="worker.start",
    proof="worker stopped",
)
def start(look: Look, machine: Target) -> Fix:
    now = worker.service(look, machine)
    if now.running or now.turning:
        raise Refused(f"travis-worker on {machine} is not stopped: it is {now.state}")
    return recovery.start_stopped(look, machine)
