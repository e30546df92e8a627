"""Nothing leaves unmasked: by value in every spelling, by pattern, and only the redactor makes Shown text."""

import base64
import json
import shlex
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.core.command import Secret, sh
from bot.core.shown import MASK, Redactor, Shown

secrets = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cc", "Cf", "Cs", "Z")), min_size=6
)
texts = st.text(max_size=80)


@given(secrets, texts, texts)
def test_a_known_secret_never_shows_in_any_spelling(secret: str, before: str, after: str) -> None:
    show = Redactor([secret]).show
    spellings = (
        secret,
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        base64.b64encode(secret.encode()).decode(),
        shlex.quote(secret),
    )
    for spelling in spellings:
        assert secret not in show(f"{before} {spelling} {after}").replace(MASK, "\x00") or secret in MASK


@given(texts)
def test_showing_twice_changes_nothing_more(text: str) -> None:
    show = Redactor(["correct horse"]).show
    assert show(show(text)) == show(text)


@given(st.text(st.sampled_from("ab\x00\x08\u200b\u202e\r\n\t \x1b["), max_size=40))
def test_no_control_bidi_or_zero_width_character_stays(text: str) -> None:
    shown = Redactor().show(text)
    assert not set(shown) & set("\x00\x08\u200b\u202e\x1b\r")


def test_a_secret_split_by_an_invisible_character_is_masked() -> None:
    assert "hunter22" not in Redactor(["hunter22"]).show("hun\u200bter22")


@pytest.mark.parametrize(
    "text",
    [
        "amqp://travis:s3cr3tpw@10.0.0.10:5672/travis",
        "postgresql://ops:s3cr3tpw@db/travis",
        "RABBITMQ_PASSWORD=s3cr3tpw",
        'token: "s3cr3tpw"',
        "Authorization: Bearer s3cr3tpw.s3cr3tpw",
        "export TRAVIS_ENTERPRISE_SECURITY_TOKEN='s3cr3tpw'",
        "amqp://travis:a/s3cr3tpw@10.0.0.10/travis",
        "amqps://travis:a@s3cr3tpw@10.0.0.10/travis",
        "https://s3cr3tpw@travis.example.com/__build__/script",
        "REMOTE_CONTROLLER_AUTH=user:s3cr3tpw",
        "xoxb-1234-s3cr3tpw-abcdef",
        "--ENCR--czNjcjN0cHc=s3cr3tpw",
        "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3tpw\n-----END OPENSSH PRIVATE KEY-----",
        "AGE-SECRET-KEY-1S3CR3TPWS3CR3TPWs3cr3tpw",
        "ghp_s3cr3tpws3cr3tpws3cr3tpws3cr3tpw",
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str) -> None:
    assert "s3cr3tpw" not in Redactor().show(text)


@pytest.mark.parametrize(
    "text",
    [
        "worker-1 is up for 5 days",
        "4 tokens of bread",
        "https://example.com/a:b@c",
        "pass the salt",
        "ssh://ops@worker-1",
        "author=ana",
    ],
)
def test_ordinary_words_stay(text: str) -> None:
    assert Redactor().show(text) == text


def test_only_the_redactor_makes_shown_text() -> None:
    with pytest.raises(TypeError, match="Redactor"):
        Shown("anything")


def test_a_secret_too_short_to_tell_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 4"):
        Redactor(["abc"])


@given(secrets)
def test_a_secret_word_is_a_reference_until_it_is_sent(secret: str) -> None:
    command = sh("printf", "%s", Secret("broker password")) | sh("cat")
    for shown in (str(command), repr(command), json.dumps(command.to_json())):
        assert secret not in shown or secret in "<secret broker password>" or secret in repr(command.to_json())
    assert "<secret broker password>" in str(command)
    with pytest.raises(ValueError, match="may not be part"):
        command.text()


def test_a_secret_cannot_be_the_word_of_a_program() -> None:
    with pytest.raises(ValueError, match="printf"):
        sh("rabbitmqctl", "authenticate_user", "travis", Secret("broker password"))


def test_what_was_masked_is_counted_by_kind_and_never_told() -> None:
    said = "amqp://travis:Pa55word@h hunter2222 hunter2222 token=abc ghp_" + "a" * 30
    shown, counts = Redactor(["hunter2222"]).counted(said)
    assert counts == {
        "a configured secret": 2,
        "a password in a URL": 1,
        "a GitHub token": 1,
        "a setting that is named like a secret": 1,
    }
    assert shown == Redactor(["hunter2222"]).show(said)
    assert Redactor().counted("nothing here") == ("nothing here", {})


def test_a_long_word_is_no_reason_to_think_for_hours() -> None:
    for word in ("x" * 400_000, "passwd" * 60_000, "-" * 400_000, "a:" * 200_000, "://" * 100_000):
        assert Redactor().show(word) == word
