"""The way back as a person types it: the very text that people are shown, at a terminal, against real servers.

Every kind is backed up by opsbot's own code from a machine that is reached by OpenSSH, spoilt, and put back by what the
answer to `restore N` says (`opsbot backup decrypt`) and by what docs/backups.md says (Debian's `age -d`). Only what is
in capitals is filled in. On the machine, docker runs this host's own programs.
"""

import json
import os
import pty
import re
import select
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as Flag

import httpx
import psycopg
import pyrage
import pytest

from bot.adapters.database import DumpsInside
from bot.adapters.origins import Origins
from bot.adapters.stream import OpenSsh
from bot.adapters.vault import ObjectVault, objects
from bot.core import restore
from bot.core.backup import DumpInside, Packed, Source, Stored, object_key
from bot.core.command import Command
from bot.core.keeping import Backup, Piece
from bot.core.target import Role, Site, Target
from bot.engine.shelf import how_to_restore
from handlers.toolbox import backup
from tests.rigs import postgres, rabbitmq, redis
from tests.rigs.sshd import ROOT, HostSpec, free_port, sshd
from tests.rigs.te_main import Container

CHECKOUT = Path(__file__).parents[2]
PAGE = CHECKOUT / "docs/backups.md"
PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "HOST")  # as the page calls it
SITE = Site("prod", "travis.example.com", "2.2", (PLATFORM,))
NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
KEY = b"an encryption key of 34 characters"
SETTINGS = {"hostname": {"value": "travis.example.com"}, "rabbitmq_password": {"value": "only for tests"}}
SCHEMA = CHECKOUT / "bot/sandbox/installation/schema/travis-2.2.sql"
SECONDS = 60.0
POLICY = "policies/travis/expire"
USERS = "SELECT u::text FROM users u ORDER BY 1"
OWNER = 64_001  # of a file, nobody on this machine
FENCE = re.compile(r"^```\w*\n(# 1\. .*?)\n```$", re.M | re.S)
STEP = re.compile(r"^# \d+\. (.*)\.\n((?:.+\n?)+)", re.M)

# What is `/` on the machine is a folder of the test.
TAR = """#!/bin/bash
words=()
for word; do [ "$word" != / ] || word={root}; words+=("$word"); done
exec /usr/bin/tar "${{words[@]}}"
"""
MV = """#!/bin/bash
words=()
for word; do [ "$word" = -T ] || word={root}"$word"; words+=("$word"); done
exec /usr/bin/mv "${{words[@]}}"
"""
REPLICATEDCTL = """#!/bin/bash
cd {state}
case "$*" in
"app-config export --hidden -o json") cat app-config ;;
"params export -o json" | "params export") cat params ;;
"app-config import") cat > app-config ;;
"app start" | "app stop" | "app apply-config") echo "$2" >> told ;;
*) echo "unknown command: $*" >&2; exit 1 ;;
esac
"""
# Its own network, as a container has: the second redis finds a port that nobody else of this host uses.
REDIS = '#!/bin/bash\nexec /usr/bin/{name} {words} "${{@/6390/{spare}}}"\n'
SSH = """#!/bin/bash
[ "$1" = HOST ] || {{ echo "ssh: Could not resolve hostname $1" >&2; exit 255; }}
shift
exec /usr/bin/ssh -F none -i {key} -o UserKnownHostsFile={known} -p {port} {user}@{host} "$@"
"""


