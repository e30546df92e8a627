"""Nothing that is typed into a simulated machine reaches the machine it runs on."""

import ast
import sys
from pathlib import Path

import pytest

import bot.sandbox.installation
from bot.core.command import sh
from bot.core.wire import questions_script
from bot.sandbox.installation import Running, settled
from bot.sandbox.installation.programs import PROGRAMS
from tests.installation.console import Console, standing_still
from tests.installation.test_shell import HOSTILE
from tests.installation.tripwires import Tripwires
from tests.installation.visitor import Visitor

PACKAGE = Path(bot.sandbox.installation.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
BANNED_IMPORTS = {"subprocess", "pty", "ctypes", "multiprocessing", "importlib", "runpy", "shutil", "code", "pickle"}
BANNED_NAMES = {"eval", "exec", "compile", "__import__", "globals", "open"}
OF_OS = {"open", "write", "close", "fdopen", "O_WRONLY", "O_CREAT", "O_APPEND", "O_EXCL"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_the_package_cannot_start_programs(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {name.name.split(".")[0] for name in node.names} & BANNED_IMPORTS
        elif isinstance(node, ast.ImportFrom):
            assert (node.module or "").split(".")[0] not in BANNED_IMPORTS | {"os"}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_NAMES
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            assert node.attr in OF_OS


def test_the_tripwires_work(tripwires: Tripwires) -> None:
    with tripwires.across():
        sys.audit("subprocess.Popen", "reboot")
    assert tripwires.tripped == ["subprocess.Popen ('reboot',)"]
    tripwires.tripped.clear()


@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_hostile_words_reach_no_program_of_the_host(name: str, tripwires: Tripwires, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    hostile = [*HOSTILE, f"$(touch {canary})", f"`touch {canary}`", f"; touch {canary}", f"'; touch {canary}; '"]
    installation = settled(standing_still())
    asked = [sh(name, word).sudo() for word in hostile] + [sh(name, *hostile), sh(name) | sh("sh")]
    with tripwires.across():
        for machine in list(installation.machines):
            Console(installation, machine).type(questions_script(asked, "4e0nce", 5))
    assert tripwires.tripped == []
    assert not canary.exists()


def test_hostile_scripts_over_ssh_reach_nothing(running: Running, tripwires: Tripwires, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    texts = [
        f"touch {canary}",
        f"echo $(touch {canary})",
        f"(touch {canary})",
        f"sh -c 'touch {canary}' &",
        "exec bash -i",
    ]
    with Visitor(running, "worker-1") as visitor, tripwires.across():
        for text in texts:
            assert visitor.run(text).exit not in (0, None)
    assert tripwires.tripped == []
    assert not canary.exists()
