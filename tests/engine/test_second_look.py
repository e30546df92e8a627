"""What is seen again right before a change decides; what was never begun was not tried."""

from collections.abc import Iterator, Sequence
from threading import Event as Flag

import pytest

from bot.core.approval import Verdict
from bot.core.command import sh
from bot.core.errors import LeaseLost, Refused, Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Change, Fix, Risk
from bot.core.handler import Action, Diagnosis
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Role, Target
from bot.engine.policy import Rule
from tests.engine.lamps import BO, Room, lamp, light, room, screw, tap

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def lit(database: str) -> Iterator[Room]:
    with room(database) as made:

        def helped(machine: str, command: str) -> Output:
            if command != "untap":
                light(made, machine, "bright")
            return Output(0)

        made.machines.on_send = helped
        made.set_to_work()
        yield made


def flicker(look: Look, machine: Target) -> Iterator[Finding]:
    """Tapping is offered only while it is dark; what flickers has to be screwed in."""
    state = look(lamp(machine))
    if state in ("dark", "flickers"):
        fixes = (tap(machine), screw(machine)) if state == "dark" else (screw(machine),)
        yield Finding("lamp.poor", Severity.BROKEN, machine, f"{machine} {state}", fixes=fixes)


def told(made: Room, run: int) -> list[str]:
    """What the thread says beside evidence."""
    notes = made.story(run, "note")
    return [event.data["text"] for event in notes if "content" not in event.data]


def test_a_fix_that_is_not_offered_any_more_does_not_mean_healthy(lit: Room) -> None:
    lit.engine.catalogue.add(Diagnosis("flicker", "poor light", Role.WORKER, "Does it flicker?", flicker), "e")
    run = lit.order("poor light")
    ask = lit.asked(run)
    light(lit, "hall", "flickers")
    lit.click(ask, BO)
    second = lit.plan_no(run, 2)
    assert "Screw the bulb in" in second.ask.text
    why = "what would be done has changed since it was agreed to. Looking anew."
    assert told(lit, run) == [f"hall: Tap the lamp: not begun, nothing was sent: {why}"]
    lit.machines.identity = lambda target: "another host key"  # type: ignore[method-assign]
    lit.click(second, BO)
    assert "another host key" in lit.plan_no(run, 3).ask.text
    assert "the machine's address or host key has changed" in told(lit, run)[-1]
    assert lit.sent() == []


