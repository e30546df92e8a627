"""A throw-away PostgreSQL: Debian's 15 or the wheel's 18, as an ordinary user or (when we are root) as nobody.

with postgres.server("18") as server:
    with server.database() as dsn: ...
    with server.migrated() as dsn: ...  # with opsbot's tables, all empty
    server.restart(immediate=True)      # as if the machine had lost its power; the DSNs stay the same
"""

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from bot.adapters import embedded
from bot.adapters.store import migrate

VERSIONS = ("15", "18")
USER = "postgres"
PASSWORD = "only-for-tests"  # over TCP; the socket asks for none, its folder is closed
SECONDS = 30.0

SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
CARELESS = {"fsync": "off", "full_page_writes": "off"}  # not synchronous_commit: a restart may not forget a commit
ACCESS = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
ALONE = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
AS_NEW = """
DO $$
DECLARE
    name text;
    filled boolean;
BEGIN
    FOR name IN
        SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
         WHERE schemaname = 'opsbot' AND tablename <> 'migrations'
            OR schemaname = 'absurd' AND tablename LIKE '%_opsbot'
    LOOP
        EXECUTE 'SELECT EXISTS (SELECT FROM ' || name || ')' INTO filled;
        IF filled THEN
            EXECUTE 'DELETE FROM ' || name;
        END IF;
    END LOOP;
    PERFORM setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false)
       FROM pg_sequences WHERE schemaname IN ('opsbot', 'absurd') AND last_value IS NOT NULL;
END $$
"""


class Server:
    """A running PostgreSQL; `dsn` is its socket, `tcp_dsn` its loopback address with a password."""

    def __init__(self, version: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.version = version
        self.folder = folder
        self.port = _free_port()
        self.settings = {**SETTINGS, **settings, "port": str(self.port), "unix_socket_directories": str(folder)}
        self.programs = _programs(version, folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._free: list[str] = []  # migrated, and used by nobody just now
        self._initialise()

    @property
    def dsn(self) -> str:
        return self.dsn_of("postgres")

    @property
    def tcp_dsn(self) -> str:
        return self.dsn_of("postgres", tcp=True)

    def dsn_of(self, database: str, *, tcp: bool = False) -> str:
        if tcp:
            return make_conninfo(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname=database)
        return make_conninfo(host=str(self.folder), port=self.port, user=USER, dbname=database)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The DSN of a new, empty database, which is dropped at the end whoever is still connected."""
        name = f"t_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield self.dsn_of(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def migrated(self) -> Iterator[str]:
        """A database with opsbot's tables, as good as new: whoever was before is gone, with all that was written.

        A new one takes ten times as long, and so does TRUNCATE, which makes new files for every table.
        """
        try:
            name = self._free.pop()
        except IndexError:
            name = self._made()
        with psycopg.connect(self.dsn_of(name)) as connection:
            connection.execute(ALONE)
            connection.execute("SET session_replication_role = replica")  # past the triggers that refuse it
            connection.execute(AS_NEW)
        yield self.dsn_of(name)
        self._free.append(name)

    def _made(self) -> str:
        name = f"m_{secrets.token_hex(6)}"
        self._execute(f"CREATE DATABASE {name}")
        migrate(self.dsn_of(name))
        return name

    def start(self) -> None:
        words = [str(self.programs / "postgres"), "-D", str(self.folder / "data")]
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log, **_process())
        self._wait_until_it_answers()

    def stop(self, *, immediate: bool = False) -> None:
        """`immediate` ends it without a checkpoint or a word to its clients, as a crash does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
            self._process.wait(SECONDS)
            self._process = None

    def restart(self, *, immediate: bool = False) -> None:
        self.stop(immediate=immediate)
        self.start()

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def _initialise(self) -> None:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)  # in a folder that is closed
        data = self.folder / "data"
        words = [str(self.programs / "initdb"), "-D", str(data), "-U", USER, "--pwfile", str(password)]
        words += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        made = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False, **_process())
        assert made.returncode == 0, made.stdout + made.stderr
        (data / "pg_hba.conf").write_text(ACCESS)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                return self._execute("SELECT 1")
            except psycopg.OperationalError as error:
                running = self._process is not None and self._process.poll() is None
                if not running or time.monotonic() > deadline:
                    raise AssertionError(f"PostgreSQL {self.version}: {error}\n{self.log.read_text()}") from error
                time.sleep(0.02)

    def _execute(self, sql: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=5) as connection:
            connection.execute(sql)


@contextmanager
def server(version: str, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """A running server of `version`; `durable` waits for the disk, as a measurement of speed must."""
    folder = Path(tempfile.mkdtemp(prefix="opsbot-postgres-", dir="/tmp"))  # a socket's path is short
    try:
        if os.geteuid() == 0:
            os.chown(folder, _nobody().pw_uid, _nobody().pw_gid)
        made = Server(version, folder, {**({} if durable else CARELESS), **(settings or {})})
        try:
            made.start()
            yield made
        finally:
            with suppress(ProcessLookupError):
                made.stop(immediate=True)
    finally:
        shutil.rmtree(folder)


def _programs(version: str, folder: Path) -> Path:
    if version == "18":
        return embedded.programs(folder / "programs" if os.geteuid() == 0 else None)
    found = Path(f"/usr/lib/postgresql/{version}/bin")
    assert found.is_dir(), f"PostgreSQL {version} is missing here; as root: apt-get install postgresql-{version}"
    return found


def _process() -> dict[str, Any]:
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": "/", "start_new_session": True}
    options["env"] = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
    if os.geteuid() == 0:
        options |= {"user": _nobody().pw_uid, "group": _nobody().pw_gid, "extra_groups": []}
    return options


def _nobody() -> pwd.struct_passwd:
    return pwd.getpwnam("nobody")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
