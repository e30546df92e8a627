"""What docs/databases.md has people type is what opsbot needs: its settings are valid, its rights enough."""

import re
import shlex
from pathlib import Path

import psycopg
import pytest
import redis
import yaml
from redis.exceptions import NoPermissionError

from bot.settings import load
from handlers.toolbox import jobs, sync
from tests.rigs import redis as rig
from tests.rigs.backup import SCHEMA
from tests.test_settings import TOKENS, broken, valid

PAGE = (Path(__file__).parents[2] / "docs/databases.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.S)


def test_the_settings_are_valid(tmp_path: Path) -> None:
    [text] = blocks("yaml")
    addresses = dict.fromkeys(re.findall(r"TRAVIS_\w+DSN", text), "postgresql://opsbot_read:x%40@10.0.0.20:5432/travis")
    environment = {**TOKENS, **addresses, "TRAVIS_REDIS_URL": "redis://:x@10.0.0.30:6379/0"}
    put = {f"installations[0].{name}": given for name, given in yaml.safe_load(text).items()}
    settings = load(valid(tmp_path, broken({"put": put})), environment)
    assert {each.via for each in settings.databases().values()} == {"tunnel"}


@pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
def test_the_rights_are_enough_and_no_more(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(SCHEMA.read_bytes())
        for each in blocks("sql"):
            connection.execute(each.encode())
        try:
            connection.execute(
                "INSERT INTO jobs (id, state, created_at, updated_at) VALUES (1, 'queued', now(), now())"
            )
            connection.execute("SET ROLE opsbot_write")
            for statement in (sync.CLEAR, jobs.RESET, jobs.CANCEL):
                connection.execute(statement.encode(), [[1]])
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("DELETE FROM users")
            connection.execute("SET ROLE opsbot_read")
            connection.execute("SELECT count(*) FROM logs")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("UPDATE users SET is_syncing = false")
        finally:
            connection.execute("RESET ROLE")
            for role in ("opsbot_read", "opsbot_write"):
                connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_a_user_of_redis_may_do_what_is_asked_and_no_more() -> None:
    program, *words = shlex.split("".join(blocks("sh")))
    assert program == "redis-cli"
    with rig.server() as server:
        server.cli(*words)
        with redis.Redis(port=server.port, username="opsbot", password="PASSWORD") as client:
            for asked in ("PING", "LLEN q", "LRANGE q 0 -1", "SMEMBERS s", "EXISTS k", "HVALS h", "ZCARD z"):
                client.execute_command(*asked.split())
            with pytest.raises(NoPermissionError):
                client.execute_command("LPUSH", "q", "job")
