"""Changing one line of a worker's settings: a copy is kept, the line is edited, the service takes it up.

Values that are secret are never written by machine. An expression is made from the setting and its new value alone, so
that sudo can be told beforehand which edits there may be.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fix import Change, Fix, Risk, Step, Wait, at_least
from bot.core.look import Look
from bot.core.target import Target
from handlers.toolbox import recovery, settings, worker
from handlers.toolbox.settings import Entry, Settings

LOOPS_WITHIN: Final = timedelta(minutes=5)
BRIEF: Final = timedelta(seconds=30)
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:/-]*")  # means itself to sed and to a shell


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
            Way.HOST: rf"s|^(\s*(export\s+)?{key}=.?[a-z]+://([^/?#]*@)?)[A-Za-z0-9._-]+|\1{value}|",
            Way.VALUE: rf"s|^(\s*(export\s+)?{key}=).*|\1{value}|",
            Way.UNCOMMENT: rf"s,^\s*#(#|\s)*(export\s+)?{key}=.*,export {key}={value},",
            Way.APPEND: f"$a {self.after}",
        }[self.way]

    @property
    def copy(self) -> str:
        """Where the file is kept as it was before."""
        return f"{self.file}.opsbot-{hashlib.sha256(self.expression.encode()).hexdigest()[:8]}"

    @property
    def after(self) -> str:
        if self.way is Way.HOST:
            return re.sub(r"(://(?:[^/?#]*@)?)[A-Za-z0-9._-]+", rf"\g<1>{self.value}", self.before, count=1)
        new = self.way in (Way.UNCOMMENT, Way.APPEND) and self.file != settings.SNAP
        return f"{'export ' if new else ''}{self.key}={self.value}"

    def __str__(self) -> str:
        return f"{self.file}: `{self.before or '(no line)'}` -> `{self.after}`"


def host(entry: Entry, domain: str) -> Edit | None:
    """The host of the address that an entry holds; None when that cannot be done by one expression.

    A `/`, `?` or `#` ends the host (RFC 3986, 3.2), even where somebody's password goes on behind it.
    """
    whole = re.fullmatch(r".?[a-z]+://(?:[^/?#]*@)?[A-Za-z0-9._-]+(?::[0-9]*)?(?:[/'\"].*)?", entry.text)
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


def host_behind(written: Settings, entry: Entry, domain: str) -> Edit | None:
    """The edit that gives an address the right host: on 14.04 it is mostly put together from another setting."""
    if settings.HOST not in entry.text or not written.sourced:
        return host(entry, domain)
    return set_apart(written, settings.HOST, domain)


def set_apart(written: Settings, name: str, wanted: str) -> Edit | None:
    """A setting of its own: corrected, or no longer a comment, or written anew."""
    if (entry := written.winner(name)) is not None:
        return value(entry, wanted)
    comment = next((each for each in written.entries if each.key == name and each.comment), None)
    return uncomment(comment, wanted) if comment is not None else append(settings.ENTERPRISE, name, wanted)


# ---------------------------------------------------------------- fixes


@dataclass(frozen=True)
class Wish:
    """An edit, or None when it cannot be made by machine, and which setting has which value then, as a worker reads
    it.
    """

    edit: Edit | None
    setting: str
    value: str

    def __str__(self) -> str:
        return str(self.edit or "")

    @property
    def beware(self) -> str:
        """What whoever approves the edit has to know: a worker picks its images by language, whatever the queue."""
        if self.setting != settings.QUEUE:
            return ""
        return (
            f"; every build of {self.value} runs in this machine's images then, so those must be of its environment "
            "(`sudo docker images travis` lists them)"
        )


def edit_and_restart(look: Look, machine: Target, *wishes: Wish) -> tuple[Fix, ...]:
    """Keep a copy of each file, edit the lines, restart; none when one of the edits cannot be made by machine."""
    edits = tuple(wish.edit for wish in wishes if wish.edit is not None)
    if len(edits) < len(wishes):
        return ()
    restart = taken_up(look, machine)
    first = {each.file: each for each in reversed(edits)}  # the first copy of a file is how it was
    steps = [step for wish in wishes for step in written(machine, wish, look(worker.init_system(machine)), first)]
    return (
        Fix(
            id=f"{'.'.join(dict.fromkeys(each.key for each in edits))}.edit",
            title=f"Set {' and '.join(dict.fromkeys(each.key for each in edits))} and restart travis-worker",
            target=machine,
            steps=(*steps, *restart),
            risk=Risk.INTERRUPTS,
            undo=f"{'; '.join(f'sudo cp {each.copy} {file}' for file, each in first.items())}; then restart {machine}",
        ),
    )


def written(machine: Target, wish: Wish, init: str, first: Mapping[str, Edit]) -> Iterator[Change]:
    edit = wish.edit
    if edit is None:
        return
    missing = settings.still_says_otherwise(machine, init, wish.setting, wish.value)
    if first.get(edit.file) == edit:
        keep = sh("install", "-m", "600", edit.file, edit.copy).sudo()
        yield Change(f"Keep a copy, {edit.copy}", keep, needed=missing, within=BRIEF)
    write = sh("sed", "-i", "-E", "--follow-symlinks", "-e", edit.expression, edit.file).sudo()
    yield Change(f"Edit {edit}{wish.beware}", write, needed=missing, within=BRIEF)


def taken_up(look: Look, machine: Target) -> tuple[Step, ...]:
    """The restart that makes the worker read its settings again, and how one knows that it is back.

    Where RabbitMQ cannot be asked, looking again is the only proof.
    """
    init, now = look(worker.init_system(machine)), worker.service(look, machine)
    stays = now.running and now.since is not None and now.since >= worker.SETTLED
    restart = recovery.restarted(machine, init, now.pid) if stays else recovery.restarted_anyhow(init)
    try:
        back = recovery.connected(look, machine)
    except Unknown:  # the platform's container does not run: what is wrong with the settings is so all the same
        return (restart,)
    return restart, Wait(back, at_least(recovery.BACK), recovery.BACK_WITHIN if stays else LOOPS_WITHIN)


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
        yield from (Edit(file, settings.HOST, domain, way) for way in (Way.UNCOMMENT, Way.APPEND))
        for queue in queues:
            yield from (
                Edit(file, name, queue, Way.VALUE) for name in (settings.QUEUE, settings.PREFIX + settings.QUEUE)
            )
            yield Edit(file, settings.QUEUE, queue, Way.APPEND)


def steps_of(machine: Target, edit: Edit) -> tuple[Change, ...]:
    """The changes of one edit alone, for whoever needs to know their commands."""
    return tuple(written(machine, Wish(edit, edit.key, edit.value), worker.SYSTEMD, {edit.file: edit}))
