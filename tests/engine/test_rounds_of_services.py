"""A database or redis that cannot be asked: a finding when it is away, not known when it is opsbot's own lack, and
never a veil over what SSH still answers.
"""

from collections.abc import Iterator
from threading import Event

import pytest

from bot.core.command import sh
from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.question import HttpGet, Output, Reached, RedisRead, Response, Rows, TcpProbe, Unanswered
from bot.core.sql import Query
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser, Report, shown_answer
from tests.engine.machines import Machines, Said

FIRST, SECOND = (Target(f"platform-{no}", Role.PLATFORM, "prod", f"10.0.0.{no}") for no in (1, 2))
QUERY, READ = Query("SELECT count(*) AS jobs FROM jobs"), RedisRead(("LLEN", "queue"))
DISK = Fact("disk", Role.PLATFORM, sh("df"), lambda said: str(said.out))
JOBS = Fact("jobs", Role.PLATFORM, QUERY, lambda said: int(said.rows[0]["jobs"]))
QUEUE = Fact("queue", Role.PLATFORM, READ, lambda said: int(said.out))


def full(look: Look, machine: Target) -> Iterator[Finding]:
    if look(DISK) == "full":
        yield Finding("platform.disk-full", Severity.BROKEN, machine, "the disk is full")


def many(look: Look, machine: Target) -> Iterator[Finding]:
    if look(JOBS) > 10:
        yield Finding("jobs.many", Severity.WARN, machine, f"{look(JOBS)} jobs")


def queued(look: Look, machine: Target) -> Iterator[Finding]:
    if look(QUEUE) > 10:
        yield Finding("queue.long", Severity.WARN, machine, f"{look(QUEUE)} in the queue")


DIAGNOSES = [
    Diagnosis(make.__name__, "", Role.PLATFORM, f"Is it {make.__name__}?", make, once=True)
    for make in (full, many, queued)
]


def look(answers: dict[str, dict[str, Said]], *platforms: Target) -> Report:
    site = Site("prod", "travis.example.com", "2.2", platforms or (FIRST,))
    return Diagnoser(site, Machines(answers), lambda *_: None).look(DIAGNOSES, site, Event())


def causes(report: Report) -> list[tuple[str, str]]:
    return sorted((found.finding.cause, found.finding.target.name) for found in report.findings)


def test_what_is_away_is_found_beside_what_ssh_answers() -> None:
    away, gone = (
        Unanswered("the database is away", "database-unreachable"),
        Unanswered("redis is away", "redis-unreachable"),
    )
    report = look({"platform-1": {"df": "full", str(QUERY): away, str(READ): gone}})
    assert causes(report) == [
        ("platform.database-unreachable", "platform-1"),
        ("platform.disk-full", "platform-1"),
        ("platform.redis-unreachable", "platform-1"),
    ]
    assert "PostgreSQL" in next(found.finding.person for found in report.findings if "database" in found.finding.cause)
    assert len(report.unknown) == 2


@pytest.mark.parametrize(
    ("what", "under"), [("full", "platform.disk-full"), ("fine", "")], ids=["the app cannot run", "nothing says why"]
)
def test_a_service_that_is_away_is_a_consequence_of_what_keeps_the_app_from_running(what: str, under: str) -> None:
    away = Unanswered("redis is away", "redis-unreachable")
    report = look({"platform-1": {"df": what, str(QUERY): Rows(({"jobs": 1},)), str(READ): away}})
    [found] = [found for found in report.findings if found.finding.cause == "platform.redis-unreachable"]
    assert found.under == under


@pytest.mark.parametrize("cause", ["sql", "database-refused", "container", "not-configured"])
def test_what_opsbot_may_not_ask_is_not_known(cause: str) -> None:
    refused = Unanswered("column jobs does not exist", cause)
    report = look({"platform-1": {"df": "full", str(QUERY): refused, str(READ): "3"}})
    assert causes(report) == [("platform.disk-full", "platform-1")]
    assert report.unknown == ("platform-1: Is it many?: not known, because column jobs does not exist",)


def test_rows_that_were_cut_are_not_read() -> None:
    report = look({"platform-1": {"df": "empty", str(QUERY): Rows(({"jobs": 99},), truncated=True), str(READ): "3"}})
    assert causes(report) == []
    assert report.unknown == ("platform-1: jobs: the answer was too long and is cut",)


