"""Finding handlers by scanning folders: one new file is all that a new handler needs."""

import ast
import importlib
import importlib.util
import os
import pkgutil
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Final

from bot.core.errors import Permanent
from bot.core.handler import PENDING, Catalogue

OURS = "handlers"


def discover(folders: Iterable[Path] = ()) -> Catalogue:
    """Every handler of ours and of the given folders; raises Permanent for a name used twice or an unsafe folder."""
    files = [importlib.import_module(name) for name in _modules_of(importlib.import_module(OURS))]
    files += [_load(file) for folder in folders for file in _files_of(folder)]
    catalogue = Catalogue()
    known = {module.__name__: module.__file__ or module.__name__ for module in files}
    for handler, module in PENDING:
        if module in known:
            catalogue.add(handler, known[module])
    return catalogue


PARSING: Final = Lock()  # two threads that parse at once make Python 3.11 raise SystemError


def fixes(folders: Iterable[Path] = ()) -> tuple[str, ...]:
    """The ids of the fixes that handlers can make, read from their source; `*` for a part that is computed."""
    ours = (Path(each) for each in importlib.import_module(OURS).__path__)
    files = sorted(file for folder in (*ours, *folders) for file in folder.rglob("*.py"))
    with PARSING:
        return tuple(sorted({each for file in files for each in _fixes(ast.parse(file.read_text(encoding="utf-8")))}))


def _fixes(source: ast.AST) -> Iterator[str]:
    for call in ast.walk(source):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("Fix", "replace"):
            first = call.args[:1] if call.func.id == "Fix" else ()  # of `replace`, a fix that has an id already
            words = [*first, *(each.value for each in call.keywords if each.arg == "id")]
            yield from (said for word in words[:1] if (said := _literal(word)).strip("*"))


def _literal(word: ast.expr) -> str:
    """A text of the source; a computed part is `*`, a computed whole nothing that a rule could name."""
    if isinstance(word, ast.JoinedStr):
        return "".join(_literal(part) for part in word.values)
    return word.value if isinstance(word, ast.Constant) and isinstance(word.value, str) else "*"


def _modules_of(package: ModuleType) -> list[str]:
    found = pkgutil.iter_modules(package.__path__, prefix=f"{package.__name__}.")
    return sorted(each.name for each in found if not each.ispkg)


def _files_of(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise Permanent(f"the handlers folder {folder} does not exist; correct `handlers:` in the configuration")
    _refuse_writable(folder)
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("_"))
    for file in files:
        _refuse_writable(file)
    return files


def _refuse_writable(path: Path) -> None:
    """A handler runs with opsbot's rights, so nobody else may be able to put one there."""
    seen = path.stat()
    if seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or seen.st_uid not in (0, os.geteuid()):
        raise Permanent(
            f"{path} can be written by others, so its handlers are not loaded: chmod go-w, owned by you or root"
        )


def _load(file: Path) -> ModuleType:
    name = f"team_handlers.{file.stem}"
    if name in sys.modules:
        if sys.modules[name].__file__ != str(file):
            raise Permanent(f"two handler files are called {file.name}; rename one of them")
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise Permanent(f"{file} cannot be read as Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that ends itself would end opsbot, without a word
        del sys.modules[name]
        raise Permanent(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
