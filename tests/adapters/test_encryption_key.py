"""The encryption key: read from the platform's configuration, tried on real ciphertexts, and never quoted."""

import base64
import os
from collections.abc import Sequence
from datetime import timedelta
from threading import Event as Flag

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from bot.adapters.encryption_key import Keys, found, opens
from bot.core.docker import Program
from bot.core.errors import Unknown
from bot.core.question import Answer, Output, Question, Rows, Unanswered
from bot.core.target import Role, Target

KEY = "0123456789abcdef0123456789abcdef and what nobody uses"
PLATFORM = Target("platform-1", Role.PLATFORM, "prod")


def sealed(text: str, key: str = KEY) -> str:
    """As travis-api writes it."""
    padder, iv = PKCS7(128).padder(), os.urandom(8).hex().encode()
    encryptor = Cipher(AES256(key[:32].encode()), CBC(iv)).encryptor()
    padded = padder.update(text.encode()) + padder.finalize()
    return "--ENCR--" + base64.b64encode(encryptor.update(padded) + encryptor.finalize() + iv).decode()


class Platform:
    """An `Inside` with a configuration, and a database with values."""

    def __init__(self, configuration: Output | Unanswered, values: Sequence[str] | None = ()) -> None:
        self.configuration, self.values = configuration, values

    def ask(
        self, target: Target, asked: Sequence[Program] | Sequence[Question], abort: Flag
    ) -> list[Output | Unanswered]:
        return [self.configuration]

    def send(self, target: Target, program: Program, within: timedelta, abort: Flag) -> Output:
        raise AssertionError("nothing is changed")


class Tokens:
    def __init__(self, *values: str) -> None:
        self.values = values

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        return [Rows(tuple({"value": value} for value in self.values))]

    def identity(self, target: Target) -> str:
        return ""


def keys(configuration: str, *values: str, salt: bytes = b"salt") -> Keys:
    return Keys(Platform(Output(0, configuration)), Tokens(*values), salt)


@pytest.mark.parametrize(
    "text",
    [
        f"encryption:\n  key: {KEY}\n",
        f"production:\n  domain: x\n  encryption:\n    key: {KEY}\n",
        f"development:\n  encryption: {{key: {'d' * 40}}}\nproduction:\n  encryption: {{key: '{KEY}'}}\n",
        f'# a comment\nproduction: &all\n  encryption:\n    key: "{KEY}"\nstaging: *all\n',
    ],
)
def test_the_key_is_found(text: str) -> None:
    assert found(text) == KEY.encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has no encryption.key"),
        ("encryption:\n  key:\n", "has no encryption.key"),
        ("encryption: {secret: 0123456789abcdef0123456789abcdef}", "has no encryption.key"),
        ("encryption: {key: hunter2}", "has 7 characters, and 32 are needed"),
        ("encryption: {key: 'hunter2", "cannot be read as YAML"),
        (f"a: {{encryption: {{key: {'a' * 32}}}}}\nb: {{encryption: {{key: {'b' * 32}}}}}", "none for production"),
        ("- hunter2", "has no encryption.key"),
    ],
)
def test_what_is_no_key_is_said_without_quoting(text: str, why: str) -> None:
    with pytest.raises(Unknown, match=why) as error:
        found(text)
    assert "hunter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_a_key_opens_what_was_sealed_with_it() -> None:
    assert opens(KEY.encode(), sealed("gho_sometoken"))
    assert opens(KEY[:32].encode(), sealed("gho_sometoken")), "only the first 32 characters count"


@pytest.mark.parametrize("value", ["", "gho_plain", "--ENCR--", "--ENCR--!!", "--ENCR--" + "QUJD" * 8])
def test_what_is_no_ciphertext_opens_nothing(value: str) -> None:
    assert not opens(KEY.encode(), value)


def test_another_key_opens_nothing() -> None:
    values = [sealed(f"gho_{no}", "another key that is long enough!!") for no in range(300)]
    fooled = [value for value in values if opens(KEY.encode(), value)]
    assert len(fooled) <= 3, "a padding fits by chance once in 256 times, readable text behind it hardly ever"


def test_reading_and_trying() -> None:
    reader = keys(f"encryption: {{key: '{KEY}'}}", sealed("gho_one"))
    key = reader.read(PLATFORM, Flag())
    assert key.value == KEY.encode()
    assert KEY not in repr(key)
    assert reader.opens(key, PLATFORM, Flag()) is True
    assert keys("", sealed("x", "another key that is long enough!!")).opens(key, PLATFORM, Flag()) is False
    assert keys("").opens(key, PLATFORM, Flag()) is None, "nothing to try it on"


def test_a_fingerprint_needs_the_salt() -> None:
    one, same, other = (
        keys(f"encryption: {{key: '{key}'}}", salt=salt).read(PLATFORM, Flag()).fingerprint
        for key, salt in ((KEY, b"a"), (KEY, b"a"), (KEY, b"b"))
    )
    assert one == same != other
    assert len(one) == 32


@pytest.mark.parametrize(
    "said", [Output(1, "", "cat: no such file"), Unanswered("the container is away"), Output(0, "x", "", True)]
)
def test_what_cannot_be_read_is_unknown(said: Output | Unanswered) -> None:
    with pytest.raises(Unknown, match="encryption key cannot be read"):
        Keys(Platform(said), Tokens(), b"").read(PLATFORM, Flag())
