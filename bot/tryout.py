"""`opsbot try`: everything on one laptop. A local Slack, a simulated installation, a database, and an unchanged
`opsbot serve`.
"""

import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import bot
from bot.core.errors import Permanent
from bot.sandbox import breaking
from bot.sandbox.slack import Driver, LocalSlack, Message, NotSeen, PortInUse, example

Json = dict[str, Any]
FAULT = "worker-2 lost RabbitMQ"
OTHER = "platform-1 has no RabbitMQ"  # a fault to try next
QUESTION = "diagnose builds not starting"
CONFIG = Path(bot.__file__).parents[1] / "config" / "try.yaml"
BOT_TOKEN, APP_TOKEN = "xoxb-local-try", "xapp-local-try"
STARTING = "Starting a local Slack, a database, simulated machines and opsbot; it takes some seconds."
READY_WITHIN = 30.0  # seconds until the children have to answer
TOUR_WITHIN = 120.0  # seconds for the whole incident
MOST_ENDS = 5  # of `serve`, one after the other, none of which came to live for LIVES
LIVES = 60.0  # seconds
OWN = "OPSBOT_", "SLACK_"  # a try must not read the tokens of a real installation


@dataclass(frozen=True)
class Child:
    """A process of ours that says one JSON line when it is ready; it ends with us, since its standard input does."""

    process: subprocess.Popen[str]
    ready: Json
    log: Path
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, **what: Any) -> Json:
        """One question and its answer, for the installation; several may ask at once."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with self._turn:
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()
            answer: Json = json.loads(self.process.stdout.readline())
        return answer


@dataclass
class Serving:
    """`opsbot serve`, which may be killed at any moment: it is started again, and its runs go on."""

    start: Callable[[], Child]
    child: Child
    began: float = field(default_factory=time.monotonic)
    ends: int = 0

    def keep(self) -> None:
        """Start it again where it has ended. Raises Permanent with its last words when that happens again and again."""
        if self.child.process.poll() is None:
            return
        lived = time.monotonic() - self.began
        self.ends = 1 if lived > LIVES else self.ends + 1
        if self.ends >= MOST_ENDS:
            raise Permanent(f"{_ended(self.child)}\nIt ended {self.ends} times in a row, and is not started again.")
        status = self.child.process.returncode
        say(f"serve ended by itself (exit status {status}). It is started again, and its runs go on.")
        self.began = time.monotonic()
        with suppress(Permanent):  # killed before it was there; the next look counts it
            self.child = self.start()


@dataclass(frozen=True)
class Trial:
    """What is running: where to chat, how to drive it, and what the machines remember."""

    slack: LocalSlack
    installation: Child
    serving: Serving
    folder: Path
    config: Path
    keeps: bool = False  # its folder, for the next try

    @property
    def channel(self) -> str:
        return next(channel.id for channel in example().channels if channel.name == "ops")


def run(tour: bool, port: int, folder: Path | None, speed: float, faults: Sequence[str] = ()) -> int:
    """Start everything and wait (or play one incident); returns the exit status. Raises Permanent with a sentence."""
    broken = chosen(faults)
    if tour and faults:
        raise Permanent("`--tour` plays an incident of its own; leave `--fault` out, or leave `--tour` out and chat.")
    say(STARTING)
    with started(port, folder, speed, broken) as trial:
        if tour:
            return Tour(trial, say).play()
        welcome(trial, broken)
        return _wait(trial)


def chosen(faults: Sequence[str]) -> tuple[str, ...]:
    """What is broken at the start: what was asked for, nothing when that was asked for, else one fault to begin with.
    Raises Permanent for a fault that there is not.
    """
    if not faults:
        return (FAULT,)
    wanted = tuple(each for each in faults if each != breaking.NOTHING)
    for each in wanted:
        if said := breaking.wrong(each):
            raise Permanent(f"`--fault` {each!r}: {said} `opsbot try --list-faults` shows them here.")
    return wanted


@contextmanager
def started(
    port: int = 0, folder: Path | None = None, speed: float = 20.0, faults: Sequence[str] = (FAULT,)
) -> Iterator[Trial]:
    """Everything, up and answering; all of it ends with the context."""
    with ExitStack() as stack:
        home = _made(folder) if folder else Path(stack.enter_context(_scratch()))
        slack = _slack(stack, port)
        stack.callback(_stop_database, home, keep=folder is not None)
        own = ("--folder", str(home / "machines"), "--speed", str(speed), "--database", _travis_database(home))
        machines = ("-m", "bot.sandbox.installation", *own)
        broken = (word for each in faults for word in ("--fault", each))
        installation = stack.enter_context(_child("installation", home, *machines, *broken))
        slack.add_command(breaking.COMMAND, lambda text: _break(installation, text), breaking.menu())
        config = home / "opsbot.yaml"
        config.write_text(yaml.safe_dump(_configuration(home, installation.ready["installation"]), sort_keys=False))
        words = ("-m", "bot.cli", "serve", "--config", str(config), "--simulator", slack.api_url, "--attached")

        def start() -> Child:
            return stack.enter_context(_child("serve", home, *words))

        serving = Serving(start, start())
        slack.driver.wait_for_connection(READY_WITHIN)
        yield Trial(slack, installation, serving, home, config, keeps=folder is not None)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise Permanent(f"`--folder` {folder} cannot be made ({error.strerror}); name another.") from error
    return folder


def _break(installation: Child, text: str) -> str:
    return breaking.answer(text, lambda what: installation.ask(do="inject", what=what))


@contextmanager
def _scratch() -> Iterator[str]:
    """A folder with a short path (a Unix socket's has at most 107 characters), taken away at the end."""
    folder = tempfile.mkdtemp(prefix="opsbot-try-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _slack(stack: ExitStack, port: int) -> LocalSlack:
    hints = [f"/travis {QUESTION}", "/travis status", "/travis help", f"{breaking.COMMAND} {OTHER}"]
    slack = LocalSlack(port=port, hints=hints)
    try:
        slack.start()
    except PortInUse as taken:
        raise Permanent(f"{taken} Name one with --port; without it, any that is free is taken.") from taken
    stack.callback(slack.stop)
    return slack


def _travis_database(home: Path) -> str:
    """The DSN of the simulated platform's own database: beside opsbot's, on the same server, which `serve` finds up."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    from bot.adapters import embedded

    dsn = embedded.start(home / "state" / "database")
    with psycopg.connect(dsn, autocommit=True) as connection:
        if not connection.execute("SELECT FROM pg_database WHERE datname = 'travis_production'").fetchall():
            connection.execute("CREATE DATABASE travis_production")
    return make_conninfo(dsn, dbname="travis_production")


def _stop_database(home: Path, keep: bool) -> None:
    """It ends after its last user anyway; what it has is kept only in a folder that was named."""
    from bot.adapters import embedded

    embedded.stop(home / "state" / "database")
    if not keep:
        embedded.remove(home / "state" / "database")


def _configuration(home: Path, installation: Json) -> Json:
    base: Json = yaml.safe_load(CONFIG.read_text())
    workspace = example()
    ops = next(channel.id for channel in workspace.channels if channel.name == "ops")
    people = {person.name: person.id for person in workspace.people}
    base["slack"] |= {"team_id": workspace.team, "app_id": workspace.app, "channels": {"commands": [ops]}}
    base["people"]["approvers"] = {"usergroup": workspace.groups[0].id}
    base["people"]["uids"] = {os.getuid(): people["ana"]}
    base |= {"state_dir": str(home / "state"), "socket": str(home / "opsbot.sock"), "installations": [installation]}
    base["backups"] = {"store": f"file://{home}/backups", "recipients": [_recipient(home / "backups.key")]}
    return base


def _recipient(secret: Path) -> str:
    """The public part of an age key; the secret one is kept, so that a backup can be opened."""
    from pyrage import x25519

    if not secret.exists():
        with open(secret, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(f"{x25519.Identity.generate()}\n")
    return str(x25519.Identity.from_str(secret.read_text().strip()).to_public())


@contextmanager
def _child(name: str, home: Path, *words: str) -> Iterator[Child]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(OWN)}
    environment |= {"SLACK_BOT_TOKEN": BOT_TOKEN, "SLACK_APP_TOKEN": APP_TOKEN}
    environment["PYTHONPATH"] = str(Path(bot.__file__).parents[1])
    log = home / f"{name}.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is ours to pass on, in order
        )
    try:
        yield Child(process, _ready(name, process, log), log)
    finally:
        _end(process)


def _ready(name: str, process: subprocess.Popen[str], log: Path) -> Json:
    found: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda out: found.append(out.readline()), args=[process.stdout], daemon=True)
    reader.start()
    reader.join(READY_WITHIN)
    try:
        line: Json = json.loads(found[0])
    except (IndexError, ValueError) as error:
        raise Permanent(f"`{name}` did not start within {READY_WITHIN:g} s; it said: {_last_words(log)}") from error
    return line


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def welcome(trial: Trial, faults: Sequence[str] = (FAULT,)) -> None:
    is_broken = "Something is broken." if faults else "Nothing is broken."
    say(
        f"\nopsbot is ready. Open this page and chat; you are ana, and can become somebody else at the left:\n\n"
        f"    {trial.slack.page_url}\n\n"
        f"{is_broken} Type in #ops:   /travis {QUESTION}\n"
        f"Then approve the plan as bo or cy: the one who asked cannot.\n"
        f"Break something else:   {breaking.COMMAND} {OTHER}   ({breaking.COMMAND} alone lists all)\n\n"
        f"From a terminal:   {_program()} --config {trial.config} runs\n"
        f"{_stays(trial)} Ctrl-C ends it all.\n"
    )


def _stays(trial: Trial) -> str:
    if not trial.keeps:
        return f"Everything lies in {trial.folder}, and goes at the end."
    return (
        f"Runs, backups and the audit trail stay in {trial.folder} for the next try;\n"
        "messages and machines begin anew each time."
    )


def _program() -> str:
    """How opsbot is called from where we are: mostly it lies in a .venv that no PATH names."""
    ours = Path(sys.executable).with_name("opsbot")
    if shutil.which("opsbot") == str(ours):
        return "opsbot"
    here = Path.cwd()
    return str(ours.relative_to(here) if ours.is_relative_to(here) else ours)


def _wait(trial: Trial) -> int:
    try:
        while trial.installation.process.poll() is None:
            trial.serving.keep()
            time.sleep(0.5)
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal was closed
            say("\nStopping.")
        return 0
    raise Permanent(_ended(trial.installation))


def _ended(child: Child) -> str:
    name, status = child.log.stem, child.process.returncode
    return f"{name} ended by itself (exit status {status}); it said: {_last_words(child.log)}"


def _last_words(log: Path) -> str:
    """The end of what a child wrote; its file goes with the try."""
    return log.read_text(errors="replace")[-2000:].strip() or "nothing"


def _plain(text: str) -> str:
    """Slack's text as people see it: names for ids, labels for links and dates."""
    names = {person.id: person.name for person in example().people} | {
        group.id: group.handle for group in example().groups
    }
    text = re.sub(r"<(?:@|!subteam\^)(\w+)>", lambda found: "@" + names.get(found[1], found[1]), text)
    return html.unescape(re.sub(r"<[^<>|]*\|([^<>]*)>", r"\1", text))


@dataclass
class Tour:
    """One incident without a browser: ana asks, ana may not approve, bo approves, the worker heals."""

    trial: Trial
    say: Callable[[str], None]
    printed: set[str] | None = None

    def play(self) -> int:
        """0 only when it ended FIXED, approved by somebody who did not ask, and no machine was asked an unknown
        program.
        """
        slack = self.trial.slack.driver
        ana, bo = slack.person("ana"), slack.person("bo")
        self.say(f"ana: /travis {QUESTION}")
        ack = ana.slash("/travis", QUESTION)
        self.say(f"     (only ana sees) {ack.shown}")
        plan = self._wait_for("approve")
        self.say("ana presses Approve")
        ana.click(plan, "approve")
        refused = slack.wait_for(lambda seen: [each for each in seen.ephemerals("ana") if "did not count" in each.text])
        self.say(f"     (only ana sees) {refused[-1].text}")
        self.say("bo presses Approve")
        bo.click(plan, "approve")
        return self._ending()

    def _wait_for(self, action: str) -> Message:
        def look(slack: Driver) -> Message | None:
            self._print_new()
            found = [each for each in slack.messages("ops") if action in each.actions]
            return found[-1] if found else None

        return self.trial.slack.driver.wait_for(look, TOUR_WITHIN)

    def _ending(self) -> int:
        def look(_slack: Driver) -> Json | None:
            self._print_new()
            run = self._run()
            return run if run.get("outcome") else None

        try:
            run = self.trial.slack.driver.wait_for(look, TOUR_WITHIN)
        except NotSeen:
            self.say("The tour did not end in time.")
            return 1
        time.sleep(2)  # the last messages are on their way
        self._print_new()
        unknown = self.trial.installation.ask(do="state")["unknown"]
        for each in unknown:
            self.say(f"A program that is not simulated was asked for: {each}")
        approved = [each for each in run["story"] if each["event"] == "decision" and each["verdict"] == "approve"]
        own = any(each["by"] == run["by"] for each in approved)
        self.say(f"\nThe run ended {run['outcome']}, approved by {len(approved)} who did not ask.")
        return 0 if run["outcome"] == "FIXED" and approved and not own and not unknown else 1

    def _run(self) -> Json:
        """The run as the command line shows it; ours is the newest."""
        newest = self._told("runs")["runs"][0]["run"]
        return self._told("show", str(newest))

    def _told(self, *verb: str) -> Json:
        words = [sys.executable, "-m", "bot.cli", "--config", str(self.trial.config), *verb, "--json"]
        environment = os.environ | {"PYTHONPATH": str(Path(bot.__file__).parents[1])}
        shown = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False, env=environment)
        found: Json = json.loads(shown.stdout or "{}")
        return found

    def _print_new(self) -> None:
        """Every message as it comes, and again when it was edited."""
        self.printed = set() if self.printed is None else self.printed
        for message in self.trial.slack.driver.messages("ops"):
            text = message.all_text
            if (key := f"{message.ts}:{text}") not in self.printed and message.user != "ana":
                self.printed.add(key)
                indent = "  " if message.thread_ts not in (None, message.ts) else ""
                self.say(
                    "\n".join(f"{indent}| {line}" for line in ["opsbot:", *dict.fromkeys(_plain(text).splitlines())])
                )