def test_a_page_that_was_cut_is_not_read() -> None:
    def reads(look: Look, machine: Target) -> Iterator[Finding]:
        look(Fact("names", Role.PLATFORM, HttpGet("http://a/names"), lambda said: str(said.body)))
        yield from ()

    site = Site("prod", "travis.example.com", "2.2", (FIRST,))
    machines = Machines({"platform-1": {"GET http://a/names": Response(200, "[1, 2", truncated=True)}})
    report = Diagnoser(site, machines, lambda *_: None).look(
        [Diagnosis("names", "", Role.PLATFORM, "Names?", reads)], site, Event()
    )
    assert report.unknown == ("platform-1: names: the answer was too long and is cut",)


def test_what_opsbot_asks_itself_is_asked_about_one_platform_only() -> None:
    """It would be the same server again, and cost another wait."""

    def reads(look: Look, machine: Target) -> Iterator[Finding]:
        look(Fact("nodes", Role.PLATFORM, HttpGet("rabbitmq:/api/nodes"), lambda said: str(said.body)))
        yield from ()

    site = Site("prod", "travis.example.com", "2.2", (FIRST, SECOND))
    machines = Machines({"platform-1": {"GET rabbitmq:/api/nodes": Unanswered("no answer", "rabbitmq-unreachable")}})
    report = Diagnoser(site, machines, lambda *_: None).look(
        [Diagnosis("nodes", "", Role.PLATFORM, "Nodes?", reads, once=True)], site, Event()
    )
    assert causes(report) == [("platform.rabbitmq-unreachable", "platform-1")]
    assert machines.asked == [("platform-1", "GET rabbitmq:/api/nodes")]


def test_a_database_that_is_away_moves_only_what_needs_it_to_another_platform() -> None:
    """Whole: its finding, its fixes and all that it asks are of one machine."""

    def of_both(look: Look, machine: Target) -> Iterator[Finding]:
        look(DISK)
        yield Finding("jobs.late", Severity.WARN, machine, f"{look(JOBS)} jobs")

    def of_the_disk(look: Look, machine: Target) -> Iterator[Finding]:
        yield Finding("disk.seen", Severity.WARN, machine, look(DISK))

    site = Site("prod", "travis.example.com", "2.2", (FIRST, SECOND))
    away = Unanswered("the database is away", "database-unreachable")
    machines = Machines(
        {"platform-1": {"df": "fine", str(QUERY): away}, "platform-2": {"df": "full", str(QUERY): Rows(({"jobs": 7},))}}
    )
    made = [Diagnosis(look.__name__, "", Role.PLATFORM, "?", look, once=True) for look in (of_both, of_the_disk)]
    report = Diagnoser(site, machines, lambda *_: None).look(made, site, Event())
    assert report.unknown == ()
    assert [(found.finding.title, found.finding.target.name) for found in report.findings] == [
        ("7 jobs", "platform-2"),
        ("fine", "platform-1"),
    ]


def test_evidence_is_what_was_said_and_not_how_it_is_kept() -> None:
    """It is read by people at night, and the vendor's support: nothing in it looks like Python."""
    assert shown_answer(READ, Output(0, "sync\nhub\n")) == f"{READ}\nsync\nhub\n(exit 0)"
    assert shown_answer(sh("df", "/"), Output(1, "a\n", "b\n")) == "$ df /\na\nb\n(exit 1)"
    two = Rows(({"queue": "builds.linux", "jobs": 2}, {"queue": None, "jobs": 1}))
    assert shown_answer(QUERY, two).splitlines()[1:] == [
        '{"queue": "builds.linux", "jobs": 2}',
        '{"queue": null, "jobs": 1}',
    ]
    assert shown_answer(QUERY, Rows()).endswith("\n(no rows)")
    page = HttpGet("rabbitmq:/api/nodes")
    assert shown_answer(page, Response(200, "[]\n", {"server": "x"})) == f"{page}\nHTTP status 200\n[]"
    assert shown_answer(TcpProbe("127.0.0.1", 5672), Reached("refused")).endswith("\nrefused")
