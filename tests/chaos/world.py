"""Everything of one chaos run: PostgreSQL, the local Slack, simulated machines, and as many `opsbot serve` as wanted.

What is counted comes from outside of opsbot: the machines' own append-only log, and the local Slack's messages.
"""

import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import yaml
from psycopg import Connection
from psycopg.rows import DictRow, dict_row

from bot.adapters.store import migrate
from bot.sandbox.slack import Driver, example
from bot.sandbox.slack.workspace import ANA, BO, BOT_USER, CY, GUEST, OWNER, Channel
from tests.chaos.nursery import ROOT, Nursery, kill, lives, nursery
from tests.rigs import postgres

T = TypeVar("T")
Json = dict[str, Any]
SITE = "chaos"
READY_WITHIN = 60.0
TOKENS = {"SLACK_BOT_TOKEN": "xoxb-local-chaos", "SLACK_APP_TOKEN": "xapp-local-chaos"}


class NotInTime(Exception):
    """What had to happen did not."""


def until(look: Callable[[], T | None], within: float, what: str, every: float = 0.05) -> T:
    ends = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > ends:
            raise NotInTime(f"not within {within:g} s: {what}")
        time.sleep(every)
    return found


@dataclass
class Child:
    """A process that prints one JSON line when it is ready, and may answer questions."""

    process: subprocess.Popen[str]
    ready: Json
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, **what: Any) -> Json:
        with self._guard:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
            answer: Json = json.loads(self.process.stdout.readline())
            return answer


@contextmanager
def child(log: Path, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[Child]:
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env={**environment_without_ours(), **(environment or {})},
        )
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], READY_WITHIN)
        line = process.stdout.readline() if ready else ""
        if not line:
            raise NotInTime(f"{' '.join(words)} did not start: {log.read_text()[-2000:]}")
        yield Child(process, json.loads(line))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@dataclass(frozen=True)
class Received:
    """A command in the machines' log."""

    at: str
    machine: str
    text: str
    changed: bool

    @property
    def tidies(self) -> bool:
        """Takes a finished unit away, which may happen as often as it likes."""
        return "opsbot-" in self.text and ("systemctl stop" in self.text or "reset-failed" in self.text)

    @property
    def what(self) -> str:
        """The command without what is particular to one run: `USR2` or `restart`."""
        return "pause" if "USR2" in self.text else "restart" if "restart travis-worker" in self.text else self.text


