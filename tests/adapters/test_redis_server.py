"""A dump of a real redis, loaded by a real redis-server that nobody else reaches and that leaves nothing."""

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.adapters import redis_server
from bot.core.backup import BackupFailed
from bot.core.drill import Loaded
from tests.rigs import backup, redis


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    with redis.server() as server:
        yield backup.rdb(tmp_path_factory.mktemp("redis"), server)


def load(data: bytes, folder: Path) -> Loaded:
    program = redis_server.program()
    assert program, "redis-server is missing here; as root: apt-get install redis-server"
    return redis_server.load(io.BytesIO(data), folder, program)


def test_its_keys_are_counted_and_nothing_of_it_touches_the_disk(dump: bytes, tmp_path: Path) -> None:
    deep = tmp_path / ("a path that is longer than a socket may have " * 3)
    deep.mkdir()
    loaded = load(dump, deep)
    assert (loaded.keys, loaded.by) == (42, "redis-server")
    assert {path.name for path in deep.iterdir()} <= {"log", "socket"}
    assert b"value" not in (deep / "log").read_bytes()


def test_a_large_one_flows(tmp_path: Path) -> None:
    with redis.server("", "--enable-debug-command", "yes") as server:
        server.cli("DEBUG", "POPULATE", "20000", "key", "2000")
        server.cli("CONFIG", "SET", "rdbcompression", "no")
        server.cli("--rdb", str(tmp_path / "copy.rdb"))
    (tmp_path / "there").mkdir()
    data = (tmp_path / "copy.rdb").read_bytes()
    assert len(data) > 1 << 20
    assert load(data, tmp_path / "there").keys == 20_000


def test_the_mark_of_a_copy_without_a_disk_does_no_harm(dump: bytes, tmp_path: Path) -> None:
    assert load(dump + b"f" * 40, tmp_path).keys == 42


def spoilt(dump: bytes, how: str) -> bytes:
    at = dump.index(b"value7")
    return {
        "changed": dump[:at] + b"valuE7" + dump[at + 6 :],
        "cut": dump[:-200],
        "empty": b"",
        "no dump": os.urandom(3000),
    }[how]


@pytest.mark.parametrize("how", ["changed", "cut", "empty", "no dump"])
def test_what_redis_refuses_is_said_in_its_words(dump: bytes, tmp_path: Path, how: str) -> None:
    began = time.monotonic()
    with pytest.raises(BackupFailed, match=r"redis-server did not load it: \w.*"):
        load(spoilt(dump, how), tmp_path)
    assert time.monotonic() - began < 20


def test_a_dump_of_a_newer_redis_is_no_verdict(dump: bytes, tmp_path: Path) -> None:
    with pytest.raises(redis_server.TooNew):
        load(b"REDIS0099" + dump[9:], tmp_path)


def test_a_server_that_takes_nothing_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens the pipe as redis does, and then stands still."""
    program = tmp_path / "redis-server"
    program.write_text('#!/bin/sh\n[ "$1" = --dir ] && exec 4< "$2/dump.rdb"\nexec sleep 600\n')
    program.chmod(0o755)
    (tmp_path / "there").mkdir()
    monkeypatch.setattr(redis_server, "LOAD_WITHIN", 1.0)
    began = time.monotonic()
    with pytest.raises(BackupFailed, match="redis-server did not load it in time"):
        redis_server.load(io.BytesIO(b"x" * (4 << 20)), tmp_path / "there", str(program))
    assert time.monotonic() - began < 10
