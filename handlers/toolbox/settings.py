"""A worker's settings: what its files say, what it was started with, and the edit of one line.

Ubuntu 14.04 sources the files in a shell; later ones are put together into one file that Docker takes as it is, without
quotes and with nothing expanded; a snap has one file of its own. Passwords are masked on the machine, before anything
travels. Source: https://docs.travis-ci.com/user/enterprise/worker-configuration/
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import worker
from handlers.toolbox.worker import SERVICE, UPSTART

ENTERPRISE: Final = "/etc/default/travis-enterprise"
MAIN: Final = "/etc/default/travis-worker"
LOCAL: Final = "/etc/default/travis-worker-local"
SNAP: Final = worker.SNAP
FILES: Final = (  # in the order in which they are read; what is said last wins
    ENTERPRISE,
    "/etc/default/travis-worker-chef",
    MAIN,
    "/etc/default/travis-worker-cloud-init",
    LOCAL,
)
SOURCED: Final = (ENTERPRISE, MAIN, LOCAL)  # those that 14.04 reads
IMAGE: Final = "/etc/systemd/system/travis-worker.service.d/env.conf"  # where the installer names the worker's image
RUN_DIR: Final = "/var/tmp/travis-run.d"
EFFECTIVE: Final = f"{RUN_DIR}/travis-worker"  # written at each start; on 14.04 a copy of the program itself
PREFIX: Final = "TRAVIS_WORKER_"  # each setting is read under this name first
AMQP, BUILD_API, QUEUE = "AMQP_URI", "BUILD_API_URI", "QUEUE_NAME"
HOST, TOKEN, ENDPOINT = (f"TRAVIS_ENTERPRISE_{name}" for name in ("HOST", "SECURITY_TOKEN", "BUILD_ENDPOINT"))
MASKED: Final = "[masked]"
NO_VALUE: Final = "no NAME=value"
ENCODING: Final = "in a password, write @ : / ? # and % as %40 %3A %2F %3F %23 and %25, since it is part of an address"
ENDS_BY: Final = (  # causes that keep a worker from starting or from connecting
    "worker.amqp-auth",
    "worker.config-overridden",
    "worker.config-unparsable@BROKEN",
    "worker.host-mismatch",
    "worker.run-*@BROKEN",
)

_KEYS: Final = f"{AMQP}|{BUILD_API}|{QUEUE}|POOL_SIZE|{HOST}|{ENDPOINT}|SECURITY_TOKEN"
_ENTRY: Final = re.compile(r"(/[^:]+):(\d+):\s*(#[#\s]*)?(?:export\s+)?([A-Za-z_]\w*)=(.*)")
_HOST: Final = re.compile(r"[a-z]+://(?:[^/?#]*@)?([A-Za-z0-9][A-Za-z0-9._-]*)(?::\d+)?(/.*)?")
_BREAKS: Final = "[:space:]\"'&;|<>()`$\\\\#"  # what a shell does not take for a plain character, as a class of sed
_UNSAFE: Final = frozenset("&;|<>()`")


@dataclass(frozen=True)
class Entry:
    """One line `KEY=text` of a file, a comment when it is commented out; the text still has its quotes."""

    file: str
    line: int
    key: str
    text: str
    comment: bool = False

    @property
    def name(self) -> str:
        """The setting that it is about: `TRAVIS_WORKER_QUEUE_NAME` is one for `QUEUE_NAME`."""
        return self.key.removeprefix(PREFIX)

    @property
    def place(self) -> str:
        return f"{self.file} line {self.line}"


@dataclass(frozen=True)
class Place:
    """A file or folder: what `stat` says of it."""

    kind: str
    owner: str
    group: str
    mode: int
    changed: int

    def writable_by(self, user: str) -> bool:
        mine = self.owner == user and self.mode & 0o200
        return bool(mine or (self.group == user and self.mode & 0o020) or self.mode & 0o002)


@dataclass(frozen=True)
class Settings:
    """Everything that is written about a worker's settings, in the order in which it is read."""

    entries: tuple[Entry, ...]
    sourced: bool
    snap: bool = False

    @property
    def contained(self) -> bool:
        """Are they given to a container? Else to a program of the machine itself."""
        return not self.sourced and not self.snap

    def about(self, name: str) -> tuple[Entry, ...]:
        return tuple(each for each in self.entries if each.name == name and not each.comment)

    def winner(self, name: str) -> Entry | None:
        """The line that counts: the last one, but with the worker's own prefix before without."""
        found = self.about(name)
        prefixed = tuple(each for each in found if each.key.startswith(PREFIX))
        return next(reversed(prefixed or found), None)

    def value(self, name: str) -> str:
        """What the worker gets, empty when nothing says it."""
        entry = self.winner(name)
        return "" if entry is None else self.read(entry)

    def read(self, entry: Entry) -> str:
        """The value of one line, as this generation reads it."""
        if not self.sourced:
            return entry.text.replace('"', "").replace("'", "").strip()
        return expanded(entry.text, {each.key: each.text for each in self.entries if not each.comment})

    def from_parts(self, entry: Entry) -> bool:
        """Is it put together from other settings?"""
        return self.sourced and "$" in entry.text


