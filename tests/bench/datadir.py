"""A platform's /var/travis of 25,000 files, as far as that can be had here: mostly what PostgreSQL itself has written.

By bytes: two thirds are tables and indexes of Travis' own schema (jobs, builds, logs), a sixth is write-ahead log, the
rest are logs of the application, plain and rotated, a copy of redis, and many small files of configuration.
"""

import gzip
import os
import shutil
import uuid
from pathlib import Path
from random import Random

import psycopg
from psycopg import Connection

from tests.rigs import postgres
from tests.rigs.backup import SCHEMA

FILES = 25_000
JOBS, LOGS, LINES = 250_000, 7_000, 420_000
WAL = {"min_wal_size": "128MB", "wal_init_zero": "on"}
PAST = "SET travis.past = on"
BUILDS = """
INSERT INTO builds (repository_id, number, created_at, updated_at, started_at, finished_at, config, state, duration,
                    owner_id, owner_type, event_type, branch, request_id)
SELECT n % 340, n, at, at, at + interval '40 s', at + interval '6 min', format(CONFIG, n % 17, n % 340), 'passed',
       200 + n % 391, n % 80, 'Organization', 'push', (ARRAY['main', 'release', 'fix-' || n % 977])[1 + n % 3], n
  FROM generate_series(1, MANY) AS n, LATERAL (SELECT timestamp '2026-01-01' + n * interval '97 s' AS at) AS times
""".replace("CONFIG", "'---\n:language: ruby\n:rvm: 2.%s\n:script: bundle exec rake ci:%s\n:os: linux\n'")
JOBS_OF_BUILDS = """
INSERT INTO jobs (repository_id, source_id, source_type, queue, type, state, number, config, worker, created_at,
                  updated_at, queued_at, received_at, started_at, finished_at, owner_id, owner_type)
SELECT repository_id, id, 'Build', 'builds.trusty', 'Job::Test', 'passed', number || '.' || part, config,
       format('travis-worker-%s@%s.worker-%s', md5(id::text), part, id % 23), created_at, finished_at, created_at,
       started_at, started_at, finished_at, owner_id, owner_type
  FROM builds, generate_series(1, MANY) AS part
"""
STEPS = (
    "travis_fold:start:worker_info\r\x1b[0K\x1b[33;1mWorker information\x1b[0m\nhostname: {id}@1.worker-{no}",
    "\x1b[32;1m$ git clone --depth=50 --branch=main https://github.com/octo-org/r{no}.git octo-org/r{no}\x1b[0m",
    "remote: Counting objects: {no}, done.\nremote: Compressing objects: 100% ({no}/{no}), done.",
    "HEAD is now at {id}",
    "\x1b[32;1m$ bundle install --jobs=3 --retry=3 --deployment\x1b[0m\nFetching gem metadata from https://rubygems.org/",
    "Installing activesupport 4.2.{no}\nUsing rake 12.3.{no}\nUsing i18n 0.9.{no}",
    "..........F.......*......................................................... {no} examples",
    "  {no}) Repository {id} finds what was pushed\n     Failure/Error: expect(found.id).to eq({no})",
    "travis_time:end:{id}:start={no},finish={no},duration={no}",
)


def plant(folder: Path, share: float) -> int:
    """That share of such a tree, written below `folder`; how many bytes it has."""
    chance = Random(1)
    cluster(folder / "postgresql", share, chance)
    logs(folder / "log", int(LINES * share), chance)
    (folder / "redis").mkdir()
    (folder / "redis" / "dump.rdb").write_bytes(gzip.compress(chance.randbytes(int(4e6 * share))))
    there = sum(len(names) for _, _, names in os.walk(folder))
    for no in range(int(FILES * share) - there):
        small(folder / f"slanger/d{no % 200}/{no}.yml", no, chance)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def cluster(folder: Path, share: float, chance: Random) -> None:
    """A cluster with builds, their jobs and the logs of the last of them."""
    with postgres.server("15", settings=WAL) as server, server.database() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            fill(connection, share, chance)
        shutil.copytree(server.folder / "data", folder, ignore=shutil.ignore_patterns("postmaster.*"))
    for path in (folder, *folder.rglob("*")):  # whoever logs in may read it here
        path.chmod(0o755 if path.is_dir() else 0o644)


def fill(connection: Connection[tuple[object, ...]], share: float, chance: Random) -> None:
    connection.execute(SCHEMA.read_bytes())
    connection.execute(PAST)
    connection.execute(BUILDS.replace("MANY", str(int(JOBS * share / 2))).encode())
    connection.execute(JOBS_OF_BUILDS.replace("MANY", "2").encode())
    with connection.cursor().copy("COPY logs (job_id, content, created_at) FROM STDIN") as copy:
        for no in range(int(LOGS * share)):
            copy.write_row((no, log(chance), "2026-11-03 03:00:00"))
    connection.execute("CHECKPOINT")


def log(chance: Random) -> str:
    """What a build has printed."""
    steps = (chance.choice(STEPS) for _ in range(chance.randint(50, 400)))
    return "\n".join(step.format(id=name(chance), no=chance.randint(1, 99_999)) for step in steps)


def logs(folder: Path, lines: int, chance: Random) -> None:
    """The application's own, of today; and of days before, which were packed when they were rotated."""
    folder.mkdir()
    with (folder / "travis.log").open("w") as today:
        for no in range(lines):
            today.write(line(no, chance))
    for day in range(1, 8):
        text = "".join(line(no, chance) for no in range(lines // 8))
        (folder / f"travis.log.{day}.gz").write_bytes(gzip.compress(text.encode()))


def line(no: int, chance: Random) -> str:
    at, uid = f"2026-11-03T03:{no // 600 % 60:02}:{no // 10 % 60:02}", name(chance)
    service = chance.choice(("api", "hub", "scheduler", "gatekeeper", "build"))
    ends = chance.choice(("state=started", f"state=passed duration={no % 9_999}", "queue=builds.trusty status=200"))
    return f"{at} app[{service}]: I TID={uid[:12]} request_id={uid} job={chance.randint(1, 999_999)} {ends}\n"


def small(path: Path, no: int, chance: Random) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    keys = (
        f"{chance.choice(('host', 'token', 'port', 'queue', 'limit'))}_{each}: {name(chance)}" for each in range(20)
    )
    path.write_text(f"# {no}\n" + "\n".join(keys) + "\n")


def name(chance: Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128)))
