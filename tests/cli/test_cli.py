"""`opsbot` as people and scripts run it: exit statuses, JSON lines, sentences, and never a traceback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paramiko
import pytest
import typer

import bot
from bot.cli import app
from bot.cli.screen import Screen
from bot.core.outcome import Outcome
from bot.core.people import Actor
from tests.cli.fakes import (
    ANA,
    BO,
    FINDING,
    LOOK,
    ME,
    PLAN,
    TEAM,
    FakeDesk,
    console_of,
    decision,
    outcome,
    serving,
)

CHECKOUT = Path(bot.__file__).parents[1]
KEY = paramiko.ECDSAKey.generate()
PINS = f"10.0.0.10,10.0.0.11,10.0.0.12 {KEY.get_name()} {KEY.get_base64()}\n"
VALID = (CHECKOUT / "tests" / "cases" / "settings" / "valid.yaml").read_text()
TOKENS = {"SLACK_BOT_TOKEN": "xoxb-1-2-bot", "SLACK_APP_TOKEN": "xapp-1-A-app"}


class Terminal:
    """A folder with a configuration, and the command run there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "run" / "opsbot.sock"
        (folder / "opsbot.yaml").write_text(f"{VALID}socket: {self.socket}\n")
        (folder / "opsbot.yaml").chmod(0o600)
        KEY.write_private_key_file(folder / "id_ed25519")
        (folder / "known_hosts").write_text(PINS)

    def start(self, *words: str, **environment: str) -> "subprocess.Popen[str]":
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        return subprocess.Popen(
            [sys.executable, "-m", "bot.cli", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**kept, "PYTHONPATH": str(CHECKOUT), "HOME": str(self.folder), "PYTHONUTF8": "1", **environment},
        )

    def run(self, *words: str, **environment: str) -> "Ran":
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=30)
        assert "Traceback" not in out + err
        return Ran(process.returncode, out, err)


class Ran:
    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return Terminal(tmp_path)


@pytest.fixture
def desk() -> FakeDesk:
    return FakeDesk(then=(LOOK, outcome(Outcome.HEALTHY)))


@pytest.fixture
def served(terminal: Terminal, desk: FakeDesk) -> Iterator[Terminal]:
    """I am ana, and may play others."""
    with serving(desk, terminal.socket, {ME: ANA}, impersonate=True):
        yield terminal


# ---------------------------------------------------------------- runs, their words and their exit statuses


EXITS = {
    "HEALTHY": 0, "FIXED": 0, "DONE": 0, "PARTLY_FIXED": 1, "UNFIXED": 1, "FOUND": 1, "FAILED": 1,
    "COULD_NOT_LOOK": 3, "DECLINED": 4, "EXPIRED": 4, "CANCELLED": 4, "IN_DOUBT": 5, "REFUSED": 6,
}  # fmt: skip


@pytest.mark.parametrize("ended", list(Outcome), ids=[each.name for each in Outcome])
def test_the_exit_status_says_how_it_ended(ended: Outcome, capsys: pytest.CaptureFixture[str]) -> None:
    kind, data = outcome(ended)
    assert Screen().follow([{"event": "run", "run": 1, "text": "On it."}, {"event": kind, **data}]) == EXITS[ended.name]
    assert capsys.readouterr().out == f"On it.\n{ended.name}: so it ended\n"


@pytest.mark.parametrize("ended", [Outcome.IN_DOUBT, Outcome.REFUSED], ids=lambda ended: str(ended.name))
def test_the_shell_gets_that_exit_status(served: Terminal, desk: FakeDesk, ended: Outcome) -> None:
    desk.then = (LOOK, outcome(ended))
    assert served.run("run", "diagnose builds not starting").status == EXITS[ended.name]


