"""What the two queries read in a real database: logs that are put together, and those whose parts still come."""

from collections.abc import Sequence
from threading import Event

import psycopg
import pytest

from handlers.toolbox import downloads
from tests.installation.practice import Practice

SAID = "curl: (7) Failed to connect to nodejs.org port 443: Connection timed out"


def failed(practice: Practice, *, ago: float = 300.0, state: str = "errored", repository: int = 1) -> int:
    database = practice.installation.database
    assert database is not None
    return database.add_job(state, ago=ago, repository_id=repository)


def log(practice: Practice, job: int, text: str, *, whole: bool) -> None:
    database = practice.installation.database
    assert database is not None
    made = "INSERT INTO logs (job_id, content, created_at, updated_at, aggregated_at) VALUES (%s, %s, now(), now(), "
    if whole:
        database.run(f"{made}now())", job, text)
        return
    [row] = database.run(f"{made}NULL) RETURNING id", job, None)
    for number, part in enumerate(("$ nvm install\r\n", text)):
        database.run(
            "INSERT INTO log_parts (log_id, content, number, created_at) VALUES (%s, %s, %s, now())",
            row["id"], part, number,
        )  # fmt: skip


def complaints(practice: Practice, jobs: Sequence[int]) -> dict[int, str]:
    fact = downloads.complaints(",".join(map(str, jobs)))
    return {each.job: each.words for each in practice.diagnoser.answer(fact, Event())}


@pytest.mark.parametrize("whole", [True, False], ids=["put together", "in parts"])
def test_curls_line_is_found_wherever_the_log_lies(practice: Practice, whole: bool) -> None:
    job = failed(practice)
    log(practice, job, f"travis_time:start\r\n\x1b[31m{SAID}\x1b[0m\r\nDone.\r\n", whole=whole)
    [words] = complaints(practice, [job]).values()
    assert words.startswith(SAID)
    assert words.isprintable()


def test_other_words_of_curl_and_other_jobs_are_left_alone(practice: Practice) -> None:
    other, mine = failed(practice), failed(practice)
    log(practice, other, SAID, whole=True)
    log(practice, mine, "curl: (22) The requested URL returned error: 404\r\n", whole=True)
    assert complaints(practice, [mine]) == {}


def test_only_what_failed_within_a_day_is_looked_at(practice: Practice) -> None:
    before = {job.id for job in practice.diagnoser.answer(downloads.failed_jobs(), Event())}
    new, errored = failed(practice, state="failed"), failed(practice, repository=3)
    failed(practice, ago=2 * 86400.0)
    failed(practice, state="passed")
    found = {job.id: job.repository for job in practice.diagnoser.answer(downloads.failed_jobs(), Event())}
    assert found.keys() - before == {new, errored}
    assert found[errored] == 3


def test_so_many_jobs_and_no_more(practice: Practice) -> None:
    for _ in range(downloads.MOST_JOBS + 5):
        newest = failed(practice, ago=10.0)
    jobs = practice.diagnoser.answer(downloads.failed_jobs(), Event())
    assert len(jobs) == downloads.MOST_JOBS
    assert newest in [job.id for job in jobs]


QUERIES = {
    "jobs": (downloads.FAILED, [], "index_jobs_on_"),
    "logs": (downloads.COMPLAINTS, [[1, 2, 3], [1, 2, 3]], "job_id"),
    "parts": (downloads.COMPLAINTS, [[1, 2, 3], [1, 2, 3]], "log_id"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_the_queries_go_by_an_index(practice: Practice, dsn: str, name: str) -> None:
    text, parameters, index = QUERIES[name]
    with psycopg.connect(dsn) as connection:
        connection.execute("SET enable_seqscan = off")  # so few rows would be read one by one
        plan = "\n".join(row[0] for row in connection.execute(f"EXPLAIN {text}".encode(), parameters))
    assert any("Index" in line and index in line for line in plan.splitlines()), plan
    assert "Seq Scan" not in plan
