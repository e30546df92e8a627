"""What `serve` does while its database comes up beside it, and what `doctor` asks."""

import json
import logging
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from psycopg.conninfo import conninfo_to_dict

from bot import wiring
from bot.adapters.store import Audit, Pool, Store, migrate, versions
from bot.core.errors import NotUnderstood, Permanent, Temporary
from bot.core.request import Vocabulary
from bot.core.shown import Redactor
from bot.settings import Settings, load, load_own
from bot.wiring import foundation
from bot.wiring.serving import tenant_of
from tests.rigs import postgres, redis


def test_serve_waits_for_a_database_that_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []

    def lay(settings: Any, stays: bool) -> str:
        tries.append(settings)
        if len(tries) < 3:
            raise Temporary("nothing listens there")
        return "laid"

    monkeypatch.setattr(foundation, "lay", lay)
    assert foundation.patiently("settings") == "laid"  # type: ignore[arg-type, comparison-overlap]
    assert tries == ["settings"] * 3


def test_serve_does_not_wait_for_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay(settings: Any, stays: bool) -> str:
        raise Permanent("it refuses the user or the password")

    monkeypatch.setattr(foundation, "lay", lay)
    with pytest.raises(Permanent, match="refuses"):
        foundation.patiently("settings")  # type: ignore[arg-type]


# ---------------------------------------------------------------- the installations' services


@pytest.fixture
def services(
    database: str, postgres_server: postgres.Server, tmp_path: Path
) -> Iterator[tuple[Settings, redis.Server]]:
    """An installation whose database and redis are reached directly; its machine is never asked."""
    name = conninfo_to_dict(database)["dbname"]
    with redis.server("hunter2-of-redis") as running:
        environment = {
            "TRAVIS_READ_DSN": f"postgresql://postgres:{postgres.PASSWORD}@127.0.0.1:{postgres_server.port}/{name}",
            "TRAVIS_REDIS_URL": running.url,
        }
        yield load(_configuration(tmp_path), environment), running


def _configuration(folder: Path) -> Path:
    file = folder / "opsbot.yaml"
    file.write_text(
        "slack: {team_id: T012AB3CD, app_id: A012AB3CD, connect: false}\n"
        "installations:\n"
        "  - name: prod\n"
        '    version: "2.2"\n'
        "    domain: travis.example.com\n"
        "    ssh: {user: ops, key_file: none, known_hosts: none}\n"
        "    platforms: [{name: platform-1, host: 127.0.0.1, port: 1}]\n"
        "    database: {read_dsn_env: TRAVIS_READ_DSN, via: direct}\n"
        "    redis: {url_env: TRAVIS_REDIS_URL, via: direct}\n"
    )
    return file


def test_doctor_asks_each_service(services: tuple[Settings, redis.Server]) -> None:
    settings, running = services
    check = wiring.CHECKS["their services"]
    assert check(settings) == "all answer: database, logs' database, redis"
    running.stop()
    with pytest.raises(Permanent, match=r"Redis on 127\.0\.0\.1:\d+ cannot be reached") as error:
        check(settings)
    assert "database" not in str(error.value).lower()


def test_passwords_are_masked_by_themselves(services: tuple[Settings, redis.Server]) -> None:
    settings, _ = services
    said = wiring.redactor_of(settings).show(f"a b {postgres.PASSWORD} hunter2-of-redis {settings.secrets.named}")
    assert postgres.PASSWORD not in said
    assert "hunter2" not in said


# ---------------------------------------------------------------- reading what is there, and changing nothing


def _reachable(database: str) -> str:
    """The same database as an address: settings take no other form."""
    parts = conninfo_to_dict(database)
    return f"postgresql:///{parts['dbname']}?" + "&".join(
        f"{key}={value}" for key, value in parts.items() if key in ("host", "port", "user", "password")
    )


