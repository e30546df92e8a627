"""The programs of the simulated machines: a table of functions over their state. None of them reaches the host."""

import dataclasses
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bot.sandbox.installation.state import Container, Machine
from bot.sandbox.installation.timeline import Ended

if TYPE_CHECKING:
    from bot.sandbox.installation.installation import Installation


@dataclass(frozen=True)
class Reply:
    """What a program says and how it ends."""

    exit: int = 0
    out: str = ""
    err: str = ""


@dataclass(eq=False)
class Sent:
    """A command as a machine received it; it is written down once, at the latest when it ends."""

    machine: str
    text: str
    write: Callable[["Sent"], None]
    changed: bool = False
    written: bool = False

    def changes(self) -> None:
        self.changed = True
        self.done()

    def done(self) -> None:
        if not self.written:
            self.written = True
            self.write(self)


@dataclass(frozen=True)
class Context:
    """Where and as whom a program runs, and what tells that it should end."""

    installation: "Installation"
    machine: Machine
    sent: Sent
    user: str = "ops"
    inside: Container | None = None
    network: Container | None = None  # whose network is seen, when not the machine's own
    environment: tuple[tuple[str, str], ...] = ()  # what was set for it, by docker exec -e or env
    ended: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Call:
    """One program being run: its words without its own name, and what stands on its input."""

    context: Context
    name: str
    words: tuple[str, ...]
    stdin: str = ""

    @property
    def machine(self) -> Machine:
        return self.context.machine

    @property
    def root(self) -> bool:
        return self.context.user == "root"

    def changes(self) -> None:
        """From here on the machine is another: written into the log of commands received before anything happens."""
        self.context.sent.changes()

    def pause(self, seconds: float) -> None:
        self.machine.timeline.pause(seconds, self._over())

    def until(self, met: Callable[[], bool], seconds: float) -> bool:
        return self.machine.timeline.until(met, seconds, self._over())

    def _over(self) -> Callable[[], bool]:
        boot = self.machine.boot_id
        return lambda: self.context.ended() or not self.machine.up or self.machine.boot_id != boot

    def run(self, words: tuple[str, ...], stdin: str | None = None, **different: object) -> Reply:
        """Another program in the same place, or in a different one."""
        context = dataclasses.replace(self.context, **different)  # type: ignore[arg-type]
        return run(context, words, self.stdin if stdin is None else stdin)


Runs = Callable[[Call], Reply]
Where = Callable[[Machine, Container | None], bool]


@dataclass(frozen=True)
class Program:
    runs: Runs
    where: tuple[Where, ...] = ()


PROGRAMS: dict[str, list[Program]] = {}


def program(*names: str, where: Where | None = None) -> Callable[[Runs], Runs]:
    """Put a function into the table under these names, for the machines it is installed on."""

    def put(runs: Runs) -> Runs:
        for name in names:
            PROGRAMS.setdefault(name, []).append(Program(runs, (where,) if where else ()))
        return runs

    return put


def on_systemd(machine: Machine, inside: Container | None) -> bool:
    return machine.systemd and inside is None


def on_upstart(machine: Machine, inside: Container | None) -> bool:
    return not machine.systemd and inside is None


def on_host(_machine: Machine, inside: Container | None) -> bool:
    return inside is None


def with_docker(machine: Machine, inside: Container | None) -> bool:
    return not machine.snap and inside is None


def with_lxd(machine: Machine, inside: Container | None) -> bool:
    return machine.snap and inside is None


def in_te_main(_machine: Machine, inside: Container | None) -> bool:
    return inside is not None and "te-main" in inside.image


def run(context: Context, words: tuple[str, ...], stdin: str = "") -> Reply:
    """Run a program of the table; one that is not there, or trips over its words, is remembered, and fails a tour."""
    name, *rest = words
    found = find(context, name)
    if found is None:
        return _missing(context, name)
    call = Call(context, name, tuple(rest), stdin)
    try:
        return found.runs(call)
    except (ValueError, IndexError, KeyError, re.error) as error:
        return unsupported(call, f"what these words say ({error!r})")


def find(context: Context, name: str) -> Program | None:
    candidates = PROGRAMS.get(name.rsplit("/", 1)[-1], [])
    return next((p for p in candidates if all(w(context.machine, context.inside) for w in p.where)), None)


def _missing(context: Context, name: str) -> Reply:
    if name.rsplit("/", 1)[-1] not in PROGRAMS:
        context.machine.unknown.append(name)
    return Reply(127, err=f"sh: 1: {name}: not found\n")


def unsupported(call: Call, what: str) -> Reply:
    """Words of a known program that are not simulated: as loud as an unknown program."""
    call.machine.unknown.append(shlex.join((call.name, *call.words)))
    return Reply(127, err=f"{call.name}: {what} is not simulated\n")


def options(
    words: tuple[str, ...], flags: str = "", values: str = "", longs: dict[str, bool] | None = None
) -> "Options":
    """Read words as getopt does: `flags` and `values` are letters, `longs` says which long options take a value.

    Raises Usage with the word that is neither.
    """
    read = Options()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            read.words += rest
            break
        if word.startswith("--"):
            _long(read, word[2:], rest, longs or {})
        elif word.startswith("-") and len(word) > 1:
            _short(read, word[1:], rest, flags, values)
        else:
            read.words.append(word)
    return read


@dataclass
class Options:
    given: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    def __contains__(self, name: str) -> bool:
        return name in self.given

    def all(self, *names: str) -> list[str]:
        return [value for name in names for value in self.given.get(name, [])]

    def get(self, *names: str, default: str = "") -> str:
        values = self.all(*names)
        return values[-1] if values else default


class Usage(Exception):
    """An option that the simulated program does not know."""


def _long(read: Options, word: str, rest: list[str], longs: dict[str, bool]) -> None:
    name, equals, value = word.partition("=")
    if name not in longs:
        raise Usage(f"--{name}")
    if longs[name] and not equals:
        if not rest:
            raise Usage(f"--{name}")
        value = rest.pop(0)
    read.given.setdefault(name, []).append(value)


def _short(read: Options, letters: str, rest: list[str], flags: str, values: str) -> None:
    for at, letter in enumerate(letters):
        if letter in values:
            value = letters[at + 1 :] or (rest.pop(0) if rest else "")
            read.given.setdefault(letter, []).append(value)
            return
        if letter not in flags:
            raise Usage(f"-{letter}")
        read.given.setdefault(letter, []).append("")


__all__ = ["Call", "Context", "Ended", "Program", "Reply", "Sent", "Usage", "find", "options", "program", "run"]
