"""The docker daemon of a worker takes requests and answers none: no build can start, and a restart waits for ever.

Its cause is in the kernel as a rule (moby#5618), so only a reboot helps; the vendor's own workers are ended for it.
"""

from collections.abc import Iterator

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, readable
from bot.core.handler import diagnosis
from bot.core.look import CannotLook, Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, recovery, worker


@diagnosis(
    "docker hangs",
    of="builds not starting",
    each=Role.WORKER,
    says="Does docker on the worker answer?",
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def docker_hangs(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(docker.state(machine), worker.init_system(machine), worker.addresses(machine))
    if look(docker.state(machine)) != docker.SILENT:
        return
    _ask_about(look, machine)
    fixes, why_none = _reboot(look, machine)
    yield Finding(
        "docker.hung",
        Severity.BROKEN,
        machine,
        f"docker on {machine} hangs: `docker info` gave no answer in {readable(docker.PATIENCE)}",
        evidence=_evidence(look, machine),
        fixes=fixes,
        person=""
        if fixes
        else f"Reboot {machine} (`sudo shutdown -r now`), and see to it that travis-worker runs after: {why_none}.",
        link="https://github.com/moby/moby/issues/5618",
    )


def _ask_about(look: Look, machine: Target) -> None:
    """Everything else that is needed from the machine, in one round."""
    init = look(worker.init_system(machine))
    more = (worker.boot_id(machine), worker.not_to_reboot(machine), docker.stuck_devices(machine))
    look.together(*worker.asked(look, machine), *more, docker.complaints(machine, init))


def _reboot(look: Look, machine: Target) -> tuple[tuple[Fix, ...], str]:
    """The reboot, or why opsbot does not offer it."""
    try:
        on = recovery.handle(look, machine)
    except (Unknown, CannotLook) as why:
        return (), f"opsbot cannot prove that the worker is back, because {why}"
    if on.stays:
        return (), on.stays
    return (recovery.reboot(on),), ""


def _evidence(look: Look, machine: Target) -> str:
    times = look(docker.stuck_devices(machine))
    kernel = f"the kernel's log says {times} times `{docker.STUCK}`" if times > docker.STUCK_OFTEN else ""
    log = str(look(docker.complaints(machine, look(worker.init_system(machine)))))
    return "; ".join(filter(None, (kernel, log)))
