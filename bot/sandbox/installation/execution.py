"""Running a script that was read: word by word, program by program, over the state of one machine."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass, field

from bot.core.command import BUILT_IN, Command, sh
from bot.sandbox.installation.programs import Context, Reply, Sent, find, run
from bot.sandbox.installation.shell import (
    Define,
    NotSimulated,
    Parameter,
    Pipeline,
    Redirect,
    Script,
    Simple,
    Step,
    Word,
    command_of,
    parse,
)
from bot.sandbox.installation.timeline import Ended

Say = Callable[[Reply], None]


@dataclass
class Stream:
    """A connection that a shell has opened, and what it has said on it."""

    port: int
    said: str = ""


@dataclass
class Shell:
    """One shell: its functions and parameters, and who gets to hear what its programs say."""

    context: Context
    parameters: tuple[str, ...] = ("sh",)
    pipefail: bool = False
    name: str = "sh"
    status: int = 0
    statuses: tuple[int, ...] = ()  # of each part of the last pipeline
    functions: dict[str, Script] = field(default_factory=dict)
    exited: bool = False
    streams: dict[int, Stream] = field(default_factory=dict)

    def reply(self, text: str, stdin: str = "") -> Reply:
        """Run a script to its end and collect what it says."""
        said: list[Reply] = []
        try:
            exit = self.run(text, said.append, stdin)
        except Ended as over:
            over.out = "".join(reply.out for reply in said) + over.out
            over.err = "".join(reply.err for reply in said) + over.err
            raise
        return Reply(exit, "".join(reply.out for reply in said), "".join(reply.err for reply in said))

    def run(self, text: str, say: Say, stdin: str = "") -> int:
        try:
            script = parse(text)
        except NotSimulated as refused:
            self.context.machine.unknown.append(f"{self.name}: {refused}: {text[:200]}")
            say(Reply(2, err=f"{self.name}: 1: Syntax error: {refused}\n"))
            return 2
        self._script(script, say, stdin)
        return self.status

    def _script(self, script: Script, say: Say, stdin: str) -> None:
        for step in script.steps:
            if self.exited:
                return
            if (step.when == "&&" and self.status) or (step.when == "||" and not self.status):
                continue
            if isinstance(step.what, Define):
                self.functions[step.what.name] = step.what.body
                self.status = 0
            else:
                self._pipeline(step.what, say, stdin)

    def _pipeline(self, pipeline: Pipeline, say: Say, stdin: str) -> None:
        statuses: list[int] = []
        for part in pipeline.parts[:-1]:
            reply = self._simple(part, stdin)
            say(dataclasses.replace(reply, out=""))
            statuses.append(reply.exit)
            stdin = reply.out
        last = pipeline.parts[-1]
        body = self.functions.get(last.words[0].literal or "") if last.words else None
        if body is not None:
            self._call(body, last, say)
        else:
            reply = self._simple(last, stdin)
            say(reply)
            self.status = reply.exit
        self.statuses = (*statuses, self.status)
        failed = [status for status in self.statuses if status]
        self.status = failed[-1] if self.pipefail and failed else self.status
        self.status = int(not self.status) if pipeline.negated else self.status

    def _call(self, body: Script, simple: Simple, say: Say) -> None:
        before = self.parameters
        self.parameters = (before[0], *self._words(simple)[1:])
        self._script(body, say, "")
        self.parameters = before

    def _simple(self, simple: Simple, stdin: str) -> Reply:
        words = self._words(simple)
        for redirect in simple.redirects:
            if redirect.operator == "<>":
                return self._open(redirect, words)
            if redirect.operator == "<&":
                stdin = self._hear(redirect)
            if redirect.operator == "<":
                given = self._read(redirect, words)
                if isinstance(given, Reply):
                    return given
                stdin = given
        reply = self._builtin(words, stdin) if words else Reply()
        for redirect in simple.redirects:
            reply = self._redirected(reply, redirect)
        return reply

    def _builtin(self, words: tuple[str, ...], stdin: str) -> Reply:
        if words[0] == "exit":
            self.exited = True
            return Reply(int(words[1]) if len(words) > 1 else self.status)
        if words[0] in (":", "set", "export", "umask"):
            return Reply()
        if words[0] == "exec":
            return self._builtin(words[1:], stdin) if len(words) > 1 else Reply()
        if words[0] == "command" and words[1:2] == ("-v",):
            return self._which(words[2])
        reply = run(self.context, words, stdin)
        missing = reply.exit == 127 and reply.err.startswith("sh: 1: ") and self.name == "bash"
        return Reply(127, err=f"bash: {words[0]}: command not found\n") if missing else reply

    def _which(self, name: str) -> Reply:
        return Reply(0, f"/usr/bin/{name}\n") if find(self.context, name) else Reply(127)

    def _read(self, redirect: Redirect, words: tuple[str, ...]) -> str | Reply:
        path = self._word(redirect.to)
        if path == "/dev/null":
            return ""
        if path.startswith("/dev/tcp/") and self.name == "bash":
            return self._dial(path) if not words else ""
        text = self.context.machine.read(path)
        return Reply(1, err=f"{self.name}: {path}: No such file or directory\n") if text is None else text

    def _dial(self, path: str) -> str | Reply:
        """bash's own probe: can a TCP connection be opened?"""
        host, port = path.removeprefix("/dev/tcp/").rsplit("/", 1)
        return self.context.installation.dial(self.context, host, int(port))

    def _open(self, redirect: Redirect, words: tuple[str, ...]) -> Reply:
        """`exec 3<>/dev/tcp/HOST/PORT`: a connection that stays open for what follows."""
        path = self._word(redirect.to)
        if words != ("exec",) or self.name != "bash" or not path.startswith("/dev/tcp/"):
            self.context.machine.unknown.append(f"{redirect.descriptor}<>{path}")
            return Reply(2, err=f"{self.name}: {path}: only exec and a connection are simulated here\n")
        refused = self._dial(path)
        if isinstance(refused, Reply):
            return refused
        self.streams[redirect.descriptor] = Stream(int(path.rsplit("/", 1)[1]))
        return Reply()

    def _hear(self, redirect: Redirect) -> str:
        """What the other side of a connection says; whoever waits for one that is silent waits until ended."""
        stream = self.streams.get(int(self._word(redirect.to)))
        if stream is None:
            return ""
        machine = self.context.machine
        answer = self.context.installation.answer(machine, stream.port, stream.said)
        if answer is None:
            machine.timeline.until(lambda: False, float("inf"), lambda: self.context.ended() or not machine.up)
        return answer or ""

    def _redirected(self, reply: Reply, redirect: Redirect) -> Reply:
        if redirect.operator.startswith("<"):
            return reply
        target = self._word(redirect.to)
        fd = redirect.descriptor
        if redirect.operator == ">&" and target.isdigit() and int(target) in self.streams:
            self.streams[int(target)].said += reply.out
            return dataclasses.replace(reply, out="")
        if redirect.operator == ">&" and (fd, target) == (1, "2"):
            return dataclasses.replace(reply, out="", err=reply.err + reply.out)
        if redirect.operator == ">&" and (fd, target) == (2, "1"):
            return dataclasses.replace(reply, out=reply.out + reply.err, err="")
        if target == "/dev/null":
            return dataclasses.replace(reply, out="") if fd == 1 else dataclasses.replace(reply, err="")
        self.context.machine.unknown.append(f"{fd}{redirect.operator}{target}")
        return Reply(2, err=f"{self.name}: {target}: writing files by redirection is not simulated\n")

    def _words(self, simple: Simple) -> tuple[str, ...]:
        words: list[str] = []
        for word in simple.words:
            if word.pieces in (("", Parameter("@")), (Parameter("@"),)):
                words += self.parameters[1:]
            else:
                words.append(self._word(word))
        return tuple(words)

    def _word(self, word: Word) -> str:
        return "".join(piece if isinstance(piece, str) else self._parameter(piece.name) for piece in word.pieces)

    def _parameter(self, name: str) -> str:
        if name == "?":
            return str(self.status)
        if name.isdigit():
            return self.parameters[int(name)] if int(name) < len(self.parameters) else ""
        return {"HOME": "/root" if self.context.user == "root" else f"/home/{self.context.user}"}.get(name, "")


