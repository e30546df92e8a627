"""Drills: which backup, in which order, and what is a verdict on it."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from bot.core.backup import BackupFailed, Manifest, NotThere, StoreAway, Stored
from bot.core.drill import Loaded, Unpacked
from bot.core.errors import Permanent, Refused
from bot.core.keeping import Backup, Piece
from bot.core.taking import Rehearsed
from bot.engine.drills import Task, check_key, chosen, drilled, tasks, tasks_in_store

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
DUMP = Stored("prod/set/database-main.dump.age", "database-main", "platform-1", "pg_dump", "", 9, 10, "ab", "cd", 3,
              (), NOON, NOON)  # fmt: skip
TAR = replace(DUMP, key="prod/set/data.tar.age", name="data", form="tar")
KEY = replace(DUMP, key="prod=key/set/key.bin.age", name="encryption-key", form="bytes", stored_bytes=5)
JSON = replace(DUMP, key="prod/set/rabbitmq.json.age", name="rabbitmq", form="json", stored_bytes=7)
PARAMS = replace(JSON, key="prod/set/params.json.age", name="params-platform-1")
RDB = replace(DUMP, key="prod/set/redis.rdb.age", name="redis", form="rdb")
MAIN = (DUMP, TAR, RDB, JSON, PARAMS)
UNREADABLE, AWAY = "an opsbot that wrote no JSON", "an opsbot whose store is away"
UNPACKED, LOADED = Unpacked(3, 100), Loaded(4, "redis-server")


@dataclass
class Practice:
    """What the world would do, remembered."""

    opened: dict[str, bool | None] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=lambda: {"public.users": 5, "public.jobs": 7})
    dump: Rehearsed | Exception | None = None
    unpacked: Unpacked = UNPACKED
    loaded: Loaded = LOADED
    text: bytes = b"{}"
    print: str = "the same"
    works: bool | None = True
    asked: list[str] = field(default_factory=list)

    def fits(self, stored: Stored) -> bool | None:
        self.asked.append(stored.name)
        return self.opened.get(stored.name, True)

    def restore(self, stored: Stored) -> Rehearsed:
        if isinstance(self.dump, Exception):
            raise self.dump
        return self.dump or Rehearsed(True, "restored", len(self.counts), self.counts)

    def unpack(self, stored: Stored) -> Unpacked:
        return self.unpacked

    def load(self, stored: Stored) -> Loaded:
        return self.loaded

    def read(self, stored: Stored) -> bytes:
        return self.text

    def fingerprint(self, key: bytes) -> str:
        return self.print

    def opens(self, key: bytes) -> bool | None:
        return self.works


@dataclass
class Shelf:
    sets: list[Manifest]

    def manifests(self, site: str) -> list[Manifest]:
        return [each for each in self.sets if each.site == site]

    def manifest(self, site: str, folder: str) -> Manifest:
        found = [each for each in self.sets if (each.site, each.set) == (site, folder)]
        if not found:
            raise NotThere(f"there is no {site}/{folder}/manifest.json.")
        if found[0].opsbot == AWAY:
            raise StoreAway("the store does not answer.")
        if found[0].opsbot == UNREADABLE:
            raise BackupFailed(f"{site}/{folder}/manifest.json cannot be read.")
        return found[0]


def shelf(*main: Stored, key: bool = True) -> Shelf:
    keys = [Manifest("set", "prod=key", NOON, (KEY,), "0.1")] if key else []
    return Shelf([Manifest("set", "prod", NOON, main, "0.1"), *keys])


def piece(no: int, kind: str, stored: Stored) -> Piece:
    return Piece(no, kind, stored.name, stored.key, 9, 10, stored.sha256, "", NOON, NOON, "the same")


def said(kind: str, stored: Stored, practice: Practice, fingerprint: str = "") -> tuple[bool, str]:
    result = drilled(practice, Task(kind, stored.name, stored, fingerprint))
    return result.passed, result.said


def test_the_key_comes_after_the_databases_and_what_is_large_last() -> None:
    pieces = (piece(1, "data", TAR), piece(2, "key", KEY), piece(3, "databases", DUMP))
    found = tasks(shelf(TAR, DUMP), Backup(7, "prod", "all", 1, "set", NOON, NOON, pieces=pieces))
    assert [(each.kind, each.piece) for each in found] == [("databases", 3), ("key", 2), ("data", 1)]
    assert all(isinstance(each.stored, Stored) for each in found)


def test_a_store_that_is_away_is_no_verdict() -> None:
    away = Shelf([Manifest("set", "prod", NOON, (DUMP,), AWAY)])
    backup = Backup(7, "prod", "all", 1, "set", NOON, NOON, pieces=(piece(1, "databases", DUMP),))
    with pytest.raises(StoreAway):
        tasks(away, backup)
    with pytest.raises(StoreAway):
        said("databases", DUMP, Practice(dump=StoreAway("the store does not answer.")))


def test_a_manifest_that_says_something_else_fails_its_pieces_only() -> None:
    pieces = (piece(1, "databases", DUMP), replace(piece(2, "data", TAR), sha256="ef"), piece(3, "key", KEY),
              piece(4, "redis", RDB))  # fmt: skip
    backup = Backup(7, "prod", "all", 1, "set", NOON, NOON, pieces=pieces)
    results = {each.name: drilled(Practice(), each) for each in tasks(shelf(DUMP, TAR, key=False), backup)}
    assert results["database-main"].passed
    assert "says another SHA-256 of prod/set/data.tar.age" in results["data"].said
    assert "there is no prod=key/set/manifest.json" in results["encryption-key"].said
    assert "No manifest in the store names prod/set/redis.rdb.age" in results["redis"].said
    assert sum(each.passed for each in results.values()) == 1


def test_a_store_alone_tells_the_kinds() -> None:
    folder, found, note = tasks_in_store(shelf(*MAIN), "prod", "")
    assert (folder, note) == ("set", "")
    assert [(each.kind, each.name) for each in found] == [
        ("databases", "database-main"), ("key", "encryption-key"), ("redis", "redis"), ("rabbitmq", "rabbitmq"),
        ("settings", "params-platform-1"), ("data", "data"),
    ]  # fmt: skip
    with pytest.raises(Refused, match="no manifest of other is in the store"):
        tasks_in_store(shelf(DUMP), "other", "")
    with pytest.raises(Refused, match="no manifest of prod/another is in the store"):
        tasks_in_store(shelf(DUMP), "prod", "another")


def manifest(folder: str, *stored: Stored, site: str = "prod", opsbot: str = "0.1") -> Manifest:
    return Manifest(folder, site, NOON, stored, opsbot)


EARLIER = (manifest("1-all", *MAIN), manifest("1-all", KEY, site="prod=key"))
LATER = (manifest("2-all", *MAIN), manifest("2-all", KEY, site="prod=key"))
SAFETY = manifest("3-databases", DUMP)


def test_the_newest_set_of_everything_comes_before_a_newer_one_of_less() -> None:
    folder, found, note = tasks_in_store(Shelf([*EARLIER, *LATER, SAFETY]), "prod", "")
    assert (folder, len(found)) == ("2-all", 6)
    assert note == "There is a newer set, 3-databases, with databases only."
    folder, found, note = tasks_in_store(Shelf([*EARLIER, SAFETY, *LATER]), "prod", "")
    assert (folder, len(found), note) == ("2-all", 6, "")


@pytest.mark.parametrize(("sets", "folder"), [([SAFETY], ""), ([*EARLIER, SAFETY], "3-databases")])
def test_what_a_set_does_not_have_is_said_in_words(sets: list[Manifest], folder: str) -> None:
    chosen, found, note = tasks_in_store(Shelf(sets), "prod", folder)
    assert (chosen, [each.kind for each in found]) == ("3-databases", ["databases"])
    assert note == "Not in this backup, and so not drilled: key, redis, rabbitmq, settings and data."


def test_a_set_of_the_key_alone_lies_apart() -> None:
    _, found, note = tasks_in_store(Shelf([manifest("4-key", KEY, site="prod=key")]), "prod", "4-key")
    assert [each.kind for each in found] == ["key"]
    assert note.endswith("not drilled: databases, redis, rabbitmq, settings and data.")


def test_a_key_whose_manifest_cannot_be_read_fails() -> None:
    spoilt = manifest("2-all", KEY, site="prod=key", opsbot=UNREADABLE)
    _, found, _ = tasks_in_store(Shelf([LATER[0], spoilt]), "prod", "")
    (key,) = (each for each in found if each.kind == "key")
    result = drilled(Practice(), key)
    assert (result.passed, result.said) == (False, "prod=key/2-all/manifest.json cannot be read.")


@dataclass
class Rows:
    """A `Store` that knows these backups, the newest first."""

    known: list[Backup]

    def backups(self, _tx: object, site: str) -> list[Backup]:
        return [each for each in self.known if each.site == site]


def test_a_recorded_backup_of_everything_comes_before_a_newer_one_of_less() -> None:
    safety = Backup(9, "prod", "databases", 3, "3-databases", NOON, NOON)
    whole = Backup(8, "prod", "all", 2, "2-all", NOON, NOON)
    cut = Backup(10, "prod", "all", 4, "4-all", NOON)
    assert chosen(Rows([cut, safety, whole]), None, ["prod"], None) == whole  # type: ignore[arg-type]
    assert chosen(Rows([cut, safety]), None, ["prod"], None) == safety  # type: ignore[arg-type]


def test_the_smallest_object_that_is_whole_tells_whether_the_key_fits() -> None:
    found = [Task("databases", "database-main", DUMP), Task("key", "encryption-key", KEY), Task("x", "rabbitmq", JSON)]
    practice = Practice({"encryption-key": None, "rabbitmq": False})
    with pytest.raises(Permanent, match=r"This identity does not open prod/set/rabbitmq.json.age"):
        check_key(practice, found)
    assert practice.asked == ["encryption-key", "rabbitmq"]
    check_key(Practice({"encryption-key": None, "rabbitmq": True}), found)
    check_key(Practice({each.name: None for each in found}), found)  # each of them will fail by itself


COUNTS = {"public.users": 5, "public.jobs": 7}


@pytest.mark.parametrize(
    ("rows", "passed", "text"),
    [
        ({}, True, "2 tables with 12 rows were restored"),
        (COUNTS, True, "2 tables with 12 rows were restored, each as many as when it was dumped"),
        ({**COUNTS, "public.users": 6}, False, "public.users has 5 rows instead of 6."),
        ({**COUNTS, "public.gone": 0}, False, "public.gone is missing."),
        ({"public.users": 5}, True, "2 tables with 12 rows were restored, each as many as when it was dumped"),
        ({**COUNTS, **{f"t{no}": 1 for no in range(9)}}, False, "more differ."),
    ],
)
def test_rows_are_compared_with_those_of_the_dump(rows: dict[str, int], passed: bool, text: str) -> None:
    result = said("databases", replace(DUMP, rows=rows), Practice())
    assert result[0] is passed
    assert text in result[1]


def test_a_dump_that_is_not_restored_fails() -> None:
    assert said("databases", DUMP, Practice(dump=Rehearsed(False, "pg_restore ended with 1"))) == (
        False, "pg_restore ended with 1"
    )  # fmt: skip
    assert said("databases", DUMP, Practice(dump=BackupFailed("damaged"))) == (False, "damaged")


def test_what_cannot_be_tried_here_is_no_verdict() -> None:
    with pytest.raises(Permanent, match="no PostgreSQL"):
        said("databases", DUMP, Practice(dump=Permanent("no PostgreSQL")))


@pytest.mark.parametrize(
    ("practice", "recorded", "result"),
    [
        (Practice(), "the same", (True, "its fingerprint is the recorded one; it decrypted a value of the restored")),
        (Practice(works=None), "the same", (True, "the recorded one; no restored database had a value for it")),
        (Practice(), "", (True, "its fingerprint cannot be compared here; it decrypted")),
        (Practice(print=""), "the same", (True, "its fingerprint cannot be compared here")),
        (Practice(), "another", (False, "Its fingerprint is another one than was recorded")),
        (Practice(works=False), "the same", (False, "It did not decrypt a value of the restored database.")),
    ],
)
def test_the_key(practice: Practice, recorded: str, result: tuple[bool, str]) -> None:
    passed, text = said("key", KEY, practice, recorded)
    assert passed is result[0]
    assert result[1] in text


@pytest.mark.parametrize(
    ("unpacked", "result"),
    [
        (Unpacked(3, 2048), (True, "3 entries were unpacked, 2.0 KiB")),
        (Unpacked(3, 0, left_out=("'a'",)), (True, "left out, being links out of it or devices: 'a'")),
        (Unpacked(3, None, "no room"), (True, "3 entries were read to the last byte, not unpacked: no room")),
        (Unpacked(2, 2048), (False, "It has 2 entries, and 3 were stored.")),
        (Unpacked(3, 2048, astray=("'../x'",)), (False, "lead out of the folder that it is unpacked into: '../x'.")),
    ],
)
def test_files(unpacked: Unpacked, result: tuple[bool, str]) -> None:
    passed, text = said("data", TAR, Practice(unpacked=unpacked))
    assert passed is result[0]
    assert result[1] in text


@pytest.mark.parametrize(
    ("kind", "text", "result"),
    [
        ("rabbitmq", b'{"users": [1], "vhosts": [1, 2], "policies": []}', (True, "1 user, 2 vhosts, 0 queues, 0")),
        ("rabbitmq", b'{"users": "many", "vhosts": []}', (True, "0 users, 0 vhosts")),
        ("rabbitmq", b"[]", (False, "It is JSON, but no definitions of RabbitMQ.")),
        ("rabbitmq", b"{secret", (False, "It is no JSON.")),
        ("settings", b'{"a": 1, "b": 2}', (True, "parsed: 2 entries")),
        ("settings", b"7", (True, "parsed: one value")),
        ("settings", b"\xff{secret", (False, "It is no JSON.")),
    ],
)
def test_documents(kind: str, text: bytes, result: tuple[bool, str]) -> None:
    passed, words = said(kind, JSON, Practice(text=text))
    assert passed is result[0]
    assert words.startswith(result[1])
    assert "secret" not in words


def test_a_redis_that_could_only_be_read_is_told_so() -> None:
    assert said("redis", RDB, Practice()) == (True, "redis-server loaded it: 4 keys")
    listed = Loaded(None, "there is no redis-server", ("its checksum was not compared",))
    assert said("redis", RDB, Practice(loaded=listed)) == (
        True, "read to the last byte, not loaded: there is no redis-server; its checksum was not compared"
    )  # fmt: skip
