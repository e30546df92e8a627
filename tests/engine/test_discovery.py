"""Handlers are found by their place; what is unsafe or ambiguous stops the start with a sentence."""

from pathlib import Path

import pytest

from bot.core.errors import Permanent
from bot.core.handler import PENDING
from bot.engine.discovery import discover

HANDLER = """
from bot.core.handler import diagnosis
from bot.core.target import Role

@diagnosis("{name}", of="{of}", each=Role.WORKER, says="?")
def look(look, machine):
    return iter(())
"""


@pytest.fixture(autouse=True)
def forget_what_tests_register() -> object:
    discover()  # ours register when they are first imported, and stay
    before = len(PENDING)
    yield
    del PENDING[before:]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_text(text)
    file.chmod(0o644)
    return file


def test_finds_ours_and_a_teams(folder: Path) -> None:
    write(folder, "team_found.py", HANDLER.format(name="team question", of="team trouble"))
    catalogue = discover([folder])
    assert {"team question", "worker lost rabbitmq"} <= catalogue.diagnoses.keys()
    assert [each.name for each in catalogue.about("team trouble")] == ["team question"]


def test_one_name_used_twice_stops_the_start_and_names_both_files(folder: Path) -> None:
    write(folder, "team_twice.py", HANDLER.format(name="worker lost rabbitmq", of="x"))
    with pytest.raises(
        Permanent, match=r"two handlers are called `worker lost rabbitmq`.*worker_lost_rabbitmq\.py.*team_twice\.py"
    ):
        discover([folder])


def test_a_handler_called_like_a_situation_is_refused(folder: Path) -> None:
    write(folder, "team_situation.py", HANDLER.format(name="builds not starting", of="x"))
    with pytest.raises(Permanent, match="a situation share one name"):
        discover([folder])


@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_folder_that_others_can_write_is_refused(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(Permanent, match="can be written by others"):
        discover([folder])


def test_a_file_that_others_can_write_is_refused(folder: Path) -> None:
    write(folder, "team_open.py", HANDLER.format(name="open", of="x")).chmod(0o666)
    with pytest.raises(Permanent, match="can be written by others"):
        discover([folder])


def test_a_folder_that_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(Permanent, match="does not exist"):
        discover([tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("source", "mistake"),
    [("import nothing_of_that_name\n", "ModuleNotFoundError"), ("raise SystemExit(0)\n", "SystemExit: 0")],
)
def test_a_file_with_a_mistake_is_named(folder: Path, source: str, mistake: str) -> None:
    write(folder, "team_broken.py", source)
    with pytest.raises(Permanent, match=rf"team_broken\.py cannot be loaded: {mistake}"):
        discover([folder])