@dataclass
class World:
    """A platform machine with all that a backup is made of, and a person with a terminal and the secret key."""

    folder: Path
    server: postgres.Server
    redis: redis.Server
    broker: rabbitmq.Broker
    api: httpx.Client
    container: Container
    vault: ObjectVault
    identity: pyrage.x25519.Identity
    pieces: list[Piece] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def dsn(self) -> str:
        return self.server.dsn_of("travis_production")

    def store(self, kind: str, source: Source, folder: str = "set") -> Piece:
        key = object_key("prod", folder, source.name, source.form, source.packed)
        return self._kept(kind, self.vault.put(source, key, lambda _: None, Flag()))

    def store_key(self) -> Piece:
        where = object_key("prod=key", "set", "encryption-key", "bytes")
        return self._kept("key", self.vault.put_bytes("encryption-key", KEY, where))

    def _kept(self, kind: str, stored: Stored) -> Piece:
        """Recorded, and fetched from the store by the person."""
        shutil.copy(self.folder / "store" / stored.key, self.folder / "desk")
        return Piece(1, kind, stored.name, stored.key, 1, 1, stored.sha256, "", NOW, NOW, warnings=stored.warnings)

    def answer(self, pieces: Sequence[Piece], site: Site = SITE) -> dict[str, str]:
        """The steps of what `restore 12` says, by their titles."""
        said = how_to_restore(Backup(12, "prod", "all", 1, "set", NOW, NOW, pieces=tuple(pieces)), site)
        return steps(said.replace("STORE", (self.folder / "store").as_uri()))

    def rows(self, sql: str) -> list[str]:
        with psycopg.connect(self.dsn) as connection:
            return [str(row[0]) for row in connection.execute(sql.encode())]

    def spoil(self, sql: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(sql.encode())

    def types(self, text: str, key: str = "") -> tuple[int, str]:
        """What a terminal shows when a person with that key types this, and how the last command ended."""
        desk = self.folder / "desk"
        (desk / restore.KEY_FILE).write_text(key or str(self.identity))
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (24, 80))
        environment = {"PATH": f"{self.folder / 'person'}:{os.defpath}", "HOME": str(desk), "PYTHONPATH": str(CHECKOUT)}
        words = ["bash", "-o", "pipefail", "-c", text]
        with subprocess.Popen(words, cwd=desk, env=environment, stdin=slave, stdout=slave, stderr=slave) as person:
            os.close(slave)
            try:
                return self._watch(person, master)
            finally:
                person.kill()
                os.close(master)

    def _watch(self, person: "subprocess.Popen[bytes]", terminal: int) -> tuple[int, str]:
        shown, until = b"", time.monotonic() + SECONDS
        while time.monotonic() < until:
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                shown += os.read(terminal, 1 << 16)
            except OSError:  # nobody has it open any more
                return person.wait(SECONDS), shown.decode(errors="replace").replace("\r\n", "\n")
        raise AssertionError(f"it does not end; the terminal shows: {shown.decode(errors='replace')}")


def steps(text: str) -> dict[str, str]:
    (script,) = FENCE.findall(text)
    return dict(STEP.findall(script))


