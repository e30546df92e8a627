"""Pinned host keys: a known_hosts file read once, and asked in constant time.

paramiko's own reading takes 5.5 s for 5,000 entries and is repeated for every connection (paramiko #437, #2251).
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

HASHED = "|1|"
REVOKED = "@revoked"
TYPES = {  # of the keys in the file: how a server may sign with them
    "ssh-ed25519": ("ssh-ed25519",),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
}


@dataclass
class Pins:
    """What is known of one host: its keys (base64) by type, and those that it may never show again."""

    keys: dict[str, set[str]] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    @property
    def algorithms(self) -> tuple[str, ...]:
        """What to negotiate: a key of another type could not be compared."""
        return tuple(algorithm for kind in TYPES if kind in self.keys for algorithm in TYPES[kind])

    @property
    def fingerprints(self) -> list[str]:
        """The strongest type first, as a plan shows it."""
        return [fingerprint(key) for kind in TYPES for key in sorted(self.keys.get(kind, ()))]

    def accept(self, kind: str, key: str) -> bool:
        return key in self.keys.get(kind, ()) and key not in self.revoked

    def _add(self, kind: str, key: str, marker: str) -> None:
        if marker == REVOKED:
            self.revoked.add(key)
        elif not marker and kind in TYPES:
            self.keys.setdefault(kind, set()).add(key)


@dataclass(frozen=True)
class _Entry:
    salt: bytes
    digest: bytes
    kind: str
    key: str
    marker: str


class HostKeys:
    """The entries of a known_hosts file, plain and hashed; patterns and certificate authorities pin nothing."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._plain: dict[str, Pins] = {}
        self._hashed: list[_Entry] = []
        self._found: dict[str, Pins] = {}
        for line in lines:
            self._read(line)

    def of(self, host: str, port: int) -> Pins:
        """The pins of that server; hashed entries are searched the first time it is asked for."""
        name = host.lower() if port == 22 else f"[{host.lower()}]:{port}"
        if name not in self._found:
            self._found[name] = self._search(name)
        return self._found[name]

    def _read(self, line: str) -> None:
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if len(words) < 3 or words[0].startswith("#") or not _is_base64(words[2]):
            return
        names, kind, key = words[:3]
        if names.startswith(HASHED):
            self._read_hashed(names, kind, key, marker)
            return
        for name in names.lower().split(","):
            if not set(name) & set("*?!"):
                self._plain.setdefault(name, Pins())._add(kind, key, marker)

    def _read_hashed(self, names: str, kind: str, key: str, marker: str) -> None:
        salt, _, digest = names.removeprefix(HASHED).partition("|")
        if _is_base64(salt) and _is_base64(digest):
            self._hashed.append(_Entry(base64.b64decode(salt), base64.b64decode(digest), kind, key, marker))

    def _search(self, name: str) -> Pins:
        plain = self._plain.get(name, Pins())
        pins = Pins({kind: set(keys) for kind, keys in plain.keys.items()}, set(plain.revoked))
        for entry in self._hashed:
            if hmac.digest(entry.salt, name.encode(), "sha1") == entry.digest:
                pins._add(entry.kind, entry.key, entry.marker)
        return pins


def fingerprint(key: str) -> str:
    """As `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(key)).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def _is_base64(text: str) -> bool:
    try:
        return bool(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return False
