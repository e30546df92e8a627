"""The way back from a backup, one step after the other: what a person does with the key, and what opsbot does around.

opsbot cannot open its own backups, so every object is decrypted and loaded by a person, on a machine that has the
secret age key; `bot/core/restore.py` says with which commands, and in which order.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core import restore as procedure
from bot.core.errors import Refused, Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import ByHand, Fix, Risk, Step, TakeBackup
from bot.core.keeping import ALL
from bot.core.look import Look
from bot.core.question import Rows, StoredBackup
from bot.core.sql import Query
from bot.core.target import Role, Target
from handlers.toolbox import backup, replicated

HOURS = timedelta(hours=8)  # a large database takes that long, and a person has to be found first
_TITLE = "Restore backup {} step by step"

# What is on disk, since a platform that was never started has no table to count; deleted rows are there for a while.
INHABITANTS = """
SELECT c.relname AS name, pg_relation_size(c.oid) AS bytes FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'public' AND c.relname IN ('users', 'repositories', 'builds') ORDER BY 1
"""


@dataclass(frozen=True)
class Piece:
    """One object of a backup as it lies in the store."""

    kind: str
    name: str
    address: str
    fingerprint: str
    state: str
    failed: str
    live: str


@fact
def pieces(number: str) -> Fact[tuple[Piece, ...]]:
    """What a backup holds; nothing when there is no such backup."""
    return Fact(f"What does backup {number} hold?", Role.PLATFORM, StoredBackup(number), _pieces)


def _pieces(said: Rows) -> tuple[Piece, ...]:
    wanted = ("kind", "name", "address", "fingerprint", "state", "failed", "live")
    return tuple(Piece(*(str(row[each]) for each in wanted)) for row in said.rows)


@fact
def inhabitants() -> Fact[tuple[tuple[str, int], ...]]:
    """Users, repositories and builds of the database, with the bytes that they take; nothing before its first start."""
    return Fact("What is in the platform's database now?", Role.PLATFORM, Query(INHABITANTS), _inhabitants)


def _inhabitants(said: Rows) -> tuple[tuple[str, int], ...]:
    return tuple((str(row["name"]), int(str(row["bytes"]))) for row in said.rows)


def onto_nothing(look: Look, machine: Target, number: str) -> Fix:
    """For a platform without data; raises Refused where there is some."""
    _held(look, number)  # first: nobody is sent to `restore over` a backup that is not there
    if found := _there(look):
        raise Refused(
            f"{machine} has {found}, and `restore {number}` would overwrite them. When that is meant, say so: "
            f"`restore over {number} because …`; it takes a backup of them first"
        )
    return _fix(look, machine, number, _TITLE.format(number), ())


def over_what_is_there(look: Look, machine: Target, number: str) -> Fix:
    """For a platform with data, which is backed up first."""
    found = _there(look)
    title = f"Restore backup {number} step by step, OVER the {found} that are there" if found else _TITLE.format(number)
    first = (TakeBackup(_endangered(look, machine, number)),) if found else ()
    return replace(_fix(look, machine, number, title, first), id="platform.restore-over")


def _endangered(look: Look, machine: Target, number: str) -> str:
    """What must be in a backup before. With another key, a copy of the databases is worth little without this one."""
    kinds = {piece.kind for piece in _held(look, number) if not _is_in_use(look, machine, piece)}
    return "databases" if kinds <= {"databases"} else ALL


def _there(look: Look) -> str:
    """What there is, not how much: a plan must stay the same while builds go on."""
    found = look(inhabitants())
    return ", ".join(name for name, size in found if size)


def _fix(look: Look, machine: Target, number: str, title: str, first: tuple[Step, ...]) -> Fix:
    held = _held(look, number)
    steps = (*first, *_by_hand(look, machine, held))
    undo = "`restore over` the backup that is taken first" if first else "nothing was there before"
    return Fix(
        id="platform.restore",
        title=title,
        target=machine,
        steps=steps,
        risk=Risk.DATA,
        undo=undo,
        ensure=(replicated.start_app(machine),),
        one_at_a_time=True,
    )


def _held(look: Look, number: str) -> tuple[Piece, ...]:
    held = look(pieces(number))
    if not held:
        raise Refused(f"there is no backup {number} of {look.site.name} that holds anything; `backups` lists them")
    if held[0].state not in ("complete", "incomplete"):
        raise Refused(f"backup {number} is {held[0].state}; there is nothing to restore from it")
    if failed := [each.name for each in held if each.failed]:
        raise Refused(f"a proof of {', '.join(failed)} failed; `backup show {number}` says which. Take another backup")
    return held


def _by_hand(look: Look, machine: Target, held: tuple[Piece, ...]) -> Iterator[Step]:
    """The app is stopped by opsbot in between; a key that is in use already is not typed again."""
    way = procedure.Way(look.site, machine)
    objects = [_object(piece) for piece in held if not _is_in_use(look, machine, piece)]
    own = [each for each in objects if way.machine_of(each) == machine]
    yield from map(_handed, procedure.loading(own, way))
    yield from replicated.stopping(machine)
    yield from map(_handed, procedure.unpacking(own, way))
    yield from replicated.starting(machine)


def _object(piece: Piece) -> procedure.Held:
    return procedure.Held(piece.kind, piece.name, piece.address, live=bool(piece.live))


def _handed(step: procedure.Step) -> ByHand:
    return ByHand(step.does, str(step), HOURS)


def _is_in_use(look: Look, machine: Target, piece: Piece) -> bool:
    if piece.kind != "key" or not piece.fingerprint:
        return False
    try:
        return look(backup.fingerprint(machine)) == piece.fingerprint
    except Unknown:
        return False
