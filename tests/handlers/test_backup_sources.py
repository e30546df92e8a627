"""Where each part of a backup comes from, by how the installation is reached."""

from typing import Any

import pytest

from bot.core.backup import Definitions, Dump, DumpInside, Origin, RedisCopy, Source
from bot.core.command import Command
from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.look import CannotLook, Look
from bot.core.question import Output
from bot.core.target import Role, Site, Target
from handlers.toolbox import backup

PLATFORM = Target("platform-1", Role.PLATFORM, "prod")
SECOND, THIRD = (Target(f"platform-{no}", Role.PLATFORM, "prod") for no in (2, 3))


class Looking:
    """A `Look` that knows the container's name, which machines are away, and how often it was asked."""

    def __init__(self, *machines: Target, **options: str) -> None:
        named = ((name.replace("__", "."), value) for name, value in options.items())
        self.site = Site("prod", "travis.example.com", "2.2", machines or (PLATFORM,), tuple(named))
        self.away: tuple[Target, ...] = ()
        self.asked = 0

    def __call__(self, fact: Fact[Any]) -> str:
        self.asked += 1
        if fact.on in self.away:
            raise CannotLook(fact, f"{fact.on} is away", "unreachable")
        return "c0ffee"

    def together(self, *facts: Fact[Any]) -> None:
        """All of them are there already."""


class Taken:
    """A `Taking` that remembers."""

    def __init__(self) -> None:
        self.sources: list[Source] = []
        self.skipped: list[str] = []

    def backup(self, what: str) -> "Taken":
        return self

    def store(self, kind: str, source: Source) -> None:
        self.sources.append(source)

    def skip(self, kind: str, why: str) -> None:
        self.skipped.append(why)

    def finish(self) -> str:
        return ""


def origins(look: Looking, what: str) -> dict[str, Origin]:
    taken, asked = Taken(), look
    backup.take(taken, _as_look(asked), what)  # type: ignore[arg-type]
    assert taken.skipped == []
    return {source.name: source.origin for source in taken.sources}


def _as_look(look: Any) -> Look:
    return look  # type: ignore[no-any-return]


MAIN = DumpInside("c0ffee", "travis_production", "travis")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, {"database-main": MAIN}),
        ({"logs_database__apart": "no", "logs_database__via": "container"}, {"database-main": MAIN}),
        (
            {"logs_database__apart": "yes", "logs_database__name": "travis_logs", "logs_database__user": "logs"},
            {"database-main": MAIN, "database-logs": DumpInside("c0ffee", "travis_logs", "logs")},
        ),
        ({"logs_database__apart": "yes"}, {"database-main": MAIN}),
        (
            {"database__via": "tunnel", "logs_database__apart": "no", "logs_database__via": "tunnel"},
            {"database-main": Dump("main")},
        ),
        (
            {"database__via": "tunnel", "logs_database__apart": "yes", "logs_database__via": "direct"},
            {"database-main": Dump("main"), "database-logs": Dump("logs")},
        ),
        (
            {"logs_database__apart": "yes", "logs_database__via": "direct"},
            {"database-main": MAIN, "database-logs": Dump("logs")},
        ),
    ],
)
def test_databases(options: dict[str, str], wanted: dict[str, Origin]) -> None:
    assert origins(Looking(**options), "databases") == wanted


@pytest.mark.parametrize(
    ("via", "away", "wanted"),
    [
        ("tunnel", (), PLATFORM),
        ("tunnel", (PLATFORM,), SECOND),
        ("tunnel", (PLATFORM, SECOND), THIRD),
        ("tunnel", (PLATFORM, SECOND, THIRD), THIRD),
        ("direct", (PLATFORM,), PLATFORM),
    ],
)
def test_a_tunnel_goes_by_the_first_platform_that_answers(via: str, away: tuple[Target, ...], wanted: Target) -> None:
    look, taken = Looking(PLATFORM, SECOND, THIRD, database__via=via, redis__via=via), Taken()
    look.away = away
    for what in ("databases", "redis"):
        backup.take(taken, _as_look(look), what)  # type: ignore[arg-type]
    assert [(source.name, source.target) for source in taken.sources] == [("database-main", wanted), ("redis", wanted)]
    assert taken.skipped == []


def test_a_platform_that_is_away_leaves_the_data_of_the_others_alone() -> None:
    look, taken = Looking(PLATFORM, SECOND, THIRD), Taken()
    look.away = (SECOND,)
    backup.take(taken, _as_look(look), "data")  # type: ignore[arg-type]
    assert [source.name for source in taken.sources] == ["data-platform-1", "data-platform-3"]
    assert taken.skipped == ["platform-2 is away"]


@pytest.mark.parametrize("via", ["tunnel", "direct"])
def test_a_redis_outside_needs_no_container(via: str) -> None:
    look = Looking(redis__via=via)
    assert origins(look, "redis") == {"redis": RedisCopy()}
    assert look.asked == 0


def test_a_broker_by_http_needs_no_container() -> None:
    look = Looking(rabbitmq__via="http")
    assert origins(look, "rabbitmq") == {"rabbitmq": Definitions()}
    assert look.asked == 0


@pytest.mark.parametrize(("what", "program"), [("redis", "redis-cli --rdb -"), ("rabbitmq", "export_definitions -")])
def test_what_runs_in_the_container_is_bounded_there(what: str, program: str) -> None:
    (origin,) = origins(Looking(), what).values()
    assert isinstance(origin, Command)
    assert "docker exec c0ffee timeout -k 2 1800 " in str(origin)
    assert str(origin).endswith(program)


def test_a_folder_that_is_not_there_is_named_with_its_machine() -> None:
    """The vendor's own `/var/travis` is taken where `data_dir` is not configured."""
    platform = Target("platform-2", Role.PLATFORM, "prod")
    asked = backup.has_live_database(platform, "/var/travis")
    with pytest.raises(
        Unknown, match=r"look into /var/travis on platform-2 \(No such file.*`data_dir` of that machine"
    ):
        asked.parse(Output(1, "", "No such file or directory"))
    assert asked.parse(Output(1, "/var/travis/postgres/postmaster.pid\n", "find: /var/travis/lost: Permission denied"))