def silent_once(made: Room, asks: int, instead: Answer | None = None) -> None:
    """The hall does not answer the nth time it is asked from now on, or says something else instead."""
    ask, seen = made.machines.ask, [0]

    def asked(target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        seen[0] += target.name == "hall"
        if target.name == "hall" and seen[0] == asks:
            return [instead or Unanswered("hall does not answer")] * len(questions)
        return ask(target, questions, abort)

    made.machines.ask = asked  # type: ignore[method-assign]


def test_a_fix_that_was_never_begun_is_proposed_again(lit: Room) -> None:
    silent_once(lit, 2)
    run = lit.order()
    lit.click(lit.asked(run), BO)
    second = lit.plan_no(run, 2)
    assert "Tap the lamp" in second.ask.text
    assert lit.sent() == []
    lit.click(second, BO)
    assert lit.outcome(run) is Outcome.FIXED
    assert lit.sent() == ["tap"]


@pytest.mark.parametrize("answer", ["silence", "nonsense"])
def test_nothing_is_sent_before_what_is_there_is_saved(lit: Room, answer: str) -> None:
    lit.engine.catalogue.add(Diagnosis("flicker", "poor light", Role.WORKER, "Does it flicker?", flicker), "e")
    light(lit, "hall", "flickers")
    run = lit.order("poor light")
    first = lit.asked(run)
    silent_once(lit, 2, None if answer == "silence" else Output(0, "f", truncated=True))
    lit.click(first, BO)
    lit.plan_no(run, 2)
    said = [event.data["does"] for event in lit.story(run, "step")]
    assert [each.partition(":")[0] for each in said] == ["what is there now could not be saved, so nothing was sent"]
    assert lit.sent() == []


def test_a_fix_that_was_not_needed_is_not_skipped_for_a_harsher_one(lit: Room) -> None:
    light(lit, "attic", "no fuse")  # so that it looks again in any case
    ask, states = lit.machines.ask, iter(["dark", "bright"])  # planned, gone, and back

    def asked(target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        if target.name == "hall":
            light(lit, "hall", next(states, "dark"))
        return ask(target, questions, abort)

    lit.machines.ask = asked  # type: ignore[method-assign]
    run = lit.order()
    lit.click(lit.asked(run), BO)
    assert "hall: Tap the lamp" in lit.plan_no(run, 2).ask.text
    assert lit.sent() == []


def careful(look: Look, machine: Target) -> Fix:
    if look(lamp(machine)) == "hot":
        raise Refused(f"{machine} is hot")
    return screw(machine)


def test_an_action_that_is_refused_by_then_sends_nothing_and_ends(lit: Room) -> None:
    lit.engine.catalogue.add(
        Action("careful", Role.WORKER, "Screw it in", Risk.INTERRUPTS, careful, makes="lamp.screw"), "e"
    )
    run = lit.order("careful", "act", targets=("hall",))
    ask = lit.asked(run)
    light(lit, "hall", "hot")
    lit.click(ask, BO)
    ended = lit.ended(run)
    assert ended.outcome is Outcome.REFUSED
    assert "hall is hot" in ended.summary
    assert lit.sent() == []


def test_an_action_does_not_repeat_what_is_done(database: str) -> None:
    with room(database) as made:
        light(made, "attic", "dark")
        made.set_to_work()

        def screwed(machine: str, command: str) -> Output:
            light(made, machine, "bright")
            return Output(0)

        identity = made.machines.identity

        def known(target: Target) -> str:
            moved = target.name == "attic" and made.machines.sent
            return f"{identity(target)}{' moved' if moved else ''}"

        made.machines.identity = known  # type: ignore[method-assign]
        made.machines.on_send = screwed
        run = made.order("screw", "act", targets=("hall", "attic"))
        made.click(made.asked(run), BO)
        second = made.plan_no(run, 2)
        assert "attic" in second.ask.text
        assert "hall" not in second.ask.text
        made.click(second, BO)
        assert made.outcome(run) is Outcome.DONE
        assert made.machines.sent == [("hall", "sudo -n screw"), ("attic", "sudo -n screw")]


def test_an_action_keeps_within_the_blast_radius(database: str) -> None:
    with room(database, rules=(Rule("policy[0]", 1, max_targets=1),)) as made:
        made.set_to_work()
        run = made.ended(made.order("screw", "act", targets=("hall", "attic")))
        assert run.outcome is Outcome.REFUSED
        assert "policy[0]" in run.summary


def test_an_action_for_workers_is_not_planned_for_others(lit: Room) -> None:
    run = lit.ended(lit.order("screw", "act", targets=("grid",)))
    assert run.outcome is Outcome.REFUSED
    assert lit.machines.asked == []


def test_asked_of_no_machine_is_not_healthy(lit: Room) -> None:
    for targets in (("grid",), ("nowhere",)):
        run = lit.ended(lit.order(targets=targets))
        assert run.outcome is not Outcome.HEALTHY, targets


def other_target(look: Look, machine: Target) -> Iterator[Finding]:
    """Asks the platform, and finds what is wrong on a worker."""
    hall = look.site.find("hall")
    assert hall is not None
    if look(lamp(hall)) == "dark":
        yield Finding("hall.dark", Severity.BROKEN, hall, "the hall is dark", fixes=(tap(hall),))


def test_a_finding_about_another_machine_is_looked_at_again(lit: Room) -> None:
    lit.engine.catalogue.add(Diagnosis("from afar", "afar", Role.PLATFORM, "Is it dark?", other_target), "e")
    run = lit.order("afar")
    lit.click(lit.asked(run), BO)
    assert lit.outcome(run) is Outcome.FIXED
    assert lit.sent() == ["tap"]


def moths(look: Look, machine: Target) -> Iterator[Finding]:
    """Each moth is named in the plan."""
    if found := look(swarm(machine)):
        yield Finding("lamp.moths", Severity.WARN, machine, f"{len(found)} moths", fixes=(shoo(machine, found),))


@fact
def swarm(machine: Target) -> Fact[tuple[str, ...]]:
    return Fact(f"moths of {machine}", machine, sh("ls", "/moths"), lambda said: tuple(said.out.split()))


def shoo(machine: Target, found: tuple[str, ...]) -> Fix:
    steps = (Change("Shoo", sh("shoo", *found)), Change("Close", sh("close")))
    return Fix("lamp.shoo", f"Shoo {len(found)} moths", machine, steps, Risk.DATA, items=found)


@pytest.fixture
def visited(database: str) -> Iterator[Room]:
    with room(database) as made:

        def shooed(machine: str, command: str) -> Output:
            if command.startswith("shoo"):
                made.machines.answers[machine]["ls /moths"] = ""
            return Output(0)

        made.machines.on_send = shooed
        made.machines.answers["hall"]["ls /moths"] = "ann bea cis"
        made.machines.answers["attic"]["ls /moths"] = ""
        made.engine.catalogue.add(Diagnosis("moths", "visitors", Role.WORKER, "Are there moths?", moths), "e")
        yield made


def test_items_that_are_gone_are_left_out_without_asking_again(visited: Room) -> None:
    visited.set_to_work()
    run = visited.order("visitors")
    ask = visited.asked(run)
    assert "shoo ann bea cis" in ask.ask.text
    visited.machines.answers["hall"]["ls /moths"] = "ann cis"
    visited.click(ask, BO)
    assert visited.outcome(run) is Outcome.FIXED
    assert visited.sent() == ["shoo ann cis", "close"]
    assert any("1 of 3 that were agreed to" in str(event.data) for event in visited.story(run, "note"))


def test_an_item_that_is_new_needs_a_new_approval(visited: Room) -> None:
    visited.set_to_work()
    run = visited.order("visitors")
    ask = visited.asked(run)
    visited.machines.answers["hall"]["ls /moths"] = "ann cis dot"
    visited.click(ask, BO)
    assert "shoo ann cis dot" in visited.plan_no(run, 2).ask.text
    assert visited.sent() == []


def few(look: Look, machine: Target) -> Iterator[Finding]:
    """At most two moths in one plan."""
    if found := look(swarm(machine)):
        fixes = (shoo(machine, found[:2]),)
        yield Finding("lamp.moths", Severity.WARN, machine, f"{len(found)} moths", fixes=fixes)


@pytest.fixture
def swarmed(visited: Room) -> Room:
    """Each order drives away exactly the moths that it names."""

    def shooed(machine: str, command: str) -> Output:
        table, gone = visited.machines.answers[machine], command.split()[1:]
        if command.startswith("shoo"):
            table["ls /moths"] = " ".join(moth for moth in str(table["ls /moths"]).split() if moth not in gone)
        return Output(0)

    visited.engine.catalogue.add(Diagnosis("few", "swarm", Role.WORKER, "Are there moths?", few), "e")
    visited.machines.on_send = shooed
    visited.machines.answers["hall"]["ls /moths"] = "ann bea cis"
    visited.set_to_work()
    return visited


def test_a_batch_is_healed_though_others_are_left_and_they_are_the_next_plan(swarmed: Room) -> None:
    run = swarmed.order("swarm")
    swarmed.click(swarmed.asked(run), BO)
    rest = swarmed.plan_no(run, 2)
    assert [event.data["healed"] for event in swarmed.story(run, "verified")] == [True]
    assert "shoo cis" in rest.ask.text
    assert "ann" not in rest.ask.text
    swarmed.click(rest, BO)
    assert swarmed.outcome(run) is Outcome.FIXED
    assert swarmed.sent() == ["shoo ann bea", "close", "shoo cis", "close"]


def test_a_batch_of_which_one_is_still_there_is_not_healed(swarmed: Room) -> None:
    swarmed.machines.on_send = lambda machine, command: Output(0)
    run = swarmed.order("swarm")
    swarmed.click(swarmed.asked(run), BO)
    assert swarmed.outcome(run) is Outcome.UNFIXED
    assert [event.data["healed"] for event in swarmed.story(run, "verified")] == [False]


def test_who_takes_over_goes_on_with_what_was_left(visited: Room) -> None:
    """The lease is lost in the second change: whoever goes on knows what was left out, and doubts only that change."""
    send, lost = visited.machines.on_send, list[str]()

    def loses_it_once(machine: str, command: str) -> Output:
        if command == "close" and not lost:
            lost.append(command)
            raise LeaseLost("frozen for too long")
        return send(machine, command)

    visited.machines.on_send = loses_it_once
    visited.set_to_work()
    run = visited.order("visitors")
    ask = visited.asked(run)
    visited.machines.answers["hall"]["ls /moths"] = "ann"
    visited.click(ask, BO)
    visited.click(visited.doubt(run), BO, Verdict.AGAIN)
    assert visited.outcome(run) is Outcome.FIXED
    assert visited.sent() == ["shoo ann", "close", "close"]


def cannot_tell(look: Look, machine: Target) -> Iterator[Finding]:
    if look(lamp(machine)):
        raise Unknown("nobody knows yet")
    yield from ()


def shines(look: Look, machine: Target) -> Iterator[Finding]:
    look(lamp(machine))
    yield from ()


def test_only_what_was_told_and_found_nothing_is_said_to_be_in_order(lit: Room) -> None:
    for name, says, function in (
        ("flicker", "Is it steady?", flicker),
        ("later", "Can it be told?", cannot_tell),
        ("shines", "Does it shine?", shines),
    ):
        lit.engine.catalogue.add(Diagnosis(name, "poor light", Role.WORKER, says, function), "e")
    run = lit.order("poor light")
    lit.asked(run)
    (look,) = lit.story(run, "look")
    assert look.data["checked"] == ["Does it shine?"]
    assert "hall: nobody knows yet" in look.data["unknown"]