def test_a_story_reads_like_one(served: Terminal, desk: FakeDesk) -> None:
    look = ("look", {**LOOK[1], "unknown": ["worker-2: it does not answer"]})
    desk.then = (look, FINDING, PLAN, decision(BO), outcome(Outcome.FIXED, "worker-1 is back"))
    ran = served.run("run", "diagnose builds not starting", "on", "prod")
    assert ran.out.splitlines() == [
        "On it: run 1.",
        "look 1 at worker-1",
        "    not known: worker-2: it does not answer",
        "BROKEN worker-1: worker-1 is running, but RabbitMQ sees no consumer from it [worker.amqp-lost]",
        "    RabbitMQ sees 2 workers",
        "plan 1 (0123456789ab): worker-1: Restart travis-worker",
        "    1. worker-1: Restart travis-worker",
        "       risk: interrupts (running builds start again, or seconds of downtime)",
        "       a. Restart the service: `sudo -n systemctl restart travis-worker`",
        "       undo: nothing to undo",
        "    rule: default for risk interrupts: 1 approval; open until 2026-01-01 00:30 UTC",
        "    another person decides, in Slack or with `opsbot approve 1 012345`",
        "approve by @U00BO",
        "FIXED: worker-1 is back",
    ]
    assert (ran.status, ran.err) == (0, "")
    assert desk.filed[0][0].site == "prod"


def test_evidence_does_not_push_the_plan_away(served: Terminal, desk: FakeDesk) -> None:
    said = {"text": "What the machines said", "file": "evidence.txt", "content": "\n".join(map(str, range(300)))}
    desk.then = (FINDING, ("note", said), PLAN, outcome(Outcome.DECLINED))
    followed = served.run("run", "diagnose builds not starting", "on", "prod").out.splitlines()
    place = followed.index("What the machines said (evidence.txt)")
    assert followed[place + 1] == "    (300 lines: `opsbot show 1` prints them)"
    assert followed[place + 2].startswith("plan 1 ")
    assert "    299" in served.run("show", "1").out.splitlines()


@pytest.mark.parametrize("needs", [0, -1])
def test_a_plan_that_nobody_is_asked_about_is_not_called_open(served: Terminal, desk: FakeDesk, needs: int) -> None:
    desk.then = ((PLAN[0], {**PLAN[1], "needs": needs, "rule": "policy[0]: so"}), outcome(Outcome.DONE))
    assert served.run("run", "restart worker-1 because it hangs", "on", "prod").out.splitlines()[-2:] == [
        "    rule: policy[0]: so",
        "DONE: so it ended",
    ]


def test_a_script_gets_a_json_line_for_each_event(served: Terminal, desk: FakeDesk) -> None:
    desk.then = (LOOK, FINDING, PLAN, decision(BO), outcome(Outcome.UNFIXED))
    ran = served.run("run", "diagnose builds not starting", "--json")
    assert [line["event"] for line in ran.lines] == ["run", "look", "finding", "plan", "decision", "outcome"]
    assert [line["run"] for line in ran.lines] == [1] * 6
    finding, plan = ran.lines[2], ran.lines[3]
    assert (finding["target"], finding["cause"], finding["severity"]) == ("worker-1", "worker.amqp-lost", "BROKEN")
    assert finding["fixes"] == ["Restart travis-worker"]
    assert (plan["digest"], plan["fixes"][0]["steps"][0][:7]) == ("0123456789abcdef", "Restart")
    assert ran.lines[-1]["exit"] == ran.status == 1


def test_words_need_no_quotes(served: Terminal, desk: FakeDesk) -> None:
    assert served.run("run", "restart", "worker-1", "because", "it hangs", "--as", BO).status == 0
    ((request, actor),) = desk.filed
    assert (request.subject, request.targets, actor.user) == ("restart", ("worker-1",), BO)


def test_detached_it_says_the_number_and_goes(served: Terminal, desk: FakeDesk) -> None:
    desk.then = (LOOK,)
    ran = served.run("run", "diagnose builds not starting", "--detach", "--json")
    assert (ran.status, ran.lines) == (0, [{"event": "run", "run": 1, "text": "On it: run 1."}])