def program(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with ExitStack() as until_the_end:
        server = until_the_end.enter_context(postgres.server("15"))
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="opsbot-by-hand-")))
        folder.chmod(0o755)
        for name in ("root", "state", "desk", "container"):
            (folder / name).mkdir()
        running = until_the_end.enter_context(redis.server("", "--appendonly", "yes"))
        broker = rabbitmq.Broker(Path(until_the_end.enter_context(tempfile.TemporaryDirectory())), management=True)
        until_the_end.callback(broker.close)
        starting = ThreadPoolExecutor(1).submit(broker.start)
        container = Container(folder / "container", server.folder, server.port, running.port)
        rig = until_the_end.enter_context(
            sshd(HostSpec("platform-1", programs=programs(folder, server, running, broker, container), recorded=False))
        )
        host = rig.host("platform-1")
        program(folder / "person" / "pg_restore", container.wrapped(server.programs / "pg_restore"))
        program(folder / "person" / "opsbot", f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bot.cli "$@"\n')
        program(
            folder / "person" / "ssh",
            SSH.format(key=host.key_file, known=host.known_hosts, port=host.port, user=host.user, host=host.host),
        )
        identity = pyrage.x25519.Identity.generate()
        machines = OpenSsh({"prod/platform-1": host})
        streams = Origins({Command: machines, DumpInside: DumpsInside(machines)})
        vault = ObjectVault(objects((folder / "store").as_uri()), [str(identity.to_public())], streams)
        api = until_the_end.enter_context(httpx.Client(base_url=f"{broker.api_url}/api/", timeout=20))
        made = World(folder, server, running, broker, api, container, vault, identity)
        starting.result()
        furnish(made)
        back_up(made)
        yield made


def programs(
    folder: Path, server: postgres.Server, running: redis.Server, broker: rabbitmq.Broker, container: Container
) -> dict[str, str]:
    spare, root, state = free_port("127.0.0.1"), shlex.quote(str(folder / "root")), shlex.quote(str(folder / "state"))
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in broker.env.items())
    return {
        "docker": container.program,
        "pg_dump": container.wrapped(server.programs / "pg_dump"),
        "pg_restore": container.wrapped(server.programs / "pg_restore"),
        "tar": TAR.format(root=root),
        "mv": MV.format(root=root),
        "replicatedctl": REPLICATEDCTL.format(state=state),
        "redis-cli": REDIS.format(name="redis-cli", words=f"-p {running.port}", spare=spare),
        "redis-server": REDIS.format(name="redis-server", words="--repl-diskless-sync-delay 0", spare=spare),
        "rabbitmqctl": f'#!/bin/sh\ncd /\nexec env -i {environment} {rabbitmq.PROGRAMS}/rabbitmqctl "$@"\n',
    }


def furnish(world: World) -> None:
    """A platform that has been lived in."""
    for sql in (
        "CREATE ROLE travis LOGIN PASSWORD 'only-for-tests'", "CREATE ROLE reader",
        "CREATE DATABASE travis_production OWNER travis",
    ):  # fmt: skip
        with psycopg.connect(world.server.dsn, autocommit=True) as connection:
            connection.execute(sql.encode())
    world.spoil(f"SET ROLE travis; {SCHEMA.read_text()}")
    world.spoil("SET ROLE travis; GRANT SELECT ON users TO reader; INSERT INTO users (login, created_at, updated_at) "
                "SELECT n, now(), now() FROM generate_series(1, 500) AS n")  # fmt: skip
    world.redis.cli("RPUSH", "queue:sync", *map(str, range(100)))
    body = {"pattern": "^short", "definition": {"expires": 1000}, "apply-to": "queues"}
    assert world.api.put(POLICY, json=body).is_success
    for name, content in (("app-config", SETTINGS), ("params", {"LogLevel": "info"})):
        (world.state / name).write_text(json.dumps(content))
    for name in ("var/travis/log/web.log", "var/travis/postgresql/9.6/main/base", "etc/travis/ssl/rabbitmq.cert"):
        (world.root / name).parent.mkdir(parents=True, exist_ok=True)
        (world.root / name).write_text(f"the old {name}")
    log = world.root / "var/travis/log/web.log"
    log.chmod(0o2640)
    log.with_name("latest.log").symlink_to("web.log")
    if ROOT:
        os.chown(log, OWNER, OWNER)


def back_up(world: World) -> None:
    data = backup.data_source(PLATFORM, "/var/travis", "zstd", live=True)
    dump = backup.dump_source(PLATFORM, world.container.id, "main", "travis_production", "travis")
    broker = backup.rabbitmq_source(PLATFORM, world.container.id)
    world.pieces = [
        world.store("data", data), world.store("databases", dump), world.store_key(),
        world.store("redis", backup.redis_source(PLATFORM, world.container.id)), world.store("rabbitmq", broker),
        *(world.store("settings", each) for each in backup.settings_sources(PLATFORM)),
    ]  # fmt: skip


@pytest.fixture(params=["answer", "page"])
def told(request: pytest.FixtureRequest, world: World) -> dict[str, str]:
    """Each step by its title, as people are shown it."""
    return world.answer(world.pieces) if request.param == "answer" else steps(PAGE.read_text())


