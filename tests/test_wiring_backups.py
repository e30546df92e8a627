"""What `serve` does about backups by itself: it knows the store, and tells silence once."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from psycopg.conninfo import conninfo_to_dict

from bot import wiring
from bot.adapters.schedule import Slot
from bot.adapters.store import Audit, Pool, Store, migrate
from bot.core.backup import StoreAway
from bot.core.errors import OpsbotError, Permanent
from bot.core.keeping import Piece
from bot.core.people import Actor
from bot.core.run import Order, Verb
from bot.core.shown import Redactor
from bot.engine.shelter import Shelter
from bot.settings import Settings, load
from tests.engine.shelves import Keys, MemoryVault, Rehearsals
from tests.rigs import postgres, redis
from tests.rigs.sshd import ROOT, HostSpec, sshd
from tests.rigs.te_main import Container
from tests.test_settings import TOKENS, broken, valid

RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"


def settings(folder: Path, store: str) -> Any:
    (folder / "store").mkdir(exist_ok=True)
    given = {"backups": {"store": store, "recipients": [RECIPIENT]}, "state_dir": str(folder / "state")}
    return load(valid(folder, broken({"put": given})), TOKENS)


def test_doctor_reads_the_store(tmp_path: Path) -> None:
    assert wiring.CHECKS["backups"](settings(tmp_path, f"file://{tmp_path}/store")).endswith(
        "can be read and written, and has 0 sets of backups"
    )
    assert list((tmp_path / "store").iterdir()) == []
    assert wiring.CHECKS["backups"](load(valid(tmp_path), TOKENS)) == "none are configured"


def test_doctor_says_that_a_store_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OpsbotError):
        wiring.CHECKS["backups"](settings(tmp_path, f"file://{tmp_path}/file"))


def test_doctor_says_that_keys_cannot_be_written(tmp_path: Path) -> None:
    """They have a place of their own, with other rights perhaps."""
    given = settings(tmp_path, f"file://{tmp_path}/store")
    (tmp_path / "store" / "prod=key").write_text("no folder")
    with pytest.raises(OpsbotError, match=r"prod=key/doctor-.* could not be written"):
        wiring.CHECKS["backups"](given)


# ---------------------------------------------------------------- what they are taken from

SUDO = "Defaults env_keep += LC_ALL\nops ALL=(root) NOPASSWD: ALL{but}"


@contextmanager
def installation(folder: Path, server: postgres.Server, but: str = "") -> Iterator[tuple[Settings, redis.Server]]:
    """A platform machine whose database and redis are reached directly, by users of theirs who may read all."""
    (folder / "docker").mkdir()
    docker = Container(folder / "docker")
    with (
        redis.server() as running,
        sshd(HostSpec("platform-1", programs={"docker": docker.program}, sudoers=SUDO.format(but=but))) as rig,
        server.database() as database,
    ):
        host, name = rig.host("platform-1"), conninfo_to_dict(database)["dbname"]
        put = {
            "backups": {"store": f"file://{folder}/store", "recipients": [RECIPIENT]},
            "state_dir": str(folder / "state"),
            "installations[0].ssh": {
                "user": host.user, "key_file": str(host.key_file), "known_hosts": str(host.known_hosts),
            },
            "installations[0].platforms": [
                {"name": "platform-1", "host": host.host, "port": host.port, "data_dir": str(folder / "data")}
            ],
            "installations[0].database": {"read_dsn_env": "DSN", "via": "direct"},
            "installations[0].redis": {"url_env": "REDIS", "via": "direct"},
        }  # fmt: skip
        (folder / "data").mkdir()
        dsn = f"postgresql://postgres:{postgres.PASSWORD}@127.0.0.1:{server.port}/{name}"
        file = valid(folder, broken({"put": put}))
        yield load(file, {**TOKENS, "DSN": dsn, "REDIS": running.url}), running


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_doctor_finds_nothing_where_backups_would_come(postgres_server: postgres.Server, tmp_path: Path) -> None:
    with installation(tmp_path, postgres_server) as (given, running):
        said = wiring.CHECKS["their sources"](given)
        assert said == "nothing is known to lack for data, databases, redis, rabbitmq, settings"
        assert "sync_full:0" in running.cli("INFO", "stats")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_doctor_says_each_lack(postgres_server: postgres.Server, tmp_path: Path) -> None:
    but = ", !/usr/bin/timeout -k 2 43200 tar *"
    with installation(tmp_path, postgres_server, but) as (given, running):
        running.cli("ACL", "SETUSER", "default", "-sync")
        with pytest.raises(Permanent) as lacking:
            wiring.CHECKS["their sources"](given)
    data, copy = str(lacking.value).rsplit("redis of", 1)
    assert data.startswith(
        "data-platform-1 of platform-1 cannot be taken: sudo on platform-1 has no rule for `sudo -n tar"
        if ROOT
        else ""  # an ordinary user has a pretended sudo, which knows no rules
    )
    assert "NOPERM" in copy
    assert "its user needs `+sync`" in copy
    assert "was not taken" not in str(lacking.value)


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_silence_is_told_once_and_its_end_once(database: str) -> None:
    migrate(database)
    pool = Pool(database)
    store, told = Store(Audit(pool, b"k" * 32)), list[str]()
    vault = MemoryVault()
    shelter = Shelter(vault, Keys(), Rehearsals(), overdue_after=timedelta(hours=26))

    def run_slot(slot: Slot, key: str) -> None:
        assert (slot.run, slot.on) == ("diagnose backup overdue", "prod")
        told.append(key)

    base = SimpleNamespace(store=store, durable=SimpleNamespace(transaction=pool.connection))
    house = {"shelters": {"prod": shelter}, "redactor": Redactor()}
    serving = cast("wiring.Serving", SimpleNamespace(base=base, _run_slot=run_slot, **house))
    long_ago = datetime.now(UTC) - timedelta(days=3)
    try:
        wiring.Serving._look_at_backups(serving, "prod", shelter, datetime.now(UTC))
        assert told == [], "what was never taken is overdue only when it could have been"
        for _ in range(2):
            wiring.Serving._look_at_backups(serving, "prod", shelter, long_ago)
        assert told == ["overdue:prod:none"]
        with pool.connection() as tx:
            run = store.start(tx, Order(Verb.JOB, "backup data", "prod", (), "", Actor("T1", "UANA")))
            number = store.begin_backup(tx, "prod", "data", run, "set")
            store.add_piece(tx, number, Piece(0, "data", "data", "k", 1, 1, "", "", long_ago, long_ago))
            store.seal_backup(tx, number, "manifest")
        for _ in range(2):
            wiring.Serving._look_at_backups(serving, "prod", shelter, long_ago)
        assert told == ["overdue:prod:none", f"no longer overdue:prod:{number}"]
        vault.objects = {"k": b"named by a row alone, as of a backup that was cancelled", "lost": b""}
        wiring.Serving._sweep_backups(serving)
        assert list(vault.objects) == ["k"]
    finally:
        pool.close()


def test_a_store_that_is_away_keeps_nothing_else_from_being_done() -> None:
    done = list[str]()

    def away() -> None:
        raise StoreAway("The store does not answer.")

    chores = {"_keep_backups": away, "_sweep_backups": away}
    others = {name: partial(done.append, name) for name in ("_forget", "_post_head")}
    wiring.Serving._tidy_up(cast("wiring.Serving", SimpleNamespace(**chores, **others)))
    assert done == ["_forget", "_post_head"]
