"""What a try says on the terminal; the whole of it is played in tests/browser."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot import tryout
from bot.core.errors import Permanent
from bot.sandbox.slack import LocalSlack


def child(log: Path, said: str, code: str) -> tryout.Child:
    log.write_text(said)
    return tryout.Child(subprocess.Popen([sys.executable, "-c", code], text=True), {}, log)


@pytest.fixture
def without_serve(tmp_path: Path) -> Iterator[tryout.Trial]:
    """A try whose serve has ended with status 3."""
    installation = child(tmp_path / "installation.log", "", "import time; time.sleep(60)")
    serving = child(tmp_path / "serve.log", "it begins\nno space left\n", "raise SystemExit(3)")
    yield tryout.Trial(LocalSlack(), installation, serving, tmp_path, tmp_path / "opsbot.yaml")
    installation.process.kill()
    installation.process.wait()


def test_a_part_that_ends_is_named_with_its_last_words(without_serve: tryout.Trial) -> None:
    with pytest.raises(
        Permanent, match=r"^serve ended by itself \(exit status 3\); it said: it begins\nno space left$"
    ):
        tryout._wait(without_serve)


@pytest.mark.parametrize("folder", ["/proc/nobody-makes-this", "/dev/null"])
def test_a_folder_that_cannot_be_made_is_a_sentence(folder: str) -> None:
    with pytest.raises(Permanent, match=f"`--folder` {folder} cannot be made"):
        tryout.run(False, 0, Path(folder), 20.0)


def test_a_tour_shows_names_and_labels_instead_of_mark_up() -> None:
    marked = (
        "asked by <@U0ANA> <!date^1795322268^{date_short_pretty} {time}|2026-11-22 04:37 UTC>, for <!subteam^S0ONCALL>"
    )
    assert tryout._plain(marked) == "asked by @ana 2026-11-22 04:37 UTC, for @oncall-leads"
    assert tryout._plain("<https://docs.example.com/a|Read more> &lt;b&gt;") == "Read more <b>"
