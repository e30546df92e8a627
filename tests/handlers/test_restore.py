"""The guided way back: refused where data would be lost unsaid, in the right order, with the exact words to type."""

from dataclasses import replace
from threading import Event
from typing import Any

import pytest

from bot.core.errors import Refused
from bot.core.fix import ByHand, Change, Fix, Risk, TakeBackup
from bot.core.plan import Plan, plan_from_json
from bot.core.question import KeyFingerprint, Output, Rows, StoredBackup
from bot.core.restore import Held, Way, unpacking, whole
from bot.core.sql import Query
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser
from handlers.toolbox import platform, restore
from tests.engine.machines import Machines, Said

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")
SITE = Site("prod", "travis.example.com", "2.2", (PLATFORM,))
EMPTY = (("builds", 0), ("repositories", 0), ("users", 0))
LIVED_IN = (("builds", 0), ("repositories", 8192), ("users", 8192))
KINDS = ("data", "databases", "key", "redis", "rabbitmq", "settings")
ENDINGS = {"data": "tar.zst", "databases": "dump", "key": "bin", "redis": "rdb", "rabbitmq": "json", "settings": "json"}


def piece(kind: str, **more: str) -> dict[str, str | int]:
    address = f"s3://backups/prod/set/{kind}.{ENDINGS[kind]}.age"
    name = "database-main" if kind == "databases" else kind
    known = {
        "kind": kind,
        "name": name,
        "address": address,
        "fingerprint": "",
        "state": "complete",
        "failed": "",
        "live": "",
    }
    return {**known, "size": 1, **more}


def planned(
    action: str,
    there: tuple[tuple[str, int], ...] = EMPTY,
    pieces: list[dict[str, Any]] | None = None,
    key: str = "now",
) -> Fix:
    held = pieces if pieces is not None else [piece(kind, fingerprint="then") for kind in KINDS]
    container = platform.container_of(PLATFORM).question
    answers: dict[str, Said] = {
        str(StoredBackup("12")): Rows(tuple(held)),
        str(Query(restore.INHABITANTS)): Rows(tuple({"name": name, "bytes": size} for name, size in there)),
        str(KeyFingerprint()): Rows(({"fingerprint": key},)),
        str(container): Output(0, "c0ffee\tquay.io/travisci/te-main:v2.2.26\tsleepy_dewdney\n"),
    }
    diagnoser = Diagnoser(SITE, Machines({PLATFORM.name: answers}), lambda *_: None)
    made = discover().actions[action]
    return diagnoser.planned(lambda look: made.fix(look, PLATFORM, "12"), Event())


def by_hand(fix: Fix) -> list[ByHand]:
    return [step for step in fix.steps if isinstance(step, ByHand)]


def test_a_platform_with_data_is_not_overwritten_unsaid() -> None:
    with pytest.raises(Refused, match=r"platform-1 has repositories, users, .*`restore over 12 because …`"):
        planned("restore", LIVED_IN)


def test_a_backup_that_is_not_there_is_said_before_what_it_would_overwrite() -> None:
    with pytest.raises(Refused, match="there is no backup 12 of prod"):
        planned("restore", LIVED_IN, pieces=[])


def test_said_in_words_it_is_overwritten_after_a_backup_of_it() -> None:
    fix = planned("restore over", LIVED_IN)
    assert "OVER the repositories, users that are there" in fix.title
    assert fix.steps[0] == TakeBackup("all"), "its settings, its redis and its key are overwritten, too"
    assert fix.risk is Risk.DATA


def test_where_databases_alone_are_overwritten_they_alone_are_backed_up() -> None:
    held = [piece("databases"), piece("key", fingerprint="now")]
    assert planned("restore over", LIVED_IN, held).steps[0] == TakeBackup("databases")
    held[1]["fingerprint"] = "then"
    assert planned("restore over", LIVED_IN, held).steps[0] == TakeBackup("all"), "what it encrypted needs this key"


def test_an_empty_platform_needs_no_backup_of_itself() -> None:
    for action in ("restore", "restore over"):
        assert not any(isinstance(step, TakeBackup) for step in planned(action).steps)


def test_the_key_comes_first_and_the_files_while_the_app_is_stopped() -> None:
    fix = planned("restore")
    order = [step.does for step in fix.steps if isinstance(step, ByHand | Change)]
    assert [does.split()[0] for does in order] == ["Put", "Read", "Load", "Give", "Load", "Stop", "Unpack", "Start"]
    assert "the encryption key" in order[0]
    assert "database-main" in order[2]
    assert [change.does for change in fix.ensure] == ["Start the app"]


def test_a_key_that_is_in_use_already_is_not_typed_again() -> None:
    assert not any("encryption key" in step.does for step in by_hand(planned("restore", key="then")))


def test_the_words_for_a_person_are_whole() -> None:
    how = {step.does: step.how for step in by_hand(planned("restore"))}
    assert how["Load database-main into PostgreSQL"].splitlines()[-1] == (
        "opsbot backup decrypt s3://backups/prod/set/databases.dump.age --identity KEY.txt | ssh 10.0.0.10 "
        "'sudo docker exec -i $(sudo docker ps </dev/null | grep te-main | head -c 12) pg_restore --clean --if-exists "
        "--no-owner --no-privileges --exit-on-error --single-transaction -h 127.0.0.1 -U travis -d travis_production'"
    )
    assert "| zstd -d | ssh 10.0.0.10 'sudo tar -xp" in how["Unpack data, without the files of running servers"]
    assert "AGE-SECRET-KEY" not in str(how)


def test_a_plan_an_answer_and_the_page_have_one_procedure() -> None:
    """That of the plan without what opsbot does itself: looking for data, stopping and starting."""
    held = [Held(str(each["kind"]), str(each["name"]), str(each["address"])) for each in map(piece, KINDS)]
    alone = {step.does: str(step) for step in whole(held, Way(SITE, PLATFORM))}
    told = {step.does: step.how for step in by_hand(planned("restore"))}
    assert told.items() <= alone.items()
    assert alone.keys() - told.keys() == {
        "See what is there", "Stop the app, so that all of it starts with what was loaded", "Start the app",
    }  # fmt: skip


def test_each_machine_gets_its_own_files_back() -> None:
    other = Target("platform-2", Role.PLATFORM, "prod", "10.0.0.11")
    held = [Held("data", f"data-{each}", f"s3://b/data-{each}.tar.age", live=True) for each in (PLATFORM, other)]
    steps = [str(step) for step in unpacking(held, Way(replace(SITE, targets=(PLATFORM, other)), PLATFORM))]
    assert ["ssh 10.0.0.10" in steps[0], "ssh 10.0.0.11" in steps[1]] == [True, True]


def test_only_what_a_backup_holds_is_restored() -> None:
    fix = planned("restore", pieces=[piece("rabbitmq")])
    assert [step.does for step in by_hand(fix)] == ["Load rabbitmq into RabbitMQ"]


@pytest.mark.parametrize(
    ("pieces", "why"),
    [
        ([], "there is no backup 12 of prod that holds anything"),
        ([piece("data", state="gone")], "backup 12 is gone"),
        ([piece("data", state="being taken")], "backup 12 is being taken"),
        ([piece("data", failed="its SHA-256 is another one")], "a proof of data failed"),
    ],
)
def test_what_cannot_be_restored_is_refused(pieces: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(Refused, match=why):
        planned("restore", pieces=pieces)


def test_the_plan_survives_being_stored() -> None:
    plan = Plan((planned("restore over", LIVED_IN),), ((PLATFORM.name, "key"),))
    assert plan_from_json(plan.to_json(), SITE) == plan