# ---------------------------------------------------------------- reading texts


def entries(text: str) -> tuple[Entry, ...]:
    """The lines of `grep -nH`, hostile or not; what is no assignment is left out."""
    found = (_ENTRY.fullmatch(line.rstrip("\r")) for line in text.splitlines())
    return tuple(Entry(f[1], int(f[2]), f[4], f[5], bool(f[3])) for f in found if f is not None)


def settings(every: tuple[Entry, ...], init: str) -> Settings:
    """Those that this machine reads: the snap's file alone, or the files of its generation."""
    if any(each.file == SNAP for each in every):
        return Settings(tuple(each for each in every if each.file == SNAP), sourced=False, snap=True)
    files = SOURCED if init == UPSTART else FILES
    return Settings(tuple(each for each in every if each.file in files), init == UPSTART)


def host_of(uri: str) -> str:
    """The host in an address, empty when there is none that a name server could be asked for."""
    found = _HOST.fullmatch(uri.strip())
    return found[1].rstrip(".").lower() if found else ""


def path_of(uri: str) -> str:
    found = _HOST.fullmatch(uri.strip())
    return (found[2] or "") if found else ""


def expanded(text: str, others: Mapping[str, str], depth: int = 0) -> str:
    """A word as a shell assigns it, with `$NAME` and `${NAME:-default}` filled in; nothing is ever run.

    Raises Unknown where the shell would do more than that.
    """
    if depth > 5:
        raise Unknown("the settings refer to each other in a ring")
    out, at = "", 0
    while at < len(text):
        piece, at = _piece(text, at, others, depth)
        if piece is None:
            break
        out += piece
    return out


def _piece(text: str, at: int, others: Mapping[str, str], depth: int) -> tuple[str | None, int]:
    sign = text[at]
    if sign in "\"'":
        return _quoted(text, at, others, depth)
    if sign.isspace() or sign == ";":
        return None, at
    if sign == "$":
        return _parameter(text, at, others, depth)
    if sign == "\\":
        return text[at + 1 : at + 2], at + 2
    if sign in _UNSAFE:
        raise Unknown("the value of a setting holds shell that is not read here")
    return sign, at + 1


def _quoted(text: str, at: int, others: Mapping[str, str], depth: int) -> tuple[str, int]:
    sign, out = text[at], ""
    at += 1
    while at < len(text) and text[at] != sign:
        if sign == '"' and text[at] == "$":
            piece, at = _parameter(text, at, others, depth)
            out += piece
        elif sign == '"' and text[at] == "`":
            raise Unknown("the value of a setting holds shell that is not read here")
        else:
            at += sign == '"' and text[at] == "\\" and text[at + 1 : at + 2] in tuple('"\\$`')
            out += text[at : at + 1]
            at += 1
    if at >= len(text):
        raise Unknown("a quote in the settings is not closed")
    return out, at + 1


