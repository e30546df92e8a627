"""The runbooks say what the handlers do now, and leave out no cause."""

from bot.cli.causes import causes
from tests.docs import runbooks


def test_the_page_is_current() -> None:
    assert runbooks.PAGE.read_text() == runbooks.page(), "the handlers or their cases changed: run `make runbooks`"


def test_every_cause_has_a_case() -> None:
    shown = runbooks.played()
    seen = {cause for each in shown.values() for cause in each.found}
    assert {cause.id for cause in causes() if cause.diagnosis} <= seen


def test_what_any_look_can_find_is_on_the_page() -> None:
    page = runbooks.PAGE.read_text()
    assert [cause.id for cause in causes() if not cause.diagnosis and f"| `{cause.id}` | " not in page] == []
