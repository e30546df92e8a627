"""The shell text that goes over SSH, run by real shells on this machine."""

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core import wire
from bot.core.command import Command, Secret, sh
from bot.core.question import Output

NONCE = "n0nce"
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


def run(shell: str, script: str) -> Done:
    """As sshd does: the standard input stays open until the shell has ended."""
    reading, writing = os.pipe()
    words = [shell, "--norc"]
    os.write(writing, script.encode())
    try:
        with os.fdopen(reading) as stdin:
            done = subprocess.run(
                words, stdin=stdin, capture_output=True, timeout=20, check=False, start_new_session=True
            )
    finally:
        os.close(writing)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


class Asked:
    """An `ASK_SHELL` that stays, and what it says to the rounds that are typed into it."""

    def __init__(self, shell: str) -> None:
        words = (shell, "-c", wire.ASK_SHELL)
        pipe, path = subprocess.PIPE, {"PATH": os.defpath}  # a machine's, not one with folders of somebody else's
        self.process = subprocess.Popen(
            words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, bufsize=0, env=path
        )
        self.rounds = 0

    def ask(self, *commands: Command, seconds: int = 5) -> list[Output | None]:
        self.rounds += 1
        nonce = f"{NONCE}{self.rounds}"
        self.type(wire.ask_round(commands, nonce, seconds))
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        out, err = (self._until(stream, nonce, len(commands)) for stream in (self.process.stdout, self.process.stderr))
        return wire.read_answers(out, err, nonce, len(commands))

    def type(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode())

    def _until(self, stream: IO[bytes], nonce: str, markers: int) -> str:
        said, end = b"", time.monotonic() + 20
        while len(re.findall(rb"\n%s \d+\n" % nonce.encode(), said)) < markers:
            assert select.select([stream], [], [], max(0, end - time.monotonic()))[0], said
            said += os.read(stream.fileno(), 65536)
        return said.decode()

    def hang_up(self) -> str:
        """Nothing more will come; what was said since, when everything has ended."""
        out, _ = self.process.communicate(timeout=20)
        return str(out.decode())


@pytest.fixture(params=["bash", "dash"])
def asked(request: pytest.FixtureRequest) -> Iterator[Asked]:
    shell = Asked(request.param)
    yield shell
    shell.hang_up()


def test_each_question_has_its_own_answer_on_both_streams(asked: Asked) -> None:
    one, two, three, four = asked.ask(
        sh("echo", "one"),
        sh("sh", "-c", "echo two; echo trouble >&2; exit 3"),
        sh("no-such-program"),
        sh("echo", "-n"),
    )
    assert (one, two) == (Output(0, "one\n"), Output(3, "two\n", "trouble\n"))
    assert three is not None
    assert three.exit == 127
    assert "no-such-program" in three.err
    assert four == Output(0, "")


def test_a_program_past_its_time_costs_only_itself(asked: Asked) -> None:
    assert asked.ask(sh("sleep", "30"), sh("echo", "next"), seconds=1) == [Output(None), Output(0, "next\n")]


