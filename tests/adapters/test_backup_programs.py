"""The programs that a backup is made with, on real servers: what they write is whole, and can be loaded again."""

import subprocess
from pathlib import Path

from bot.adapters.vault import rdb
from tests.rigs import redis


def test_a_copy_of_redis_starts_a_redis(tmp_path: Path) -> None:
    """What `redis-cli --rdb -` writes is a dump, with a mark behind it since redis 7; a server that loads it has every
    key.
    """
    with redis.server() as server:
        for no in range(1000):
            server.cli("SET", f"key:{no}", "x" * no)
        server.cli("LPUSH", "queue:sync", "job")
        words = ["redis-cli", "-p", str(server.port), "--rdb", "-"]
        said = subprocess.run(words, capture_output=True, check=True, timeout=30, stdin=subprocess.DEVNULL)
    assert said.stdout.startswith(b"REDIS")
    dump = tmp_path / "dump.rdb"
    dump.write_bytes(said.stdout)
    with dump.open("rb") as file:
        assert rdb.check(file) == ()
    with redis.server("", "--dir", str(tmp_path), "--dbfilename", "dump.rdb") as again:
        assert again.cli("DBSIZE").strip() == "1001"
        assert again.cli("LRANGE", "queue:sync", "0", "-1").strip() == "job"
        assert again.cli("STRLEN", "key:999").strip() == "999"
