"""Programs to run, as values: one place quotes them, one place masks them.

`Command.text()` is what is sent, `str()` is what is shown. A `Secret` word is a reference that is resolved only when
the text is made; it may be a word of `printf` alone, which every shell has built in, so that `ps` never shows it.
"""

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

BUILT_IN = "printf"  # the one program that may carry a secret: it runs inside the shell, so no argv shows it


@dataclass(frozen=True)
class Secret:
    """The name of a secret, never its value."""

    name: str

    def __str__(self) -> str:
        return f"<secret {self.name}>"

    __repr__ = __str__


Word = str | Secret
Resolve = Callable[[Secret], str]


def refuse_secrets(secret: Secret) -> str:
    raise ValueError(f"{secret} may not be part of this command: it would be readable on the machine")


@dataclass(frozen=True)
class Command:
    """A program with its words, or a pipeline of them that fails when any part fails."""

    words: tuple[Word, ...]
    as_root: bool = False
    source: "Command | None" = None

    def __post_init__(self) -> None:
        texts = [word for word in self.words if not isinstance(word, Secret)]
        if not self.words or "\0" in "".join(texts):
            raise ValueError("a command needs a program, and no word may hold a NUL character")
        if len(texts) < len(self.words) and self.words[0] != BUILT_IN:
            raise ValueError(f"a secret can only be a word of {BUILT_IN}, or `ps` would show it on the machine")

    def sudo(self) -> "Command":
        """The same, as root; a machine that asks for a password answers with an error instead."""
        return Command(self.words, True, self.source)

    def __or__(self, then: "Command") -> "Command":
        if then.source is not None:
            return (self | then.source) | replace(then, source=None)
        return replace(then, source=self)

    def parts(self) -> Iterator["Command"]:
        if self.source is not None:
            yield from self.source.parts()
        yield self if self.source is None else replace(self, source=None)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        before = () if self.source is None else self.source.secrets
        return (*before, *(word for word in self.words if isinstance(word, Secret)))

    def text(self, resolve: Resolve = refuse_secrets, bound: str = "") -> str:
        """What is sent to a POSIX shell, with every word quoted.

        `bound` is put before each program, inside sudo (`timeout -k 2 20`): from outside, an ordinary user could not
        end it.
        """
        line = " | ".join(_line(part, resolve, bound) for part in self.parts())
        return line if self.source is None else f"bash -o pipefail -c {shlex.quote(line)}"

    def __str__(self) -> str:
        return " | ".join(_line(part, str) for part in self.parts())

    def to_json(self) -> list[dict[str, Any]]:
        return [{"words": [_word_to_json(word) for word in part.words], "root": part.as_root} for part in self.parts()]


def _line(part: Command, resolve: Resolve, bound: str = "") -> str:
    words = (shlex.quote(resolve(word) if isinstance(word, Secret) else word) for word in part.words)
    prefix = ("sudo -n" if part.as_root else "", bound if part.words[0] != BUILT_IN else "")
    return " ".join((*filter(None, prefix), *words))


def _word_to_json(word: Word) -> str | Mapping[str, str]:
    return {"secret": word.name} if isinstance(word, Secret) else word


def command_from_json(parts: list[dict[str, Any]]) -> Command:
    made: Command | None = None
    for part in parts:
        words = tuple(Secret(word["secret"]) if isinstance(word, dict) else word for word in part["words"])
        step = Command(words, as_root=part["root"])
        made = step if made is None else made | step
    if made is None:
        raise ValueError("a stored command has no parts")
    return made


def sh(*words: Word) -> Command:
    """A program and its words: `sh("systemctl", "restart", unit).sudo()`; pipe with `|`."""
    return Command(words)
