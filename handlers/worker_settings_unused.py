"""What somebody wrote into a worker's settings is not what the worker works with: it was started before, or another
line wins over it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import address, edit, rabbitmq, recovery, settings, worker
from handlers.toolbox.settings import AMQP, BUILD_API, PREFIX, QUEUE, Entry, Settings

PAGE = "https://docs.travis-ci.com/user/enterprise/worker-configuration/"
COMPARED = (AMQP, BUILD_API, QUEUE, "POOL_SIZE")


@diagnosis(
    "worker runs with old settings",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker run with what its settings files say?",
    unless=("worker.run-*",),
    runbook=PAGE,
)
def worker_runs_with_old_settings(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.written(machine))
    written = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
    now = worker.service(look, machine, *_compared(machine, written))
    inside = _started_with(look, machine, written, now) if now.running else None
    if inside is None:
        return
    differs = tuple(name for name in COMPARED if _changed(written, inside, name))
    if not differs and not (written.contained and _edited_since(look, machine)):
        return
    yield Finding(
        "worker.config-stale",
        Severity.BROKEN if differs else Severity.WARN,
        machine,
        f"{machine} runs with settings from before they were edited",
        evidence="; ".join(_difference(written, inside, name) for name in differs) or _quietly(look, machine),
        fixes=_restarts(look, machine),
        link=PAGE,
    )


def _compared(machine: Target, written: Settings) -> tuple[Fact[Any], ...]:
    """What a container was started with; a process of the machine itself has to be known first."""
    if not written.contained:
        return ()
    digests = (settings.digest_of_files(machine), settings.digest_of_start(machine))
    return (settings.started_with(machine), settings.places(machine), *digests)


def _started_with(look: Look, machine: Target, written: Settings, now: worker.Service) -> Mapping[str, str] | None:
    if written.contained:
        return look(settings.started_with(machine))
    if not now.pid:
        return None
    look.together(settings.process_has(machine, now.pid), *_needed(look, machine))  # or a fix would cost a fourth round
    return look(settings.process_has(machine, now.pid))


def _changed(written: Settings, inside: Mapping[str, str], name: str) -> bool:
    """A shell passes on what is exported alone, so without a container only what is there can be compared."""
    if written.winner(name) is None or (not written.contained and not _inside(inside, name)):
        return False
    return written.value(name) != _inside(inside, name)


def _restarts(look: Look, machine: Target) -> tuple[Fix, ...]:
    """A reboot would do no more."""
    look.together(*_needed(look, machine))
    on = recovery.handle(look, machine)
    return recovery.drain_and_restart(on), recovery.restart(on)


def _needed(look: Look, machine: Target) -> tuple[Fact[Any], ...]:
    return *recovery.wanted_by_fixes(machine), *rabbitmq.ahead(look)


def _inside(inside: Mapping[str, str], name: str) -> str:
    return inside.get(PREFIX + name) or inside.get(name, "")


def _difference(written: Settings, inside: Mapping[str, str], name: str) -> str:
    return f"{name} is {_inside(inside, name) or 'not set'} in what runs, {written.value(name)} in the files"


def _edited_since(look: Look, machine: Target) -> bool:
    """Other lines, a password too: only their digests are compared. A file that was merely touched is no edit."""
    files, start = look(settings.digest_of_files(machine)), look(settings.digest_of_start(machine))
    return bool(files and start and files != start and _newer(look, machine))


def _newer(look: Look, machine: Target) -> tuple[str, ...]:
    there = look(settings.places(machine))
    if (started := there.get(settings.EFFECTIVE)) is None:
        return ()
    return tuple(name for name in settings.FILES if name in there and there[name].changed > started.changed)


def _quietly(look: Look, machine: Target) -> str:
    return f"{', '.join(_newer(look, machine))} was edited after the last start, and says something else now"


@diagnosis(
    "worker settings have no effect",
    of="builds not starting",
    also=("builds failing",),
    each=Role.WORKER,
    says="Does what was written into the worker's settings count?",
    runbook=PAGE,
)
def worker_settings_have_no_effect(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine), settings.written(machine))
    written = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
    for name, meant in _meant(look, machine):
        winner = written.winner(name)
        right = _hidden(written, name, meant) if winner is not None else None
        if winner is None or right is None or _says(written, winner, meant):
            continue
        if name != QUEUE and address.leads_here(look, machine, name, written.read(winner)):
            continue
        yield _overridden(look, machine, written, winner, right, meant)


def _meant(look: Look, machine: Target) -> Iterator[tuple[str, str]]:
    """Settings of which opsbot knows what they have to be."""
    if look.site.option("rabbitmq.via", "container") == "container":
        yield AMQP, look.site.domain
    yield BUILD_API, look.site.domain
    if queue := look.site.option(f"queue.{machine.name}", ""):
        yield QUEUE, queue


def _says(written: Settings, entry: Entry, meant: str) -> bool:
    value = written.read(entry)
    return meant in (value, settings.host_of(value))


def _hidden(written: Settings, name: str, meant: str) -> Entry | None:
    """The right value in a line that does not count: one that is read earlier, or that this generation ignores."""
    hidden = (each for each in written.about(name) if _says(written, each, meant))
    ignored = () if written.sourced or name == QUEUE else written.about(settings.HOST)
    return next(hidden, None) or next((each for each in ignored if written.read(each) == meant), None)


def _overridden(look: Look, machine: Target, written: Settings, winner: Entry, right: Entry, meant: str) -> Finding:
    change = edit.value(winner, meant) if winner.name == QUEUE else edit.host_behind(written, winner, meant)
    wish = edit.Wish(change, winner.name, meant)
    return Finding(
        "worker.config-overridden",
        Severity.BROKEN,
        machine,
        f"{right.key} in {right.file} has no effect on {machine}: {_why(winner, right)}",
        evidence=f"{right.key} is right in {right.place}, {winner.key} counts in {winner.place}"
        + (f"; {wish}" if change else ""),
        fixes=edit.edit_and_restart(look, machine, wish),
        person="" if change else f"Correct or delete {winner.key} in {winner.place}, then restart travis-worker.",
        link=PAGE,
    )


def _why(winner: Entry, right: Entry) -> str:
    if right.name == settings.HOST and winner.name != settings.HOST:
        return f"Ubuntu 16.04 and later read {winner.key} in {winner.file} instead"
    if winner.key != right.key:
        return f"{winner.key} wins over it"
    return f"line {winner.line} of {winner.file} is read after it"
