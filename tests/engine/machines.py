"""Machines that answer from a table: an `Asker` and `Sender` that remember what they were told."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event as Flag
from typing import Any

from bot.core.aws import AwsCall
from bot.core.command import Command
from bot.core.handler import Diagnosis
from bot.core.ports import NotSent
from bot.core.question import Answer, Output, Question, Reached, Response, Rows, Unanswered
from bot.core.sql import Statement
from bot.core.target import Target
from bot.engine.discovery import discover

Said = str | Answer | Unanswered


@dataclass
class Machines:
    """Answers each question text of each machine; a question that is not in the table is an error of the test.

    `on_send` is called with every change, so that a test can turn the answers that follow; what it returns is the
    output.
    """

    answers: dict[str, dict[str, Said]] = field(default_factory=dict)
    on_send: Callable[[str, str], Output] = lambda machine, command: Output(0)
    asked: list[tuple[str, str]] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)
    rounds: int = 0
    away: set[str] = field(default_factory=set)
    abort: Flag = field(default_factory=Flag)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        with self._guard:
            self.asked += [(target.name, str(question)) for question in questions]
            if target.name in self.away:
                return [Unanswered(f"{target} does not answer on port 22")] * len(questions)
            return [self._answer(target.name, str(question)) for question in questions]

    def _answer(self, machine: str, question: str) -> Answer | Unanswered:
        table = self.answers.get(machine, {})
        if question not in table:
            raise LookupError(f"{machine} was asked `{question}`, which this test does not answer")
        said = table[question]
        return Output(0, said) if isinstance(said, str) else said

    def identity(self, target: Target) -> str:
        return f"{target.address}:22 SHA256:{target.name}"

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        if target.name in self.away:
            raise NotSent(f"{target} does not answer on port 22")
        with self._guard:
            self.sent.append((target.name, str(command)))
            self.abort = abort
        return self.on_send(target.name, str(command))

    def execute(self, target: Target, statement: Statement | AwsCall, within: timedelta, abort: Flag) -> Output:
        if target.name in self.away:
            raise NotSent(f"the database of {target} does not answer")
        with self._guard:
            self.sent.append((target.name, str(statement)))
        return self.on_send(target.name, str(statement))


def diagnoses(case: Mapping[str, Any]) -> list[Diagnosis]:
    """Those that a YAML case names, one or several. Naming a whole situation would let each new handler ask of the
    case what it does not answer.
    """
    named = [case["diagnosis"]] if isinstance(case["diagnosis"], str) else case["diagnosis"]
    found = [each for name in named for each in discover().about(name)]
    assert len(found) >= len(named), f"nothing is called one of {named}"
    return found


def table(spoken: Mapping[str, Mapping[str, object]]) -> dict[str, dict[str, Said]]:
    """Answers as a YAML case writes them: a text, or a mapping whose keys say which kind of answer it is."""
    return {machine: {asked: _said(said) for asked, said in rows.items()} for machine, rows in spoken.items()}


def _said(said: object) -> Said:
    """`rows` of a query, `status` and `body` of a page (`truncated` when it had more), how a connection was `reached`,
    why it went `unanswered` (and under which `cause`); anything else is what a program or redis said: a text, or
    `exit`, `out`, `err`.
    """
    if not isinstance(said, Mapping):
        return str(said)
    kinds: dict[str, Callable[[Mapping[Any, Any]], Said]] = {
        "rows": lambda given: Rows(tuple(given["rows"])),
        "status": lambda given: Response(
            given["status"], str(given.get("body", "")), given.get("headers", {}), given.get("truncated", False)
        ),
        "reached": lambda given: Reached(given["reached"]),
        "unanswered": lambda given: Unanswered(given["unanswered"], given.get("cause", "unreachable")),
    }
    kind = next((kinds[key] for key in kinds if key in said), None)
    return kind(said) if kind else Output(said.get("exit", 0), str(said.get("out", "")), str(said.get("err", "")))
