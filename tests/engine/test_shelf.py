"""How backups read: the table, one in full, and the way back, with its doubts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.keeping import Backup, Piece, Proof, Proven
from bot.engine.shelf import STEPS, backup_data, how_to_restore, table, whole
from bot.engine.words import size

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PASSED = Proven(Proof.RESTORED, True, "66 tables were restored", NOON)
DUMP = Piece(
    1, "databases", "database-main", "prod/s/database-main.dump.age", 2048, 3 * 1024**3, "ab" * 32, "zstd", NOON,
    NOON + timedelta(seconds=90), warnings=("a warning",), proofs=(PASSED,),
)  # fmt: skip
BACKUP = Backup(7, "prod", "all", 12, "s", NOON, NOON, manifest="prod/s/manifest.json", pieces=(DUMP,))


def test_the_table() -> None:
    lines = table([BACKUP, replace(BACKUP, id=6, sealed=None)]).splitlines()
    assert lines[2].split("  ")[0] == "7"
    assert "all of prod" in lines[2]
    assert "3.0 GiB" in lines[2]
    assert lines[2].endswith("2026-11-22 12:00 (restored)")
    assert "incomplete" in lines[3]
    assert "never, or a proof failed" in lines[3]
    assert table([]).startswith("There is no backup yet")


def test_one_in_full() -> None:
    text = whole(BACKUP)
    wanted = (
        "by run 12", "complete", "in 90 s, packed with zstd", "SHA-256 before encryption: abab", "warning: a warning",
        "restored, 2026-11-22 12:00: passed: 66 tables", "`backup verify 7`",
    )  # fmt: skip
    for words in wanted:
        assert words in text
    assert "nothing proves it yet" in whole(replace(BACKUP, pieces=(replace(DUMP, proofs=()),)))
    failed = replace(DUMP, proofs=(replace(PASSED, passed=False),))
    assert "FAILED" in whole(replace(BACKUP, pieces=(failed,)))


def test_the_way_back() -> None:
    said = how_to_restore(BACKUP)
    assert "opsbot restores nothing by itself" in said
    assert "docs/backups.md" in said
    assert "opsbot backup decrypt prod/s/database-main.dump.age" in said
    assert "Beware" not in said


@pytest.mark.parametrize(
    ("backup", "says"),
    [
        (replace(BACKUP, sealed=None), "is incomplete; only what is listed"),
        (replace(BACKUP, pieces=(replace(DUMP, proofs=()),)), "nothing proves"),
        (replace(BACKUP, pieces=(replace(DUMP, proofs=(replace(PASSED, passed=False),)),)), "a proof of database-main"),
        (replace(BACKUP, gone=NOON), "Backup 7 is gone"),
        (replace(BACKUP, sealed=None, open=True), "Backup 7 is being taken"),
    ],
)
def test_doubts_are_said(backup: Backup, says: str) -> None:
    assert says in how_to_restore(backup)


def test_every_kind_has_its_way_back() -> None:
    for kind in ("data", "databases", "key", "redis", "rabbitmq", "settings"):
        assert "opsbot backup decrypt" in STEPS[kind].format(key="k", name="n")


def test_as_data() -> None:
    data = backup_data(BACKUP)
    assert data["proven"] == {"by": "restored", "at": NOON.isoformat()}
    assert data["pieces"][0]["proofs"][0]["passed"] is True


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 1024**4, "5.0 TiB")]
)
def test_sizes(count: int, says: str) -> None:
    assert size(count) == says