def test_a_run_is_followed_across_a_restart_of_serve(terminal: Terminal, desk: FakeDesk) -> None:
    desk.then = (LOOK,)
    first = console_of(desk, terminal.socket, {ME: ANA})
    first.start()
    process = terminal.start("run", "diagnose builds not starting", "--json")
    assert process.stdout is not None
    assert "run" in process.stdout.readline()
    assert "look" in process.stdout.readline()
    first.close()
    desk.tell(1, *FINDING)
    desk.tell(1, *outcome(Outcome.UNFIXED))
    with serving(desk, terminal.socket, {ME: ANA}):
        out, err = process.communicate(timeout=30)
    assert [json.loads(line)["seq"] for line in out.splitlines()] == [2, 3]
    assert (process.returncode, err) == (1, "")


def test_who_stops_watching_is_told_that_it_goes_on(served: Terminal, desk: FakeDesk) -> None:
    desk.then = (LOOK,)
    process = served.start("run", "diagnose builds not starting")
    assert process.stdout is not None
    assert [process.stdout.readline()[:4] for _ in range(2)] == ["On i", "look"]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert err == "\nRun 1 goes on: `opsbot watch 1` or `opsbot cancel 1`.\n"
    assert process.returncode == 130


def test_a_reader_that_has_seen_enough_is_no_error(served: Terminal, desk: FakeDesk) -> None:
    desk.then = (LOOK,)
    process = served.start("run", "diagnose builds not starting", "--json")
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    desk.tell(1, *FINDING)
    desk.tell(1, *outcome(Outcome.UNFIXED))
    assert process.stderr is not None
    with process.stderr as errors:
        assert errors.read() == ""
    assert process.wait(30) == 141


def test_escape_sequences_of_a_machine_stay_words(served: Terminal, desk: FakeDesk) -> None:
    desk.then = (("note", {"text": "[red]not markup[/red] [link=x]y[/link]"}), outcome(Outcome.HEALTHY))
    assert "[red]not markup[/red] [link=x]y[/link]" in served.run("run", "diagnose builds not starting").out


# ---------------------------------------------------------------- the other verbs


def test_runs_are_listed(served: Terminal) -> None:
    ran = served.run("runs")
    assert (ran.status, ran.out) == (0, f"1\t2026-01-01 00:00 UTC\tdiagnose all\t{ANA}\trunning\n")
    (run,) = served.run("runs", "--json").lines[0]["runs"]
    assert (run["run"], run["created"]) == (1, "2026-01-01T00:00:00+00:00")


def test_a_run_is_shown_whole(served: Terminal, desk: FakeDesk) -> None:
    desk.begin(Actor(TEAM, BO))
    desk.tell(1, *PLAN)
    ran = served.run("show", "1")
    assert ran.status == 0
    assert ran.out.splitlines()[:2] == [
        "run 1: it",
        "2026-01-01 00:00:00 UTC  plan 1 (0123456789ab): worker-1: Restart travis-worker",
    ]
    assert "a. Restart the service" in ran.out
    (line,) = served.run("--config", "opsbot.yaml", "show", "1", "--json").lines
    assert [(event["event"], event["at"]) for event in line["story"]] == [("plan", "2026-01-01T00:00:00+00:00")]
    assert line["story"][0]["expires"] == "2026-01-01T00:30:00+00:00"
    assert served.run("show", "77").status == 6


def test_a_plan_is_approved_and_declined(served: Terminal, desk: FakeDesk) -> None:
    desk.begin(Actor(TEAM, BO))
    ran = served.run("approve", "1")
    assert (ran.status, ran.out) == (0, f"approve by @{ANA}\n")
    desk.begin(Actor(TEAM, BO))
    ran = served.run("decline", "2", "--because", "not at night", "--json")
    assert (ran.status, ran.lines[0]["verdict"]) == (0, "decline")
    assert desk.filed[1][0].because == "not at night"


