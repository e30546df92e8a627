"""What docker's and the worker's words are read as, and how versions compare."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.errors import Unknown
from bot.core.plan import narrows
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import docker, pool, settings, worker
from handlers.toolbox.docker import numbers, older
from handlers.worker_capacity import table

MACHINE = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")
PARTS = st.lists(st.integers(0, 99), min_size=1, max_size=4)
TAILS = st.sampled_from(["", "-ce", "-ce-rc1", "+dfsg1", "~ce", "-0ubuntu2", "-rd"])


def spelled(parts: list[int], tail: str = "", width: int = 1) -> str:
    return ".".join(f"{part:0{width}}" for part in parts) + tail


def padded(parts: list[int]) -> list[int]:
    return parts + [0] * (4 - len(parts))


# ---------------------------------------------------------------- versions


@given(PARTS, TAILS, st.integers(1, 2))
def test_numbers_are_those_before_the_first_word(parts: list[int], tail: str, width: int) -> None:
    assert numbers(spelled(parts, tail, width)) == tuple(parts)


@given(PARTS, PARTS, TAILS, TAILS)
def test_older_is_the_order_of_the_numbers(one: list[int], other: list[int], tail: str, another: str) -> None:
    assert older(spelled(one, tail), spelled(other, another)) == (padded(one) < padded(other))


@given(PARTS, PARTS, PARTS)
def test_older_is_an_order(one: list[int], two: list[int], three: list[int]) -> None:
    a, b, c = spelled(one), spelled(two), spelled(three)
    assert not older(a, a)
    assert not (older(a, b) and older(b, a))
    assert not (older(a, b) and older(b, c)) or older(a, c)


@given(st.text(max_size=60).map(lambda text: f"x{text}"))
def test_what_is_no_version_is_not_known(text: str) -> None:
    with pytest.raises(Unknown, match="is no version"):
        numbers(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("17.06.1-ce", "17.06.2-ce"),
        ("1.12.6", "17.06.2-ce"),
        ("17.06.2-ce", "18.09.7"),
        ("18.09.7", "29.0.1"),
        ("1.24", "1.44"),
        ("1.9", "1.24"),
        ("1.24", "1.24.1"),
    ],
)
def test_real_versions(one: str, other: str) -> None:
    assert older(one, other)
    assert not older(other, one)


@pytest.mark.parametrize("same", [("17.06.2-ce", "17.06.2"), ("29.0", "29.0.0"), ("1.24", "1.24")])
def test_the_same_version_is_not_older(same: tuple[str, str]) -> None:
    assert not older(*same)
    assert not older(*reversed(same))


# ---------------------------------------------------------------- docker


@pytest.mark.parametrize("ended", [Output(None), Output(None, "18.06.3-ce\n")], ids=["nothing", "half an answer"])
def test_a_docker_that_was_ended_is_silent(ended: Output) -> None:
    assert docker.state(MACHINE).parse(ended) == docker.SILENT


@pytest.mark.parametrize("said", [Output(1, "", "sudo: a password is required"), Output(0, "\n")])
def test_any_other_end_is_not_known(said: Output) -> None:
    with pytest.raises(Unknown):
        docker.state(MACHINE).parse(said)


def test_a_client_without_a_daemon_says_so() -> None:
    gone = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?\n"
    assert docker.state(MACHINE).parse(Output(1, "\n", gone)) == docker.DOWN
    assert docker.state(MACHINE).parse(Output(0, "18.06.3-ce\n", "WARNING: No swap limit support")) == docker.ANSWERS


def test_a_machine_without_docker_says_so() -> None:
    """timeout says it, inside sudo; where builds run in LXD that is as it should be."""
    said = Output(127, "", "timeout: failed to run command 'docker': No such file or directory\n")
    assert docker.state(MACHINE).parse(said) == docker.ABSENT


def test_every_question_to_docker_is_bounded() -> None:
    """Those to a daemon that may hang; five of them have to fit into one round of ninety seconds."""
    asked = (docker.state(MACHINE), docker.versions(MACHINE), docker.build_containers(MACHINE))
    for each in asked:
        assert str(each.question).startswith("sudo -n timeout -k 2 15 docker ")


def test_the_log_counts_from_the_last_start() -> None:
    put_back = 'level=error msg="couldn\'t start instance, attempting requeue"'
    old = f'{put_back} err="daemon:client and server don\'t have same version"\n'
    text = f'{old}msg="worker started"\n'
    assert docker.complaints(MACHINE, worker.UPSTART).parse(Output(0, text)) == docker.Complaints()
    found = docker.complaints(MACHINE, worker.UPSTART).parse(Output(0, text + old * 2))
    assert (found.requeues, bool(found.old_server)) == (2, True)
    assert "2 times" in str(found)


def test_the_log_names_both_versions() -> None:
    text = 'err="daemon: client version 1.24 is too old. Minimum supported API version is 1.44, please upgrade"'
    found = docker.complaints(MACHINE, worker.SYSTEMD).parse(Output(0, text))
    assert (found.old_client, found.oldest_api) == ("1.24", "1.44")


def test_a_container_is_read_in_its_own_time_zone() -> None:
    row = "4f1c2ab9d0e1\ttravis-job-octo-org-rockets-4711\t2026-11-22 04:00:00 +0100 CET\tUp 3 hours\n"
    [container] = docker.build_containers(MACHINE).parse(Output(0, row))
    assert container.created == datetime(2026, 11, 22, 4, tzinfo=timezone(timedelta(hours=1)))
    assert container.created == datetime(2026, 11, 22, 3, tzinfo=UTC)


@pytest.mark.parametrize("row", ["--all\ttravis-job-a\t", "4f1c2ab9d0e1\tte-main\t", "4f1c2ab9d0e1\ttravis-job-a b\t"])
def test_what_is_no_build_container_is_never_listed(row: str) -> None:
    """Its id would stand in a `docker rm -f`."""
    with pytest.raises(Unknown):
        docker.build_containers(MACHINE).parse(Output(0, f"{row}2026-11-22 04:00:00 +0100 CET\tUp 3 hours\n"))


def test_containers_that_are_left_are_counted_by_their_ids() -> None:
    left, any_left = docker.containers_left(MACHINE, "aaaa,bbbb"), docker.any_left(MACHINE, "aaaa,bbbb")
    for said, count in (("aaaa\ncccc\n", 1), ("cccc\n", 0), ("", 0), ("bbbb\naaaa\n", 2)):
        assert left.parse(Output(0, said)) == count
        assert any_left.parse(Output(0, said)) == (count > 0)
    with pytest.raises(Unknown):
        any_left.parse(Output(None))


def containers(count: int) -> list[docker.Container]:
    made = datetime(2026, 11, 22, 3, tzinfo=UTC)
    return [docker.Container(f"{no:012x}", f"travis-job-octo-org-rockets-{no}", made, "Up") for no in range(count)]


def test_ten_containers_are_removed_by_one_command() -> None:
    """sudo has a rule for each number of them, and for no more."""
    fix = docker.remove(MACHINE, containers(23))
    assert [len(str(change.command).split()) - 5 for change in fix.changes()] == [10, 10, 3]
    assert len(fix.items) == 23
    assert "travis-job-octo-org-rockets-22" in fix.steps[2].does  # type: ignore[union-attr]


def test_a_container_that_went_by_itself_needs_no_new_approval() -> None:
    """What is left is a part of what was agreed to; a container more is not."""
    agreed = docker.remove(MACHINE, containers(5))
    assert narrows(docker.remove(MACHINE, containers(4)), agreed)
    assert not narrows(docker.remove(MACHINE, containers(6)), agreed)


# ---------------------------------------------------------------- settings


def lines(*said: str) -> tuple[settings.Entry, ...]:
    return pool.lines(MACHINE).parse(Output(2, "".join(f"{each}\n" for each in said)))


def test_the_worker_speaks_1_24_unless_it_is_told() -> None:
    found = lines("/etc/default/travis-worker:1:export QUEUE_NAME='builds.bionic'")
    for init in (worker.SYSTEMD, worker.UPSTART):
        assert (pool.pool(found, init).api, pool.pool(found, init).size) == ("1.24", 1)


def test_on_later_systems_the_start_counts_and_not_the_files() -> None:
    found = lines(
        "/etc/default/travis-worker:1:export POOL_SIZE='6'", "/var/tmp/travis-run.d/travis-worker:1:POOL_SIZE=2"
    )
    assert pool.pool(found, worker.SYSTEMD).size == 2
    assert pool.pool(found, worker.UPSTART).size == 6


def test_a_size_that_is_no_number_is_not_known() -> None:
    with pytest.raises(Unknown, match="no number"):
        _ = pool.pool(lines("/etc/default/travis-worker:1:export POOL_SIZE=many"), worker.UPSTART).size


@pytest.mark.parametrize(
    ("said", "edit"),
    [
        ([], "/etc/default/travis-worker: `(no line)` -> `export TRAVIS_WORKER_DOCKER_API_VERSION=1.44`"),
        (
            ["/etc/default/travis-worker:7:export DOCKER_API_VERSION=1.30"],
            "/etc/default/travis-worker: `(no line)` -> `export TRAVIS_WORKER_DOCKER_API_VERSION=1.44`",
        ),
        (
            ["/etc/default/travis-worker-local:7:export TRAVIS_WORKER_DOCKER_API_VERSION=1.30"],
            f"/etc/default/travis-worker-local: `{pool.API_KEY}=1.30` -> `{pool.API_KEY}=1.44`",
        ),
    ],
    ids=["none", "without the prefix", "with it"],
)
def test_the_line_that_counts_is_changed_or_one_is_added_that_wins(said: list[str], edit: str) -> None:
    found = pool.pool(lines("/etc/default/travis-worker:1:export QUEUE_NAME='builds.bionic'", *said), worker.SYSTEMD)
    line = pool.api_line(found, "1.44")
    assert line is not None
    assert str(line) == edit
    allowed = {(each.file, each.expression) for each in pool.possible_api_lines("1.44")}
    assert (line.file, line.expression) in allowed  # those that sudo has a rule for


@pytest.mark.parametrize(
    ("log", "draining"),
    [
        ("SIGUSR2 received, toggling", True),
        ("SIGUSR2 received, toggling\nSIGUSR2 received, toggling", False),
        ("SIGINT received, starting graceful shutdown", True),
        ('SIGINT received, starting graceful shutdown\nmsg="worker started"', False),
        ("received SIGUSR1", False),
    ],
)
def test_draining(log: str, draining: bool) -> None:
    assert pool.draining(MACHINE, worker.SYSTEMD).parse(Output(0, log)) == draining


# ---------------------------------------------------------------- tables


def test_columns_stay_columns_and_a_name_cannot_end_the_code() -> None:
    rows = [("builds.`rm`", 12, 1), ("b", 3, 100)]
    assert table(("queue", "at once", "waiting"), rows).splitlines() == [
        "`queue        at once  waiting`",
        "`builds.'rm'       12        1`",
        "`b                  3      100`",
    ]