def of(folder: Path, dsn: str = "embedded") -> Settings:
    """The settings of an opsbot whose state lies in `folder`, of which only the file is known."""
    file = _configuration(folder)
    text = file.read_text().replace("connect: false", "channels: {commands: [C012AB3CD]}")
    file.write_text(f"{text}state_dir: {folder / 'state'}\n")
    environment = {} if dsn == "embedded" else {"OPSBOT_DATABASE_URL": dsn, "OPSBOT_AUDIT_KEY": "k" * 32}
    return load_own(file, environment)


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_the_trail_is_read_without_tokens_and_where_it_ends_is_said(database: str, tmp_path: Path) -> None:
    dsn = _reachable(database)
    with pytest.raises(Permanent, match="there is no audit trail in that database"):
        wiring.audit_verify(of(tmp_path, dsn), None)
    assert versions(dsn)[0] == 0, "it was not made"
    migrate(dsn)
    with Pool(dsn) as pool, pool.connection() as tx:
        Audit(pool, b"k" * 32).append(tx, "ordered", None, {})
    fits, said = wiring.audit_verify(of(tmp_path, dsn), None)
    assert (fits, "it ends at 1:" in said) == (True, True)
    with Pool(dsn) as pool, pool.connection() as tx:
        tx.execute("ALTER TABLE opsbot.audit DISABLE TRIGGER ALL")
        tx.execute("UPDATE opsbot.audit SET what = 'nothing'")
    fits, said = wiring.audit_verify(of(tmp_path, dsn), None)
    assert (fits, said.startswith("Record 1 ")) == (False, True)


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_the_trail_is_exported_with_the_times_of_the_other_outputs(database: str, tmp_path: Path) -> None:
    dsn = _reachable(database)
    migrate(dsn)
    with Pool(dsn) as pool, pool.connection() as tx:
        Audit(pool, b"k" * 32).append(tx, "ordered", None, {})
    (record,) = wiring.audit_export(of(tmp_path, dsn))
    line = json.loads(json.dumps(record))
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", line["at"]), "RFC 3339, without a blank"
    assert abs(datetime.fromisoformat(line["at"]) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_a_trail_is_not_checked_with_a_key_made_up_for_it(database: str, tmp_path: Path) -> None:
    dsn = _reachable(database)
    migrate(dsn)
    settings = of(tmp_path, dsn)
    settings._secrets = replace(settings.secrets, audit_key="")
    with pytest.raises(Permanent, match=r"no OPSBOT_AUDIT_KEY and no .*audit\.key"):
        wiring.audit_verify(settings, None)
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_doctor_says_what_serve_would_do_to_the_schema_and_does_not_do_it(database: str, tmp_path: Path) -> None:
    dsn = _reachable(database)
    check, newest = wiring.CHECKS["database"], versions(dsn)[1]
    assert check(of(tmp_path, dsn)) == f"schema version 0; `opsbot serve` will bring it to {newest}"
    assert versions(dsn)[0] == 0
    migrate(dsn)
    assert check(of(tmp_path, dsn)) == f"schema version {newest}"
    with Pool(dsn) as pool, pool.connection() as tx:
        tx.execute("INSERT INTO opsbot.migrations VALUES (900, now())")
    with pytest.raises(Permanent, match=f"version 900, this opsbot knows {newest}"):
        check(of(tmp_path, dsn))


def test_doctor_makes_no_database(tmp_path: Path) -> None:
    assert "`opsbot serve` will make one" in wiring.CHECKS["database"](of(tmp_path))
    assert not (tmp_path / "state").exists()


# ---------------------------------------------------------------- the head of the trail


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_the_head_is_posted_once_a_day_however_many_processes_there_are(database: str, tmp_path: Path) -> None:
    migrate(database)
    with Pool(database) as pool:
        audit = Audit(pool, b"k" * 32)
        for _ in range(3):
            base = SimpleNamespace(
                store=Store(audit), audit=audit, durable=SimpleNamespace(transaction=pool.connection)
            )
            serving = SimpleNamespace(base=base, settings=of(tmp_path), redactor=Redactor())
            wiring.Serving._post_head(cast("wiring.Serving", serving))
        with pool.connection() as tx:
            (letter,) = tx.execute("SELECT kind, channel, body FROM opsbot.outbox").fetchall()
    assert (letter["kind"], letter["channel"]) == ("note", "C012AB3CD")
    assert f"`0:{'0' * 64}`" in letter["body"]["text"]


# ---------------------------------------------------------------- the start


def test_an_organisation_that_is_configured_is_a_home(tmp_path: Path) -> None:
    settings = of(tmp_path)
    there = settings.model_copy(update={"slack": settings.slack.model_copy(update={"enterprise_id": "E012AB3CD"})})
    assert tenant_of(settings).homes == {settings.slack.team_id}
    assert tenant_of(there).homes == {settings.slack.team_id, "E012AB3CD"}


def test_where_another_opsbot_serves_no_work_is_taken() -> None:
    began: list[str] = []

    def taken() -> None:
        raise Permanent("another opsbot serves there")

    workers = SimpleNamespace(start=lambda: began.append("work"))
    serving = SimpleNamespace(console=SimpleNamespace(start=taken), workers=workers)
    with pytest.raises(Permanent, match="another opsbot"):
        wiring.Serving.start(cast("wiring.Serving", serving))
    assert began == []


def test_what_should_never_end_begins_anew_after_a_mistake(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bot.wiring.serving.ANEW_AFTER", 0.01)
    begun, went_on = [0], threading.Event()

    def work(stop: threading.Event) -> None:
        begun[0] += 1
        if begun[0] < 3:
            raise KeyError("nobody expected this")
        went_on.set()
        stop.wait(5)

    serving = SimpleNamespace(stopping=threading.Event())
    wiring.Serving._spawn(cast("wiring.Serving", serving), "schedule", work)
    assert went_on.wait(5)
    serving.stopping.set()
    assert [each.getMessage() for each in caplog.records] == ["`schedule` failed, and begins anew"] * 2


def test_the_last_words_of_a_thread_are_a_line_without_secrets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", list(root.handlers))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    levels = {each: each.level for each in (root, logging.getLogger("opsbot"), logging.getLogger("bot"))}

    def work() -> None:
        raise KeyError("open sesame")

    try:
        wiring.write_logs_as_json(Redactor(["open sesame"]))
        thread = threading.Thread(target=work, name="samples")
        thread.start()
        thread.join()
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
    said = capsys.readouterr().err
    line = json.loads(said)
    assert (line["level"], line["event"]) == ("critical", "`samples` ended by an error that nobody expected")
    assert "KeyError" in line["exception"]
    assert "open sesame" not in said


# ---------------------------------------------------------------- who is told to type what


def test_a_terminal_is_told_what_to_type_there(tmp_path: Path) -> None:
    vocabulary = Vocabulary("/travis", (), ("restart",), (), (("prod", (("worker-1", "worker"),)),))
    parts = ("desk", "_events", "_run", "_why_not_decide", "_called_by_others")
    serving = SimpleNamespace(settings=of(tmp_path), vocabulary=vocabulary, **dict.fromkeys(parts))
    console = wiring.Serving._console(cast("wiring.Serving", serving))
    with pytest.raises(NotUnderstood) as error:
        console.read("make coffee")
    assert "`opsbot run restart worker-1 because it hangs`" in str(error.value)
    assert "/travis" not in str(error.value)
