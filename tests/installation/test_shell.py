"""The reader of shell text: exactly what opsbot sends, and nothing that could do more than it says."""

import functools
import operator
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.command import Command, sh
from bot.core.wire import questions_script
from bot.sandbox.installation import settled
from bot.sandbox.installation.shell import RESERVED, NotSimulated, Pipeline, Script, command_of, parse
from tests.installation.console import Console, standing_still

HOSTILE = [
    "a b", "it's", '"', "\\", "$HOME", "$(reboot)", "`reboot`", "a\nb", "; reboot", "&& reboot", "| sh",
    "> /etc/passwd", "", " ", "\t", "é✓", "*", "~", "#", "!", "{a,b}", "${IFS}", "'\"'\"'", "-n", "--", "</dev/null",
    "m", "$?", "'$(x)'",
]  # fmt: skip
characters = st.characters(codec="utf-8", exclude_characters="\0")
words = st.one_of(st.sampled_from(HOSTILE), st.text(characters, max_size=12))
programs = st.text(characters, min_size=1, max_size=8).filter(lambda word: word not in RESERVED and "=" not in word)
parts = st.builds(
    lambda program, rest, root: Command((program, *rest), as_root=root), programs, st.lists(words), st.booleans()
)
commands = st.lists(parts, min_size=1, max_size=3).map(lambda several: functools.reduce(operator.or_, several))


def _commands(script: Script) -> list[Command | None]:
    return [command_of(step.what) for step in script.steps if isinstance(step.what, Pipeline)]


def _surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


@settings(deadline=None)
@given(commands)
def test_a_command_comes_back_as_it_was_sent(command: Command) -> None:
    assert _commands(parse(command.text())) == [command]


@settings(deadline=None)
@given(st.lists(commands, max_size=4), st.integers(1, 99))
def test_every_question_of_a_script_comes_back(asked: list[Command], seconds: int) -> None:
    said = _commands(parse(questions_script(asked, "4e0nce", seconds)))
    assert said[::2] == asked
    assert [command.words[0] for command in said[1::2] if command] == []  # `m $?` is no command: it has a parameter
    assert len(said) == 2 * len(asked)


@settings(deadline=None)
@given(st.text(characters, max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(NotSimulated):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "echo $(reboot)", "echo `reboot`", 'echo "$(reboot)"', 'echo "`reboot`"', "echo ${HOME:-x}", "echo $((1+1))",
        "sleep 1 & reboot", "(reboot)", "echo *", "echo ~", "echo a[b]", "if true; then reboot; fi", "while true",
        "PATH=/tmp reboot", "echo 'open", 'echo "open', "echo \\", "cat <<EOF", "true &&",
        "| sh", "true | | sh", "f() { true;",
        "echo {a,b}", "echo $'x'", "time reboot", "case x in",
    ],
)  # fmt: skip
def test_shell_that_opsbot_never_sends_is_refused(text: str) -> None:
    with pytest.raises(NotSimulated):
        parse(text)


def test_a_refusal_is_remembered_and_nothing_runs() -> None:
    console = Console(settled(standing_still()), "worker-1")
    boot = console.machine.boot_id
    assert console.type("sudo -n shutdown -r now; echo $(id)").exit == 2
    assert console.machine.boot_id == boot
    assert console.machine.unknown


@settings(max_examples=40, deadline=None)
@given(st.lists(words.filter(lambda word: not _surrogate(word)), min_size=1, max_size=4))
def test_a_real_shell_reads_the_same_words(several: list[str]) -> None:
    text = sh("printf", "<%s>\\n", *several).text()
    real = subprocess.run(["sh", "-c", text], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=10)
    console = Console(settled(standing_still()), "worker-1")
    assert console.type(text).out.encode() == real.stdout


@settings(max_examples=40, deadline=None)
@given(st.lists(words.filter(lambda word: not _surrogate(word)), min_size=1, max_size=3))
def test_a_real_shell_gives_the_same_answers(several: list[str]) -> None:
    asked = [sh("printf", "%s", *several) | sh("wc", "-l"), sh("printf", "%s", several[0]), sh("false")]
    script = questions_script(asked, "4e0nce", 20)
    real = subprocess.run(["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=10)
    console = Console(settled(standing_still()), "worker-1")
    simulated = console.type(script)
    assert simulated.out.encode() == real.stdout
    assert simulated.err.encode() == real.stderr
