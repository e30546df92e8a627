"""The way back from a backup, one step after the other: what a person does with the key, and what opsbot does around.

opsbot cannot open its own backups, so every object is decrypted and loaded by a person, on a machine that has the
secret age key. Sources: https://docs.travis-ci.com/user/enterprise/upgrading/ (order, settings, owners of files) and
docs/backups.md, whose steps these are.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

from bot.core.errors import Refused, Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import ByHand, Fix, Risk, Step, TakeBackup
from bot.core.look import Look
from bot.core.question import Rows, StoredBackup
from bot.core.sql import Query
from bot.core.target import Role, Target
from handlers.toolbox import backup, platform, replicated

HOURS = timedelta(hours=8)  # a large database takes that long, and a person has to be found first
KEY = "KEY.txt"  # how the steps call the file with the secret age key
_TITLE = "Restore backup {} step by step"
STEPS_WITH_APP = ("databases", "redis", "rabbitmq")  # loaded into servers that run, so before the app is stopped

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


@fact
def pieces(number: str) -> Fact[tuple[Piece, ...]]:
    """What a backup holds; nothing when there is no such backup."""
    return Fact(f"What does backup {number} hold?", Role.PLATFORM, StoredBackup(number), _pieces)


def _pieces(said: Rows) -> tuple[Piece, ...]:
    wanted = ("kind", "name", "address", "fingerprint", "state", "failed")
    return tuple(Piece(*(str(row[each]) for each in wanted)) for row in said.rows)


@fact
def inhabitants() -> Fact[tuple[tuple[str, int], ...]]:
    """Users, repositories and builds of the database, with the bytes that they take; nothing before its first start."""
    return Fact("What is in the platform's database now?", Role.PLATFORM, Query(INHABITANTS), _inhabitants)


def _inhabitants(said: Rows) -> tuple[tuple[str, int], ...]:
    return tuple((str(row["name"]), int(str(row["bytes"]))) for row in said.rows)


def onto_nothing(look: Look, machine: Target, number: str) -> Fix:
    """For a platform without data; raises Refused where there is some."""
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
    first = (TakeBackup("databases"),) if found else ()
    return replace(_fix(look, machine, number, title, first), id="platform.restore-over")


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
    """Settings and key first, since the app must never start with another key; files last, while it is stopped."""
    yield from _settings(look, machine, held)
    for kind in STEPS_WITH_APP:
        yield from (_loaded(look, machine, piece) for piece in held if piece.kind == kind)
    yield from replicated.stopping(machine)
    yield from (_unpacked(machine, piece) for piece in held if piece.kind == "data")
    yield from replicated.starting(machine)


def _settings(look: Look, machine: Target, held: tuple[Piece, ...]) -> Iterator[Step]:
    keys = [piece for piece in held if piece.kind == "key"]
    if any(_is_in_use(look, machine, piece) for piece in keys):
        keys = []
    for piece in (*keys, *(each for each in held if each.kind == "settings")):
        what = "the encryption key" if piece.kind == "key" else piece.name
        yield ByHand(
            f"Put {what} of the backup into Replicated's settings of {machine}",
            f"{_decrypted(piece)}; then type what differs into https://{machine.address or machine}:8800/settings",
            HOURS,
        )


def _is_in_use(look: Look, machine: Target, piece: Piece) -> bool:
    try:
        return bool(piece.fingerprint) and look(backup.fingerprint(machine)) == piece.fingerprint
    except Unknown:
        return False


def _loaded(look: Look, machine: Target, piece: Piece) -> Step:
    if piece.kind == "databases":
        return ByHand(f"Load {piece.name} into PostgreSQL", _pg_restore(look, machine, piece), HOURS)
    if piece.kind == "rabbitmq":
        into = _inside(look, machine, "rabbitmqctl", "import_definitions")  # `-` is refused, whatever its usage says
        return ByHand(f"Load {piece.name} into RabbitMQ", f"{_decrypted(piece)} | {into}", HOURS)
    return ByHand(
        "Put redis' copy back, when background jobs that waited then shall run again",
        f"{_decrypted(piece)} > dump.rdb; put it into redis' folder while redis is stopped, or leave it out",
        HOURS,
    )


def _pg_restore(look: Look, machine: Target, piece: Piece) -> str:
    section = backup.SECTIONS[piece.name.removeprefix("database-")]
    name = look.site.option(f"{section}.name", backup.NAME)
    options = ("--clean", "--if-exists", "--no-owner", "--exit-on-error", "--single-transaction")
    if (via := look.site.option(f"{section}.via", "container")) != "container":
        into = f"pg_restore {' '.join(options)} -d 'postgresql://…/{name}'"
        return f"{_decrypted(piece)} | {into} (opsbot reaches the server {via})"
    user = look.site.option(f"{section}.user", backup.USER)
    into = _inside(look, machine, "pg_restore", *options, "-h", "127.0.0.1", "-U", user, "-d", name)
    return f"{_decrypted(piece)} | {into}"


def _unpacked(machine: Target, piece: Piece) -> Step:
    unpack = "zstd -d" if ".zst" in piece.address else "gzip -d" if ".gz" in piece.address else "cat"
    into = f"ssh {machine.address or machine} sudo tar -xp -C / --numeric-owner --exclude='*/postgresql*'"
    how = f"{_decrypted(piece)} | {unpack} | {into}"
    return ByHand(f"Unpack {piece.name}, without the files of PostgreSQL", how, HOURS)


def _decrypted(piece: Piece) -> str:
    return f"opsbot backup decrypt {piece.address} --identity {KEY}"


def _inside(look: Look, machine: Target, *words: str) -> str:
    container = look(platform.container_of(machine))
    return f"ssh {machine.address or machine} sudo docker exec -i {container} {' '.join(words)}"