def execute(
    context: Context, text: str, say: Say, write: Callable[[Sent], None], stdin: str = "", secret: bool = False
) -> int:
    """Run a script that came over the wire; every command in it is written into the machine's log.

    Where there are secrets they are words of printf, and those words are left out of the log.

    The installation stands still while a command runs, and moves on while what it said is handed out. Raises Ended
    when the program that runs is ended from outside.
    """
    try:
        script = parse(text)
    except NotSimulated as refused:
        context.machine.unknown.append(f"{refused}: {text[:200]}")
        Sent(context.machine.name, text, write).done()
        say(Reply(2, err=f"sh: 1: Syntax error: {refused}\n"))
        return 2
    shell = Shell(context)
    for step in script.steps:
        if shell.exited or context.ended():
            break
        for reply in _step(shell, step, write, stdin, secret):
            say(reply)
    return shell.status


def execute_stream(context: Context, line: str, say: Say, write: Callable[[Sent], None]) -> tuple[int, ...]:
    """Run one line whose output is streamed; how each of its programs ended."""
    shell = Shell(context)
    for step in parse(line).steps:
        for reply in _step(shell, step, write, "", False):
            say(reply)
    return shell.statuses


def _step(shell: Shell, step: Step, write: Callable[[Sent], None], stdin: str, secret: bool) -> list[Reply]:
    said: list[Reply] = []
    text = _received(step.what, secret) if isinstance(step.what, Pipeline) else None
    sent = Sent(shell.context.machine.name, text or "", write, written=text is None)
    shell.context = dataclasses.replace(shell.context, sent=sent)
    with shell.context.machine.timeline.held():
        try:
            shell._script(Script((step,)), said.append, stdin)
        finally:
            sent.done()
    return said


def _received(pipeline: Pipeline, secret: bool) -> str | None:
    """The text of the Command, None for the shell's own words (the marker function)."""
    first = pipeline.parts[0].words[0].literal if pipeline.parts[0].words else None
    if first in (None, "m", "exit", ":"):
        return None
    command = command_of(pipeline)
    if command is None:
        return f"(shell) {first}"
    return _without_secrets(command).text() if secret else command.text()


def _without_secrets(command: Command) -> Command:
    parts = [sh(BUILT_IN, "<secret>") if part.words[0] == BUILT_IN else part for part in command.parts()]
    return functools.reduce(operator.or_, parts)
