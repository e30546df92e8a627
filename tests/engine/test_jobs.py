"""Jobs look at machines as they go, and end with a sentence whatever they meet."""

from collections.abc import Iterator

import pytest

from bot.core.command import sh
from bot.core.errors import Refused, Unknown
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import Action, Job, Steps
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.target import Role, Target
from tests.engine.lamps import Room, lamp, room

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


def state(steps: Steps, look: Look) -> str:
    hall = look.site.find("hall")
    assert hall is not None
    look.together(lamp(hall))
    return "the hall is " + str(steps.step("light", lambda: look(lamp(hall))))


def wondering(steps: Steps, look: Look) -> str:
    raise Unknown("there is no lamp: is it the right hall?")


def unwilling(steps: Steps, look: Look) -> str:
    raise Refused("not today")


def bundling(steps: Steps, look: Look) -> str:
    text, counts = steps.masked("the lamp's password=hunter2")
    steps.attach("bundle", {"lamp.txt": text, "again.txt": "token=abc"}, "what was collected")
    return f"{counts}; {'; '.join(steps.findings())}"


@pytest.fixture
def working(database: str) -> Iterator[Room]:
    with room(database) as made:
        made.engine.catalogue.add(Job("state", "Say how it is", state), "e")
        made.engine.catalogue.add(Job("wondering", "Ask back", wondering), "h")
        made.engine.catalogue.add(Job("unwilling", "Never", unwilling), "f")
        made.engine.catalogue.add(Job("bundle", "Collect", bundling), "g")
        made.set_to_work()
        yield made


def test_a_job_can_look(working: Room) -> None:
    ended = working.ended(working.order("state", "job"))
    assert (ended.outcome, ended.summary) == (Outcome.DONE, "the hall is dark")


def test_a_job_that_cannot_look_says_so(working: Room) -> None:
    working.machines.away = {"hall"}
    ended = working.ended(working.order("state", "job"))
    assert ended.outcome is Outcome.COULD_NOT_LOOK
    assert "does not answer" in ended.summary


def test_what_ends_in_a_question_gets_no_full_stop(working: Room) -> None:
    ended = working.ended(working.order("wondering", "job"))
    assert ended.summary == "there is no lamp: is it the right hall? No step was done."


@pytest.mark.parametrize(("subject", "kind"), [("state", "job"), ("screw", "act")])
def test_a_handler_that_was_taken_away_ends_the_run(database: str, subject: str, kind: str) -> None:
    with room(database) as made:
        made.engine.catalogue.add(Job("state", "Say how it is", state), "e")
        run = made.order(subject, kind, because="it is dark", targets=("hall",))
        made.engine.catalogue.jobs.clear()
        made.engine.catalogue.actions.clear()
        made.set_to_work()
        ended = made.ended(run)
        assert ended.outcome is Outcome.FAILED
        assert f"`{subject}` any more" in ended.summary


def ring(look: Look, machine: Target, name: str) -> Fix:
    return Fix("lamp.ring", f"Ring for {name}", machine, (Change("Ring", sh("ring", name)),), Risk.NONE)


def test_an_action_gets_what_it_is_about(working: Room) -> None:
    working.engine.catalogue.add(Action("ring", Role.WORKER, "Ring", Risk.NONE, ring, "", "name", "lamp.ring"), "g")
    run = working.order("ring", "act", targets=("hall",), argument="ann")
    assert working.outcome(run) is Outcome.DONE
    assert working.sent() == ["ring ann"]
    assert "ring ann hall" in str(working.run(run).order)


def test_a_job_that_refuses_is_refused(working: Room) -> None:
    ended = working.ended(working.order("unwilling", "job"))
    assert ended.outcome is Outcome.REFUSED
    assert "not today. No step was done." in ended.summary


def test_a_job_attaches_an_archive_of_shown_texts(working: Room) -> None:
    run = working.order("bundle", "job")
    ended = working.ended(run)
    assert ended.outcome is Outcome.DONE
    assert "BROKEN hall: " in ended.summary
    [note] = [event.data for event in working.story(run) if event.kind == "note"]
    assert (note["text"], note["file"]) == ("what was collected", "bundle.tar.gz")
    assert note["files"] == {"lamp.txt": "the lamp's password=•••", "again.txt": "token=•••"}