def test_a_pipeline_past_its_time_costs_only_itself(asked: Asked) -> None:
    """Its filters have no bound of their own: they end with the program that they hear."""
    stubborn = sh("timeout", "-k", "1", "1", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    answers = asked.ask(
        sh("sleep", "30") | sh("grep", "x") | sh("sed", "p"), stubborn | sh("wc", "-l"), sh("id", "-u"), seconds=2
    )
    assert [answer.exit if answer else "" for answer in answers] == [None, None, 0]


def test_a_pipeline_fails_when_any_part_fails(asked: Asked) -> None:
    failing = sh("sh", "-c", "echo two words; exit 3") | sh("grep", "two words")
    last = sh("echo", "x") | sh("sh", "-c", "cat >&2; exit 4")
    answers = asked.ask(failing, last, sh("echo", "it's") | sh("cat"), sh("bash", "-c", "echo $0", "name"))
    assert answers == [Output(3, "two words\n"), Output(4, "", "x\n"), Output(0, "it's\n"), Output(0, "name\n")]


@pytest.mark.parametrize(
    ("asked_for", "sent"),
    [
        (sh("docker", "ps").sudo(), "sudo -n timeout -k 2 20 docker ps"),
        (sh("timeout", "-k", "2", "15", "docker", "ps").sudo(), "sudo -n timeout -k 2 15 docker ps"),
        (sh("timeout", "-k", "2", "60", "docker", "ps"), "timeout -k 2 20 timeout -k 2 60 docker ps"),
        (sh("timeout", "15", "docker", "ps"), "timeout -k 2 20 timeout 15 docker ps"),  # it may not listen to TERM
        (sh("timeout", "15", "getent", "hosts", "h"), "timeout 15 getent hosts h"),
        (sh("date", "+%s"), "date +%s"),
        (sh("date", "-f", "/x"), "timeout -k 2 20 date -f /x"),
        (sh("date", "+%s").sudo(), "sudo -n timeout -k 2 20 date +%s"),
        (sh("cat", "/proc/uptime"), "cat /proc/uptime"),
        (sh("cat", "/proc/uptime", "/x"), "timeout -k 2 20 cat /proc/uptime /x"),
        (sh("cat", "/x") | sh("sed", "p"), "bash -o pipefail -c 'timeout -k 2 20 cat /x | sed p'"),
        (sh("sed", "p", "/x"), "timeout -k 2 20 sed p /x"),
        (sh("date", "+%s") | sh("sed", "p").sudo(), "bash -o pipefail -c 'date +%s | sudo -n timeout -k 2 20 sed p'"),
    ],
)  # fmt: skip
def test_only_what_ends_by_itself_is_asked_without_a_bound(asked_for: Command, sent: str) -> None:
    assert wire.questions_script([asked_for], NONCE, 20).splitlines()[1:] == [f"{sent} </dev/null; m $?"]


def test_a_question_cannot_read_what_is_typed_next(asked: Asked) -> None:
    assert asked.ask(sh("cat"), sh("cat") | sh("cat")) == [Output(0), Output(0)]


def test_one_shell_answers_round_after_round(asked: Asked) -> None:
    for no in range(3):
        assert asked.ask(sh("echo", f"{no}"), sh("sh", "-c", f"exit {no}")) == [Output(0, f"{no}\n"), Output(no)]


@pytest.mark.parametrize("word", [f"a\n{NONCE}1\nb", "it's\nb", "\\", "$(id)", "`id`", "%s\\n", "é", "x" * 100_000])
def test_a_question_gets_its_words_as_they_are(asked: Asked, word: str) -> None:
    if NONCE not in word:
        assert asked.ask(sh("printf", "%s", word)) == [Output(0, word)]
    else:  # who knew the nonce could end the round; it is new in each, and never told before
        asked.rounds = 1
        assert asked.ask(sh("printf", "%s", word)) == [Output(0, word)]


@given(st.lists(texts, max_size=3))
def test_a_round_can_be_read_back(words: list[str]) -> None:
    commands = [sh("echo", word).sudo() for word in words]
    text = wire.ask_round(commands, NONCE, 5)
    assert wire.read_round(f"{text}more") == (wire.questions_script(commands, NONCE, 5), "more")
    assert wire.read_round(text[:-1]) is None
    assert wire.read_round("") is None


def test_half_a_round_asks_nothing(asked: Asked, tmp_path: Path) -> None:
    text = wire.ask_round([sh("touch", str(tmp_path / "asked"))], NONCE, 5)
    asked.type(text[: text.rindex(NONCE)])
    assert asked.hang_up() == ""
    assert not (tmp_path / "asked").exists()


def test_what_is_asked_ends_with_the_connection(asked: Asked) -> None:
    began = time.monotonic()
    asked.type(wire.ask_round([sh("sh", "-c", "sleep 30 & sleep 30")], NONCE, 25))
    time.sleep(0.3)
    asked.hang_up()
    assert time.monotonic() - began < 5


@given(out=texts, err=texts, status=st.integers(0, 255))
def test_whatever_a_program_says_is_its_answer(out: str, err: str, status: int) -> None:
    said, blamed = (f"{text}\n{NONCE} {status}\nlast\n{NONCE} 0\n" for text in (out, err))
    first, last = wire.read_answers(said, blamed, NONCE, 2)
    assert first == Output(None if status in wire.ENDED else status, out, err)
    assert last == Output(0, "last", "last")


@pytest.mark.parametrize("status", ["", "x", "-1", "٣", "9" * 5000])
def test_a_marker_without_a_status_ends_no_answer(status: str) -> None:
    """No program knows the nonce, but the machine does."""
    said = f"one\n{NONCE} 0\ntwo\n{NONCE} {status}\nthree\n{NONCE} 0\n"
    assert wire.read_answers(said, "", NONCE, 3) == [Output(0, "one"), None, None]


@given(st.lists(texts, max_size=4), st.integers(0, 200))
def test_an_answer_whose_marker_never_came_is_none(outs: list[str], cut: int) -> None:
    whole = "".join(f"{out}\n{NONCE} 0\n" for out in outs)
    answers = wire.read_answers(whole[:cut], "", NONCE, len(outs))
    assert len(answers) == len(outs)
    got = [answer.out for answer in answers if answer is not None]
    assert got == outs[: len(got)]


# ---------------------------------------------------------------- changes


@pytest.mark.parametrize("word", ["a b", "it's", "$(id)", "`id`", "line\nbreak", "\\", "é", "-n", "'\"'", "}", "%s"])
def test_a_change_gets_its_words_as_they_are(word: str) -> None:
    assert run("bash", wire.change_script(sh("/usr/bin/printf", "%s", word), 5)).stdout == word


@settings(max_examples=25, deadline=None)
@given(value=texts)
def test_a_secret_reaches_the_next_program_as_it_is(value: str) -> None:
    command = sh("printf", "%s", Secret("password")) | sh("cat")
    assert run("bash", wire.change_script(command, 5, lambda _: value)).stdout == value


def test_a_change_tells_how_it_ended() -> None:
    assert run("bash", wire.change_script(sh("sh", "-c", "echo no >&2; exit 7"), 5)).returncode == 7
    assert run("bash", wire.change_script(sh("false") | sh("cat"), 5)).returncode == 1


def test_a_change_is_bounded_on_the_machine() -> None:
    began = time.monotonic()
    assert run("bash", wire.change_script(sh("sleep", "30"), 1)).returncode == 124
    assert time.monotonic() - began < 5


def test_no_beginning_of_a_change_changes_anything(tmp_path: Path) -> None:
    mark = tmp_path / "changed"
    script = wire.change_script(sh("touch", str(mark)), 5)
    cuts = [*range(0, len(script) - 1, 97), *range(len(script) - 12, len(script) - 1)]  # the last one lacks "}\n"
    for cut in cuts:
        subprocess.run(["bash", "--norc"], input=script[:cut].encode(), capture_output=True, timeout=20, check=False)
        assert not mark.exists(), script[cut - 20 : cut]
    run("bash", script)
    assert mark.exists()


def test_the_shell_says_nothing_of_a_secret_when_a_program_is_killed() -> None:
    command = sh("printf", "%s", Secret("password")) | sh("sh", "-c", "kill -SEGV $$")
    done = run("bash", wire.change_script(command, 5, lambda _: "hunter2hunter2"))
    assert done.returncode != 0
    assert "hunter2" not in done.stdout + done.stderr


def test_a_secret_never_goes_under_sudo() -> None:
    with pytest.raises(ValueError, match="may not run under sudo"):
        wire.change_script(sh("printf", Secret("password")).sudo(), 5, lambda _: "hunter2")


def test_a_secret_that_no_shell_can_carry_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        wire.change_script(sh("printf", Secret("password")), 5, lambda _: "a\0b")


@given(value=texts, word=texts)
def test_a_change_can_be_read_back_with_its_secrets(value: str, word: str) -> None:
    command = sh("printf", "%s$s0", Secret("one"), '"$s0"', Secret("two")) | sh("cat", word).sudo()
    resolve = {"one": value, "two": f"{value}'2"}
    read = wire.read_change(wire.change_script(command, 5, lambda secret: resolve[secret.name]))
    bound = f"timeout -k {wire.KILL_AFTER} 5"  # printf is not a program, so it takes none
    assert read == " | ".join(part.text(lambda s: resolve[s.name], bound) for part in command.parts())


@pytest.mark.parametrize("script", ["", "echo hi\n", wire.change_script(sh("id"), 5)[:-1]])
def test_nothing_else_is_read_as_a_change(script: str) -> None:
    assert wire.read_change(script) is None


def test_whatever_the_programs_ignore_everything_ends_with_the_connection() -> None:
    number = f"61{os.getpid()}.5"
    stubborn = sh("sh", "-c", f"trap '' TERM HUP INT; sleep {number}; sleep {number}") | sh("sleep", number)
    shell = subprocess.Popen(
        ["bash", "--norc"], stdin=subprocess.PIPE, start_new_session=True, stderr=subprocess.DEVNULL
    )
    assert shell.stdin is not None
    shell.stdin.write(wire.change_script(stubborn, 60).encode())
    shell.stdin.flush()
    try:
        wait_until(lambda: len(running(number)) >= 4)
        began = time.monotonic()
        shell.stdin.close()
        assert shell.wait(timeout=10) in (129, 137, 143)
        assert running(number) == []
        assert time.monotonic() - began < wire.KILL_AFTER + 1.5
    finally:
        for pid in running(number):
            os.kill(pid, signal.SIGKILL)


def running(marker: str) -> list[int]:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if re.search(rb"\b%s\b" % re.escape(marker.encode()), file.read_bytes()):
                found.append(int(file.parent.name))
        except OSError:
            continue
    return found


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "it did not happen within 10 s"
        time.sleep(0.02)


# ---------------------------------------------------------------- streams


def test_a_stream_ends_with_how_each_program_of_it_ended() -> None:
    done = run("bash", wire.stream_script(sh("sh", "-c", "echo some; exit 3") | sh("cat"), 5, NONCE))
    assert done.stdout.encode() == b"some\n" + wire.stream_end((3, 0), NONCE)
    assert wire.read_end(done.stdout.encode(), NONCE) == (b"some\n", (3, 0))


@pytest.mark.parametrize(
    "last",
    [b"", b"some\n", f"\n{NONCE} 0".encode(), f"\n{NONCE} 0\nmore".encode(), f"\n{NONCE}\n".encode(), b"\nnonce 0\n"],
)
def test_what_is_no_end_is_none(last: bytes) -> None:
    assert wire.read_end(last, NONCE) is None


@given(texts)
def test_a_stream_can_be_read_by_a_simulated_machine(word: str) -> None:
    script = wire.stream_script(sh("printf", "%s", Secret("word")) | sh("cat", word), 5, NONCE, lambda _: word)
    line = (sh("printf", "%s", word) | sh("timeout", "-k", "2", "5", "cat", word)).parts()
    assert wire.read_stream(script) == (" | ".join(part.text() for part in line), NONCE)
    assert wire.read_stream(script[:-2]) is None
    assert wire.read_stream(wire.change_script(sh("cat", word), 5)) is None
