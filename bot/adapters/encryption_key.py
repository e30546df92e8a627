"""The key of the database's encrypted columns: read where the platform has it, tried in memory, never shown.

`--ENCR--` and base64 of (AES-256-CBC ciphertext, then its 16 bytes of IV); the AES key is the first 32 characters of
what is configured. Source: travis-api, lib/travis/model/encrypted_column.rb.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterator, Mapping
from threading import Event as Flag
from typing import Any, Final

import yaml
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7

from bot.core.docker import Program
from bot.core.errors import Unknown
from bot.core.ports import Asker, Inside
from bot.core.question import Output, Rows
from bot.core.sql import Query
from bot.core.taking import CONFIGURATION, EncryptionKey
from bot.core.target import Target

PREFIX: Final = "--ENCR--"
LENGTH: Final = 32  # characters that are used; a shorter key works nowhere
BLOCK: Final = 16
ENCRYPTED: Final = Query(  # several: one alone might be from before the key was changed
    "SELECT github_oauth_token AS value FROM users WHERE github_oauth_token LIKE %s ORDER BY id DESC LIMIT 3",
    (f"{PREFIX}%",),
)


class Keys:
    """A `KeyReader`. `salt` keeps fingerprints from being compared with those that somebody else computes."""

    def __init__(self, inside: Inside, database: Asker, salt: bytes) -> None:
        self._inside = inside
        self._database = database
        self._salt = salt

    def read(self, target: Target, abort: Flag) -> EncryptionKey:
        (said,) = self._inside.ask(target, [Program(("cat", CONFIGURATION))], abort)
        if not isinstance(said, Output):
            raise Unknown(f"the encryption key cannot be read: {said.why}")
        if not said.ok or said.truncated:
            why = said.err.strip()[:200] or "its configuration is not there"
            raise Unknown(f"the encryption key cannot be read in the platform's container on {target}: {why}")
        value = found(said.out)
        return EncryptionKey(value, fingerprint(value, self._salt))

    def opens(self, key: EncryptionKey, target: Target, abort: Flag) -> bool | None:
        (said,) = self._database.ask(target, [ENCRYPTED], abort)
        values = [str(row["value"]) for row in said.rows] if isinstance(said, Rows) else []
        return any(opens(key.value, value) for value in values) if values else None


def fingerprint(value: bytes, salt: bytes) -> str:
    """Tells it from another one; only where the salt is known can somebody compare it with a guess."""
    return hmac.new(salt, b"opsbot encryption key\0" + value, hashlib.sha256).hexdigest()[:32]


def found(configuration: str) -> bytes:
    """The key in the platform's configuration, for production where it has several; raises Unknown, quoting nothing."""
    try:
        read = yaml.safe_load(configuration)
    except yaml.YAMLError:
        raise Unknown(f"{CONFIGURATION} on the platform cannot be read as YAML") from None
    keys = dict(_keys(read))
    if not keys:
        raise Unknown(f"{CONFIGURATION} on the platform has no encryption.key")
    if len(set(keys.values())) > 1 and not keys.keys() & {"", "production"}:
        raise Unknown(f"{CONFIGURATION} on the platform has {len(keys)} different encryption keys, none for production")
    key = keys.get("production") or keys.get("") or next(iter(keys.values()))
    if len(key) < LENGTH:
        raise Unknown(f"the encryption.key of {CONFIGURATION} has {len(key)} characters, and {LENGTH} are needed")
    return key.encode()


def _keys(read: Any) -> Iterator[tuple[str, str]]:
    """By environment; at the top level there may be none."""
    blocks = {"": read, **read} if isinstance(read, Mapping) else {}
    for name, block in blocks.items():
        encryption = block.get("encryption") if isinstance(block, Mapping) else None
        key = encryption.get("key") if isinstance(encryption, Mapping) else None
        if isinstance(key, str | int) and str(key).strip():
            yield str(name), str(key).strip()


def opens(key: bytes, value: str) -> bool:
    """Whether this key makes readable text of an encrypted value; the text is forgotten at once."""
    try:
        raw = base64.b64decode(value.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    sealed, iv = raw[:-BLOCK], raw[-BLOCK:]
    if not value.startswith(PREFIX) or not sealed or len(sealed) % BLOCK or len(iv) != BLOCK:
        return False
    decryptor = Cipher(AES256(key[:LENGTH]), CBC(iv)).decryptor()
    unpadder = PKCS7(BLOCK * 8).unpadder()
    try:
        text = unpadder.update(decryptor.update(sealed) + decryptor.finalize()) + unpadder.finalize()
        return text.decode().isprintable()
    except ValueError:  # of the padding, or no UTF-8: both are what a wrong key makes
        return False
