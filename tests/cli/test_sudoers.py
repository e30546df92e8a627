"""The sudo rules: they allow whatever a handler runs as root, and nothing else."""

import fnmatch
import os
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest
import yaml

from bot.adapters import redis
from bot.adapters.database import Location, inside
from bot.cli.sudoers import Broker, rooted, sudoers
from bot.core import unit
from bot.core.command import Command, sh
from bot.core.fact import Fact
from bot.core.fix import Change, Step, Wait
from bot.core.question import Answer, Question, RedisRead, Unanswered
from bot.core.sql import Query, Statement
from bot.core.target import Role, Target
from bot.core.wire import bound
from bot.engine.rounds import Diagnoser
from tests.engine.machines import Machines, diagnoses, table
from tests.handlers.test_cases import installation, looked_at

CASES = sorted((Path(__file__).parents[1] / "handlers" / "cases").glob("*.yaml"))
CONTAINER = "4f1c2ab9d0e1"
EVERY = sudoers(["ops"], (Broker(data_dirs=("/var/travis", "/srv/travis")), Broker("host"), Broker("http")))


class Listening(Machines):
    """Keeps every command that it is asked, with the machine's role."""

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        self.commands = [*getattr(self, "commands", []), *((target.role, each) for each in questions)]
        return super().ask(target, questions, abort)


def run_as_root(case: dict[str, Any]) -> Iterator[tuple[Role, Command, timedelta]]:
    """Everything that the case makes opsbot run as root: questions, and every step of every fix that it offers."""
    site = installation(case)
    asked = Listening(table(case["answers"]), away=set(case.get("away", ())))
    report = Diagnoser(site, asked, lambda *_: None).look(diagnoses(case), looked_at(case, site), Flag())
    for role, question in asked.commands:
        yield from _parts(role, question, timedelta(seconds=20))
    for fix in (fix for found in report.findings for fix in found.finding.fixes):
        for step in (*fix.steps, *fix.ensure):
            yield from _steps(fix.target.role, step)


def _steps(role: Role, step: Step) -> Iterator[tuple[Role, Command, timedelta]]:
    if isinstance(step, Wait):
        yield from _asked(step.fact)
    if not isinstance(step, Change):
        return
    if step.needed is not None:
        yield from _asked(step.needed)
    assert isinstance(step.command, Command)
    if not step.slow:
        yield from _parts(role, step.command, step.within)
        return
    name = unit.name(4711, 12, datetime(2026, 5, 6, 7, 8, 9, tzinfo=UTC))
    for each in (unit.start(step.command, name, step.within), *unit.forget(name)):
        yield from _parts(role, each, timedelta(seconds=30))


def _asked(fact: Fact[Any]) -> Iterator[tuple[Role, Command, timedelta]]:
    role = fact.on if isinstance(fact.on, Role) else fact.on.role
    yield from _parts(role, fact.question, timedelta(seconds=20))


def _parts(role: Role, question: Question, within: timedelta) -> Iterator[tuple[Role, Command, timedelta]]:
    if isinstance(question, Command):
        yield from ((role, part, within) for part in question.parts() if part.as_root)


def rules_of(text: str, role: Role) -> list[str]:
    section = text.split(f"Cmnd_Alias OPSBOT_{role.name} = \\\n")[1].split("\nops ALL")[0]
    return [line.strip() for line in section.split(", \\\n")]


def allowed(rules: Iterable[str], command: Command, within: timedelta) -> bool:
    """As sudo compares: the words joined by spaces, against each rule's."""
    words = " ".join((*bound(command, round(within.total_seconds())), *map(str, command.words))[1:])
    return any(fnmatch.fnmatchcase(words, _pattern(rule)) for rule in rules)


