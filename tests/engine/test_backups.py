"""Backups as a job takes them: recorded piece by piece, proven, verified again, thrown away; never half believed."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from bot.adapters.store import Outbox
from bot.core.backup import BackupFailed, Progress, Source
from bot.core.chart import Mark, chart_from_json
from bot.core.command import sh
from bot.core.handler import BackupSteps, Job
from bot.core.keeping import Backup, Keep, Proof
from bot.core.look import Look
from bot.core.outbox import Letter
from bot.core.outcome import Outcome
from bot.core.people import Place
from bot.core.question import BackupRecords, Rows
from bot.core.request import A_BACKUP, Ask, Request
from bot.core.shown import Redactor
from bot.core.sql import Parameter
from bot.core.taking import Rehearsed
from bot.core.target import Role, Target
from bot.engine import keeper
from bot.engine.keeper import Keeper
from bot.engine.records import Records, Silence, silent
from bot.engine.shelter import Shelter, apart
from bot.engine.taking import advance
from tests.engine.lamps import ANA, Room, room, until
from tests.engine.shelves import KEY, Keys, MemoryVault, Rehearsals
from tests.engine.test_power_cuts import dying_workers

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
HOUR = timedelta(hours=1)
HALL = Target("hall", Role.PLATFORM, "home")


def source(look: Look, name: str) -> Source:
    hall = look.site.find("hall")
    assert hall is not None
    return Source(name, hall, sh("cat", "/lamp"), HOUR, "pg_dump" if name == "database-main" else "tar")


def everything(steps: BackupSteps, look: Look) -> str:
    taking = steps.backup("all")
    taking.store("data", source(look, "data-hall"))
    taking.store("databases", source(look, "database-main"))
    taking.store_key(look.site.targets[0])
    return taking.finish()


def only_data(steps: BackupSteps, look: Look) -> str:
    taking = steps.backup("data")
    taking.store("data", source(look, "data-hall"))
    return taking.finish()


def checking(steps: BackupSteps, _look: Look) -> str:
    return steps.verify_backup()


class Sheltered(Room):
    vault: MemoryVault
    keys: Keys
    rehearsals: Rehearsals

    def backups(self) -> list[Backup]:
        with self.durable.transaction() as tx:
            return list(self.store.backups(tx, "home", gone=True))

    def keeper(self, keep: Keep) -> Keeper:
        shelter = replace(self.engine.shelters["home"], keep=keep)
        return Keeper(self.store, self.durable, {"home": shelter}, self.engine.redactor)


@contextmanager
def sheltered(database: str) -> Iterator[Sheltered]:
    """A room whose opsbot can take backups, and does nothing yet."""
    with room(database) as made:
        made.__class__ = Sheltered
        assert isinstance(made, Sheltered)
        made.vault, made.keys, made.rehearsals = MemoryVault(), Keys(), Rehearsals()
        shelter = Shelter(made.vault, made.keys, made.rehearsals, version="0.1")
        made.engine = replace(made.engine, shelters={"home": shelter})
        for name, work in (("backup all", everything), ("backup data", only_data)):
            made.engine.catalogue.add(Job(name, "Take it", work), name)
        made.engine.catalogue.add(Job("backup verify", "Check it", checking, "backup"), "verify")
        yield made


@pytest.fixture
def idle(database: str) -> Iterator[Sheltered]:
    with sheltered(database) as made:
        yield made


@pytest.fixture
def home(idle: Sheltered) -> Sheltered:
    idle.set_to_work()
    return idle


def test_a_backup_of_everything(home: Sheltered) -> None:
    home.rehearsals.outcome = Rehearsed(True, "66 tables were restored")
    ended = home.ended(home.order("backup all", "job"))
    assert ended.outcome is Outcome.DONE, ended.summary
    (backup,) = home.backups()
    assert (backup.what, backup.state, len(backup.pieces)) == ("all", "complete", 3)
    assert {piece.kind: piece.proven and piece.proven.by for piece in backup.pieces} == {
        "data": Proof.READ_BACK, "databases": Proof.RESTORED, "key": Proof.DECRYPTED,
    }  # fmt: skip
    assert home.rehearsals.expected == ["database-main"]
    assert [told for told in home.vault.told if told[0] == "seal"] == [("seal", "home"), ("seal", apart("home"))]


def test_the_key_lies_apart_and_is_told_nobody(home: Sheltered) -> None:
    run = home.order("backup all", "job")
    home.ended(run)
    (place,) = [key for key in home.vault.objects if "encryption-key" in key]
    assert place.startswith("home=key/")
    assert KEY in home.vault.objects[place]
    with home.pool.connection() as connection:
        for table in ("opsbot.events", "opsbot.evidence", "opsbot.audit", "opsbot.backup_pieces", "opsbot.runs",
                      "absurd.c_opsbot", "absurd.t_opsbot", "absurd.r_opsbot", "opsbot.outbox"):  # fmt: skip
            written = connection.execute(f"SELECT t::text AS row FROM {table} AS t".encode()).fetchall()
            assert KEY.decode() not in str(written), table
            assert KEY.hex() not in str(written), table


def test_a_key_that_opens_nothing_is_kept_and_said_loudly(home: Sheltered) -> None:
    home.keys.works = False
    run = home.order("backup all", "job")
    ended = home.ended(run)
    assert ended.outcome is Outcome.FAILED
    assert ended.summary.startswith("Unproven backup 1: 3 objects, ")
    assert (
        "Not proven: encryption-key: it did not open a value of the database; the platform's key is not the one that "
        "its data was encrypted with, and without that one nothing reads the data: find the former key in an older "
        "backup (`backups`), and put it back. `backup show 1` has the rest."
    ) in ended.summary
    assert "data-hall" not in ended.summary, "what passed is no part of it"
    (step,) = [event.data for event in home.story(run, "step") if event.data["result"] == "failed"]
    assert (step["does"], step["said"]) == ("back up encryption-key", "it did not open a value of the database")
    (backup,) = home.backups()
    assert (backup.state, backup.proven, len(backup.pieces)) == ("complete", None, 3)
    assert any(piece.failed and piece.failed.by is Proof.DECRYPTED for piece in backup.pieces)
    assert any("encryption-key" in key for key in home.vault.objects), "it may be needed yet"


def test_a_key_that_nothing_was_encrypted_with_yet_is_no_failure(home: Sheltered) -> None:
    home.keys.works = None
    assert home.outcome(home.order("backup all", "job")) is Outcome.DONE


def test_what_is_known_of_the_keys_that_were_stored(home: Sheltered) -> None:
    assert known_key(home) == ("", None, "", None)
    fitting, wrong = home.keys.read(HALL, threading.Event()).fingerprint, b"another encryption key of Travis"
    home.ended(home.order("backup all", "job"))
    assert known_key(home) == (fitting, 1, "yes", None), "the same key is no former one"
    home.keys.value, home.keys.works = wrong, False
    home.ended(home.order("backup all", "job"))
    typed = home.keys.read(HALL, threading.Event()).fingerprint
    assert known_key(home) == (typed, 2, "no", 1)
    home.ended(home.order("backup data", "job"))
    assert known_key(home) == (typed, 2, "no", 1), "a backup without a key says nothing of one"
    home.keys.value, home.keys.works = KEY, None
    home.ended(home.order("backup all", "job"))
    assert known_key(home) == (fitting, 4, "", None), "one that opened nothing is no former key"


def known_key(home: Sheltered) -> tuple[Parameter, ...]:
    records = Records(home.store, home.durable, home.clock, home.engine.shelters)
    (said,) = records.ask(HALL, [BackupRecords()], threading.Event())
    assert isinstance(said, Rows)
    return tuple(said.rows[0][name] for name in ("fingerprint", "key_backup", "key_opens", "key_before"))


def test_one_failure_leaves_the_others_and_makes_no_backup(home: Sheltered) -> None:
    home.vault.content["data-hall"] = BackupFailed("tar ended with 2: password=hunter2.")
    ended = home.ended(home.order("backup all", "job"))
    assert ended.outcome is Outcome.FAILED
    assert "data-hall: tar ended with 2" in ended.summary
    assert "hunter2" not in ended.summary
    (backup,) = home.backups()
    assert (backup.state, len(backup.pieces)) == ("incomplete", 2)
    assert len(home.vault.sets) == 2, "what was stored can be found in the store all the same"


def test_a_failed_restore_is_no_proof(home: Sheltered) -> None:
    home.rehearsals.outcome = Rehearsed(False, "pg_restore ended with 1")
    ended = home.ended(home.order("backup all", "job"))
    assert ended.outcome is Outcome.FAILED
    assert "Not proven: database-main: pg_restore ended with 1; a restore of it cannot be relied on" in ended.summary
    (backup,) = home.backups()
    assert (backup.state, backup.proven) == ("complete", None)


def test_what_is_missing_hides_nothing_that_is_unproven(home: Sheltered) -> None:
    home.vault.content["data-hall"] = BackupFailed("tar ended with 2.")
    home.keys.works = False
    said = home.ended(home.order("backup all", "job")).summary
    assert said.startswith("Incomplete backup 1: ")
    assert "Missing: data-hall: tar ended with 2. Not proven: encryption-key: it did not open" in said


@pytest.mark.parametrize("no", range(1, 14))
def test_whoever_takes_over_knows_what_did_not_pass(idle: Sheltered, no: int) -> None:
    idle.keys.works = False
    dying_workers(idle, [no])
    ended = idle.ended(idle.order("backup all", "job"), 30)
    assert (ended.outcome, ended.summary.count("Not proven: encryption-key")) == (Outcome.FAILED, 1)


@pytest.mark.parametrize("away", [False, True])
def test_what_is_large_is_read_back_too(home: Sheltered, monkeypatch: pytest.MonkeyPatch, away: bool) -> None:
    monkeypatch.setattr("bot.engine.taking.SMALL", 0)
    home.vault.away = away
    ended = home.ended(home.order("backup data", "job"))
    assert ended.outcome is (Outcome.FAILED if away else Outcome.DONE), ended.summary
    assert ("Not proven: data-hall: The store does not answer; what the store has" in ended.summary) is away
    (backup,) = home.backups()
    proofs = [(proof.by, proof.passed) for proof in backup.pieces[0].proofs]
    assert proofs == [(Proof.LISTING, True), (Proof.READ_BACK, not away)]


def test_two_at_once(home: Sheltered) -> None:
    going, go_on = threading.Event(), threading.Event()

    def slow(source: Source, progress: Progress, abort: threading.Event) -> None:
        going.set()
        go_on.wait(20)

    home.vault.on_put = slow
    first = home.order("backup all", "job")
    assert going.wait(20)
    ended = home.ended(home.order("backup data", "job"))
    go_on.set()
    assert ended.outcome is Outcome.REFUSED
    assert f"run {first} is backing up the same" in ended.summary
    assert home.outcome(first) is Outcome.DONE


@pytest.mark.parametrize("no", range(1, 14))
def test_whoever_takes_over_repeats_the_unfinished_piece_only(idle: Sheltered, no: int) -> None:
    """The process is killed before one of its commits; the next one carries on."""
    dying_workers(idle, [no])
    ended = idle.ended(idle.order("backup all", "job"), 30)
    assert ended.outcome is Outcome.DONE, ended.summary
    puts = [name for what, name in idle.vault.told if what.startswith("put")]
    assert len(puts) <= 4, f"at most one of three pieces is stored twice: {puts}"
    (backup,) = idle.backups()
    assert (len(backup.pieces), backup.state) == (3, "complete")


def test_cancelling_stops_the_stream(home: Sheltered) -> None:
    going = threading.Event()

    def endless(source: Source, progress: Progress, abort: threading.Event) -> None:
        going.set()
        assert abort.wait(20)

    home.vault.on_put = endless
    run = home.order("backup data", "job")
    assert going.wait(20)
    (begun,) = home.backups()
    home.desk.file(Request(Ask.CANCEL, number=begun.id, argument=A_BACKUP), ANA, None, home.key())
    assert home.outcome(run) is Outcome.CANCELLED
    (backup,) = home.backups()
    assert (backup.state, home.vault.objects) == ("incomplete", {})
    assert backup.over is not None
    assert backup.took == backup.over - backup.began > timedelta(), "it ran, though nothing of it was stored"


def test_no_room_is_said_before_anything_is_sent(home: Sheltered) -> None:
    assert home.outcome(home.order("backup data", "job")) is Outcome.DONE
    home.vault.told.clear()
    home.vault.free = 5
    ended = home.ended(home.order("backup data", "job"))
    assert ended.outcome is Outcome.REFUSED
    assert "the store has 5 bytes left" in ended.summary
    assert home.vault.told == []


def test_without_a_store_nothing_is_taken(home: Sheltered) -> None:
    home.workers[0].stop()
    home.set_to_work(replace(home.engine, shelters={}))
    ended = home.ended(home.order("backup data", "job"))
    assert ended.outcome is Outcome.REFUSED
    assert "`backups:` in the configuration" in ended.summary


def test_reading_back(home: Sheltered) -> None:
    home.ended(home.order("backup all", "job"))
    (backup,) = home.backups()
    ended = home.ended(home.order("backup verify", "job", argument=str(backup.id)))
    assert ended.outcome is Outcome.DONE, ended.summary
    key = next(piece.key for piece in backup.pieces if piece.kind == "data")
    home.vault.objects[key] = b"encrypted otherwise"
    ended = home.ended(home.order("backup verify", "job", argument=str(backup.id)))
    assert ended.outcome is Outcome.FAILED
    assert "cannot be relied on: data-hall: " in ended.summary
    assert home.backups()[0].proven is None
    unknown = home.ended(home.order("backup verify", "job", argument="77"))
    assert unknown.outcome is Outcome.REFUSED
    assert "there is no backup 77" in unknown.summary


def test_without_a_number_it_is_the_turn_of_what_was_unread_longest(home: Sheltered) -> None:
    nothing = home.ended(home.order("backup verify", "job"))
    assert (nothing.outcome, "there is no complete backup of home" in nothing.summary) == (Outcome.REFUSED, True)
    for _ in range(2):
        home.ended(home.order("backup data", "job"))
    said = [home.ended(home.order("backup verify", "job")).summary for _ in range(3)]
    newer, older = (f"Backup {each.id}" for each in home.backups())
    assert [each.partition(" was")[0] for each in said] == [older, newer, older]


def test_a_store_that_is_away_proves_nothing(home: Sheltered) -> None:
    home.ended(home.order("backup data", "job"))
    home.vault.away = True
    ended = home.ended(home.order("backup verify", "job", argument=str(home.backups()[0].id)))
    assert (ended.outcome, ended.summary) == (Outcome.FAILED, "The store does not answer.")
    assert home.backups()[0].proven is not None


def test_what_is_old_goes_from_the_rows_first_and_then_from_the_store(home: Sheltered) -> None:
    for _ in range(3):
        home.ended(home.order("backup all", "job"))
    keeper = home.keeper(Keep(1, 0, 0))
    assert len(keeper.clean_up()) == 2
    newest, *old = home.backups()
    assert [each.state for each in old] == ["gone", "gone"]
    assert {manifest.set for manifest in home.vault.manifests("home")} == {newest.folder}
    assert len(home.vault.manifests(apart("home"))) == 1
    assert keeper.clean_up() == []


def test_those_that_went_hide_none_that_is_old(home: Sheltered, monkeypatch: pytest.MonkeyPatch) -> None:
    """As monthly backups are, behind two thousand hourly ones that are long gone."""
    for _ in range(4):
        home.ended(home.order("backup data", "job"))
    *_, oldest = home.backups()
    with home.durable.transaction() as tx:
        for each in home.backups()[1:3]:
            home.store.give_up_backup(tx, each.id)
    monkeypatch.setattr(keeper, "MOST_KEPT", 2)
    home.keeper(Keep(1, 0, 0)).clean_up()
    assert [each.state for each in home.backups()[1:]] == ["gone"] * 3
    assert oldest.folder not in {manifest.set for manifest in home.vault.manifests("home")}
    assert len(home.vault.manifests("home")) == 1, "nor do they stay in the store"


def test_one_manifest_that_is_broken_keeps_no_other_backup(home: Sheltered) -> None:
    for _ in range(3):
        home.ended(home.order("backup data", "job"))
    oldest = home.backups()[-1]
    home.vault.broken = oldest.folder
    said = home.keeper(Keep(1, 0, 0)).clean_up()
    assert [each.partition(" (")[0] for each in said] == [f"backup {no} of home" for no in (1, 2, 1)]
    assert said[-1].endswith("could not be removed: It cannot be read.")
    assert len(home.vault.sets) == 2
    home.vault.broken = ""
    home.keeper(Keep(1, 0, 0)).clean_up()
    assert len(home.vault.sets) == 1, "once it can be read, it goes"


def test_a_key_that_was_changed_is_kept(home: Sheltered) -> None:
    home.ended(home.order("backup all", "job"))
    home.keys.value = b"another encryption key of Travis"
    home.ended(home.order("backup all", "job"))
    home.keeper(Keep(1, 0, 0)).clean_up()
    assert len(home.vault.manifests("home")) == 1
    assert len(home.vault.manifests(apart("home"))) == 2, "older dumps are worth nothing without it"


def test_nothing_goes_while_the_newest_is_unproven(home: Sheltered) -> None:
    for no in range(3):
        home.keys.works = no < 2
        home.ended(home.order("backup all", "job"))
    assert home.keeper(Keep(1, 0, 0)).clean_up() == []
    assert len(home.vault.manifests("home")) == 3


def test_progress_is_told_and_not_too_often(home: Sheltered, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 100_000, 2))
    monkeypatch.setattr("bot.engine.taking.monotonic", lambda: float(next(ticks)))

    def chatty(source: Source, progress: Progress, abort: threading.Event) -> None:
        for so_far in range(1000):
            progress(so_far)

    home.vault.on_put = chatty
    run = home.order("backup data", "job")
    assert home.outcome(run) is Outcome.DONE
    said = [event.data["said"] for event in home.story(run, "step") if event.data["result"] == "under way"]
    assert 5 < len(said) < 60
    assert "bytes/s" in said[1]


def test_what_progress_says(home: Sheltered) -> None:
    home.ended(home.order("backup data", "job"))
    last = replace(home.backups()[0].pieces[0], plain=4 * 1024**3)
    assert advance(1024**3, 64, last) == "1.0 GiB of about 4.0 GiB (25 %), 16.0 MiB/s, 3 min left"
    assert advance(1024**2, 2, None) == "1.0 MiB, 512.0 KiB/s"
    assert advance(8 * 1024**3, 64, last) == "8.0 GiB, 128.0 MiB/s"
    assert "left" not in advance(0, 0, last)


def letters(home: Sheltered) -> list[Letter]:
    found: list[Letter] = []
    with closing(Outbox(home.pool)) as outbox:
        while True:
            with outbox.take() as letter:
                if letter is None:
                    return found
                found.append(letter)
                outbox.sent(letter, None)


def asked(home: Sheltered, place: Place | None) -> list[Letter]:
    """The letters that answer `backups`."""
    home.desk.file(Request(Ask.BACKUPS), ANA, place, home.key())
    until(lambda: _answered(home), 15, "the question is answered")
    return letters(home)


def _answered(home: Sheltered) -> bool:
    with home.pool.connection() as tx:
        return bool(tx.execute("SELECT FROM opsbot.outbox WHERE kind = 'private' AND state = 'pending'").fetchall())


def test_the_list_comes_with_a_chart_for_all_where_it_was_asked(home: Sheltered) -> None:
    for _ in range(2):
        home.ended(home.order("backup data", "job"))
    chart, table = asked(home, Place("C1", "44.1"))
    assert (table.kind, table.user) == ("private", "UANA")
    assert (chart.kind, chart.channel, chart.thread, chart.run) == ("note", "C1", "44.1", None)
    assert chart.body["text"] == chart.body["chart"]["title"] == "The last 2 backups of home"
    assert [bar.mark for bar in chart_from_json(chart.body["chart"]).bars] == [Mark.PROVEN, Mark.PROVEN]


def test_one_backup_and_no_place_have_no_chart(home: Sheltered) -> None:
    home.ended(home.order("backup data", "job"))
    assert [each.kind for each in asked(home, Place("C1"))] == ["private"]
    home.ended(home.order("backup data", "job"))
    assert [each.kind for each in asked(home, None)] == ["private"]


def test_what_is_secret_is_masked_in_a_chart_too(idle: Sheltered) -> None:
    for name in ("engine", "desk"):
        setattr(idle, name, replace(getattr(idle, name), redactor=Redactor(["home"])))
    idle.set_to_work()
    for _ in range(2):
        idle.ended(idle.order("backup data", "job"))
    chart, _ = asked(idle, Place("C1"))
    assert "backups of •••" in chart.body["text"]
    assert "home" not in str(chart.body)


def test_silence_has_one_name_until_it_ends(home: Sheltered) -> None:
    now = datetime.now(UTC)

    def silence(after: timedelta, later: timedelta = HOUR) -> Silence:
        with home.durable.transaction() as tx:
            return silent(home.store, tx, "home", after, now - 2 * HOUR, now + later)

    assert silence(4 * HOUR) == Silence("none", False)
    assert silence(2 * HOUR) == Silence("none", True)
    home.ended(home.order("backup data", "job"))
    last = str(home.backups()[0].id)
    assert silence(2 * HOUR) == Silence(last, False)
    assert silence(timedelta(minutes=1)) == Silence(last, True)
    assert silence(2 * HOUR, -3 * HOUR) == Silence(last, True), "a clock that was put back hides no silence"
    for what in ("all", "data"):
        home.ended(home.order(f"backup {what}", "job"))
    assert silence(2 * HOUR) == Silence(str(home.backups()[1].id), False), "a part is no backup of everything"
