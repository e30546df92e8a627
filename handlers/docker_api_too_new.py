"""A worker's docker no longer takes the API version that travis-worker speaks: every build goes back into the queue.

Docker 29 refuses what is older than 1.44, and travis-worker speaks 1.24 unless it is told otherwise; the installer and
`apt upgrade` bring the newest docker. One line in its settings is the cure.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, edit, pool, settings, worker
from handlers.toolbox.edit import Edit
from handlers.toolbox.pool import Pool


@diagnosis(
    "docker api too new",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker's docker take the API that travis-worker speaks?",
    unless=("docker.hung", "docker.too-old"),
    runbook="https://docs.docker.com/engine/deprecated/#deprecate-legacy-api-versions",
)
def docker_api_too_new(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(docker.state(machine), worker.init_system(machine), worker.addresses(machine))
    if look(docker.state(machine)) != docker.ANSWERS:
        return
    init = look(worker.init_system(machine))
    look.together(docker.versions(machine), docker.complaints(machine, init), pool.lines(machine))
    found, said = look(docker.versions(machine)), look(docker.complaints(machine, init))
    set_to = pool.pool(look(pool.lines(machine)), init)
    if not found.oldest_api or not docker.older(_spoken(set_to, said), found.oldest_api):
        return
    fixes = _fixes(look, machine, set_to, found.oldest_api)
    yield Finding(
        "docker.api-too-new",
        Severity.BROKEN,
        machine,
        f"docker {found.server} on {machine} takes API {found.oldest_api} and newer, and travis-worker speaks "
        f"{_spoken(set_to, said)}: no build starts there",
        evidence=str(said),
        fixes=fixes,
        person=_person(machine, init, found.oldest_api, fixes),
        link="https://docs.docker.com/engine/deprecated/#deprecate-legacy-api-versions",
    )


def _person(machine: Target, init: str, version: str, fixes: tuple[Fix, ...]) -> str:
    """Nobody vouches for it that an image of travis-worker from before that API can speak it."""
    if not fixes:
        return f"Set {pool.API_KEY}={version} in {settings.MAIN} on {machine}, and restart travis-worker."
    if init == worker.UPSTART:
        return ""
    return (
        f"If builds do not start even then, name a newer image of travis-worker in {settings.IMAGE} on {machine} "
        "(`sudo systemctl daemon-reload`, then restart it), or install a docker-ce from before 29."
    )


def _spoken(set_to: Pool, said: docker.Complaints) -> str:
    """What the running process speaks: its log knows better where the settings were changed after its start."""
    if said.old_client and said.old_client != set_to.api and set_to.running == set_to.written:
        return said.old_client
    return set_to.api


def _fixes(look: Look, machine: Target, set_to: Pool, version: str) -> tuple[Fix, ...]:
    """None where the line cannot be written by machine."""
    if not docker.older(set_to.next_api, version):
        return (_taken_up(look, machine),)
    line = pool.api_line(set_to, version)
    return () if line is None else (_edited(look, machine, line, version),)


def _taken_up(look: Look, machine: Target) -> Fix:
    """The files say it already, and the process was started before."""
    return Fix(
        id="worker.take-up-settings",
        title="Restart travis-worker, so that it takes up its settings",
        target=machine,
        steps=edit.taken_up(look, machine),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: builds that ran are queued again",
    )


def _edited(look: Look, machine: Target, line: Edit, version: str) -> Fix:
    written = pool.api_written(machine, look(worker.init_system(machine)), line, version)
    return Fix(
        id=f"{pool.API_KEY}.edit",
        title=f"Set {pool.API_KEY} in {line.file} and restart travis-worker",
        target=machine,
        steps=(*written, *edit.taken_up(look, machine)),
        risk=Risk.INTERRUPTS,
        undo=f"sudo cp {line.copy} {line.file}, then restart {machine}; builds that ran are queued again",
    )