def _pattern(rule: str) -> str:
    program, _, words = rule.partition(" ")
    assert program == "/usr/bin/timeout"
    words = words.replace("\\" * 4, "\0")  # real sudo needs four for one
    for sign in ",:=#!":
        words = words.replace(f"\\{sign}", sign)
    return (
        words.replace("\\]", "]").replace("\\[", "[[]").replace("\\*", "[*]").replace("\\?", "[?]").replace("\0", "\\")
    )


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_whatever_a_handler_runs_as_root_is_allowed(path: Path) -> None:
    for role, command, within in run_as_root(yaml.safe_load(path.read_text())):
        assert allowed(rules_of(EVERY, role), command, within), (
            f"sudo on a {role.value} would refuse `{command}` ({within}); bot/cli/sudoers.py makes the rules"
        )


EDITING = ("worker-host-mismatch-systemd", "worker-build-api-upstart-commented-out", "worker-config-unparsable-binds")
SED = ("sed", "-i", "-E", "--follow-symlinks", "-e")
NEVER = [
    (Role.WORKER, sh(*SED, r"s|^(\s*(export\s+)?QUEUE_NAME=).*|\1other|", "/etc/default/travis-worker"), 30),
    (Role.WORKER, sh(*SED, "1e id", "/etc/default/travis-worker"), 30),
    (Role.WORKER, sh(*SED, r"s|^(\s*(export\s+)?QUEUE_NAME=).*|\1builds.trusty|", "/etc/passwd"), 30),
    (Role.WORKER, sh("install", "-m", "600", "/etc/shadow", "/etc/default/travis-worker"), 30),
    (Role.WORKER, sh("rmdir", "/var/tmp"), 30),
    (Role.WORKER, sh("sh", "-c", "id"), 20),
    (Role.WORKER, sh("docker", "ps"), 20),
    (Role.WORKER, sh("docker", "kill", "-s", "USR2", "travis-worker", "other"), 300),
    (Role.WORKER, sh("systemctl", "stop", "opsbot-1-1-260101000000.service", "travis-worker"), 30),
    (Role.WORKER, sh("systemctl", "stop", "travis-worker"), 30),
    (Role.WORKER, sh("nsenter", "-t", "1 -m", "-n", "ss", "-tn", "state", "established", "x"), 20),
    (Role.WORKER, sh("kill", "-s", "USR2", "-1"), 300),
    (Role.WORKER, sh("kill", "-s", "KILL", "4711"), 300),
    (Role.WORKER, sh("shutdown", "-r", "now"), 300),
    (Role.PLATFORM, sh("shutdown", "-r", "now"), 60),
    (Role.PLATFORM, sh("replicatedctl", "app-config", "export", "--hidden"), 20),
    (Role.PLATFORM, sh("rm", "-r", "/etc/travis/ssl/rabbitmq.cert"), 300),
    (Role.PLATFORM, sh("tail", "-n", "5000", "/etc/shadow"), 20),
    (Role.PLATFORM, sh("docker", "exec", CONTAINER, "sh"), 20),
    (Role.PLATFORM, sh("docker", "exec", f"--privileged {CONTAINER}", "rabbitmqctl", "-q", "list_channels"), 20),
    (Role.PLATFORM, sh("rabbitmqctl", "-q", "list_consumers", "-p", "other"), 20),
]


@pytest.mark.parametrize(("role", "command", "seconds"), NEVER, ids=[str(command)[:60] for _, command, _ in NEVER])
def test_nothing_else_is_allowed(role: Role, command: Command, seconds: int) -> None:
    assert not allowed(rules_of(EVERY, role), command, timedelta(seconds=seconds))


def test_no_rule_matches_any_text() -> None:
    for role in Role:
        for rule in rules_of(EVERY, role):
            assert "*" not in rule.replace("\\*", "")


def test_every_fact_of_ours_is_known_to_it() -> None:
    wanted, left_out = rooted((Broker(),))
    assert [name for name in left_out if not name.startswith("tests.")] == []
    assert {each.role for each in wanted} == set(Role)


