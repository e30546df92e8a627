"""A disk of the platform is full: then PostgreSQL and RabbitMQ stop, and nothing starts any more."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform
from handlers.toolbox.platform import Disk

FILLING, FULL = 85, 95  # percent; RabbitMQ and Docker need room to work in
SHOWN = 5  # of the biggest folders
FREE = "Free space there, or make the disk larger;"


@diagnosis(
    "platform disk full",
    of="builds not starting",
    also=("platform not ready", "builds failing"),
    each=Role.PLATFORM,
    says="Has the platform disk space left?",
    runbook="https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/",
)
def platform_disk_full(look: Look, machine: Target) -> Iterator[Finding]:
    folder = platform.data_dir(look, machine)
    look.together(platform.disks(machine, folder), platform.inodes(machine, folder))
    disks, files = look(platform.disks(machine, folder)), look(platform.inodes(machine, folder))
    worst = max((*disks, *files), key=lambda each: each.used)
    if worst.used < FILLING:
        return
    full = Finding(
        "platform.disk-full",
        Severity.BROKEN,
        machine,
        f"the file system {worst.mount} of {machine} {_how_full(worst, files)}",
        evidence=f"df says {_told(disks)}; inodes used: {_told(files)}",
        person=f"{_most_files(worst) if worst in files else _biggest(look, machine, worst, folder)} of {folder} delete "
        "only old logs, the rest is the installation itself. Then look again.",
    )
    yield full if worst.used >= FULL else replace(full, severity=Severity.WARN)


def _how_full(worst: Disk, files: Sequence[Disk]) -> str:
    return f"has used {worst.used} % of its inodes" if worst in files else f"is {worst.used} % full"


def _told(disks: Sequence[Disk]) -> str:
    return ", ".join(f"{each.mount} {each.used} %" for each in disks) or "nothing"


def _most_files(worst: Disk) -> str:
    """Counting them takes minutes; which folders are big says nothing of it."""
    count = rf"sudo find {worst.mount} -xdev -printf '%h\n' | sort | uniq -c | sort -n | tail"
    return f"`{count}` names the folders with most files, and takes some minutes. Delete what nobody needs there;"


def _biggest(look: Look, machine: Target, worst: Disk, folder: str) -> str:
    """What takes the room, as far as it can be counted in a few seconds."""
    counted = look(platform.biggest(machine, folder))
    on_it = (*worst.folders, "/var/log") if worst.mount == "/" else worst.folders
    found = [
        f"{path} {_readable(size)}" for path, size in counted if path.startswith(tuple(f"{each}/" for each in on_it))
    ]
    if not found:
        count = f"sudo du -xh -d 2 {worst.mount} | sort -h | tail"
        return f"What is biggest could not be counted quickly: `{count}`. {FREE}"
    return f"Biggest: {', '.join(found[:SHOWN])}. {FREE}"


def _readable(kib: int) -> str:
    return f"{kib / 1024 / 1024:.1f} GiB" if kib >= 1024 * 1024 else f"{kib // 1024} MiB"