class MachinesLog:
    """Reads on where it stopped; positions are counts of lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[Received] = []
        self._guard = threading.Lock()

    def lines(self) -> Sequence[Received]:
        with self._guard, self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._lines += [Received(**json.loads(line)) for line in whole.splitlines()]
            return list(self._lines)

    def changes(self, machine: str, since: int, to: int | None = None) -> list[Received]:
        """What changed a machine: a command that was refused or only read is not here."""
        return [each for each in self.lines()[since:to] if each.machine == machine and each.changed and not each.tidies]


@dataclass
class World:
    """One running world. `serves` are the pids of its opsbot processes, by slot."""

    folder: Path
    server: postgres.Server
    database: str
    slack: Driver
    simulator: str
    machines: Child
    log: MachinesLog
    nursery: Nursery
    channels: tuple[str, ...]
    lease: float
    breaks: tuple[str, ...] = ()  # rules that every opsbot here does without
    serves: dict[int, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        name, port = self.database, self.server.port
        return f"postgresql://{postgres.USER}:{postgres.PASSWORD}@127.0.0.1:{port}/{name}"

    @property
    def workers(self) -> list[str]:
        return [each["name"] for each in self.machines.ready["installation"]["workers"]]

    def connect(self) -> Connection[DictRow]:
        return psycopg.connect(self.server.dsn_of(self.database), autocommit=True, row_factory=dict_row)

    def rows(self, sql: str, *values: Any) -> list[DictRow]:
        with self.connect() as connection:
            return connection.execute(sql.encode(), values or None).fetchall()

    def environment(self) -> dict[str, str]:
        return {**TOKENS, "OPSBOT_DATABASE_URL": self.url, "OPSBOT_AUDIT_KEY": "k" * 64}

    def configuration(self, name: str, **changes: Any) -> Path:
        """A configuration file of this world; each process has its own socket."""
        base = {
            "slack": {"command": "/travis", "team_id": example().team, "app_id": example().app,
                      "channels": {"commands": list(self.channels)}},
            "people": {"approvers": {"users": [BO, CY]}, "uids": {os.getuid(): ANA}},
            "state_dir": str(self.folder / "state"),
            "socket": str(self.folder / f"{name}.sock"),
            "engine": {"lease": f"{self.lease:g}s", "poll": "1s", "approval_open_for": "1h"},
            "installations": [self.machines.ready["installation"]],
            "cli": {"impersonate": True},
        }  # fmt: skip
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**base, **changes}, sort_keys=False))
        return path

    def serve(self, slot: int, program: str = "serve", **how: Any) -> int:
        """Start an `opsbot serve` in a slot."""
        config = self.configuration(f"serve-{slot}")
        how = {"simulator": self.simulator, "breaks": self.breaks, **how}
        pid = self.nursery.bear(program, config=str(config), environment=self.environment(), **how)
        self.serves[slot] = pid
        return pid

    @contextmanager
    def serving(self, name: str = "alone", **changes: Any) -> Iterator[Child]:
        """One `opsbot serve`, started as people start it."""
        config = self.configuration(name, **changes)
        words = ("-m", "bot.cli", "serve", "--config", str(config), "--simulator", self.simulator)
        with child(self.folder / f"{name}.log", *words, environment=self.environment()) as made:
            self.slack.wait_for_connection(READY_WITHIN)
            yield made

    def stop_serving(self) -> None:
        for pid in self.serves.values():
            kill(pid)
        for pid in self.serves.values():
            until(lambda pid=pid: not lives(pid), 10, f"{pid} is gone")  # type: ignore[misc]
        self.serves.clear()

    def inject(self, machine: str, fault: str = "lost RabbitMQ") -> None:
        answer = self.machines.ask(do="inject", what=f"{machine} {fault}")
        assert "fault" in answer, answer

    def state(self, machine: str) -> Json:
        state: Json = self.machines.ask(do="state")["machines"][machine]
        return state

    def unknown(self) -> list[str]:
        found: list[str] = self.machines.ask(do="state")["unknown"]
        return found

    @contextmanager
    def new_database(self) -> Iterator["World"]:
        """The same world over an empty database: what ran before is forgotten."""
        with self.server.database() as dsn:
            migrate(dsn)
            yield changed(self, database=dsn.split("dbname=")[1].split()[0], serves={})


@dataclass(frozen=True)
class Terms:
    """How big a world is."""

    workers: int = 24
    speed: float = 40.0
    lease: float = 5.0
    breaks: tuple[str, ...] = ()


@contextmanager
def world(terms: Terms) -> Iterator[World]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="opsbot-chaos-"))
        stack.callback(_keep_or_remove, folder)
        server = stack.enter_context(postgres.server("18", durable=True))
        database = stack.enter_context(server.database())
        migrate(database)
        channels = tuple(f"C0DESK{no}" for no in range(1, terms.workers + 1))
        slack = stack.enter_context(local_slack(folder, channels))
        words = ("--workers", str(terms.workers), "--speed", str(terms.speed))
        machines = stack.enter_context(
            child(folder / "machines.log", "-m", "tests.chaos.machines", "--folder", str(folder / "machines"), *words)
        )
        bearing = stack.enter_context(nursery(folder / "logs"))
        name = database.split("dbname=")[1].split()[0]
        driver = Driver.connect(slack.ready["base_url"], slack.ready["secret"])
        stack.callback(driver.close)
        log = MachinesLog(Path(machines.ready["log"]))
        made = World(
            folder,
            server,
            name,
            driver,
            slack.ready["api_url"],
            machines,
            log,
            bearing,
            channels,
            terms.lease,
            terms.breaks,
        )
        stack.callback(made.stop_serving)
        yield made


KEEP = os.environ.get("CHAOS_KEEP")


def _keep_or_remove(folder: Path) -> None:
    if not KEEP:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def local_slack(folder: Path, channels: Sequence[str]) -> Iterator[Child]:
    """A local Slack without Slack's rates (200 incidents in a few minutes would take an hour), one channel per desk."""
    members = (OWNER, ANA, BO, CY, GUEST, BOT_USER)
    desks = tuple(Channel(each, each.lower().replace("c0", ""), "public", members) for each in channels)
    base = example()
    workspace = changed(base, channels=(*base.channels, *desks), manifest=dict(base.manifest))
    file = folder / f"workspace-{secrets.token_hex(3)}.json"
    file.write_text(json.dumps(asdict(workspace)))
    with child(folder / "slack.log", "-m", "bot.sandbox.slack", "--workspace", str(file), "--no-rate-limits") as made:
        yield made


def stop(pid: int) -> None:
    kill(pid, signal.SIGSTOP)


def go_on(pid: int) -> None:
    kill(pid, signal.SIGCONT)


def percentile(values: Sequence[float], share: float) -> float:
    if not values:
        return float("nan")
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def environment_without_ours() -> Mapping[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith(("OPSBOT_", "SLACK_", "PG"))}