def test_where_the_broker_runs_and_its_vhost_decide_the_rules() -> None:
    host = rules_of(sudoers(["ops"], (Broker("host", "ci", databases=(), redis_in_container=False),)), Role.PLATFORM)
    assert "/usr/bin/timeout -k 2 20 rabbitmqctl -q list_consumers -p ci" in host
    assert not any("docker exec" in rule for rule in host)
    container = rules_of(sudoers(["ops"]), Role.PLATFORM)
    assert not any(rule.startswith("/usr/bin/timeout -k 2 20 rabbitmqctl") for rule in container)
    elsewhere = rules_of(sudoers(["ops"], (Broker("http", backups=True),)), Role.PLATFORM)
    assert not any("rabbitmqctl" in rule or " sv " in rule for rule in elsewhere), "its management API needs no right"


def test_what_psql_and_redis_cli_are_told_is_no_word_of_a_rule() -> None:
    rules = rules_of(sudoers(["ops"]), Role.PLATFORM)
    queries = [Query("SELECT 1"), Query("SELECT id FROM users WHERE login = %s", ("any; 'login'",))]
    for query in queries:
        made = list(inside.reading(Location(), query).inside(CONTAINER).parts())
        assert allowed(rules, made[-1], timedelta(seconds=20))
        assert not made[0].as_root, "what is told comes from a program that needs no rights"
    statement = inside.writing(Location(), Statement("DELETE FROM users"), timedelta(minutes=5)).inside(CONTAINER)
    assert allowed(rules, list(statement.parts())[-1], timedelta(minutes=5, seconds=5))
    asked = redis.program(RedisRead(("LLEN", "any key"))).inside(CONTAINER)
    assert allowed(rules, list(asked.parts())[-1], timedelta(seconds=20))


def test_databases_and_redis_outside_of_the_container_need_no_rule() -> None:
    rules = rules_of(sudoers(["ops"], (Broker(databases=(), redis_in_container=False),)), Role.PLATFORM)
    assert not any(" psql " in rule for rule in rules)
    assert not any("redis-cli" in rule and "DEL" not in rule for rule in rules)


def test_visudo_takes_it(tmp_path: Path) -> None:
    file = tmp_path / "sudoers"
    file.write_text(EVERY)
    file.chmod(0o440)
    checked = subprocess.run(
        ["/usr/sbin/visudo", "-cf", str(file)], check=False, capture_output=True, text=True, timeout=20
    )
    assert checked.returncode == 0, checked.stderr


if os.geteuid() == 0:  # sudo belongs to root, and so must whoever asks it about somebody else

    def test_real_sudo_compares_as_we_do(tmp_path: Path) -> None:
        """Asks sudo what it would allow, in a mount namespace of its own; nothing is run."""
        file = tmp_path / "sudoers"
        secure = 'Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"\nroot ALL=(ALL) ALL\n'
        file.write_text(secure + EVERY.replace("\nops ALL", "\nnobody ALL"))
        file.chmod(0o440)
        chosen = (*CASES[:4], *(path for path in CASES if path.stem in EDITING))
        yes = [each for path in chosen for each in run_as_root(yaml.safe_load(path.read_text()))]
        no = [(role, command, timedelta(seconds=seconds)) for role, command, seconds in NEVER]
        every = [*dict.fromkeys(yes), *no]
        lines = [
            shlex.join((*bound(command, round(within.total_seconds())), *map(str, command.words)))
            for _, command, within in every
        ]
        ask = "\n".join(f"sudo -n -l -U nobody {line} >/dev/null 2>&1; echo $?" for line in lines)
        script = f"mount --bind {shlex.quote(str(file))} /etc/sudoers || exit 1\n{ask}"
        said = subprocess.run(
            ["unshare", "--mount", "sh", "-c", script], check=False, capture_output=True, text=True, timeout=60, cwd="/"
        )
        rules = [*rules_of(EVERY, Role.WORKER), *rules_of(EVERY, Role.PLATFORM)]
        expected = [0 if allowed(rules, command, within) else 1 for _, command, within in every]
        assert {0, 1} == set(expected)
        assert [int(status) for status in said.stdout.split()] == expected, said.stderr