# ---------------------------------------------------------------- kind by kind


def test_the_rows_of_a_database(world: World, told: dict[str, str]) -> None:
    """Where another role had rights that is not there any more; into a platform that is told to be lived in."""
    there = world.rows(USERS)
    assert len(there) == 500
    world.spoil("DELETE FROM users WHERE id > 300; ALTER TABLE users DROP COLUMN IF EXISTS github_oauth_token CASCADE")
    world.spoil("REVOKE ALL ON users FROM reader; ALTER ROLE reader RENAME TO gone")
    status, shown = world.types(told["See what is there"])
    assert (status, shown) == (0, f"{len(world.rows('SELECT id FROM users'))}\n")
    try:
        assert world.types(told["Load database-main into PostgreSQL"]) == (0, "")
    finally:
        world.spoil("ALTER ROLE gone RENAME TO reader; GRANT SELECT ON users TO reader")
    assert world.rows(USERS) == there
    assert world.rows("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == ["travis"]


@pytest.mark.parametrize(("told", "appendonly"), [("answer", "yes"), ("page", "no")], indirect=["told"])
def test_the_jobs_in_redis(world: World, told: dict[str, str], appendonly: str) -> None:
    """Also where redis has a file to append to, and would not look at a dump.rdb that is put into its folder."""
    restart(world.redis, appendonly)
    world.redis.cli("FLUSHALL")
    world.redis.cli("SET", "stranger", "1")
    status, shown = world.types(told["Give redis its copy back"])
    assert (status, shown.splitlines()[-1]) == (0, "1")
    restart(world.redis, appendonly)
    assert world.redis.cli("LRANGE", "queue:sync", "0", "-1").split() == list(map(str, range(100)))
    assert world.redis.cli("DBSIZE").strip() == "1"
    assert world.redis.cli("SET", "free", "1") + world.redis.cli("DEL", "free") == "OK\n1\n"


def restart(server: redis.Server, appendonly: str) -> None:
    server.stop()
    server._settings = ("--appendonly", appendonly)
    server.start()


def test_the_definitions_of_rabbitmq(world: World, told: dict[str, str]) -> None:
    assert world.api.delete(POLICY).is_success
    status, shown = world.types(told["Load rabbitmq into RabbitMQ"])
    assert status == 0, shown
    assert world.api.get(POLICY).json()["definition"] == {"expires": 1000}


def test_files_with_their_owners_and_without_those_of_servers(world: World, told: dict[str, str]) -> None:
    log, base, cert = (world.root / name for name in (
        "var/travis/log/web.log", "var/travis/postgresql/9.6/main/base", "etc/travis/ssl/rabbitmq.cert"
    ))  # fmt: skip
    shutil.rmtree(log.parent)
    base.write_text("loaded meanwhile")
    cert.write_text("another one")
    try:
        assert world.types(told["Unpack data-platform-1, without the files of running servers"]) == (0, "")
        assert base.read_text() == "loaded meanwhile"
    finally:
        base.write_text("the old one")
    assert log.read_text() == "the old var/travis/log/web.log"
    assert log.with_name("latest.log").readlink() == Path("web.log")
    assert stat.S_IMODE(log.stat().st_mode) == 0o2640
    assert log.stat().st_uid == (OWNER if ROOT else os.geteuid())
    assert cert.read_text() == "the old etc/travis/ssl/rabbitmq.cert"


def test_the_key_and_the_settings_on_a_terminal(world: World, told: dict[str, str]) -> None:
    (world.state / "app-config").write_text("{}")
    put = "Put the encryption key of the backup into Replicated's settings of platform-1"
    assert world.types(told[put]) == (0, f"{KEY.decode()}\n")
    settings = told["Put app-config-platform-1 of the backup into Replicated's settings of platform-1"]
    assert world.types(settings) == (0, "")
    assert json.loads((world.state / "app-config").read_text()) == SETTINGS
    status, shown = world.types(told["Read params-platform-1 of the backup"])
    assert (status, shown.splitlines()) == (0, ['{"LogLevel": "info"}'] * 2)


def test_the_app_is_stopped_for_the_files_alone(world: World, told: dict[str, str]) -> None:
    (world.state / "told").unlink(missing_ok=True)
    titles = [*told]
    for title in titles:
        if "the app" in title:
            assert world.types(told[title]) == (0, "")
    assert (world.state / "told").read_text().split() == ["stop", "start"]
    first = [title.split()[0] for title in titles]
    assert first == ["See", "Put", "Put", "Read", "Load", "Give", "Load", "Stop", "Unpack", "Start"]


# ---------------------------------------------------------------- what goes wrong, and other ways


def test_with_another_key_everything_stays(world: World) -> None:
    """Though whoever pastes goes on after the first error."""
    told, stranger = world.answer(world.pieces), str(pyrage.x25519.Identity.generate())
    world.spoil("UPDATE users SET login = 'now' || id WHERE id <= 100")
    world.redis.cli("SET", "stranger", "1")
    there, keys = world.rows(USERS), world.redis.cli("DBSIZE")
    broker = world.api.get("definitions").json()
    files = sorted(world.root.rglob("*"))
    for title, text in told.items():
        if title.split()[0] in ("Load", "Give", "Unpack"):
            status, shown = world.types(text, stranger)
            assert "was not encrypted to this identity" in shown
            assert status != 0, title
    assert (world.rows(USERS), world.redis.cli("DBSIZE")) == (there, keys)
    assert world.redis.cli("ROLE").split()[0] == "master"
    assert world.api.get("definitions").json() == broker
    assert sorted(world.root.rglob("*")) == files


@pytest.mark.parametrize("packed", ["gzip", ""])
def test_a_cold_copy_takes_the_place_of_all_files(world: World, packed: Packed) -> None:
    """Those of its servers are whole, and nothing of the new ones may lie among them; what was there is kept."""
    source = backup.data_source(PLATFORM, "/var/travis", packed, live=False)
    told = world.answer([world.store("data", source, "cold")])
    base = world.root / "var/travis/postgresql/9.6/main/base"
    was = base.read_text()
    base.write_text("new")
    base.with_name("newer").write_text("new")
    try:
        status, shown = world.types(told["Unpack data-platform-1, in the place of the files that are there"])
        assert (status, shown) == (0, "")
        assert [(each.name, each.read_text()) for each in base.parent.iterdir()] == [("base", was)]
        assert (world.root / "var/travis.before/postgresql/9.6/main/newer").exists()
    finally:
        shutil.rmtree(world.root / "var/travis.before")


def test_servers_outside_of_the_container(world: World) -> None:
    options = (("database.via", "direct"), ("redis.via", "direct"), ("rabbitmq.via", "http"))
    told = world.answer(world.pieces, replace(SITE, options=options))
    there = world.rows("SELECT count(*) FROM users")
    world.spoil("DELETE FROM users WHERE id > 300")
    world.redis.cli("FLUSHALL")
    assert world.api.delete(POLICY).is_success
    filled = {
        "USER@DATABASE-HOST/DATABASE": f"travis:only-for-tests@127.0.0.1:{world.server.port}/travis_production",
        "REDIS-HOST": "HOST", "-u USER": f"-u {rabbitmq.USER}:{rabbitmq.PASSWORD}",
        "https://RABBITMQ-HOST:15672": f"http://127.0.0.1:{world.broker.api_port}",
    }  # fmt: skip
    for title, text in told.items():
        for capitals, meant in filled.items():
            text = text.replace(capitals, meant)
        if title.split()[0] in ("See", "Load", "Give"):
            status, shown = world.types(text)
            assert status == 0, shown
    assert world.rows("SELECT count(*) FROM users") == there
    assert world.redis.cli("LLEN", "queue:sync").strip() == "100"
    assert world.api.get(POLICY).is_success
