"""Archives on the command line: a file of the person who asked, and a sentence that says where."""

from pathlib import Path

import pytest

from bot.cli.kept import keep
from bot.cli.screen import Screen
from tests.core.test_archive import unpacked

FILES = {"worker-1/log.txt": "started\n"}
LINE = {"event": "note", "run": 12, "text": "The bundle", "file": "support-bundle.tar.gz", "files": FILES}


def test_it_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    said = keep([tmp_path / "files"], 12, "../support-bundle.tar.gz", FILES)
    path = tmp_path / "files" / "run-12-support-bundle.tar.gz"
    assert said == f"kept as {path}"
    assert unpacked(path.read_bytes()) == FILES
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_that_lies_there_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "run-12-a.tar.gz").symlink_to(tmp_path / "victim")
    keep([tmp_path], 12, "a.tar.gz", FILES)
    assert (tmp_path / "victim").read_text() == "mine"


def test_where_it_cannot_be_kept_the_next_folder_is_tried(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    assert keep([tmp_path / "a file", tmp_path], 1, "a.tar.gz", FILES) == f"kept as {tmp_path / 'run-1-a.tar.gz'}"
    said = keep([tmp_path / "a file"], 1, "a.tar.gz", FILES)
    assert "could not be kept" in said
    assert "opsbot show 1 --json" in said


def test_the_screen_says_where_and_scripts_get_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Screen(folders=[tmp_path]).follow([LINE])
    assert f"kept as {tmp_path / 'run-12-support-bundle.tar.gz'}" in capsys.readouterr().out
    Screen(as_json=True, folders=[tmp_path / "no"]).follow([LINE])
    assert '"worker-1/log.txt": "started\\n"' in capsys.readouterr().out
    assert not (tmp_path / "no").exists()
