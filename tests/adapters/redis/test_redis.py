"""Redis: what redis-cli would print, by every way; only commands that read."""

import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event as Flag

import pytest

from bot.adapters.containers import Containers
from bot.adapters.redis import CONTAINER, DIRECT, TUNNEL, Redis, Server, only_reads
from bot.adapters.ssh import Ssh
from bot.core.question import Answer, Output, RedisRead, Unanswered
from bot.core.target import Role, Target
from tests.rigs import redis as rig
from tests.rigs.certificate import localhost
from tests.rigs.sshd import HostSpec, free_port, sshd
from tests.rigs.te_main import Container

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
WAYS = (CONTAINER, DIRECT, TUNNEL)
By = Callable[[str, str], Redis]
SETUP = (
    "RPUSH sidekiq:queue:sync one two|three",
    "SADD sidekiq:processes hub:1 tasks:2",
    "HSET hash field value other ü",
    "SET text hello",
    "SET looks_like_trouble ERR_not_really",
    "ZADD retry 1.5 later 2 last",
)


@pytest.fixture(scope="module")
def server() -> Iterator[rig.Server]:
    with rig.server() as running:
        for line in SETUP:
            running.cli(*line.split())
        running.cli("SET", "lines", "a\nb\n")
        running.cli("SET", "empty", "")
        yield running


@pytest.fixture(scope="module")
def container(server: rig.Server) -> Iterator[Container]:
    with tempfile.TemporaryDirectory(prefix="opsbot-docker-") as folder:
        yield Container(Path(folder), redis=server.port)


@pytest.fixture(scope="module")
def ssh(container: Container) -> Iterator[Ssh]:
    with ExitStack() as until_the_end:
        machines = until_the_end.enter_context(
            sshd(HostSpec("platform-1", programs={"docker": container.program}, recorded=False))
        )
        made = Ssh({"prod/platform-1": machines.host("platform-1")})
        until_the_end.callback(made.close)
        yield made


@pytest.fixture
def by(ssh: Ssh) -> By:
    def make(via: str, url: str) -> Redis:
        return Redis({"prod": Server(via, "" if via == CONTAINER else url)}, ssh, Containers(ssh))

    return make


def ask(redis: Redis, *lines: str) -> list[Answer | Unanswered]:
    return redis.ask(PLATFORM, [RedisRead(tuple(line.split())) for line in lines], Flag())


READS = (
    "PING", "LLEN sidekiq:queue:sync", "LRANGE sidekiq:queue:sync 0 -1", "SCARD sidekiq:processes", "HGETALL hash",
    "HGET hash other", "GET text", "GET looks_like_trouble", "GET nosuch", "GET empty", "GET lines",
    "LRANGE nosuch 0 -1", "ZRANGE retry 0 -1 WITHSCORES", "EXISTS text nosuch", "TYPE hash", "TTL text", "ROLE",
    "CONFIG GET maxmemory-policy", "HMGET hash field nosuch", "LLEN text", "GET", "SENTINEL masters", "DBSIZE",
)  # fmt: skip


def test_every_way_answers_as_redis_cli_prints(by: By, server: rig.Server) -> None:
    in_container, direct, tunnel = (ask(by(via, server.url), *READS) for via in WAYS)
    assert in_container == direct == tunnel
    for line, said in zip(READS, direct, strict=True):
        assert isinstance(said, Output), said
        printed = server.cli(*line.split())
        assert (said.out or said.err).strip() == printed.strip(), line
    answers = dict(zip(READS, direct, strict=True))
    assert answers["LLEN sidekiq:queue:sync"] == Output(0, "2\n")
    assert answers["GET nosuch"] == answers["GET empty"] == Output(0, "\n")
    assert answers["HGETALL hash"] == Output(0, "field\nvalue\nother\nü\n")
    assert answers["LLEN text"] == Output(1, err="WRONGTYPE Operation against a key holding the wrong kind of value\n")


@pytest.mark.parametrize(
    "key",
    ["Could not connect to it", "a key", 'quoted "so"', "back\\slash \\x41", "line\nPING", "ü", "", "'", "$(id)", "-x"],
)
def test_a_key_may_be_anything(by: By, server: rig.Server, key: str) -> None:
    server.cli("SET", key, f"is {key}")
    for via in WAYS:
        (said,) = by(via, server.url).ask(PLATFORM, [RedisRead(("GET", key))], Flag())
        assert said == Output(0, f"is {key}\n"), via
    server.cli("DEL", key)


def test_info_has_its_sections(by: By, server: rig.Server) -> None:
    for via in WAYS:
        (said,) = ask(by(via, server.url), "INFO memory")
        assert isinstance(said, Output)
        assert "used_memory:" in said.out
        assert "maxmemory_policy:noeviction" in said.out


