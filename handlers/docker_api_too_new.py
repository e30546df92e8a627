"""A worker's docker no longer takes the API version that travis-worker speaks: every build goes back into the queue.

Docker 29 refuses what is older than 1.44, and travis-worker speaks 1.24 unless it is told otherwise; the installer and
`apt upgrade` bring the newest docker. One line in its settings is the cure.
"""

from collections.abc import Iterator
from datetime import timedelta

from bot.core.command import sh
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, edit, pool, settings, worker
from handlers.toolbox.edit import Edit
from handlers.toolbox.pool import Pool

KEY = f"{settings.PREFIX}{pool.API}"
BRIEF = timedelta(seconds=30)


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
    if look(docker.state(machine)) == docker.SILENT:
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
        person=""
        if fixes
        else f"Set {KEY}={found.oldest_api} in {settings.MAIN} on {machine}, and restart travis-worker.",
        link="https://docs.docker.com/engine/deprecated/#deprecate-legacy-api-versions",
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
    line = _line(set_to, version)
    return () if line is None else (_edited(look, machine, line, version),)


def _line(set_to: Pool, version: str) -> Edit | None:
    """The line that counts is changed where it has the worker's own prefix; otherwise one is added, which wins."""
    winner = set_to.written.winner(pool.API)
    if winner is not None and winner.key == KEY:
        return edit.value(winner, version)
    snap = any(each.file == settings.SNAP for each in set_to.written.entries)
    return edit.append(settings.SNAP if snap else settings.MAIN, KEY, version)


def _taken_up(look: Look, machine: Target) -> Fix:
    """The files say it already, and the process was started before."""
    restart, back = edit.taken_up(look, machine)
    return Fix(
        id="worker.take-up-settings",
        title="Restart travis-worker, so that it takes up its settings",
        target=machine,
        steps=(restart, back),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: builds that ran are queued again",
    )


def _edited(look: Look, machine: Target, line: Edit, version: str) -> Fix:
    restart, back = edit.taken_up(look, machine)
    other = pool.api_is_other(machine, look(worker.init_system(machine)), version)
    keep = sh("install", "-m", "600", line.file, line.copy).sudo()
    write = sh("sed", "-i", "-E", "--follow-symlinks", "-e", line.expression, line.file).sudo()
    return Fix(
        id=f"{KEY}.edit",
        title=f"Set {KEY} in {line.file} and restart travis-worker",
        target=machine,
        steps=(
            Change(f"Keep a copy, {line.copy}", keep, needed=other, within=BRIEF),
            Change(f"Edit {line}", write, needed=other, within=BRIEF),
            restart,
            back,
        ),
        risk=Risk.INTERRUPTS,
        undo=f"sudo cp {line.copy} {line.file}, then restart {machine}; builds that ran are queued again",
    )
