"""What a try says on the terminal; the whole of it is played in tests/browser."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot import tryout
from bot.core.errors import Permanent
from bot.sandbox.slack import LocalSlack

ENDS = "raise SystemExit(3)"
LIVES = "import time; time.sleep(60)"


def child(log: Path, said: str, code: str) -> tryout.Child:
    log.write_text(said)
    return tryout.Child(subprocess.Popen([sys.executable, "-c", code], text=True), {}, log)


class Serves:
    """Starts one of these programs after the other, each as `serve`; an empty one does not come up."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.codes: list[str] = []
        self.started: list[tryout.Child] = []

    def __call__(self) -> tryout.Child:
        if not (code := self.codes.pop(0)):
            raise Permanent("`serve` did not start")
        self.started.append(child(self.folder / "serve.log", "it begins\nno space left\n", code))
        return self.started[-1]

    def begin(self, *codes: str) -> tryout.Serving:
        self.codes += codes
        return tryout.Serving(self, self())


@pytest.fixture
def serves(tmp_path: Path) -> Iterator[Serves]:
    made = Serves(tmp_path)
    yield made
    for each in made.started:
        each.process.kill()
        each.process.wait()


def ended(serving: tryout.Serving) -> tryout.Serving:
    serving.child.process.wait(20)
    return serving


def trial(serving: tryout.Serving, installation: tryout.Child, **more: bool) -> tryout.Trial:
    folder = serving.child.log.parent
    return tryout.Trial(LocalSlack(), installation, serving, folder, folder / "opsbot.yaml", **more)


def test_a_serve_that_ended_is_started_again_and_that_is_said(
    serves: Serves, capsys: pytest.CaptureFixture[str]
) -> None:
    serving = ended(serves.begin(ENDS, LIVES))
    serving.keep()
    assert serving.child is serves.started[1]
    assert capsys.readouterr().out == (
        "serve ended by itself (exit status 3). It is started again, and its runs go on.\n"
    )
    serving.keep()
    assert len(serves.started) == 2, "one that lives is left alone"


def test_a_serve_that_ends_again_and_again_is_given_up_with_its_last_words(serves: Serves) -> None:
    serving = serves.begin(ENDS, "", ENDS, ENDS, ENDS)
    for _ in range(tryout.MOST_ENDS - 1):
        ended(serving).keep()
    with pytest.raises(Permanent, match=r"^serve ended by itself \(exit status 3\); it said: it begins\nno space left"):
        ended(serving).keep()
    assert len(serves.started) == tryout.MOST_ENDS - 1, "one of them did not come up"


def test_ends_that_are_far_apart_are_not_counted_together(serves: Serves) -> None:
    serving = serves.begin(*[ENDS] * 9)
    for _ in range(8):
        serving.began -= 2 * tryout.LIVES
        ended(serving).keep()
    assert serving.ends == 1


def test_machines_that_end_are_named_with_their_last_words(serves: Serves, tmp_path: Path) -> None:
    installation = child(tmp_path / "installation.log", "out of memory\n", ENDS)
    with pytest.raises(Permanent, match=r"^installation ended by itself \(exit status 3\); it said: out of memory$"):
        tryout._wait(trial(serves.begin(LIVES), installation))


@pytest.mark.parametrize(("keeps", "said"), [(False, "and goes at the end"), (True, "machines begin anew each time")])
def test_what_stays_is_said_at_the_start(
    serves: Serves, capsys: pytest.CaptureFixture[str], keeps: bool, said: str
) -> None:
    serving = serves.begin(LIVES)
    started = trial(serving, serving.child, keeps=keeps)
    started.slack.start()
    tryout.welcome(started)
    started.slack.stop()
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["/proc/nobody-makes-this", "/dev/null"])
def test_a_folder_that_cannot_be_made_is_a_sentence(folder: str) -> None:
    with pytest.raises(Permanent, match=f"`--folder` {folder} cannot be made"):
        tryout.run(False, 0, Path(folder), 20.0)


def test_it_says_at_once_that_it_starts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Permanent):  # before anything is up
        tryout.run(False, 0, Path("/dev/null"), 20.0)
    assert capsys.readouterr().out == f"{tryout.STARTING}\n"


def test_a_tour_shows_names_and_labels_instead_of_mark_up() -> None:
    marked = (
        "asked by <@U0ANA> <!date^1795322268^{date_short_pretty} {time}|2026-11-22 04:37 UTC>, for <!subteam^S0ONCALL>"
    )
    assert tryout._plain(marked) == "asked by @ana 2026-11-22 04:37 UTC, for @oncall-leads"
    assert tryout._plain("<https://docs.example.com/a|Read more> &lt;b&gt;") == "Read more <b>"
