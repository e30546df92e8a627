"""One asker for every kind of question: each goes to the adapter that knows how."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from threading import Event as Flag
from typing import Protocol

from bot.core.command import Command
from bot.core.ports import Asker, NotSent
from bot.core.question import Answer, Output, Question, Rows, Unanswered
from bot.core.sql import Statement
from bot.core.target import Target


class Machines(Asker, Protocol):
    """What reaches machines: asks them, and sends them one change at a time."""

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output: ...


class Router:
    """An `Asker` and `Sender` made of several, by the type of question; what nobody answers is said so."""

    def __init__(self, machines: Machines, others: Mapping[type, Asker]) -> None:
        self._machines = machines
        self._others = others

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        """Answers in the order of the questions; each adapter is turned to once."""
        answers: dict[int, Answer | Unanswered] = {}
        for asker, numbers in self._by_asker(questions).items():
            said = asker.ask(target, [questions[no] for no in numbers], abort) if asker else None
            for place, no in enumerate(numbers):
                answers[no] = said[place] if said else _nobody(questions[no])
        return [answers[no] for no in range(len(questions))]

    def _by_asker(self, questions: Sequence[Question]) -> dict[Asker | None, list[int]]:
        sorted_out: dict[Asker | None, list[int]] = {}
        for no, question in enumerate(questions):
            asker = self._machines if isinstance(question, Command) else self._others.get(type(question))
            sorted_out.setdefault(asker, []).append(no)
        return sorted_out

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        return self._machines.send(target, command, within, abort)

    def execute(self, target: Target, statement: Statement, within: timedelta, abort: Flag) -> Rows:
        del statement, within, abort
        raise NotSent(f"opsbot is not set up to write to the database of {target.installation}, so nothing was sent")

    def identity(self, target: Target) -> str:
        return self._machines.identity(target)


def _nobody(question: Question) -> Unanswered:
    return Unanswered(f"this installation is not set up to ask `{question}`", "not-configured")
