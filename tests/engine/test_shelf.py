"""How backups read: the table, one in full, and the way back, with its doubts."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.core.chart import Bar, Mark
from bot.core.keeping import KINDS, Backup, Piece, Proof, Proven
from bot.core.target import Role, Site, Target
from bot.engine.shelf import backup_data, chart, described, how_to_restore, table, whole
from bot.engine.words import size

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
PASSED = Proven(Proof.RESTORED, True, "66 tables were restored", NOON)
DUMP = Piece(
    1, "databases", "database-main", "prod/s/database-main.dump.age", 2048, 3 * 1024**3, "ab" * 32, "zstd", NOON,
    NOON + timedelta(seconds=90), warnings=("a warning",), proofs=(PASSED,),
)  # fmt: skip
SITE = Site("prod", "travis.example.com", "2.2", (Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10"),))
SEALED = NOON + timedelta(seconds=90)
BACKUP = Backup(7, "prod", "all", 12, "s", NOON, SEALED, manifest="prod/s/manifest.json", pieces=(DUMP,))


def test_the_table() -> None:
    lines = table([BACKUP, replace(BACKUP, id=6, sealed=None)]).splitlines()
    assert lines[2].split("  ")[0] == "7"
    assert "all of prod" in lines[2]
    assert "3.0 GiB" in lines[2]
    assert lines[2].endswith("2026-11-22 12:00 (restored)")
    assert "incomplete" in lines[3]
    assert "never, or a proof failed" in lines[3]
    assert table([replace(BACKUP, sealed=None, open=True, pieces=())]).splitlines()[2].endswith("being taken  not yet")
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


def test_a_clock_that_was_put_back_makes_nothing_negative() -> None:
    before = NOON - timedelta(hours=1)
    backup = replace(BACKUP, sealed=before, pieces=(replace(DUMP, ended=before),))
    assert backup.took == timedelta()
    assert "in 0 s, packed" in whole(backup)


def test_the_way_back() -> None:
    said = how_to_restore(BACKUP, SITE)
    assert "opsbot restores nothing by itself" in said
    assert "docs/backups.md" in said
    assert "opsbot backup decrypt STORE/prod/s/database-main.dump.age --identity KEY.txt | ssh 10.0.0.10" in said
    assert "Beware" not in said


@pytest.mark.parametrize(
    ("backup", "says"),
    [
        (replace(BACKUP, sealed=None), "is incomplete; only what is listed"),
        (replace(BACKUP, pieces=(replace(DUMP, proofs=()),)), "nothing proves"),
        (replace(BACKUP, pieces=(replace(DUMP, proofs=(replace(PASSED, passed=False),)),)), "a proof of database-main"),
        (replace(BACKUP, gone=NOON), "Backup 7 is gone"),
        (replace(BACKUP, sealed=None, pieces=()), "Backup 7 is incomplete and holds nothing"),
        (replace(BACKUP, sealed=None, open=True), "Backup 7 is being taken"),
    ],
)
def test_doubts_are_said(backup: Backup, says: str) -> None:
    assert says in how_to_restore(backup, SITE)


def test_every_kind_has_its_way_back() -> None:
    pieces = tuple(replace(DUMP, kind=kind, key=f"prod/s/{kind}.age") for kind in KINDS)
    said = how_to_restore(replace(BACKUP, pieces=pieces), Site("gone", "", "", ()))
    assert [kind for kind in KINDS if f"opsbot backup decrypt STORE/prod/s/{kind}.age" not in said] == []
    assert "ssh PLATFORM" in said


def test_a_chart_of_the_last_ones() -> None:
    """The oldest first; what goes on is not drawn, what was thrown away is drawn as it was."""
    older = replace(BACKUP, id=6, gone=NOON, began=NOON - timedelta(days=1), sealed=NOON - timedelta(hours=23))
    failed = replace(BACKUP, id=8, sealed=None, what="data", pieces=(replace(DUMP, stored=5, plain=9),))
    failed = replace(failed, over=NOON + timedelta(seconds=70))
    nothing = replace(BACKUP, id=9, sealed=None, pieces=(), over=NOON + timedelta(seconds=40))
    drawn = chart("prod", [replace(BACKUP, id=10, sealed=None, open=True), nothing, failed, BACKUP, older])
    assert drawn is not None
    assert drawn.title == "The last 4 backups of prod"
    assert drawn.bars == (
        Bar(6, NOON - timedelta(days=1), 3 * 1024**3, 3600.0, Mark.PROVEN),
        Bar(7, NOON, 3 * 1024**3, 90.0, Mark.PROVEN),
        Bar(8, NOON, 5, 70.0, Mark.INCOMPLETE, part=True),
        Bar(9, NOON, 0, 40.0, Mark.INCOMPLETE),
    )
    assert described(drawn) == (
        "The last 4 backups of prod, size and duration: 2 proven restorable; 2 failed or incomplete. The newest, "
        "backup 9: 0 bytes in 40 s, failed or incomplete."
    )


@pytest.mark.parametrize("proofs", [(), (replace(PASSED, passed=False),), (PASSED, replace(PASSED, passed=False))])
def test_what_nothing_proves_is_marked(proofs: tuple[Proven, ...]) -> None:
    doubted = replace(BACKUP, id=8, pieces=(replace(DUMP, proofs=proofs),))
    drawn = chart("prod", [doubted, BACKUP])
    assert drawn is not None
    assert [bar.mark for bar in drawn.bars] == [Mark.PROVEN, Mark.UNPROVEN]


def test_one_alone_is_no_chart() -> None:
    assert chart("prod", []) is None
    assert chart("prod", [BACKUP]) is None
    assert chart("prod", [replace(BACKUP, id=8, sealed=None, open=True), BACKUP]) is None


def test_as_data() -> None:
    data = backup_data(BACKUP)
    assert data["proven"] == {"by": "restored", "at": NOON.isoformat()}
    assert data["pieces"][0]["proofs"][0]["passed"] is True


@pytest.mark.parametrize(
    ("count", "says"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (5 * 1024**4, "5.0 TiB")]
)
def test_sizes(count: int, says: str) -> None:
    assert size(count) == says