def test_ones_own_plan_is_not_approved(served: Terminal, desk: FakeDesk) -> None:
    desk.begin(Actor(TEAM, ANA))
    ran = served.run("approve", "1")
    assert (ran.status, ran.out) == (6, "")
    assert ran.err.startswith("Not allowed: you asked for this yourself")


def test_who_may_not_exits_as_not_allowed(served: Terminal) -> None:
    ran = served.run("can", BO, "restart worker-1", "on", "prod")
    assert (ran.status, ran.out) == (6, "No: guests may not use opsbot.\n")


def test_status_and_cancel_and_watch(served: Terminal, desk: FakeDesk) -> None:
    assert served.run("status", "on", "prod").status == 0
    assert served.run("watch", "1").out.splitlines()[-1] == "HEALTHY: so it ended"
    assert served.run("cancel", "1").out == "cancel: answered\n"


# ---------------------------------------------------------------- when something is wrong


def test_what_is_not_understood_says_what_would_be(served: Terminal) -> None:
    ran = served.run("run", "make", "coffee")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.startswith("I did not understand `make coffee`")
    (line,) = served.run("run", "make", "coffee", "--json").lines
    assert (line["event"], line["exit"]) == ("error", 2)


def test_without_serve_it_says_where_and_how(terminal: Terminal) -> None:
    ran = terminal.run("runs")
    assert (ran.status, ran.out, ran.err) == (
        3,
        "",
        f"no opsbot serves at {terminal.socket}; start one with `opsbot serve --config FILE`\n",
    )


def test_trouble_is_among_the_json_lines_too(terminal: Terminal) -> None:
    ran = terminal.run("help", "--json")
    assert ran.status == 3
    said = json.loads(ran.out)
    assert said["event"] == "error"
    assert said["text"] in ran.err


def test_without_a_configuration_it_says_where_it_looked(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "opsbot.yaml").unlink()
    ran = terminal.run("runs")
    assert ran.status == 2
    assert ran.err.startswith("there is no configuration (looked for opsbot.yaml, /etc/opsbot/opsbot.yaml)")
    ran = terminal.run("runs", OPSBOT_CONFIG="/nowhere/opsbot.yaml")
    assert ran.err.startswith("/nowhere/opsbot.yaml: there is no such file") or "looked for /nowhere" in ran.err


def test_a_serve_that_dies_before_it_answers_is_no_success(terminal: Terminal, desk: FakeDesk) -> None:
    console = console_of(desk, terminal.socket, {ME: ANA})

    def hang(*_: object) -> Any:
        console.stopping.wait(10)
        raise BrokenPipeError

    console.read = hang
    console.start()
    process = terminal.start("runs")
    until = time.monotonic() + 10
    while not any("process_request_thread" in each.name for each in threading.enumerate()):
        assert time.monotonic() < until
        time.sleep(0.02)
    console.close()
    _, err = process.communicate(timeout=30)
    assert process.returncode == 3
    assert "stopped" in err
    assert "`opsbot runs` says what it took" in err


def test_usage_is_explained(terminal: Terminal) -> None:
    assert terminal.run("run").status == 2
    assert terminal.run("decline", "1").status == 2
    ran = terminal.run("show", "seven", "--json")
    (line,) = ran.lines
    assert (ran.status, line["event"], line["exit"]) == (2, "error", 2)
    assert "Invalid value for 'RUN'" in line["text"]
    assert "Invalid value for 'RUN'" in ran.err
    assert terminal.run("show", "seven").out == ""
    ran = terminal.run("--help")
    assert ran.status == 0
    for verb in ("run", "approve", "doctor", "try", "audit"):
        assert f" {verb} " in ran.out


