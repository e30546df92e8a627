"""Programs inside the platform's container, over SSH; which container that is, is found and kept until it is gone."""

from collections.abc import Sequence
from datetime import timedelta
from threading import Event as Flag

from bot.core import docker
from bot.core.docker import Program
from bot.core.errors import Unknown
from bot.core.ports import Machines, NotSent
from bot.core.question import Output, Unanswered
from bot.core.target import Target

NOT_FOUND = "container"  # the cause of not knowing which container it is


class Containers:
    """An `Inside`, for every platform machine that `machines` reaches; safe to use from many threads."""

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._found: dict[str, str] = {}  # by the target's key

    def ask(self, target: Target, programs: Sequence[Program], abort: Flag) -> list[Output | Unanswered]:
        """One answer per program, all in one go; asked again in a new container when the known one is gone."""
        known = self._found.get(target.key)
        answers = self._ask(target, known, programs, abort) if known else []
        if answers and not any(isinstance(said, Output) and docker.gone(said) for said in answers):
            return answers
        found = self._find(target, abort)
        return [found] * len(programs) if isinstance(found, Unanswered) else self._ask(target, found, programs, abort)

    def send(self, target: Target, program: Program, within: timedelta, abort: Flag) -> Output:
        """Run it once, in the container that is there now; raises NotSent when it surely did not start."""
        found = self._find(target, abort)
        if isinstance(found, Unanswered):
            raise NotSent(found.why)
        said = self._machines.send(target, program.inside(found), within, abort)
        if docker.gone(said):
            raise NotSent(f"the platform's container on {target} was gone before anything ran in it")
        return said

    def _find(self, target: Target, abort: Flag) -> str | Unanswered:
        self._found.pop(target.key, None)
        (said,) = self._machines.ask(target, [docker.LISTING], abort)
        if isinstance(said, Unanswered):
            return said
        try:
            found = docker.main_container(said) if isinstance(said, Output) else ""
        except Unknown as why:
            return Unanswered(f"The platform's container on {target} cannot be told: {why}.", NOT_FOUND)
        self._found[target.key] = found
        return found

    def _ask(self, target: Target, found: str, programs: Sequence[Program], abort: Flag) -> list[Output | Unanswered]:
        said = self._machines.ask(target, [program.inside(found) for program in programs], abort)
        return [each if isinstance(each, Output | Unanswered) else _odd(target) for each in said]


def _odd(target: Target) -> Unanswered:
    return Unanswered(f"{target} gave no program's answer.", NOT_FOUND)
