"""Whether sudo lets commands be streamed as root: asked of its rules, and nothing is run."""

from threading import Event as Flag
from typing import Final

from bot.core import wire
from bot.core.backup import BackupFailed, Source
from bot.core.command import Command, sh
from bot.core.ports import Asker
from bot.core.question import Output

ASKING: Final = ("sudo", "-n", "-l")  # with a command behind it, which it names where it is allowed


class Rules:
    """`Checking` of commands on machines."""

    def __init__(self, machines: Asker) -> None:
        self._machines = machines

    def check(self, source: Source, abort: Flag) -> None:
        """Raises BackupFailed where a rule lacks. Whatever else sudo says tells nothing: it may want a password for a
        look at its rules, and none for the command.
        """
        assert isinstance(source.origin, Command)
        parts = [each for each in source.origin.parts() if each.as_root]
        answers = self._machines.ask(source.target, [asked(each, source) for each in parts], abort) if parts else ()
        for part, said in zip(parts, answers, strict=True):
            if isinstance(said, Output) and refused(said):
                raise BackupFailed(
                    f"{source} was not taken: sudo on {source.target} has no rule for `{part}`. `opsbot manifest"
                    " sudoers` prints the rules."
                )


def asked(part: Command, source: Source) -> Command:
    """The very words that will be sent."""
    return sh(*ASKING, *wire.bound(part, round(source.within.total_seconds())), *part.words)


def refused(said: Output) -> bool:
    """A silent 1 is for a command that is not allowed, words are for a user who may run nothing at all."""
    return said.exit == 1 and (not said.err.strip() or "may not run sudo" in said.err)
