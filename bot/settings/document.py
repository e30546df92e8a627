"""The configuration file as data: YAML, read more strictly than PyYAML does."""

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from bot.settings.problems import BadSettings, Location, path_of

LARGEST: Final = 1024 * 1024  # bytes; a configuration that large is some other file

_SWITCH: Final = "tag:yaml.org,2002:bool"
_SECRET_KEY: Final = re.compile(r"(?i)(token|password|passwd|secret|audit_key|private_key|dsn)$")
_SECRET_VALUE: Final = re.compile(r"\bx(?:ox[a-z]|app)-|PRIVATE KEY-----|AGE-SECRET-KEY-1|://[^\s/:@]*:[^\s/@]+@")
_BELONGS: Final = (
    (re.compile(r"(?i)bot_?token|xoxb-"), "SLACK_BOT_TOKEN"),
    (re.compile(r"(?i)app_?token|xapp-"), "SLACK_APP_TOKEN"),
    (re.compile(r"(?i)audit"), "OPSBOT_AUDIT_KEY"),
    (re.compile(r"(?i)^database\."), "OPSBOT_DATABASE_URL"),
)


def read(path: Path) -> dict[str, Any]:
    """The file's settings as they were written; raises BadSettings with the line of what cannot be read."""
    try:
        written = yaml.load(_text(path), _Strict)  # noqa: S506 - a SafeLoader that refuses more
    except yaml.YAMLError as error:
        raise BadSettings([_unreadable(path, error)]) from None
    except (ValueError, RecursionError):
        raise BadSettings([f"{path}: a value in it cannot be read as YAML"]) from None
    if written is None:
        raise BadSettings([f"{path}: the file is empty; begin with a copy of config/opsbot.example.yaml"])
    if not isinstance(written, dict):
        raise BadSettings([f"{path}: must be a section of `key: value` lines; see config/opsbot.example.yaml"])
    if found := list(_secrets_in(written, (), set())):
        raise BadSettings(found)
    return written


class _Strict(yaml.SafeLoader):
    """Refuses a key that is given twice: PyYAML would silently keep the last one. Only `true` and `false` are
    switches, as in YAML 1.2: in PyYAML's 1.1 the key `on` is one too, and so is a machine called `no`.
    """


_Strict.yaml_implicit_resolvers = {
    first: [(tag, shape) for tag, shape in known if tag != _SWITCH]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Strict.add_implicit_resolver(_SWITCH, re.compile(r"true|false"), ["t", "f"])


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if (first := seen.setdefault(str(key.value), line)) != line or len(seen) < _position(node, key):
            raise yaml.constructor.ConstructorError(
                None, None, f"`{key.value}` is given twice, first in line {first}", key.start_mark
            )
    loader.flatten_mapping(node)
    return loader.construct_mapping(node, deep=True)


def _position(node: yaml.MappingNode, key: yaml.Node) -> int:
    """The key's place among its siblings, from 1: it counts those that share a line."""
    return next(number for number, (each, _) in enumerate(node.value, 1) if each is key)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        raw = path.read_bytes() if stat.S_ISREG(mode) and path.stat().st_size <= LARGEST else None
    except FileNotFoundError:
        raise BadSettings(
            [f"{path}: there is no such file; copy config/opsbot.example.yaml, or name yours with --config"]
        ) from None
    except OSError as error:
        raise BadSettings([f"{path}: cannot be read: {error.strerror}"]) from None
    if raw is None:
        raise BadSettings([f"{path}: is not a configuration (no ordinary file, or larger than 1 MiB)"])
    if mode & stat.S_IWOTH:
        raise BadSettings([f"{path}: everybody can write it, and with it decide who approves; chmod o-w {path}"])
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise BadSettings([f"{path}, line {line}: is not UTF-8 text"]) from None


def _unreadable(path: Path, error: yaml.YAMLError) -> str:
    """A sentence instead of PyYAML's report, which spreads over lines and repeats the file's text."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        what = f"{error.context or ''}: {error.problem or 'cannot be read'}"
        plain = next((said for sign, said in _PLAINER if sign in what), error.problem)
        return f"{path}, line {error.problem_mark.line + 1}: {plain}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{path}: there is a control character at position {error.position}"
    return f"{path}: cannot be read as YAML"


_PLAINER: Final = (
    ("'\\t'", "a tab; indent with spaces"),
    ("another document", "a second document begins with ---; one file is one configuration"),
    ("scanning an alias", "a value begins with *; put it in quotes"),
    ("scanning an anchor", "a value begins with &; put it in quotes"),
    ("mapping values are not allowed", "a second `:` in one line; put the value in quotes, or begin a new line"),
)


def _secrets_in(value: Any, location: Location, seen: set[int]) -> Iterator[str]:
    """Secrets stand in the environment: this file is copied, mailed and kept in git. The value is not repeated.

    What aliases repeat (`seen`, by identity) is read once: a few lines of them can stand for millions of values.
    """
    if id(value) in seen:
        return
    if isinstance(value, dict | list):
        seen.add(id(value))
    if isinstance(value, dict):
        for key, inner in value.items():
            place = (*location, key if isinstance(key, int) else str(key))
            if isinstance(inner, str | int) and _SECRET_KEY.search(str(key)):
                yield _misplaced(place, "")
            else:
                yield from _secrets_in(inner, place, seen)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _secrets_in(inner, (*location, number), seen)
    elif isinstance(value, str) and _SECRET_VALUE.search(value):
        yield _misplaced(location, value)


def _misplaced(location: Location, value: str) -> str:
    """Which variable it belongs in is told from the key, or from what the value begins with."""
    place = path_of(location)
    name = next((name for known, name in _BELONGS if known.search(place) or known.match(value)), "")
    advice = f"set {name} or {name}_FILE instead" if name else "give it by an environment variable or a *_FILE"
    return f"{place}: a secret does not belong in this file; {advice}"