def test_what_takes_no_json_is_named_in_the_readme() -> None:
    """Each verb, and those whose output is a document by itself."""
    without = {name for name, verb in _verbs(typer.main.get_command(app)) if "--json" not in _options(verb)}
    assert without == {"serve", "try", "manifest", "manifest sudoers", "audit export", "backup decrypt"}
    readme = (CHECKOUT / "README.md").read_text()
    assert "every verb takes `--json` but `serve`, `try`, `manifest`, `audit export` and `backup decrypt`" in readme


def _verbs(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, verb in group.commands.items():
        if not hasattr(verb, "commands") or verb.invoke_without_command:
            yield before + name, verb
        if hasattr(verb, "commands"):
            yield from _verbs(verb, f"{before}{name} ")


def _options(verb: Any) -> set[str]:
    return {option for each in verb.params for option in each.opts}


# ---------------------------------------------------------------- what needs no serve


def test_the_configuration_is_checked(terminal: Terminal, tmp_path: Path) -> None:
    ran = terminal.run("config", "check", **TOKENS)
    assert (ran.status, ran.out) == (0, "opsbot.yaml is fine: 1 installation, 3 machines.\n")
    (line,) = terminal.run("config", "check", "--json", **TOKENS).lines
    assert line == {"ok": True, "text": "opsbot.yaml is fine: 1 installation, 3 machines."}
    (tmp_path / "opsbot.yaml").write_text(VALID + "polcy: []\nengine: {lease: 10}\n")
    ran = terminal.run("config", "check", **TOKENS)
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines() == [
        "engine.lease: must be a time span with a unit, such as 10s, 30m, 26h or 1h30m",
        "polcy: unknown key (did you mean policy?)",
        "What the file names (keys, handlers, schedules) can be checked after that.",
    ]
    assert terminal.run("config", "check", "--json", **TOKENS).lines == [
        {"ok": False, "text": "engine.lease: must be a time span with a unit, such as 10s, 30m, 26h or 1h30m"},
        {"ok": False, "text": "polcy: unknown key (did you mean policy?)"},
    ]


WRONG = """\
handlers: [nowhere]
policy: [{action: worker.rebot, approvals: 2}]
schedules: [{cron: "0 3 * * *", run: backup evrything}]
"""


def test_the_check_finds_what_would_stop_serve_or_fail_at_night(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "known_hosts").unlink()
    (tmp_path / "opsbot.yaml").write_text(VALID + WRONG)
    (tmp_path / "id_ed25519").write_text("")
    ran = terminal.run("config", "check")
    assert (ran.status, ran.out) == (2, "")
    assert "SLACK_BOT_TOKEN: missing" in ran.err
    assert f"ssh.key_file: {tmp_path}/id_ed25519 does not hold a private key that can be used" in ran.err
    assert (
        f"installations[0].ssh.known_hosts: The file of pinned host keys, {tmp_path}/known_hosts, cannot be" in ran.err
    )
    assert f"the handlers folder {tmp_path}/nowhere does not exist" in ran.err
    assert "What `policy` and `schedules` name can be checked after that." in ran.err
    (tmp_path / "opsbot.yaml").write_text(VALID + WRONG.replace("handlers: [nowhere]", "handlers: []"))
    ran = terminal.run("config", "check", **TOKENS)
    assert "policy[0].action: `worker.rebot` is no action, job or fix; did you mean `worker.reboot`?" in ran.err
    assert "schedules[0].run: " in ran.err


UNPINNED = (
    "pins no host key of 10.0.0.11:22: compare each on its machine's console "
    "(`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then add it."
)


def test_keys_are_checked_as_a_login_would(terminal: Terminal, tmp_path: Path) -> None:
    key = tmp_path / "id_ed25519"
    key.chmod(0o644)
    (tmp_path / "known_hosts").write_text(PINS.replace("10.0.0.11,", ""))
    ran = terminal.run("config", "check", **TOKENS)
    assert ran.status == 2
    assert ran.err.splitlines() == [
        f"installations[0].ssh.key_file: The private key {key} can be read by others (mode 0644): `chmod 600` it.",
        f"installations[0].ssh.known_hosts: {tmp_path}/known_hosts {UNPINNED}",
    ]
    key.unlink()
    KEY.write_private_key_file(key, password="only for tests")
    (tmp_path / "known_hosts").write_text("")
    ran = terminal.run("config", "check", **TOKENS)
    assert f"The private key {key} has a passphrase" in ran.err
    assert "pins no host key of 10.0.0.10:22, 10.0.0.11:22, 10.0.0.12:22" in ran.err


def test_the_check_warns_where_nobody_could_ask(terminal: Terminal, tmp_path: Path) -> None:
    assert "Beware" in terminal.run("config", "check", **TOKENS).err
    listed = "channels: {commands: [C012AB3CD], approvals: C012AB3CE}"
    (tmp_path / "opsbot.yaml").write_text(VALID.replace("slack: {", f"slack: {{{listed}, "))
    ran = terminal.run("config", "check", **TOKENS)
    assert (ran.status, ran.err) == (0, "")


def test_the_trail_of_no_database_is_an_error_and_makes_none(terminal: Terminal, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "opsbot.yaml").write_text(f"{VALID}state_dir: {state}\n")
    for verb in ("verify", "export"):
        ran = terminal.run("audit", verb)
        assert (ran.status, ran.out) == (2, "")
        assert f"there is no database in {state}/database: `opsbot serve` makes it" in ran.err
    assert not state.exists()


def test_causes_are_listed_with_and_without_a_configuration(terminal: Terminal, tmp_path: Path) -> None:
    ours = terminal.run("causes")
    assert "worker.amqp-lost\tBROKEN\tworker lost rabbitmq\tbuilds not starting" in ours.out.splitlines()
    folder = tmp_path / "handlers"
    folder.mkdir(mode=0o700)
    (folder / "disk_full.py").write_text(
        "from bot.core.finding import Finding, Severity\n"
        "from bot.core.handler import diagnosis\n"
        "from bot.core.target import Role\n"
        "@diagnosis('disk full', of='machine trouble', each=Role.WORKER, says='Is there room?')\n"
        "def disk_full(look, machine):\n"
        "    yield Finding('disk.full', Severity.WARN, machine, 'full')\n"
    )
    with (tmp_path / "opsbot.yaml").open("a") as file:
        file.write("handlers: [handlers]\n")
    theirs = terminal.run("causes", "--json").lines
    assert {"id": "disk.full", "severity": "WARN", "diagnosis": "disk full", "situation": "machine trouble"} in theirs
    (tmp_path / "opsbot.yaml").unlink()
    assert terminal.run("causes").out == ours.out


def test_the_manifest_has_the_configured_command(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "opsbot.yaml"
    path.write_text(path.read_text().replace("app_id: A012AB3CD", "app_id: A012AB3CD, command: /ops"))
    assert "command: /ops" in terminal.run("manifest").out
    assert "command: /other" in terminal.run("manifest", "--command", "/other").out


def test_the_sudo_rules_are_for_the_configured_users(terminal: Terminal) -> None:
    ran = terminal.run("manifest", "sudoers")
    assert (ran.status, ran.err) == (0, "")
    assert ran.out.count("\nops ALL=(root) NOPASSWD: OPSBOT_") == 2


def test_the_version_is_told(terminal: Terminal) -> None:
    ran = terminal.run("--version")
    assert ran.status == 0
    assert ran.out.startswith("opsbot ")


def test_help_is_quick(terminal: Terminal) -> None:
    """Nothing heavy is imported before a verb asks for it."""
    listing = "import sys, bot.cli; print(*sorted(each.partition('.')[0] for each in sys.modules))"
    ran = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, timeout=30, cwd=CHECKOUT, check=True
    )
    heavy = {"paramiko", "psycopg", "slack_bolt", "slack_sdk", "pydantic", "yaml", "aiohttp", "structlog", "absurdctl"}
    assert not heavy & set(ran.stdout.split())
