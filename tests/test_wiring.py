"""What `serve` does while its database comes up beside it, and what `doctor` asks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from bot import wiring
from bot.core.errors import Permanent, Temporary
from bot.settings import Settings, load
from tests.rigs import postgres, redis


def test_serve_waits_for_a_database_that_comes_up(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[Any] = []

    def lay(settings: Any) -> str:
        tries.append(settings)
        if len(tries) < 3:
            raise Temporary("nothing listens there")
        return "laid"

    monkeypatch.setattr(wiring, "lay", lay)
    assert wiring.patiently("settings") == "laid"  # type: ignore[arg-type, comparison-overlap]
    assert tries == ["settings"] * 3


def test_serve_does_not_wait_for_a_wrong_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def lay(settings: Any) -> str:
        raise Permanent("it refuses the user or the password")

    monkeypatch.setattr(wiring, "lay", lay)
    with pytest.raises(Permanent, match="refuses"):
        wiring.patiently("settings")  # type: ignore[arg-type]


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
