"""A worker's settings are read by a shell that is shown no quotes: a space or an `&` in a value breaks every start.

Which line it is and which sign breaks it can be told without its value, and only that leaves the machine.
"""

from collections.abc import Iterator

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import settings, worker

PAGE = "https://docs.travis-ci.com/user/enterprise/worker-configuration/"
MOST = 5  # lines that are named


@diagnosis(
    "worker settings cannot be read",
    of="builds not starting",
    each=Role.WORKER,
    says="Can a shell read the worker's settings?",
    runbook=PAGE,
)
def worker_settings_cannot_be_read(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), settings.shapes(machine), settings.places(machine))
    init = look(worker.init_system(machine))
    lines = settings.broken(look(settings.shapes(machine)), init == worker.UPSTART)
    if not lines or settings.SNAP in look(settings.places(machine)):
        return
    now = worker.service(look, machine)
    stays = now.running and now.since is not None and now.since >= worker.SETTLED
    if now.running and _started_with_these(look, machine, init, stays):
        return  # what started once starts again
    surely = [each for each in lines if each.surely]
    first = surely[0] if surely else lines[0]
    yield Finding(
        "worker.config-unparsable",
        Severity.BROKEN if surely and not stays else Severity.WARN,
        machine,
        f"{_outcome(bool(surely), stays)} on {machine}: {first.place} cannot be read as it is meant",
        evidence="; ".join(f"{each.place}: {each.key} has {each.sign}" for each in lines[:MOST]),
        person=_advice(first, init) + ("" if stays else " Then it starts by itself."),
        link=PAGE,
    )


def _outcome(surely: bool, stays: bool) -> str:
    if not surely:
        return "travis-worker may get another value"
    return "travis-worker would not start again" if stays else "travis-worker does not start"


def _started_with_these(look: Look, machine: Target, init: str, stays: bool) -> bool:
    """Has it come up with exactly the lines that stand there now?"""
    if init == worker.UPSTART:
        return stays
    files, start, inside = (
        settings.digest_of_files(machine),
        settings.digest_of_start(machine),
        settings.started_with(machine),
    )
    look.together(files, start, inside)
    return look(inside) is not None and look(files) == look(start)


def _advice(first: settings.Broken, init: str) -> str:
    if init == worker.UPSTART:
        return f"Put the value of {first.key} in {first.file} (line {first.line}) between quotes."
    if first.sign == settings.NO_VALUE:
        return f"Take line {first.line} out of {first.file}: Docker reads NAME=value there, and no shell."
    if first.sign == settings.COMMENT:
        return f"Put the comment of {first.key} in {first.file} (line {first.line}) on a line of its own."
    address = first.key.endswith("_URI")
    how = (
        "in a password, write such a sign as % and its number in hex (`&` is %26)"
        if address
        else "quotes do not help, since they are taken away: the value must have no spaces, no backtick and none of "
        "& ; | < > ( ) $ #"
    )
    return f"Rewrite {first.key} in {first.file} (line {first.line}): {how}."
