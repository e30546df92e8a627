"""How many builds a worker is set to run at a time, for which queue and over which docker API; and whether it was told
to take no more.

Source: https://docs.travis-ci.com/user/enterprise/worker-configuration/
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import edit, settings, worker
from handlers.toolbox.edit import Edit
from handlers.toolbox.settings import Entry, Settings

SIZE: Final = "POOL_SIZE"
API: Final = "DOCKER_API_VERSION"
API_KEY: Final = f"{settings.PREFIX}{API}"
DEFAULTS: Final = {SIZE: "1", API: "1.24"}  # what travis-worker takes when nothing is said
_KEYS: Final = f"{settings.QUEUE}|{SIZE}|{API}"  # none of them is a secret


@dataclass(frozen=True)
class Pool:
    """What the running worker was started with, and what its files say now: the next start takes that."""

    running: Settings
    written: Settings

    @property
    def queue(self) -> str:
        return self.running.value(settings.QUEUE)

    @property
    def api(self) -> str:
        """The docker API that the worker speaks."""
        return self.running.value(API) or DEFAULTS[API]

    @property
    def next_api(self) -> str:
        return self.written.value(API) or DEFAULTS[API]

    @property
    def size(self) -> int:
        """How many builds at a time; raises Unknown when that is no number."""
        said = self.running.value(SIZE) or DEFAULTS[SIZE]
        if not said.isdigit():
            raise Unknown(f"its {SIZE} is `{said[:20]}`, which is no number")
        return int(said)

    @property
    def next_size(self) -> int:
        """The same after the next start; as it is now where the files say no number."""
        said = self.written.value(SIZE) or DEFAULTS[SIZE]
        return int(said) if said.isdigit() else self.size


@fact
def lines(machine: Target) -> Fact[tuple[Entry, ...]]:
    """The lines about queue, pool and docker API in every settings file, and in the one made at the last start."""
    files = (*settings.FILES, settings.EFFECTIVE, settings.SNAP)
    question = sh("grep", "-nIHE", f"^[^=]*({_KEYS})=", *files).sudo()
    return Fact(f"How many builds is {machine} set to run?", machine, question, _lines)


def _lines(said: Output) -> tuple[Entry, ...]:
    """`grep` ends with 2 when a file is missing, and has read the others; the queue stands in one of them."""
    if not (found := settings.entries(said.out)):
        why = [line for line in said.err.splitlines() if line.strip() and "No such file" not in line]
        raise Unknown(f"the worker's settings cannot be read: {why[0][:200] if why else 'there are none'}")
    return found


def pool(found: tuple[Entry, ...], init: str) -> Pool:
    """On 14.04 nothing is written down at the start, so its files are all that is known of the running one."""
    written = settings.settings(found, init)
    started = tuple(each for each in found if each.file == settings.EFFECTIVE)
    return Pool(Settings(started, sourced=False) if started and init != worker.UPSTART else written, written)


@fact
def api_is_other(machine: Target, init: str, version: str) -> Fact[bool]:
    """Do the files not say this docker API yet?"""
    asks = f"{API} on {machine} is not {version} yet"
    return Fact(asks, machine, lines(machine).question, lambda said: pool(_lines(said), init).next_api != version)


@fact
def draining(machine: Target, init: str) -> Fact[bool]:
    """Was the worker told to take no new builds, to pause (USR2) or to end (INT), since it was started?"""
    return Fact(f"Is {worker.SERVICE} on {machine} draining?", machine, worker.orders(init), _draining)


def _draining(said: Output) -> bool:
    since, _ = worker.since_start(said)
    return worker.pausing(since) or "SIGINT received" in since


# ---------------------------------------------------------------- the docker API's line


def api_line(found: Pool, version: str) -> Edit | None:
    """The line that counts is changed where it has the worker's own prefix; otherwise one is added, which wins. None
    where that cannot be done by machine.
    """
    winner = found.written.winner(API)
    if winner is not None and winner.key == API_KEY:
        return edit.value(winner, version)
    snap = any(each.file == settings.SNAP for each in found.written.entries)
    return edit.append(settings.SNAP if snap else settings.MAIN, API_KEY, version)


def possible_api_lines(version: str) -> Iterator[Edit]:
    """Every edit that `api_line` can give."""
    for file in (*settings.FILES, settings.SNAP):
        yield Edit(file, API_KEY, version, edit.Way.VALUE)
    for file in (settings.MAIN, settings.SNAP):
        yield Edit(file, API_KEY, version, edit.Way.APPEND)


def api_written(machine: Target, init: str, line: Edit, version: str) -> tuple[Change, ...]:
    """A copy is kept, then the line is written; neither when the files say it already."""
    other = api_is_other(machine, init, version)
    keep = sh("install", "-m", "600", line.file, line.copy).sudo()
    write = sh("sed", "-i", "-E", "--follow-symlinks", "-e", line.expression, line.file).sudo()
    return (
        Change(f"Keep a copy, {line.copy}", keep, needed=other, within=edit.BRIEF),
        Change(f"Edit {line}", write, needed=other, within=edit.BRIEF),
    )
