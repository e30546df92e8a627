"""The simulated machines as the diagnoser asks them: by commands alone, while their time stands still."""

from collections.abc import Sequence
from threading import Event as Flag

from bot.core.command import Command
from bot.core.question import Answer, Question, Unanswered
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser
from bot.sandbox.installation import settled
from tests.installation.console import Console, pass_time, standing_still


class Simulated:
    """An installation, and what was asked of it; a machine that is down gives no answer."""

    def __init__(self) -> None:
        self.installation = settled(standing_still())
        self.consoles = {name: Console(self.installation, name) for name in self.installation.machines}
        self.asked: list[str] = []
        workers = self.installation.workers()
        targets = (
            Target(each.name, Role.WORKER if each in workers else Role.PLATFORM, "try", each.address)
            for each in self.installation.machines.values()
        )
        self.site = Site("try", "travis.example.com", "2.2", tuple(targets))
        self.diagnoser = Diagnoser(self.site, self, lambda target, question, span: None)

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        self.asked.append(target.name)
        pass_time(self.installation, 0)
        if not self.consoles[target.name].machine.up:
            return [Unanswered(f"{target} is down") for _ in questions]
        commands = [question for question in questions if isinstance(question, Command)]
        assert len(commands) == len(questions)
        return self.consoles[target.name].ask(*commands)

    def identity(self, target: Target) -> str:
        return target.address

    def changes(self) -> list[str]:
        return [sent.text for console in self.consoles.values() for sent in console.received if sent.changed]

    def unknown(self) -> list[str]:
        return [text for machine in self.installation.machines.values() for text in machine.unknown]
