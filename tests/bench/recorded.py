"""Answers of a healthy simulated installation, and programs for real machines that print them.

Each program is a small shell script that knows its words: a machine that answers so spends nothing on the answer
itself, and what is measured is the asking.
"""

import shlex
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event as Flag

from bot.adapters.containers import Containers
from bot.adapters.database import Database, Location
from bot.adapters.redis import Redis, Server
from bot.adapters.router import Router
from bot.core.command import BUILT_IN, Command
from bot.core.handler import Diagnosis
from bot.core.ports import Asker, Machines
from bot.core.question import Answer, HttpGet, Output, Question, RedisRead, TcpProbe, Unanswered
from bot.core.sql import Query
from bot.core.target import Target
from bot.engine.rounds import Diagnoser, Report
from bot.sandbox.installation import Shape
from tests.installation.practice import CATALOGUE, Practice, Web
from tests.rigs import postgres

SITUATION = "builds not starting"
DIAGNOSES: tuple[Diagnosis, ...] = tuple(each for each in CATALOGUE.diagnoses.values() if each.of == SITUATION)
PLATFORM = "platform-1"
NOT_RECORDED = "no answer was recorded"
SCRIPT = """\
#!/bin/sh
in=; while IFS= read -r l; do in=$in$l"
"; done
case "$in$l|$*" in
{answers}
*) {otherwise};;
esac
"""


@dataclass
class Remembering:
    """Machines, or an asker of another kind, and all that was asked there, round after round."""

    behind: Asker
    asked: dict[Target, list[tuple[Question, Answer | Unanswered]]] = field(default_factory=lambda: defaultdict(list))

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        said = self.behind.ask(target, questions, abort)
        self.asked[target] += zip(questions, said, strict=True)
        return said

    def identity(self, target: Target) -> str:
        return self.behind.identity(target)

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        raise NotImplementedError("a look changes nothing")

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        raise NotImplementedError("everything is asked on the machine")


@dataclass
class Repeating:
    """Says again what was said of the same question."""

    said: dict[tuple[Target, Question], Answer | Unanswered]

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [self.said[target, question] for question in questions]

    def identity(self, target: Target) -> str:
        return target.address


@dataclass(frozen=True)
class Recorded:
    """One look at a healthy installation: what each machine was asked in all, and what the others said."""

    practice: Practice
    report: Report
    machines: Remembering
    others: Remembering

    def looking(self, machines: Machines) -> Diagnoser:
        """Asks those machines; databases and pages, which are no programs on machines, say what they said."""
        said = {(target, question): answer for target, all_ in self.others.asked.items() for question, answer in all_}
        return diagnoser(self.practice, machines, Repeating(said))

    def commands(self, name: str) -> list[tuple[Command, Output]]:
        """What that machine was asked, once each, in the order of the asking."""
        (target,) = (each for each in self.machines.asked if each.name == name)
        given = dict(self.machines.asked[target])
        return [
            (asked, said) for asked, said in given.items() if isinstance(asked, Command) and isinstance(said, Output)
        ]


def diagnoser(practice: Practice, machines: Machines, others: Asker) -> Diagnoser:
    redis = Redis({"try": Server()}, machines, Containers(machines))
    askers: dict[type, Asker] = {Query: others, HttpGet: others, TcpProbe: others, RedisRead: redis}
    return Diagnoser(practice.site, Router(machines, askers), lambda *_: None)


@contextmanager
def recorded(workers: Sequence[Shape]) -> Iterator[Recorded]:
    """What a look at that many healthy workers and their platform asks and hears; nothing is wrong, nothing unknown."""
    with postgres.server("18") as server, server.database() as dsn:
        practice = Practice(dsn, (Shape(PLATFORM, "127.0.0.21", worker=False, release="16.04"), *workers))
        machines = Remembering(practice.machines)
        database = Database({("try", "main"): Location()}, practice.machines, Containers(practice.machines))
        web = Web(practice.installation)
        others = Remembering(Router(machines, {Query: database, HttpGet: web, TcpProbe: web}))
        report = diagnoser(practice, machines, others).look(DIAGNOSES, practice.site, Flag())
        yield Recorded(practice, healthy(report), machines, others)


def healthy(report: Report) -> Report:
    assert not report.findings, report.findings[:3]
    assert not report.unknown, report.unknown[:3]
    return report


def programs(*machines: Sequence[tuple[Command, Output]]) -> dict[str, str]:
    """Texts of programs, by name, that answer as recorded; of machines that share them the first one's answer counts.

    A part of a pipeline knows itself by what comes in, and the one before it says no more than which one it is.
    """
    said: dict[tuple[Command, ...], Output] = {}
    for command, answer in (pair for machine in machines for pair in machine):
        said.setdefault(tuple(command.parts()), answer)
    known: dict[str, dict[str, Output]] = defaultdict(dict)
    for parts in said:
        for no, (name, *words) in enumerate(map(_program, parts)):
            taken = _out(parts[:no], said).out if no else ""
            known[name][f"{taken}|{' '.join(words)}"] = _out(parts[: no + 1], said)
    known.pop(BUILT_IN, None)
    return {name: _script(name, answers) for name, answers in known.items()}


def _out(parts: tuple[Command, ...], said: dict[tuple[Command, ...], Output]) -> Output:
    """What these parts say together: as recorded when they were asked so, else their number."""
    first = parts[0]
    if len(parts) == 1 and first.words[0] == BUILT_IN:
        return Output(0, str(first.words[2]))
    return said.get(parts) or Output(0, f"{zlib.crc32(' | '.join(map(str, parts)).encode())}\n")


def _program(part: Command) -> tuple[str, ...]:
    """Its words without the `timeout` in front, which is the real one."""
    words = [str(word) for word in part.words]
    if words[0] == "timeout":
        words = words[4:] if words[1] == "-k" else words[2:]
    return tuple(words)


def _script(name: str, answers: dict[str, Output]) -> str:
    """Unknown words are an error, but not of bash, which runs our pipelines."""
    lines = (f"{shlex.quote(asked)}) {_says(said)};;" for asked, said in answers.items())
    otherwise = f"echo '{NOT_RECORDED}:' {name} \"$*\" >&2; exit 127"
    return SCRIPT.format(answers="\n".join(lines), otherwise='exec /bin/bash "$@"' if name == "bash" else otherwise)


def _says(said: Output) -> str:
    out = f"printf %s {shlex.quote(said.out)}; " if said.out else ""
    err = f"printf %s {shlex.quote(said.err)} >&2; " if said.err else ""
    return f"{out}{err}exit {said.exit or 0}"
