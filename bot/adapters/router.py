"""One asker for every kind of question: each goes to the adapter that knows how."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event as Flag
from typing import Protocol

from bot.core.aws import AwsCall
from bot.core.command import Command
from bot.core.ports import Asker, NotSent
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.sql import Statement
from bot.core.target import Target


class Machines(Asker, Protocol):
    """What reaches machines: asks them, and sends them one change at a time."""

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output: ...


class Writer(Protocol):
    """What executes statements, once."""

    def execute(self, target: Target, statement: Statement, within: timedelta, abort: Flag) -> Output: ...


class Calls(Protocol):
    """What sends calls of AWS' API, once."""

    def call(self, target: Target, call: AwsCall, within: timedelta) -> Output: ...


class Router:
    """An `Asker` and `Sender` made of several, by the type of question; what nobody answers is said so."""

    def __init__(
        self,
        machines: Machines,
        others: Mapping[type, Asker],
        writer: Writer | None = None,
        calls: Calls | None = None,
    ) -> None:
        self._machines = machines
        self._others = others
        self._writer = writer
        self._calls = calls

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        """Answers in the order of the questions; each adapter is turned to once, all of them at the same time."""
        parts = _by_kind(questions)

        def ask(kind: type) -> Sequence[Answer | Unanswered]:
            asked = [questions[no] for no in parts[kind]]
            asker = self._machines if kind is Command else self._others.get(kind)
            return asker.ask(target, asked, abort) if asker else [_nobody(each) for each in asked]

        if len(parts) == 1:
            return ask(next(iter(parts)))
        answers: dict[int, Answer | Unanswered] = {}
        with ThreadPoolExecutor(len(parts) or 1, "ask") as pool:
            for kind, said in zip(parts, pool.map(ask, parts), strict=True):
                answers.update(zip(parts[kind], said, strict=True))
        return [answers[no] for no in range(len(questions))]

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        return self._machines.send(target, command, within, abort)

    def execute(self, target: Target, statement: Statement | AwsCall, within: timedelta, abort: Flag) -> Output:
        if isinstance(statement, AwsCall):
            return self._call(target, statement, within)
        if self._writer is None:
            raise NotSent(f"opsbot is not set up to write to the database of {target.installation}, nothing was sent")
        return self._writer.execute(target, statement, within, abort)

    def _call(self, target: Target, call: AwsCall, within: timedelta) -> Output:
        if self._calls is None:
            raise NotSent(f"opsbot is not set up to call AWS for {target.installation}, nothing was sent")
        return self._calls.call(target, call, within)

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)


def _by_kind(questions: Sequence[Question]) -> dict[type, list[int]]:
    """The places of the questions of each type."""
    sorted_out: dict[type, list[int]] = {}
    for no, question in enumerate(questions):
        sorted_out.setdefault(type(question), []).append(no)
    return sorted_out


def _nobody(question: Question) -> Unanswered:
    return Unanswered(f"this installation is not set up to ask `{question}`", "not-configured")
