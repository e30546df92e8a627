"""`opsbot backup drill`, put together: a store, somebody's secret key, throw-away servers, and where it is recorded."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from bot.adapters import redis_server, unpacking
from bot.adapters.encryption_key import ENCRYPTED, fingerprint, opens
from bot.adapters.rehearsal import Stages
from bot.adapters.vault import Unlocked, check_rdb, objects
from bot.core.backup import BackupFailed, Stored
from bot.core.drill import Drilled, Loaded, Unpacked
from bot.core.errors import NotUnderstood, OpsbotError, Permanent, Refused
from bot.core.keeping import Backup
from bot.core.people import Actor, person_of
from bot.core.shown import Redactor
from bot.core.taking import Rehearsed
from bot.engine import drills
from bot.engine.drills import Task
from bot.settings import Settings, state_folder
from bot.wiring import REHEARSALS, STAGE, Foundation, audit_key, lay, redactor_of

PATIENCE: Final = 12 * 3600.0  # seconds that pg_restore may take after the last byte: it makes indexes last
SMALL: Final = 64 << 20  # bytes of what is read into memory
NO_REDIS: Final = "there is no redis-server on this machine"
OLD_REDIS: Final = "the redis-server on this machine is older than the dump"

Keys = Sequence[Any]  # identities of age


@dataclass(frozen=True)
class Drill:
    """A backup about to be restored. `results` does it, piece by piece, and records each; `note` is what is amiss."""

    title: str
    tasks: Sequence[Task]
    results: Callable[[Task], Drilled]
    note: str = ""
    number: int = 0


@contextmanager
def recorded(settings: Settings, which: str | None, on: str, keys: Keys, unpack: bool | None) -> Iterator[Drill]:
    """A backup that opsbot's database knows: the one of that number, or the newest complete one."""
    number = _number(which)
    if (given := settings.backups) is None:
        raise Permanent("No `backups` are configured, so it is not known where they are; name it with --store URL.")
    store = Unlocked(objects(given.store), keys)
    base, who, redactor = _reached(settings), _who(settings), redactor_of(settings)
    with closing(base.pool):
        with base.durable.transaction() as tx:
            backup = drills.chosen(base.store, tx, _sites(settings, on, number), number)
        practice = Practising(store, _stages(settings.state_dir), audit_key(settings), unpack)

        def restore(task: Task) -> Drilled:
            result = _shown(drills.drilled(practice, task), redactor)
            try:
                with base.durable.transaction() as tx:
                    drills.record(base.store, tx, backup, result, who, redactor)
            except OpsbotError as why:
                how = "passed" if result.passed else f"FAILED: {result.said}"
                raise type(why)(f"{task.name} was drilled ({how}), but that could not be recorded. {why}") from why
            return result

        tasks = drills.tasks(store, backup)
        yield _checked(Drill(_title(backup), tasks, restore, drills.left_out(tasks), backup.id), practice)


@contextmanager
def unrecorded(
    url: str, which: str, keys: Keys, unpack: bool | None, environment: Mapping[str, str]
) -> Iterator[Drill]:
    """SITE or SITE/FOLDER of a store, from its manifests alone: for the day on which nothing else is left."""
    site, _, folder = which.strip("/").partition("/")
    if not site:
        raise NotUnderstood("whose backup? Say it as it is called in the store: SITE or SITE/FOLDER")
    store = Unlocked(objects(url), keys)
    folder, tasks, note = drills.tasks_in_store(store, site, folder)
    practice = Practising(store, _stages(state_folder(environment)), b"", unpack)
    title = f"{site}/{folder} in {store.where}, not recorded"
    yield _checked(Drill(title, tasks, lambda task: _shown(drills.drilled(practice, task), Redactor()), note), practice)


def _number(which: str | None) -> int | None:
    if which is None:
        return None
    if not which.isdecimal() or len(which) > 9:
        raise NotUnderstood(
            f"{Redactor().show(which)} is no number of a backup; with --store it would name a set of the store"
        )
    return int(which)


def _checked(drill: Drill, practice: "Practising") -> Drill:
    drills.check_key(practice, drill.tasks)
    return drill


def _shown(result: Drilled, redactor: Redactor) -> Drilled:
    return replace(result, name=redactor.show(result.name), said=redactor.show(result.said))


def _title(backup: Backup) -> str:
    return f"{backup}, taken {backup.began:%Y-%m-%d %H:%M} UTC"


def _reached(settings: Settings) -> Foundation:
    try:
        audit_key(settings, make=False)  # a record that another key chains would break the trail
        return lay(settings)
    except OpsbotError as why:
        raise type(why)(
            f"{why} Nothing can be recorded without it; `opsbot backup drill SITE --store URL` needs the store alone."
        ) from why


def _sites(settings: Settings, on: str, number: int | None) -> list[str]:
    names = [site.name for site in settings.sites()]
    if on and on not in names:
        raise Refused(f"there is no installation {on}; there is {', '.join(names)}")
    if not on and number is None and len(names) > 1:
        raise Refused(f"which installation? Add --on with one of {', '.join(names)}")
    return [on] if on else names


def _who(settings: Settings) -> Actor:
    """As the command line's other verbs name people: the person of this uid, or the uid."""
    user = person_of(os.getuid(), settings.people.uids)
    return Actor(settings.slack.team_id, user or f"uid:{os.getuid()}", "cli")


def _stages(state: Path) -> Stages:
    stages = Stages(state / REHEARSALS, STAGE)
    stages.sweep()
    return stages


@dataclass
class Practising:
    """A `Practice` on this machine."""

    store: Unlocked
    stages: Stages
    salt: bytes
    wanted: bool | None  # whether to unpack; None where there is room
    encrypted: list[str] = field(default_factory=list, repr=False)

    def fits(self, stored: Stored) -> bool | None:
        return self.store.fits(stored)

    def restore(self, stored: Stored) -> Rehearsed:
        with self.store.open(stored) as plain, self.stages.restored(stored.name, plain, PATIENCE) as restored:
            self.encrypted += restored.values(ENCRYPTED)
        return restored.result

    def unpack(self, stored: Stored) -> Unpacked:
        guess = stored.plain_bytes * (unpacking.GROWS if stored.packed else 1)
        with self.store.open(stored) as plain, self.stages.folder() as folder:
            room = folder / "data"
            room.mkdir(mode=0o700)
            return unpacking.unpack(plain, room, guess, self.wanted)

    def load(self, stored: Stored) -> Loaded:
        """By a redis-server where one is here that can; else read, with its checksum."""
        why = NO_REDIS
        if program := redis_server.program():
            try:
                with self.store.open(stored) as plain, self.stages.folder() as folder:
                    return redis_server.load(plain, folder, program)
            except redis_server.TooNew:
                why = OLD_REDIS
        with self.store.open(stored) as plain:
            return Loaded(None, why, check_rdb(plain))

    def read(self, stored: Stored) -> bytes:
        with self.store.open(stored) as plain:
            text = plain.read(SMALL + 1)
        if len(text) > SMALL:
            raise BackupFailed(f"{stored.name} is longer than {SMALL >> 20} MiB, which is none of its kind.")
        return text

    def fingerprint(self, key: bytes) -> str:
        return fingerprint(key, self.salt) if self.salt else ""

    def opens(self, key: bytes) -> bool | None:
        return any(opens(key, value) for value in self.encrypted) if self.encrypted else None
