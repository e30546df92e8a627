"""Changing one line of a worker's settings: a copy is kept, the line is edited, the service takes it up.

Values that are secret are never written by machine. An expression is made from the setting and its new value alone, so
that sudo can be told beforehand which edits there may be.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from bot.core.command import sh
from bot.core.fix import Change, Fix, Risk, Step, Wait, at_least
from bot.core.look import Look
from bot.core.target import Target
from handlers.toolbox import settings, worker
from handlers.toolbox.settings import Entry, Settings

SETTLED: Final = timedelta(minutes=2)  # a worker that has been up for less may be one that keeps ending
LOOPS_WITHIN: Final = timedelta(minutes=5)
BRIEF: Final = timedelta(seconds=30)
_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]*")  # means itself to sed and to a shell


class Way(Enum):
    """How a line is changed."""

    HOST = "the host in an address"
    VALUE = "the whole value"
    UNCOMMENT = "a line that was commented out"
    APPEND = "a new line at the end"


@dataclass(frozen=True)
class Edit:
    """One line of one file, and what it says before and after, with secrets masked."""

    file: str
    key: str
    value: str
    way: Way
    before: str = ""

    @property
    def expression(self) -> str:
        """What sed is told; it names no line, since lines may have moved."""
        key, value = self.key, self.value
        return {
            Way.HOST: rf"s|^(\s*(export\s+)?{key}=.?[a-z]+://(.*@)?)[A-Za-z0-9._-]+|\1{value}|",
            Way.VALUE: rf"s|^(\s*(export\s+)?{key}=).*|\1{value}|",
            Way.UNCOMMENT: rf"s|^\s*#[#\s]*(export\s+)?{key}=.*|export {key}={value}|",
            Way.APPEND: f"$a export {key}={value}",
        }[self.way]

    @property
    def copy(self) -> str:
        """Where the file is kept as it was before."""
        return f"{self.file}.opsbot-{hashlib.sha256(self.expression.encode()).hexdigest()[:8]}"

    @property
    def after(self) -> str:
        if self.way is Way.HOST:
            return re.sub(r"(://(?:.*@)?)[A-Za-z0-9._-]+", rf"\g<1>{self.value}", self.before, count=1)
        export = "export " if self.way in (Way.UNCOMMENT, Way.APPEND) else ""
        return f"{export}{self.key}={self.value}"

    def __str__(self) -> str:
        return f"{self.file}: `{self.before or '(no line)'}` -> `{self.after}`"


def host(entry: Entry, domain: str) -> Edit | None:
    """The host of the address that an entry holds; None when that cannot be done by one expression."""
    whole = re.fullmatch(r".?[a-z]+://(?:.*@)?[A-Za-z0-9._-]+(?:[:/].*)?", entry.text)
    if entry.name == settings.HOST:
        return value(entry, domain)
    return _edit(entry, domain, Way.HOST) if whole and "$" not in entry.text else None


def value(entry: Entry, wanted: str) -> Edit | None:
    return _edit(entry, wanted, Way.VALUE)


def uncomment(entry: Entry, wanted: str) -> Edit | None:
    return _edit(entry, wanted, Way.UNCOMMENT)


def append(file: str, key: str, wanted: str) -> Edit | None:
    return Edit(file, key, wanted, Way.APPEND) if _PLAIN.fullmatch(wanted) else None


def _edit(entry: Entry, wanted: str, way: Way) -> Edit | None:
    before = f"{'# ' if entry.comment else ''}{entry.key}={entry.text}"
    return Edit(entry.file, entry.key, wanted, way, before) if _PLAIN.fullmatch(wanted) else None


def source_of_host(written: Settings, entry: Entry) -> Entry | None:
    """The line to edit when an address has the wrong host: on 14.04 it is mostly put together from another setting."""
    return written.winner(settings.HOST) if settings.HOST in entry.text and written.sourced else entry


# ---------------------------------------------------------------- fixes


def edit_and_restart(look: Look, machine: Target, edit: Edit | None, setting: str, value: str) -> tuple[Fix, ...]:
    """Keep a copy, edit the line, restart; none when the edit cannot be made by machine.

    `setting` is what must have `value` afterwards, as the worker reads it.
    """
    if edit is None:
        return ()
    restart, back = taken_up(look, machine)
    steps = (*_written(machine, edit, look(worker.init_system(machine)), setting, value), restart, back)
    return (
        Fix(
            id=f"{edit.key}.edit",
            title=f"Set {edit.key} in {edit.file} and restart travis-worker",
            target=machine,
            steps=steps,
            risk=Risk.INTERRUPTS,
            undo=f"sudo cp {edit.copy} {edit.file}, then restart {machine}; builds that ran are queued again",
        ),
    )


def _written(machine: Target, edit: Edit, init: str, setting: str, value: str) -> Iterator[Change]:
    missing = settings.still_says_otherwise(machine, init, setting, value)
    keep = sh("install", "-m", "600", edit.file, edit.copy).sudo()
    write = sh("sed", "-i", "-E", "--follow-symlinks", "-e", edit.expression, edit.file).sudo()
    yield Change(f"Keep a copy, {edit.copy}", keep, needed=missing, within=BRIEF)
    yield Change(f"Edit {edit}", write, needed=missing, within=BRIEF)


def taken_up(look: Look, machine: Target) -> tuple[Step, Wait]:
    """The restart that makes the worker read its settings again, and how one knows that it is back."""
    init, now = look(worker.init_system(machine)), worker.service(look, machine)
    if now.running and now.since is not None and now.since >= SETTLED:
        restart = worker.restarted(machine, init, now.pid)
        return restart, Wait(worker.connected(look, machine), at_least(1), worker.BACK_WITHIN)
    restart = worker.restarted_anyhow(machine, init)
    return restart, Wait(worker.connected(look, machine), at_least(1), LOOPS_WITHIN)


def possible(domain: str, queues: tuple[str, ...]) -> Iterator[Edit]:
    """Every edit that an installation of this domain with these queues can need."""
    build_api = f"https://{domain}/__build__/script"
    for file in (*settings.FILES, settings.SNAP):
        for key in (settings.AMQP, settings.BUILD_API):
            for name in (key, settings.PREFIX + key):
                yield Edit(file, name, domain, Way.HOST)
        for name in (settings.BUILD_API, settings.PREFIX + settings.BUILD_API):
            yield Edit(file, name, build_api, Way.VALUE)
        yield Edit(file, settings.BUILD_API, build_api, Way.APPEND)
        yield Edit(file, settings.HOST, domain, Way.VALUE)
        yield from (Edit(file, settings.ENDPOINT, "__build__", way) for way in (Way.VALUE, Way.UNCOMMENT, Way.APPEND))
        for queue in queues:
            yield from (Edit(file, name, queue, Way.VALUE) for name in (settings.QUEUE, settings.PREFIX + settings.QUEUE))
            yield Edit(file, settings.QUEUE, queue, Way.APPEND)


def steps_of(machine: Target, edit: Edit, init: str) -> tuple[Change, ...]:
    """The changes of an edit alone, for whoever needs to know their commands."""
    return (*_written(machine, edit, init, edit.key, edit.value), worker.restarted_anyhow(machine, init))
