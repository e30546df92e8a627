"""Asks machines and changes them, over SSH."""

import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from threading import Event as Flag
from typing import TypeGuard

from bot.adapters.ssh import forward
from bot.adapters.ssh.channel import Answers, Capped, Conversation, End, Ending, send_all
from bot.adapters.ssh.host import Host, Limits, Unreached
from bot.adapters.ssh.pool import Pool
from bot.core import wire
from bot.core.command import Command, Resolve, refuse_secrets
from bot.core.ports import NotSent
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Target

ENDING = wire.KILL_AFTER + 3  # seconds that a machine may take to end a change and to say so
DENIED = re.compile(  # how sudo says no under LC_ALL=C, by version; it exits with 1
    r"^sudo: (a password is required|no tty present|a terminal is required|sorry, you must have a tty|.*not allowed)"
    r"|^Sorry, user .* (is not allowed to execute|may not run sudo)"
    r"|is not in the sudoers file|is not allowed to run sudo",
    re.MULTILINE,
)
SAID = {
    End.STOPPED: "{0} was not asked to the end: the run was stopped.",
    End.LATE: "{0} did not answer all questions within {1:g} s.",
    End.TOO_MUCH: "{0} said more than {2} MiB; the rest was not read.",
    End.LOST: "{0} lost the connection while it was asked.",
}


class Ssh:
    """Reaches every machine that `hosts` knows, by `Target.key`; safe to use from many threads."""

    def __init__(
        self, hosts: Mapping[str, Host], resolve: Resolve = refuse_secrets, limits: Limits | None = None
    ) -> None:
        self._hosts = hosts
        self._resolve = resolve
        self._limits = limits or Limits()
        self._pool = Pool(self._limits)

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> list[Answer | Unanswered]:
        """One answer per question; commands go over one connection in one go. Never raises for a machine's sake."""
        asked = [question for question in questions if _can_be_asked(question)]
        answered = iter(self._ask(target, asked, abort) if asked else ())
        return [
            next(answered) if _can_be_asked(question) else Unanswered(f"{question} cannot be asked over SSH.")
            for question in questions
        ]

    def identity(self, target: Target) -> str:
        """Address and pinned host key: `10.0.0.11:22 SHA256:…`."""
        try:
            host = self._host(target)
            pinned = self._pool.pins(host)
        except Unreached as error:
            return str(error)
        return f"{host} {pinned[0]}" if pinned else f"{host} (no pinned host key)"

    def send(self, target: Target, command: Command, within: timedelta, abort: Flag) -> Output:
        """Make one change, at most once, bounded on the machine too; stopping ends it there.

        Raises NotSent when nothing of it reached the machine; `exit` is None when nobody knows how it ended.
        """
        seconds = max(1, round(within.total_seconds()))
        try:
            script = wire.change_script(command, seconds, self._resolve).encode()
        except Exception as error:  # a secret that cannot be had, of whatever kind
            raise NotSent(f"{command} could not be written down for {target}: {error}") from error
        try:
            return self._send(target, script, seconds + wire.KILL_AFTER + self._limits.grace, abort)
        except Unreached as error:
            raise NotSent(str(error)) from error

    def forward(self, target: Target, host: str, port: int) -> AbstractContextManager[int]:
        """A port on loopback that leads to host:port as the machine sees it, while the context is open."""
        return forward.listening(lambda: self._pool.connection(str(target), self._host(target), Flag()), host, port)

    def close(self) -> None:
        """Close every connection; what runs on machines ends."""
        self._pool.close()

    def _host(self, target: Target) -> Host:
        host = self._hosts.get(target.key)
        if host is None:
            raise Unreached(f"{target} cannot be reached: the configuration has no SSH address for it.")
        return host

    # ---------------------------------------------------------------- asking

    def _ask(self, target: Target, commands: Sequence[Command], abort: Flag) -> list[Answer | Unanswered]:
        answers: list[Answer | Unanswered] = []
        for _ in range(2):  # questions only read, so a lost connection may be asked again, once
            left = commands[len(answers) :]
            try:
                answered, ending = self._converse(target, left, abort)
            except Unreached as error:
                return [*answers, *(Unanswered(str(error), error.cause) for _ in left)]
            answers += [judged(target, *pair) for pair in zip(left, answered, strict=False)]
            if len(answers) == len(commands) or ending.how is not End.LOST:
                break
        why = SAID.get(ending.how, "{0} ended the session before it had answered.")
        said = why.format(target, self._limits.ask, self._limits.stream >> 20)
        return [*answers, *(Unanswered(said) for _ in commands[len(answers) :])]

    def _converse(self, target: Target, commands: Sequence[Command], abort: Flag) -> tuple[list[Output], Ending]:
        nonce = secrets.token_hex(16)
        script = wire.ask_round(commands, nonce, self._limits.program).encode()
        out, err = Answers(self._limits.answer, nonce), Answers(self._limits.answer, nonce)
        with self._pool.shell(str(target), self._host(target), abort) as (connection, shell):
            most, asked = self._limits.stream, len(commands)
            talk = Conversation(
                shell.channel, out, err, most, connection.check, lambda: min(out.count, err.count) >= asked
            )
            deadline = time.monotonic() + self._limits.ask
            send_all(shell.channel, script, deadline, abort)
            ending = talk.listen(deadline, abort)
            shell.reusable = ending.how is End.SAID and not (out.rest or err.rest)
        answers = wire.read_answers(out.text, err.text, nonce, len(commands))
        cut = _either(out.truncated, err.truncated)
        return [replace(answer, truncated=next(cut, False)) for answer in answers if answer is not None], ending

    # ---------------------------------------------------------------- changing

    def _send(self, target: Target, script: bytes, within: float, abort: Flag) -> Output:
        out, err = Capped(self._limits.answer), Capped(self._limits.answer)
        with self._pool.channel(str(target), self._host(target), abort, wire.SHELL) as (connection, channel):
            if abort.is_set():
                raise Unreached("It was stopped before anything was sent.")
            talk = Conversation(channel, out, err, sys.maxsize, connection.check)
            deadline = time.monotonic() + within
            whole = send_all(channel, script, deadline, abort)
            ending = talk.listen(deadline, abort)
            if ending.how in (End.STOPPED, End.LATE):
                talk.hang_up()  # the machine ends it now; its status says that nothing of it is left
                ending = talk.listen(time.monotonic() + ENDING, Flag())
        known = ending.exit if whole and ending.exit not in wire.CUT_SHORT else None
        return Output(known, out.text, err.text, out.truncated or err.truncated)


def judged(target: Target, command: Command, output: Output) -> Output | Unanswered:
    """The answer, unless sudo refused to ask."""
    if output.exit == 1 and any(part.as_root for part in command.parts()) and DENIED.search(output.err):
        said = output.err.strip().splitlines()[-1][:200]
        return Unanswered(
            f"sudo on {target} refuses `{command}`: {said}. `opsbot manifest sudoers` prints the rules that it needs.",
            "sudo-denied",
        )
    return output


def _either(out: Sequence[bool], err: Sequence[bool]) -> Iterator[bool]:
    return (one or two for one, two in zip(out, err, strict=False))


def _can_be_asked(question: Question) -> TypeGuard[Command]:
    """Commands, but without secrets: what is asked becomes words of programs, which `ps` shows."""
    return isinstance(question, Command) and not question.secrets
