"""The part of the POSIX shell that opsbot sends, read into a tree. Nothing is expanded or run here.

A small recursive-descent reader of our own: `shlex` forgets which words were quoted, and that is what matters.
Whatever is outside this part is refused by name (`NotSimulated`), so that hostile text can at most be refused.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bot.core.command import Command
from bot.core.wire import KILL_AFTER

RESERVED = frozenset(
    [
        "if",
        "then",
        "elif",
        "else",
        "fi",
        "for",
        "while",
        "until",
        "do",
        "done",
        "case",
        "esac",
        "in",
        "select",
        "function",
        "time",
        "coproc",
    ]
)
OPERATORS = ("&&", "||", ";;", ">>", ">&", "<&", "<<", "<>", ";", "&", "|", "<", ">", "(", ")", "\n")


class NotSimulated(Exception):
    """Shell that opsbot has no reason to send; the sentence says what."""


@dataclass(frozen=True)
class Parameter:
    """`$1`, `$?`, `$@`: filled in when it runs, and never split into words."""

    name: str


@dataclass(frozen=True)
class Word:
    pieces: tuple[str | Parameter, ...]
    quoted: bool = False

    @property
    def literal(self) -> str | None:
        """The text when nothing needs to be filled in."""
        return "".join(map(str, self.pieces)) if not any(isinstance(p, Parameter) for p in self.pieces) else None


@dataclass(frozen=True)
class Operator:
    text: str
    descriptor: int | None = None


Token = Word | Operator


@dataclass(frozen=True)
class Redirect:
    descriptor: int
    operator: str
    to: Word


@dataclass(frozen=True)
class Simple:
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...] = ()


@dataclass(frozen=True)
class Define:
    """`name() { …; }`"""

    name: str
    body: "Script"


@dataclass(frozen=True)
class Pipeline:
    parts: tuple[Simple, ...]
    negated: bool = False


@dataclass(frozen=True)
class Step:
    """A pipeline and the word before it: always, only after success, only after failure."""

    when: str
    what: Pipeline | Define


@dataclass(frozen=True)
class Script:
    steps: tuple[Step, ...]


def parse(text: str) -> Script:
    """Read a script; raises NotSimulated for anything that opsbot does not send."""
    reader = _Reader(list(_tokens(text)))
    script = reader.script()
    if reader.peek() is not None:
        raise NotSimulated(f"unexpected {_shown(reader.peek())}")
    return script


# ---------------------------------------------------------------- words


_UNQUOTED = re.compile(r"[^\s'\"\\$`|&;<>()*?\[\]~#{}!]+")
_IN_QUOTES = re.compile(r"[^\"\\$`]+")
_PARAMETER = re.compile(r"\$(?:\{([A-Za-z_]\w*|[0-9?@#!$*])\}|([A-Za-z_]\w*|[0-9?@#!$*]))")


def _tokens(text: str) -> Iterator[Token]:
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
        elif text.startswith("\\\n", at):
            at += 2
        elif text[at] == "#":
            at = _end_of_line(text, at)
        elif operator := next((op for op in OPERATORS if text.startswith(op, at)), None):
            yield Operator(operator)
            at += len(operator)
        elif descriptor := re.compile(r"(\d)(?=[<>])").match(text, at):
            at = descriptor.end()
            operator = next(op for op in OPERATORS if text.startswith(op, at))
            yield Operator(operator, int(descriptor[1]))
            at += len(operator)
        else:
            word, at = _word(text, at)
            yield word


def _end_of_line(text: str, at: int) -> int:
    end = text.find("\n", at)
    return len(text) if end < 0 else end


def _word(text: str, at: int) -> tuple[Word, int]:
    pieces: list[str | Parameter] = []
    quoted = False
    start = at
    while at < len(text) and text[at] not in " \t\n|&;<>()":
        character = text[at]
        if character == "'":
            piece, at = _single(text, at)
            pieces.append(piece)
            quoted = True
        elif character == '"':
            inner, at = _double(text, at)
            pieces += inner
            quoted = True
        elif character == "\\":
            pieces.append(_escaped(text, at))
            quoted = True
            at += 2
        elif character == "$":
            parameter, at = _parameter(text, at)
            pieces.append(parameter)
        elif plain := _UNQUOTED.match(text, at):
            pieces.append(plain[0])
            at = plain.end()
        elif character in "{}![]" and at == start and (at + 1 == len(text) or text[at + 1] in " \t\n;"):
            return Word((character,)), at + 1
        elif character == "#":
            pieces.append("#")
            at += 1
        else:
            raise NotSimulated(f"unquoted {character!r} would be expanded by the shell")
    return Word(tuple(pieces), quoted), at


def _single(text: str, at: int) -> tuple[str, int]:
    end = text.find("'", at + 1)
    if end < 0:
        raise NotSimulated("a quote is not closed")
    return text[at + 1 : end], end + 1


def _double(text: str, at: int) -> tuple[list[str | Parameter], int]:
    pieces: list[str | Parameter] = [""]
    at += 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            escaped = text[at + 1 : at + 2]
            pieces.append(escaped if escaped and escaped in '$`"\\' else "" if escaped == "\n" else "\\" + escaped)
            at += 2
        elif text[at] == "$":
            parameter, at = _parameter(text, at)
            pieces.append(parameter)
        elif plain := _IN_QUOTES.match(text, at):
            pieces.append(plain[0])
            at = plain.end()
        else:
            raise NotSimulated("backquotes would run a program inside a word")
    if at >= len(text):
        raise NotSimulated("a quote is not closed")
    return pieces, at + 1


def _escaped(text: str, at: int) -> str:
    if at + 1 >= len(text):
        raise NotSimulated("a backslash at the end")
    return "" if text[at + 1] == "\n" else text[at + 1]


def _parameter(text: str, at: int) -> tuple[str | Parameter, int]:
    if found := _PARAMETER.match(text, at):
        return Parameter(found[1] or found[2]), found.end()
    if text[at + 1 : at + 2] in ("(", "{", "'", '"', "`"):
        raise NotSimulated(f"${text[at + 1]} would be expanded by the shell")
    return "$", at + 1


# ---------------------------------------------------------------- sentences


class _Reader:
    def __init__(self, tokens: list[Token]) -> None:
        self._tokens = tokens
        self._at = 0

    def peek(self) -> Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, *texts: str) -> str | None:
        token = self.peek()
        if isinstance(token, Operator) and token.text in texts and token.descriptor is None:
            self._at += 1
            return token.text
        return None

    def _is(self, text: str) -> bool:
        token = self.peek()
        return isinstance(token, Word) and not token.quoted and token.pieces == (text,)

    def script(self, ends: str = "") -> Script:
        steps: list[Step] = []
        when = ";"
        while True:
            while self._take("\n", ";"):
                pass
            if self.peek() is None or (ends and self._is(ends)):
                if when != ";":
                    raise NotSimulated(f"nothing follows {when}")
                return Script(tuple(steps))
            steps.append(Step(when, self._define() or self._pipeline()))
            when = self._take(";", "\n", "&&", "||") or self._end(ends)
            when = ";" if when == "\n" else when

    def _end(self, ends: str) -> str:
        if self.peek() is None or (ends and self._is(ends)):
            return ";"
        raise NotSimulated(f"unexpected {_shown(self.peek())}")

    def _define(self) -> Define | None:
        name, *following = self._tokens[self._at : self._at + 4]
        texts = [token.text if isinstance(token, Operator) else token.literal for token in following]
        if not isinstance(name, Word) or name.quoted or texts != ["(", ")", "{"]:
            return None
        self._at += 4
        body = self.script(ends="}")
        if not self._is("}"):
            raise NotSimulated("a function body is not closed")
        self._at += 1
        return Define(name.literal or "", body)

    def _pipeline(self) -> Pipeline:
        negated = self._is("!")
        self._at += negated
        parts = [self._simple()]
        while self._take("|"):
            while self._take("\n"):
                pass
            parts.append(self._simple())
        return Pipeline(tuple(parts), negated)

    def _simple(self) -> Simple:
        words: list[Word] = []
        redirects: list[Redirect] = []
        while (token := self.peek()) is not None:
            if isinstance(token, Word):
                words.append(_program(token) if not words else token)
                self._at += 1
            elif token.text in ("<", ">", ">>", ">&", "<&", "<>"):
                self._at += 1
                redirects.append(self._redirect(token))
            else:
                break
        if not words and not redirects:
            raise NotSimulated(f"unexpected {_shown(self.peek())}")
        return Simple(tuple(words), tuple(redirects))

    def _redirect(self, operator: Operator) -> Redirect:
        to = self.peek()
        if not isinstance(to, Word):
            raise NotSimulated(f"nothing follows {operator.text}")
        self._at += 1
        default = 0 if operator.text.startswith("<") else 1
        return Redirect(operator.descriptor if operator.descriptor is not None else default, operator.text, to)


def _program(word: Word) -> Word:
    """The first word: unquoted, the shell may take it for a keyword or an assignment, and then it is no program."""
    if not word.quoted and word.literal in (*RESERVED, "{", "}", "!", "[["):
        raise NotSimulated(f"{word.literal} is a word of the shell's own, not a program")
    if not word.quoted and re.match(r"[A-Za-z_]\w*\+?=", str(word.pieces[0])):
        raise NotSimulated(f"{word.literal} sets a variable, it is not a program")
    return word


def _shown(token: Token | None) -> str:
    if token is None:
        return "end"
    return repr(token.text) if isinstance(token, Operator) else repr(token.literal)


# ---------------------------------------------------------------- back to commands


def command_of(pipeline: Pipeline) -> Command | None:
    """The Command whose text this is, without the time limits before its programs; None when no Command says this."""
    commands = [_part(part) for part in pipeline.parts]
    if any(command is None for command in commands) or pipeline.negated:
        return None
    made = commands[0]
    for command in commands[1:]:
        made = made | command if made and command else None
    return made


def _part(part: Simple) -> Command | None:
    words = [word.literal for word in part.words]
    if not words or None in words:
        return None
    texts = [word for word in words if word is not None]
    if texts[:4] == ["bash", "-o", "pipefail", "-c"] and len(texts) == 5:
        return _inner(texts[4]) or Command(tuple(texts))
    as_root = texts[:2] == ["sudo", "-n"]
    texts = texts[2:] if as_root else texts
    if texts[:3] == ["timeout", "-k", str(KILL_AFTER)] and len(texts) > 4:
        texts = texts[4:]
    return Command(tuple(texts), as_root=as_root) if texts else None


def _inner(text: str) -> Command | None:
    try:
        script = parse(text)
    except NotSimulated:
        return None
    step = script.steps[0].what if len(script.steps) == 1 else None
    return command_of(step) if isinstance(step, Pipeline) and len(step.parts) > 1 else None
