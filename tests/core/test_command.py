"""Words survive every shell as they are; secrets are nowhere but in the text that is sent."""

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.core.command import Command, Secret, command_from_json, sh

HOSTILE = [
    *("", " ", "-n", "--", "a b", "a\tb", "line\nbreak", "\n", "it's", '"', "'\"'", "$HOME", "$(id)", "`id`", "*", "?"),
    *("[a]", "~", "~root", "\\", "\\n", "%s", "!!", "#", ";", "&", "|", "<", ">", "(", ")", "{a,b}", "a=b", "é"),
    *("日本語", "\u202e", "\x01", "\x7f", "\r", "null\\0", "-e", "'; rm -rf /; '"),
]
texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"))
words = st.lists(st.one_of(st.sampled_from(HOSTILE), texts), max_size=8)
secrets = texts.map(lambda text: f"hunter2 {text}")


def said(shell: str, text: str) -> bytes:
    return subprocess.run([shell, "-c", text], capture_output=True, check=True, timeout=20).stdout


@pytest.mark.parametrize("shell", ["bash", "dash"])
@settings(max_examples=40, deadline=None)
@given(given_words=words)
def test_every_word_reaches_the_program_as_it_is(shell: str, given_words: list[str]) -> None:
    command = sh("/usr/bin/printf", "%s\\0", *given_words)
    assert said(shell, command.text()) == b"".join(f"{word}\0".encode() for word in given_words or [""])


@pytest.mark.parametrize("shell", ["bash", "dash"])
@settings(max_examples=30, deadline=None)
@given(given_words=words)
def test_every_word_survives_a_pipeline_and_a_bound(shell: str, given_words: list[str]) -> None:
    command = sh("printf", "%s\\0", *given_words) | sh("cat") | sh("cat", "-")
    assert said(shell, command.text(bound="timeout 9")) == b"".join(
        f"{word}\0".encode() for word in given_words or [""]
    )


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_pipeline_fails_when_any_part_fails(shell: str) -> None:
    for command in (sh("false") | sh("cat"), sh("true") | sh("false")):
        assert subprocess.run([shell, "-c", command.text()], timeout=20, check=False).returncode == 1


def test_the_bound_goes_inside_sudo_because_nobody_else_could_end_the_program() -> None:
    assert sh("id").sudo().text(bound="timeout 5") == "sudo -n timeout 5 id"


@settings(max_examples=20, deadline=None)
@given(value=secrets)
def test_a_secret_is_resolved_in_the_text_alone(value: str) -> None:
    command = sh("printf", "%s", Secret("password")) | sh("cat")
    assert value not in str(command) + repr(command) + json.dumps(command.to_json()) + repr(command.secrets)
    assert "<secret password>" in str(command)
    asked: list[Secret] = []

    def resolve(secret: Secret) -> str:
        asked.append(secret)
        return value

    assert said("bash", command.text(resolve)) == value.encode()
    assert asked == [Secret("password")]


def test_a_secret_may_be_a_word_of_printf_alone() -> None:
    with pytest.raises(ValueError, match="`ps` would show it"):
        sh("curl", "-u", Secret("password"))


def test_a_secret_is_never_resolved_by_default() -> None:
    with pytest.raises(ValueError, match="readable on the machine"):
        sh("printf", Secret("password")).text()


@pytest.mark.parametrize("words", [(), ("echo", "a\0b")])
def test_a_command_that_no_shell_could_run_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="NUL"):
        Command(words)


@given(parts=st.lists(st.tuples(words, st.booleans()), min_size=1, max_size=4))
def test_a_stored_command_is_the_same_command(parts: list[tuple[list[str], bool]]) -> None:
    command = sh("printf", Secret("s"))
    for more, as_root in parts:
        step = sh("cat", *more)
        command = command | (step.sudo() if as_root else step)
    assert command_from_json(json.loads(json.dumps(command.to_json()))) == command


def test_pipes_keep_their_order_however_they_are_put_together() -> None:
    one, two, three = sh("one"), sh("two"), sh("three")
    assert [str(part) for part in (one | (two | three)).parts()] == ["one", "two", "three"]
    assert str((one | two) | three) == str(one | (two | three)) == "one | two | three"
