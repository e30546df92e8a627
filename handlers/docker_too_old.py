"""A worker's docker is older than travis-worker can work with: every build goes back into the queue.

It concerns workers that were installed before November 2017. The vendor's cure is a fresh machine.
"""

import shlex
from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, pool, settings, worker

RUNBOOK = "https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#docker-versions-mismatched"
IMAGES = ("trusty", "xenial", "bionic", "focal")  # the installer knows these build images


@diagnosis(
    "docker too old",
    of="builds not starting",
    each=Role.WORKER,
    says="Is the worker's docker new enough?",
    unless=("docker.hung",),
    runbook=RUNBOOK,
)
def docker_too_old(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(docker.state(machine), worker.init_system(machine))
    if look(docker.state(machine)) != docker.ANSWERS:
        return
    init = look(worker.init_system(machine))
    look.together(docker.versions(machine), docker.complaints(machine, init), pool.lines(machine))
    found, said = look(docker.versions(machine)), look(docker.complaints(machine, init))
    if not (found.refused or said.old_server or docker.older(found.server, docker.OLDEST)):
        return
    yield Finding(
        "docker.too-old",
        Severity.BROKEN,
        machine,
        f"docker {found.server} on {machine} is older than {docker.OLDEST}: travis-worker cannot start builds with it"
        if found.server
        else f"docker on {machine} does not fit its client: travis-worker cannot start builds with it",
        evidence="; ".join(filter(None, (found.refused, str(said)))),
        person=_reinstall(look, machine, pool.pool(look(pool.lines(machine)), init).queue),
        link=RUNBOOK,
    )


def _reinstall(look: Look, machine: Target, queue: str) -> str:
    """The queue is given, since the installer takes `builds.focal` for every image otherwise.

    What stands for the password is one word between quotes: it is shown masked, and the rest can be typed as it is.
    """
    image = queue.removeprefix("builds.")
    words = (
        shlex.quote(f"--travis_enterprise_host={look.site.domain}"),
        "'--travis_enterprise_security_token=PASSWORD'",
        shlex.quote(f"--travis_queue_name={queue}"),
        *((f"--travis_build_images={image}",) if image in IMAGES else ()),
    )
    return (
        "Install the worker anew on a fresh machine with Ubuntu 16.04 or later, as root: "
        f"`curl -sSL -o /tmp/installer.sh {docker.INSTALLER}` and `bash /tmp/installer.sh {' '.join(words)}`, "
        "with the password of RabbitMQ's user travis as `--travis_enterprise_security_token`. "
        "It needs 40 GB of disk; images of your own under `travis:*` have to be brought over. "
        "The installer brings the newest docker-ce: where that is 29 or later, it refuses the API that travis-worker "
        f"speaks (`docker.api-too-new`), so write `export {pool.API_KEY}=1.44` into {settings.MAIN} there and restart "
        f"travis-worker, or install a docker-ce from {docker.OLDEST} up to 28 (`apt-cache madison docker-ce` lists "
        "them). "
        f"Then stop travis-worker on {machine} and put the new machine into the configuration in its place."
    )
