"""The platform has hardly any memory left: the kernel will end one of its services."""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform

LEAST = 4  # percent that are left; of the 16 GB that the vendor asks for, that is what one service takes in a moment
LINK = "https://docs.travis-ci.com/user/enterprise/setting-up-travis-ci-enterprise/"


@diagnosis(
    "platform memory short",
    of="builds not starting",
    also=("platform not ready",),
    each=Role.PLATFORM,
    says="Has the platform memory left?",
    runbook=LINK,
)
def platform_memory(look: Look, machine: Target) -> Iterator[Finding]:
    memory = look(platform.memory(machine))
    if memory.percent >= LEAST:
        return
    yield Finding(
        "platform.memory-short",
        Severity.WARN,
        machine,
        f"{machine} has {memory.left} MiB of memory left, {memory.percent} % of all",
        evidence=f"`free -m` says that {memory.left} of {memory.total} MiB are available, caches included",
        person="Look who takes it: `ps -eo rss,etime,args --sort -rss | head`, and whether the kernel has ended a "
        "program: `dmesg | grep -i 'out of memory'`. The vendor asks for 16 GB.",
        link=LINK,
    )
