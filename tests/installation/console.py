"""A machine spoken to without SSH: the same texts go in, and time stands still until somebody waits."""

from collections.abc import Callable

from bot.core.command import Command
from bot.core.question import Output
from bot.core.wire import questions_script, read_answers
from bot.sandbox.installation.execution import execute
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.programs import Context, Reply, Sent
from bot.sandbox.installation.timeline import ManualClock, Timeline

NOTHING = Sent("", "", lambda sent: None, written=True)


class Console:
    """Types into one machine of an installation, and remembers what the machine wrote into its log."""

    def __init__(self, installation: Installation, name: str, user: str = "ops") -> None:
        self.installation = installation
        self.machine = installation.machine(name)
        self.user = user
        self.received: list[Sent] = []

    def ask(self, *commands: Command, seconds: int = 20) -> list[Output]:
        reply = self.type(questions_script(commands, "4e0nce", seconds))
        answers = read_answers(reply.out, reply.err, "4e0nce", len(commands))
        return [answer for answer in answers if answer is not None]

    def say(self, *commands: Command) -> str:
        """What one command or several print; all of them must end well."""
        answers = self.ask(*commands)
        assert [answer.exit for answer in answers] == [0] * len(commands), answers
        return "".join(answer.out for answer in answers)

    def type(self, text: str, ended: Callable[[], bool] = lambda: False) -> Reply:
        said: list[Reply] = []
        context = Context(self.installation, self.machine, NOTHING, self.user, ended=ended)
        status = execute(context, text, said.append, self.received.append)
        return Reply(status, "".join(reply.out for reply in said), "".join(reply.err for reply in said))


def pass_time(installation: Installation, seconds: float) -> None:
    """So many seconds go by on the machines."""
    with installation.timeline.held():
        installation.timeline.pause(seconds)


def standing_still() -> Timeline:
    return Timeline(ManualClock())
