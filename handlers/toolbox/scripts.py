"""Who gets build scripts and who asks for them in vain: what workers' logs say, and travis-build's own page as they see
it. That its port 443 is open says nothing of travis-build behind it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar

from bot.core import docker
from bot.core.errors import Unknown
from bot.core.look import CannotLook, Look
from bot.core.target import Role, Target
from handlers.toolbox import build_starts, network, settings, worker
from handlers.toolbox.build_starts import Trouble

T = TypeVar("T")
WITNESSES: Final = 3  # workers without trouble that are asked, too: they may have had no build to fetch a script for
OVER: Final = "Builds that have ended so have to be restarted."
ELSEWHERE: Final = (  # causes that keep scripts from a worker, whatever becomes of travis-build
    "net.*",
    "platform.disk-full@BROKEN",
    "platform.not-ready",
    "platform.unreachable",
    "worker.build-api",
    "worker.config-overridden",
    "worker.host-mismatch",
)


@dataclass(frozen=True)
class Asked:
    """What became of one worker's asking: the status of travis-build's page, 0 where none came, and what its log says
    of scripts since a build last started.
    """

    worker: Target
    page: str
    status: int
    trouble: Trouble

    @property
    def served(self) -> bool:
        return self.status == network.OK

    @property
    def in_vain(self) -> bool:
        """A page that is not there, or that somebody else answers for, proves nothing."""
        return not self.status or self.status >= 500

    @property
    def distrusts(self) -> bool:
        return re.search(r"x509:|tls:", self.trouble.said) is not None

    def __str__(self) -> str:
        answered = f"answers {self.status}" if self.status else "gives no answer"
        log = f"; its log says, {self.trouble.times} times since one last started: {self.trouble.said}"
        return f"{self.page} {answered} when {self.worker} asks{log if self.trouble.times else ''}"


def asked(look: Look, machine: Target) -> Asked | None:
    """None for a worker that has not asked for scripts in vain."""
    look.together(worker.init_system(machine), settings.written(machine))
    if not (trouble := _trouble(look, machine)).times:
        return None
    page = _page(look, machine)
    return Asked(machine, page, look(network.status_of(machine, page)), trouble)


def witnesses(look: Look) -> tuple[Asked, ...]:
    """Every worker that asked in vain and a few others, nobody where none did; one that cannot be asked is left out."""
    troubles = _troubles(look, look.site.of(Role.WORKER))
    troubled = [each for each, trouble in troubles.items() if trouble.times]
    others = [each for each, trouble in troubles.items() if not trouble.times][:WITNESSES] if troubled else []
    pages = _told([*troubled, *others], lambda each: _page(look, each))
    look.together(*(network.status_of(each, page) for each, page in pages.items()))
    statuses = _told(pages, lambda each: look(network.status_of(each, pages[each])))
    return tuple(Asked(each, pages[each], status, troubles[each]) for each, status in statuses.items())


def _troubles(look: Look, workers: Sequence[Target]) -> dict[Target, Trouble]:
    look.together(*(fact for each in workers for fact in (worker.init_system(each), settings.written(each))))
    inits = _told(workers, lambda each: look(worker.init_system(each)))
    look.together(*(build_starts.troubles(each, init) for each, init in inits.items()))
    return _told(inits, lambda each: _trouble(look, each))


def _trouble(look: Look, machine: Target) -> Trouble:
    found = look(build_starts.troubles(machine, look(worker.init_system(machine))))
    return found.get(build_starts.SCRIPT, Trouble())


def _page(look: Look, machine: Target) -> str:
    written = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
    return network.uptime_page(written.value(settings.BUILD_API)) or f"https://{look.site.domain}/{network.UPTIME}"


def _told(machines: Iterable[Target], tell: Callable[[Target], T]) -> dict[Target, T]:
    """What is told of those that answer."""
    said: dict[Target, T] = {}
    for machine in machines:
        with suppress(CannotLook, Unknown):
            said[machine] = tell(machine)
    return said


def restart(look: Look) -> str:
    """What a person does where travis-build makes no scripts."""
    if not look.site.version.startswith("2."):
        how = "`kubectl rollout restart` of the deployment travis-build, in the namespace of Travis CI Enterprise"
    else:
        platform = look.site.of(Role.PLATFORM)[0]
        how = (
            f"on {platform}, `sudo docker exec $(sudo docker ps | awk '/{docker.MAIN_IMAGE}/ {{print $1}}') sv restart "
            f"travis-build`; or `restart platform {platform} because travis-build is gone`"
        )
    return f"Restart travis-build on the platform: {how}. {OVER}"