@pytest.mark.parametrize(
    "line",
    ["DEL text", "FLUSHALL", "SET text gone", "CONFIG SET dir /tmp", "EVAL return1 0", "SENTINEL failover main",
     "KEYS *", "BRPOP sidekiq:queue:sync 0", "SUBSCRIBE x",
     "MONITOR", "SHUTDOWN", "CONFIG", "-h 10.0.0.1 PING", "--eval x"],
)  # fmt: skip
def test_what_does_more_than_read_is_refused(by: By, server: rig.Server, line: str) -> None:
    for via in WAYS:
        refused, pong = ask(by(via, server.url), line, "PING")
        assert isinstance(refused, Unanswered)
        assert (refused.cause, "redis was not asked" in refused.why) == ("redis-refused", True)
        assert pong == Output(0, "PONG\n")
    assert server.cli("GET", "text") == "hello\n"
    assert not only_reads(())


def test_many_questions_use_one_connection(by: By, server: rig.Server) -> None:
    before = connections(server)
    ask(by(DIRECT, server.url), *["PING"] * 20)
    assert connections(server) - before == 2, "one for the questions, one for asking how many"


def connections(server: rig.Server) -> int:
    said = server.cli("INFO", "stats").splitlines()
    return int(next(line for line in said if line.startswith("total_connections_received:")).partition(":")[2])


def test_a_password_is_used_and_never_said(by: By) -> None:
    with rig.server("hunter2-of-redis") as locked:
        assert ask(by(DIRECT, locked.url), "PING") == [Output(0, "PONG\n")]
        assert ask(by(TUNNEL, locked.url), "PING") == [Output(0, "PONG\n")]
        for url in (f"redis://127.0.0.1:{locked.port}", locked.url.replace("hunter2-of-redis", "another-one")):
            (said,) = ask(by(DIRECT, url), "PING")
            assert isinstance(said, Unanswered)
            assert said.cause == "redis-refused"
            assert "another-one" not in said.why


def test_nobody_listens(by: By) -> None:
    for via in (DIRECT, TUNNEL):
        (said,) = ask(by(via, "redis://:hunter2@127.0.0.1:1/0"), "PING")
        assert isinstance(said, Unanswered)
        assert (said.cause, "hunter2" in said.why) == ("redis-unreachable", False)
        assert "127.0.0.1:1" in said.why
        assert ("through platform-1 cannot be reached: nothing takes connections there" in said.why) is (via == TUNNEL)


def test_redis_cli_that_cannot_connect(by: By, container: Container) -> None:
    for said, cause in (
        ("echo 'Could not connect to Redis at 127.0.0.1:6379: Connection refused' >&2; exit 1", "redis-unreachable"),
        ("echo 'LOADING Redis is loading the dataset in memory'; echo; exit 0", "redis-unreachable"),
        ("echo 'NOAUTH Authentication required.'; echo; exit 0", "redis-refused"),
        ("echo 'exec: \"redis-cli\": executable file not found in $PATH' >&2; exit 126", "redis-refused"),
    ):
        container.say("redis-cli", said)
        (answer,) = ask(by(CONTAINER, ""), "PING")
        assert isinstance(answer, Unanswered), answer
        assert answer.cause == cause, answer
    container.say("redis-cli", "")


def test_a_frozen_server_is_not_waited_for(by: By, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.adapters.redis.connection.WITHIN", 0.5)
    with rig.server() as frozen:
        os.kill(frozen.pid, signal.SIGSTOP)
        for via in (DIRECT, TUNNEL):
            first, second = ask(by(via, frozen.url), "PING", "DBSIZE")
            assert isinstance(first, Unanswered)
            assert first == second
            assert (first.cause, "did not answer in time" in first.why) == ("redis-unreachable", True)


def test_an_installation_without_redis_is_not_broken(by: By) -> None:
    assert ask(by(DIRECT, ""), "PING") == [Unanswered("opsbot is not set up to ask redis of prod", "not-configured")]


def test_a_certificate_is_that_of_the_name_in_the_url(by: By, tmp_path: Path) -> None:
    """Through a tunnel too, though the connection goes to a port of this machine."""
    certificate, key = localhost(tmp_path)
    more = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")
    port = str(free_port("127.0.0.1"))
    with rig.server("", "--tls-port", port, *more):
        for host, works in (("localhost", True), ("127.0.0.1", False)):
            for via in (DIRECT, TUNNEL):
                url = f"rediss://{host}:{port}/0?ssl_ca_certs={certificate}"
                (said,) = ask(by(via, url), "PING")
                assert isinstance(said, Output) is works, said
        (unknown,) = ask(by(DIRECT, f"rediss://localhost:{port}/0"), "PING")
        assert isinstance(unknown, Unanswered)
        assert unknown.cause == "redis-refused"
        assert "certificate" in unknown.why
