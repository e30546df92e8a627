"""Text that may leave opsbot: secrets masked, control characters gone.

`Shown` is the only text that enters a sink (Slack, logs, JSON, files, audit). Only a `Redactor` makes it, so a type
checker finds every place where raw text would leave. Escaping for Slack's mark-up is the renderer's business, not done
here.
"""

import base64
import json
import re
import shlex
import threading
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

MASK: Final = "•••"
SHORTEST_SECRET: Final = 4  # shorter values would mask half of every sentence
_MINT: Final = object()

CONFIGURED: Final = "a configured secret"

# What a pattern finds, the pattern, and what stands there afterwards.
_PATTERNS: Final = (
    ("a Slack token", re.compile(r"\bx(?:ox[a-z]|app)-[\w-]{6,}"), MASK),
    (
        "a private key",
        re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.S),
        MASK,
    ),
    ("an age key", re.compile(r"\bAGE-SECRET-KEY-1[A-Z0-9]+", re.I), MASK),
    ("an AWS key id", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), MASK),
    ("a GitHub token", re.compile(r"\bgh[pousr]_[A-Za-z0-9]{20,}"), MASK),
    ("an encrypted column", re.compile(r"--ENCR--[A-Za-z0-9+/=]+"), f"--ENCR--{MASK}"),
    (
        "a password that nobody encoded",
        re.compile(r"(?i)\b(amqps?://[^\s/:@]{0,80}:)[^\s/@]{0,300}[/@]\S{0,300}(?=@)"),
        rf"\1{MASK}",
    ),
    ("a password in a URL", re.compile(r"(?<=://)([^\s/:@]*):([^\s/@]+)(?=@)"), rf"\1:{MASK}"),
    ("a token before a host", re.compile(r"(?i)\b((?:amqp|http)s?://)[^\s/:@]{1,300}(?=@)"), rf"\1{MASK}"),
    ("an authorization header", re.compile(r"(?i)\b(bearer|basic)(\s+)[\w.+/=~-]{8,}"), rf"\1\2{MASK}"),
    (
        "a setting that is named like a secret",
        re.compile(
            r"(?i)((?:password|passwd|secret|token|api_key|apikey|access_key|private_key|_auth)"
            r"[\"']?\s*[=:]\s*)(\"[^\"\n]*\"|'[^'\n]*'|[^\s,;&\"']+)"
        ),
        rf"\1{MASK}",
    ),
)


class Shown(str):
    """Text from which every known secret has been removed; made by `Redactor.show` only."""

    __slots__ = ()

    def __new__(cls, text: str, mint: object = None) -> "Shown":
        if mint is not _MINT:
            raise TypeError("Shown text is made by Redactor.show, so that nothing leaves unmasked")
        return super().__new__(cls, text)


class Redactor:
    """Masks secrets by value (in every spelling they travel in) and by pattern; safe to use from several threads."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._guard = threading.Lock()
        self._spellings: tuple[str, ...] = ()
        for secret in secrets:
            self.learn(secret)

    def learn(self, secret: str) -> None:
        """Mask this value from now on, wherever it appears; values under four characters are refused."""
        if len(secret) < SHORTEST_SECRET:
            raise ValueError(f"a secret needs at least {SHORTEST_SECRET} characters to be told from ordinary text")
        with self._guard:
            known = {*self._spellings, *_spellings(secret)}
            self._spellings = tuple(sorted(known, key=len, reverse=True))

    def show(self, text: object) -> Shown:
        """The text with secrets masked and control characters removed; showing it twice changes nothing more."""
        return self.counted(text)[0]

    def counted(self, text: object) -> tuple[Shown, Mapping[str, int]]:
        """The text as `show` gives it, and how often which kind of secret was masked in it."""
        counts = Counter[str]()
        plain = self._without_known(_printable(self._without_known(str(text), counts)), counts)
        for kind, pattern, mask in _PATTERNS:
            plain, found = pattern.subn(mask, plain)
            counts[kind] += found
        return Shown(plain, _MINT), +counts

    def _without_known(self, plain: str, counts: Counter[str]) -> str:
        """Called twice: taking control characters out may have joined the pieces of a secret."""
        for secret in self._spellings:
            if secret in plain:
                counts[CONFIGURED] += plain.count(secret)
                plain = plain.replace(secret, MASK)
        return plain


def _spellings(secret: str) -> set[str]:
    raw = secret.encode()
    forms = {secret, quote(secret, safe=""), quote(secret), json.dumps(secret)[1:-1], shlex.quote(secret), raw.hex()}
    forms |= {base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode()}
    forms |= {line for line in secret.splitlines() if len(line) >= 16}  # keys are pasted line by line
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def _printable(text: str) -> str:
    """Without control, bidi and zero-width characters: they hide what a line really says."""
    text = text.replace("\r\n", "\n")
    return "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf", "Cs"))
