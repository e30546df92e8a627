"""How long backups are kept, over a year of days on which anything may fail."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.keeping import Backup, Keep, Piece, Proof, Proven, dispensable

START = datetime(2026, 1, 1, 3, tzinfo=UTC)
PROVEN, FAILED, UNPROVEN, INCOMPLETE = "proven", "failed", "unproven", "incomplete"


def backup(no: int, at: datetime, how: str = PROVEN, what: str = "all", site: str = "prod") -> Backup:
    proofs = {PROVEN: (True,), FAILED: (True, False)}.get(how, ())
    said = tuple(Proven(kind, passed, "", at) for kind, passed in zip(Proof, proofs, strict=False))
    piece = Piece(no, "data", "data", f"k{no}", 1, 1, "", "", at, at, proofs=said)
    return Backup(no, site, what, no, f"s{no}", at, None if how == INCOMPLETE else at, pieces=(piece,))


days = st.lists(st.sampled_from((PROVEN, PROVEN, PROVEN, FAILED, UNPROVEN, INCOMPLETE, None)), max_size=366)
keeps = st.builds(Keep, st.integers(0, 9), st.integers(0, 6), st.integers(0, 14))


@settings(max_examples=40, deadline=None)
@given(days, keeps)
def test_a_year_of_days(year: list[str | None], keep: Keep) -> None:
    kept: list[Backup] = []
    for no, how in enumerate(year):
        if how is not None:
            kept.append(backup(no, START + timedelta(days=no), how))
        before = list(kept)
        gone = dispensable(kept, keep)
        kept = [each for each in kept if each not in gone]
        if not before:
            continue
        proven = [each for each in before if each.proven]
        assert before[-1] in kept, "the newest stays"
        assert not proven or proven[-1] in kept, "the newest proven one stays"
        if before[-1].proven is None:
            assert not gone, "nothing goes while the newest is unproven"
        assert not dispensable(kept, keep), "a second look throws nothing more away"
        if before[-1].proven:
            assert len(kept) <= keep.daily + keep.weekly + keep.monthly + 1


def test_a_good_year_keeps_days_weeks_and_months() -> None:
    kept: list[Backup] = []
    for no in range(365):
        kept.append(backup(no, START + timedelta(days=no)))
        kept = [each for each in kept if each not in dispensable(kept, Keep(7, 4, 12))]
    began = [each.began.date() for each in kept]
    assert began[-7:] == [date(2026, 12, 25) + timedelta(days=no) for no in range(7)]
    assert {day.month for day in began} == set(range(1, 13)), "the last of each month"
    assert date(2026, 12, 20) in began, "a week's newest is its Sunday"
    assert len(kept) == 7 + 2 + 11  # the newest of this week and of the last are among the days


def test_time_alone_makes_nothing_old() -> None:
    old = [backup(no, START + timedelta(days=30 * no)) for no in range(3)]
    assert dispensable(old, Keep(daily=7)) == []


def test_a_proof_that_failed_stops_the_clean_up() -> None:
    many = [backup(no, START + timedelta(days=no)) for no in range(40)]
    assert len(dispensable(many, Keep(3, 0, 0))) == 37
    newest = replace(many[-1], pieces=backup(99, START, FAILED).pieces)
    assert dispensable([*many[:-1], newest], Keep(3, 0, 0)) == []


def test_each_series_counts_for_itself() -> None:
    data = [backup(no, START + timedelta(hours=no), what="data") for no in range(3)]
    other = [backup(9, START, UNPROVEN), backup(10, START, site="stage")]
    assert dispensable([*data, *other], Keep(1, 0, 0)) == data[:2]


def test_a_backup_is_proven_by_its_weakest_piece() -> None:
    one, two = backup(1, START), backup(2, START + timedelta(days=1))
    both = replace(one, pieces=one.pieces + two.pieces)
    assert both.proven is not None
    assert both.proven.at == START
    assert replace(both, pieces=(*both.pieces, *backup(3, START, UNPROVEN).pieces)).proven is None
    assert replace(one, pieces=()).proven is None
    assert (one.state, replace(one, sealed=None, open=True).state) == ("complete", "being taken")
    assert (backup(1, START, INCOMPLETE).state, replace(one, gone=START).state) == ("incomplete", "gone")