_PARAMETER: Final = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::-([^{}$`\"'\\]*))?\})", re.ASCII)


def _parameter(text: str, at: int, others: Mapping[str, str], depth: int) -> tuple[str, int]:
    found = _PARAMETER.match(text, at)
    if found is None:
        raise Unknown("the value of a setting holds shell that is not read here")
    said = others.get(found[1] or found[2])
    value = "" if said is None else expanded(said, others, depth + 1)
    return value or found[3] or "", found.end()


@dataclass(frozen=True)
class Broken:
    """A line that no shell takes as it is meant: where it stands, and the sign that breaks it."""

    file: str
    line: int
    key: str
    sign: str

    @property
    def surely(self) -> bool:
        """Does it end the start? What a shell would fill in passes, and only the shell's own copy is another then."""
        return self.sign not in _DOUBTFUL

    @property
    def place(self) -> str:
        return f"{self.file} line {self.line}"


COMMENT: Final = "a comment behind its value, which Docker takes for a part of it"
_DOUBTFUL: Final = ("`$`", "`\\`", COMMENT)


def broken(shapes: tuple[tuple[str, int, str], ...], sourced: bool) -> tuple[Broken, ...]:
    """The lines that break the start, from their shapes: each run of plain characters is an `x` there."""
    found = ((file, line, text, _breaks(text, sourced)) for file, line, text in shapes)
    return tuple(Broken(file, line, _key(text) or "the line", sign) for file, line, text, sign in found if sign)


def _key(shape: str) -> str:
    key, equals, _ = shape.partition("=")
    return key if equals and re.fullmatch(r"[A-Za-z_]\w*", key) else ""


def _breaks(shape: str, sourced: bool) -> str:
    if not _key(shape):
        return "" if sourced else NO_VALUE  # a file that a shell sources may hold any shell
    value = shape.partition("=")[2]
    return _breaks_sourced(value) if sourced else _breaks_stripped(value)


def _breaks_stripped(value: str) -> str:
    """Quotes do not help: they are taken away before the shell reads the line."""
    bare = value.replace('"', "").replace("'", "").rstrip()
    plain = re.sub(r"\s#.*", "", bare).rstrip()
    surely = next((_sign(sign) for sign in plain if sign in _UNSAFE or sign in " \t"), "")
    doubtful = next((_sign(sign) for sign in plain if sign in "$\\"), "")
    return surely or doubtful or (COMMENT if plain != bare else "")


def _breaks_sourced(value: str) -> str:
    outside = re.sub(r"\"(?:\\.|[^\"\\])*\"|'[^']*'|\\.", "x", value)
    if any(sign in outside for sign in "\"'"):
        return "a quote that is not closed"
    outside = re.sub(r"\s+(#.*)?$", "", outside)
    return next((_sign(sign) for sign in outside if sign in _UNSAFE or sign in " \t"), "")


def _sign(sign: str) -> str:
    return "a space" if sign in " \t" else f"`{sign}`" if sign != "`" else "a backtick"


# ---------------------------------------------------------------- facts


def _masked() -> Command:
    """Takes passwords out before a line leaves the machine: all that stands before the last `@`, and what is behind the
    address; a token, and an AMQP address without a host, as a whole.
    """
    script = (
        r"s/(=.*)\s#.*/\1/",
        r"s/(TOKEN=).*/\1[masked]/",
        r"s#=(.?[a-z]+://)?.*@(\S*).*#=\1[masked]@\2#",
        r"s/(AMQP_URI=)[^@]*$/\1[masked]/",
    )
    return sh("sed", "-E", *(word for each in script for word in ("-e", each)))


@fact
def written(machine: Target) -> Fact[tuple[Entry, ...]]:
    """The lines of the settings files that matter, with passwords masked on the machine."""
    pattern = f"^[^=]*({_KEYS})="
    question = sh("grep", "-nHE", pattern, *FILES, SNAP).sudo() | _masked()
    return Fact(f"What do the settings files on {machine} say?", machine, question, _written)


def _written(said: Output) -> tuple[Entry, ...]:
    _refuse_denied(said)
    return entries(said.out)


def _refuse_denied(said: Output) -> None:
    """A file that is not there is no error, but being told nothing at all is."""
    if said.exit is None or (not said.out and not re.search(r"No such file|^$", said.err.strip())):
        raise Unknown(f"the settings files cannot be read: {said.err.strip()[:200] or 'no answer'}")


@fact
def started_with(machine: Target) -> Fact[dict[str, str] | None]:
    """What the running container was started with, None when there is no container."""
    form = "{{range .Config.Env}}{{println .}}{{end}}"
    question = sh("docker", "inspect", "-f", form, SERVICE).sudo() | sh("grep", "-E", f"^[^=]*({_KEYS})=") | _masked()
    return Fact(f"What was {SERVICE} on {machine} started with?", machine, question, _variables)


@fact
def process_has(machine: Target, pid: int) -> Fact[dict[str, str] | None]:
    """What a process of Ubuntu 14.04 was started with, None when it is gone."""
    question = sh("cat", f"/proc/{pid}/environ").sudo() | sh("tr", "\\0", "\\n")
    question |= sh("grep", "-E", f"^[^=]*({_KEYS})=") | _masked()
    return Fact(f"What was {SERVICE} on {machine} started with?", machine, question, _variables)


def _variables(said: Output) -> dict[str, str] | None:
    lines = (line.partition("=") for line in said.out.splitlines())
    return {key: value for key, _, value in lines} or None


@fact
def shapes(machine: Target) -> Fact[tuple[tuple[str, int, str], ...]]:
    """Each line of the settings files with its plain characters collapsed, so that no value leaves the machine."""
    plain = f"[^{_BREAKS}]+"
    script = (
        r"/^\s*(#|$)/d",
        r"s/^\s*(export\s+)?//",
        f"s/={plain}/=x/",
        f"s/([{_BREAKS}]){plain}/\\1x/g",
        f"/=/!s/{plain}/x/g",
    )
    words = [word for each in (*script, "F", "=", "p") for word in ("-e", each)]
    question = sh("sed", "-snE", *words, *FILES).sudo()
    return Fact(f"Can a shell read the settings files on {machine}?", machine, question, _shapes)


def _shapes(said: Output) -> tuple[tuple[str, int, str], ...]:
    _refuse_denied(said)
    lines = said.out.splitlines()
    if len(lines) % 3 or not all(line.isdigit() for line in lines[1::3]):
        raise Unknown("the settings files have lines that cannot be told apart")
    return tuple((file, int(line), text) for file, line, text in zip(lines[::3], lines[1::3], lines[2::3], strict=True))


@fact
def places(machine: Target) -> Fact[dict[str, Place]]:
    """What `stat` says of the settings files and of the run directory; what is not there is left out."""
    question = sh("stat", "-c", "%n|%F|%U|%G|%a|%Y", RUN_DIR, EFFECTIVE, SNAP, *FILES).sudo()
    return Fact(f"Which settings files has {machine}?", machine, question, places_in)


def places_in(said: Output) -> dict[str, Place]:
    _refuse_denied(said)
    rows = (line.split("|") for line in said.out.splitlines())
    return {row[0]: Place(row[1], row[2], row[3], int(row[4], 8), int(row[5])) for row in rows if len(row) == 6}


@fact
def digest_of_files(machine: Target) -> Fact[str]:
    """The SHA-256 of what the next start would make of the settings files, passwords and all."""
    return _digest(machine, "the settings files", FILES)


@fact
def digest_of_start(machine: Target) -> Fact[str]:
    """The SHA-256 of what the last start made of them."""
    return _digest(machine, "what it was started with", (EFFECTIVE,))


def _digest(machine: Target, what: str, files: Sequence[str]) -> Fact[str]:
    lines = (r"s/^\s*(export\s+)?//", "s/[\"']//g", r"s/\s+$//", r"/^[A-Za-z_][A-Za-z0-9_]*=/p")
    words = [word for each in lines for word in ("-e", each)]
    question = sh("cat", *files).sudo() | sh("sed", "-nE", *words) | sh("sha256sum")
    return Fact(f"Which digest has {what} on {machine}?", machine, question, _sum)


_EMPTY: Final = hashlib.sha256(b"").hexdigest()


def _sum(said: Output) -> str:
    """The digest, empty when there was nothing to take one of."""
    found = re.match(r"[0-9a-f]{64}\b", said.out)
    if found is None:
        raise Unknown(f"no digest: {said.err.strip()[:200] or 'no answer'}")
    return "" if found[0] == _EMPTY else found[0]


@fact
def still_says_otherwise(machine: Target, init: str, setting: str, value: str) -> Fact[bool]:
    """Do the files not say this value yet, or an address with this host?"""

    def otherwise(said: Output) -> bool:
        now = settings(_written(said), init).value(setting)
        return value not in (now, host_of(now))

    return Fact(f"{setting} on {machine} is not {value} yet", machine, written(machine).question, otherwise)


@fact
def addresses_of(machine: Target, host: str) -> Fact[tuple[str, ...]]:
    """What a name means on this machine, nothing when it means nothing there."""
    return Fact(f"What is {host} on {machine}?", machine, sh("getent", "hosts", host), _addresses)


def _addresses(said: Output) -> tuple[str, ...]:
    if said.exit not in (0, 2):
        raise Unknown(f"names cannot be looked up: {said.err.strip()[:200] or 'no answer'}")
    return tuple(line.split()[0] for line in said.out.splitlines() if line.split())


@fact
def refusal(machine: Target, init: str) -> Fact[str]:
    """With which words RabbitMQ refused the login last, empty when the worker has connected since, or never failed."""
    return Fact(f"Did RabbitMQ refuse {machine}?", machine, worker.log(init), _refusal)


_REFUSED: Final = re.compile(r"Exception \(403\) Reason: \\*\"([^\"\\]{1,80})")


def _refusal(said: Output) -> str:
    if not said.ok:
        raise Unknown(f"the worker's log cannot be read: {said.err.strip()[:200] or 'no answer'}")
    since = said.out.rsplit("worker started", 1)[-1].splitlines()
    tries = [line for line in since if "couldn't connect to AMQP" in line or "Exception (403)" in line]
    found = _REFUSED.search(tries[-1]) if tries else None
    return found[1] if found else ""
