"""The loop: look, plan, approve, apply, prove. Real store, real durable tasks, machines that answer from a table."""

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest

from bot.core import approval
from bot.core.approval import Verdict
from bot.core.errors import Refused
from bot.core.finding import Finding, Severity
from bot.core.fix import Risk
from bot.core.handler import Diagnosis
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.people import Place
from bot.core.question import Output
from bot.core.request import Ask, Request
from bot.core.target import Role, Target
from bot.engine import recovery
from bot.engine.policy import Rule
from tests.engine.lamps import ANA, BO, CY, GUS, Room, lamp, light, room, until

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


@pytest.fixture
def lit(database: str) -> Iterator[Room]:
    """A room where tapping helps, and somebody is at work."""
    with room(database) as made:

        def tapped(machine: str, command: str) -> Output:
            if command == "tap":
                light(made, machine, "bright")
            return Output(0)

        made.machines.on_send = tapped
        made.set_to_work()
        yield made


@pytest.fixture
def stubborn(database: str) -> Iterator[Room]:
    """A room where tapping does nothing and only the screw helps."""
    with room(database) as made:

        def screwed(machine: str, command: str) -> Output:
            if "screw" in command:
                light(made, machine, "bright")
            return Output(0)

        made.machines.on_send = screwed
        made.set_to_work()
        yield made


def test_heals_after_somebody_else_approved(lit: Room) -> None:
    run = lit.order()
    ask = lit.asked(run)
    assert "hall: Tap the lamp" in ask.ask.text
    assert "tap" in ask.ask.text
    assert lit.sent() == []
    lit.click(ask, BO)
    assert lit.outcome(run) is Outcome.FIXED
    assert lit.machines.sent == [("hall", "tap")]
    kinds = [event.kind for event in lit.story(run)]
    assert kinds[-1] == "outcome"
    assert {"look", "finding", "plan", "decision", "change", "step", "verified"} <= set(kinds)


def test_says_healthy_and_what_was_checked(lit: Room) -> None:
    light(lit, "hall", "bright")
    run = lit.ended(lit.order())
    assert run.outcome is Outcome.HEALTHY
    assert "lamp dark" in run.summary
    assert lit.sent() == []


def test_requester_cannot_approve(lit: Room) -> None:
    run = lit.order(by=BO)
    ask = lit.asked(run)
    lit.click(ask, BO)
    until(lambda: "yourself" in audited(lit), 5, "the refusal is on record")
    assert lit.open_ask(run) is not None
    lit.click(ask, CY)
    assert lit.outcome(run) is Outcome.FIXED


@pytest.mark.parametrize("who", ["guest", "deactivated", "not an approver"])
def test_who_may_not_decide_does_not(lit: Room, who: str) -> None:
    lit.people.guests, lit.people.gone = (
        {"UBO"} if who == "guest" else set(),
        {"UBO"} if who == "deactivated" else set(),
    )
    run = lit.order()
    ask = lit.asked(run)
    lit.click(ask, GUS if who == "not an approver" else BO)
    until(lambda: "refused" in audited(lit), 5, "the refusal is on record")
    assert lit.open_ask(run) is not None
    assert lit.sent() == []


def test_nobody_decides_while_slack_cannot_say_who_people_are(lit: Room) -> None:
    run = lit.order()
    ask = lit.asked(run)
    lit.people.away = True
    lit.click(ask, BO)
    with pytest.raises(AssertionError):
        lit.ended(run, within=1.5)
    lit.people.away = False
    assert lit.outcome(run) is Outcome.FIXED  # the click was kept and counted when it could be checked


@pytest.mark.parametrize("asked", [Request(Ask.HELP), Request(Ask.CANCEL, number=1)])
def test_a_question_that_is_refused_is_on_record(lit: Room, asked: Request) -> None:
    lit.people.guests = {"UGUS"}
    run = lit.order()
    ask = lit.asked(run)
    lit.desk.file(asked, GUS, None, lit.key())
    until(lambda: "refused" in audited(lit), 5, "the refusal is on record")
    assert asked.ask.value in audited(lit)
    assert lit.open_ask(run) == ask


def test_declined_with_its_reason(lit: Room) -> None:
    run = lit.order()
    lit.click(lit.asked(run), BO, Verdict.DECLINE, "there is a party")
    ended = lit.ended(run)
    assert ended.outcome is Outcome.DECLINED
    assert "there is a party" in ended.summary
    assert lit.sent() == []


def typed(made: Room, run: int, digest: str = "") -> None:
    made.desk.file(Request(Ask.APPROVE, number=run, argument=digest), CY, None, made.key())


def test_a_typed_approval_names_the_plan_once_there_were_several(stubborn: Room) -> None:
    run = stubborn.order()
    first = stubborn.asked(run).ask.digest
    typed(stubborn, run)
    second = stubborn.plan_no(run, 2).ask.digest
    sent = stubborn.sent()
    with pytest.raises(
        Refused, match=f"Run {run}: it has put several plans. Read it, then say `approve {run} {second[:6]}`"
    ):
        typed(stubborn, run)
    with pytest.raises(
        Refused, match=f"Plan {first[:6]} of run {run} is not open; the one that is now is {second[:6]}"
    ):
        typed(stubborn, run, first[:6])
    assert stubborn.sent() == sent
    typed(stubborn, run, second[:6])
    assert stubborn.outcome(run) is not None
    assert len(stubborn.sent()) > len(sent)


def test_a_typed_approval_names_a_plan_that_no_message_shows_whole(lit: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "PLAN_IN_MESSAGE", 10)
    run = lit.order()
    digest = lit.asked(run).ask.digest
    with pytest.raises(Refused, match=f"its plan is long. Read it, then say `approve {run} {digest[:6]}`"):
        typed(lit, run)
    assert lit.sent() == []
    typed(lit, run, digest[:6])
    assert lit.outcome(run) is Outcome.FIXED


def test_silence_is_not_consent(database: str) -> None:
    with room(database, open_for=timedelta(seconds=2)) as made:
        made.set_to_work()
        run = made.order()
        made.asked(run)
        assert made.outcome(run) is Outcome.EXPIRED
        assert made.sent() == []


def test_reminds_once(database: str) -> None:
    with room(database, open_for=timedelta(seconds=4)) as made:
        made.set_to_work()
        run = made.order()
        assert made.outcome(run) is Outcome.EXPIRED
        assert sum("Still waiting" in event.data["text"] for event in made.story(run, "note")) == 1


def test_next_gentlest_fix_needs_its_own_approval(stubborn: Room) -> None:
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    second = stubborn.plan_no(run, 2)
    assert "Screw the bulb in" in second.ask.text
    assert stubborn.sent() == ["tap", "untap"]  # what was tapped was let go, since the fix ended early
    stubborn.click(second, CY)
    assert stubborn.outcome(run) is Outcome.FIXED
    assert stubborn.sent() == ["tap", "untap", "sudo -n screw"]


def test_a_fix_that_helps_late_is_said_so(stubborn: Room) -> None:
    def late(machine: str, command: str) -> Output:
        if command == "untap":  # the fix has given up, and only now it is bright
            light(stubborn, machine, "bright")
        return Output(0)

    stubborn.machines.on_send = late
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.FIXED
    assert "Tried without success: hall: Tap the lamp" in ended.summary


def test_unfixed_says_whom_to_tell(stubborn: Room) -> None:
    stubborn.machines.on_send = lambda machine, command: Output(0)
    run = stubborn.order()
    stubborn.click(stubborn.asked(run), BO)
    second = stubborn.plan_no(run, 2)
    stubborn.click(second, BO)
    ended = stubborn.ended(run)
    assert ended.outcome is Outcome.UNFIXED
    assert "support" in ended.summary
    assert "lamp.dark" in ended.summary


def test_looks_again_and_sends_nothing_when_it_healed_by_itself(lit: Room) -> None:
    run = lit.order()
    ask = lit.asked(run)
    light(lit, "hall", "bright")
    lit.click(ask, BO)
    ended = lit.ended(run)
    assert ended.outcome is Outcome.HEALTHY
    assert lit.sent() == []


def test_sends_nothing_when_it_cannot_look_again(lit: Room) -> None:
    run = lit.order()
    ask = lit.asked(run)
    lit.machines.away = {"hall"}
    lit.click(ask, BO)
    assert lit.outcome(run) is Outcome.COULD_NOT_LOOK
    assert lit.sent() == []


def test_unreachable_machine_hides_nothing_about_the_others(lit: Room) -> None:
    lit.machines.away = {"attic"}
    run = lit.order()
    lit.click(lit.asked(run), BO)
    ended = lit.ended(run)
    causes = {event.data["cause"] for event in lit.story(run, "finding")}
    assert {"lamp.dark", "worker.unreachable"} <= causes
    assert ended.outcome is Outcome.PARTLY_FIXED
    assert lit.sent() == ["tap"]


def test_forbidden_is_refused_and_names_the_rule(database: str) -> None:
    with room(database, rules=(Rule("policy[0]", None, Risk.INTERRUPTS),)) as made:
        made.set_to_work()
        ended = made.ended(made.order())
        assert ended.outcome is Outcome.REFUSED
        assert "policy[0]" in ended.summary
        assert made.sent() == []


def test_a_forbidden_remainder_is_no_refusal_of_what_was_done(database: str) -> None:
    """Tapping did not help, and the screw is forbidden: unfixed, with the rule, and nobody reads that all was tried."""
    with room(database, rules=(Rule("policy[0]", None, action="lamp.screw"),)) as made:
        made.set_to_work()
        run = made.order()
        made.click(made.asked(run), BO)
        ended = made.ended(run)
        assert ended.outcome is Outcome.UNFIXED
        for said in (
            "hall: Tap the lamp",
            "policy[0]: forbidden",
            "Screw the bulb in",
            "enterprise@travis-ci.com",
            "`support bundle` collects what it asks for",
            "lamp.dark",
        ):
            assert said in ended.summary
        assert "Every fix that opsbot knows was tried" not in ended.summary
        assert made.sent("untap") == ["tap"]


def test_a_forbidden_remainder_does_not_hide_what_was_healed(database: str) -> None:
    """The hall is lit by tapping; in the attic that did not help, and nothing else is allowed."""
    with room(database, rules=(Rule("policy[0]", None, action="lamp.screw"),)) as made:
        light(made, "attic", "dark")

        def tapped(machine: str, command: str) -> Output:
            if command == "tap" and machine == "hall":
                light(made, machine, "bright")
            return Output(0)

        made.machines.on_send = tapped
        made.set_to_work()
        run = made.order()
        made.click(made.asked(run), BO)
        ended = made.ended(run)
        assert ended.outcome is Outcome.PARTLY_FIXED
        assert "Fixed: hall: Tap the lamp" in ended.summary
        assert "policy[0]: forbidden" in ended.summary


def test_a_forbidden_fix_gives_way_to_the_next_gentlest(database: str) -> None:
    with room(database, rules=(Rule("policy[0]", None, action="lamp.tap"),)) as made:
        made.machines.on_send = lights_it(made)
        made.set_to_work()
        run = made.order()
        made.click(made.asked(run), BO)
        assert made.outcome(run) is Outcome.FIXED
        assert made.sent() == ["sudo -n screw"]


def test_a_reason_is_kept_without_its_secrets(lit: Room) -> None:
    run = lit.order()
    ask = lit.asked(run)
    lit.click(ask, BO, Verdict.DECLINE, "the password is open sesame")
    assert "open sesame" not in lit.ended(run).summary
    with lit.pool.connection() as connection:
        kept = connection.execute("SELECT reason FROM opsbot.approvals WHERE id = %s", [ask.id]).fetchone()
    assert kept is not None
    assert "open sesame" not in kept["reason"]


def test_two_approvals_are_two_people(database: str) -> None:
    with room(database, rules=(Rule("policy[0]", 2),)) as made:
        made.machines.on_send = lights_it(made)
        made.set_to_work()
        run = made.order()
        ask = made.asked(run)
        made.click(ask, BO)
        made.click(ask, BO)
        with pytest.raises(AssertionError):
            made.ended(run, within=1.5)
        made.click(ask, CY)
        assert made.outcome(run) is Outcome.FIXED


def test_cancelled_while_waiting(lit: Room) -> None:
    run = lit.order()
    lit.asked(run)
    cancel(lit, run)
    ended = lit.ended(run)
    assert ended.outcome is Outcome.CANCELLED
    assert lit.open_ask(run) is None
    assert lit.sent() == []


def test_cancelled_in_the_middle_of_a_change_stops_it_and_is_in_doubt(lit: Room) -> None:
    def endless(machine: str, command: str) -> Output:
        return Output(None) if command == "tap" and lit.machines.abort.wait(10) else Output(0)

    lit.machines.on_send = endless
    run = lit.order()
    lit.click(lit.asked(run), BO)
    until(lambda: lit.sent() == ["tap"], 10, "the change is on its way")
    cancel(lit, run)
    assert lit.outcome(run, within=8) is Outcome.IN_DOUBT
    assert lit.sent() == ["tap", "untap"]


def test_action_by_name_is_proven(stubborn: Room) -> None:
    run = stubborn.order("screw", "act", targets=("hall",))
    stubborn.click(stubborn.asked(run), BO)
    assert stubborn.outcome(run) is Outcome.DONE
    assert stubborn.sent() == ["sudo -n screw"]


def test_action_without_a_reason_is_refused(stubborn: Room) -> None:
    run = stubborn.order("screw", "act", targets=("hall",), because=" ")
    assert stubborn.outcome(run) is Outcome.REFUSED


def test_a_refusal_is_told_in_the_open(stubborn: Room) -> None:
    """A mention's thread has no reply yet, and Slack shows nothing private in such a one."""
    order = Request(Ask.RUN, "act", "screw", ("hall",), "home")
    stubborn.desk.file(order, ANA, Place("C1", "1.2"), stubborn.key())
    where = "SELECT channel, thread FROM opsbot.outbox WHERE kind = 'private'"

    def told() -> list[tuple[str, str | None]]:
        with stubborn.pool.connection() as connection:
            return [(row["channel"], row["thread"]) for row in connection.execute(where).fetchall()]

    until(told, 10, "the refusal is told")
    assert told() == [("C1", None)]


def test_job_counts(lit: Room) -> None:
    ended = lit.ended(lit.order("count", "job"))
    assert (ended.outcome, ended.summary) == (Outcome.DONE, "counted to 3")


def test_doubt_is_put_to_a_person_and_again_sends_once_more(lit: Room) -> None:
    answers = [Output(None), Output(0)]

    def lost(machine: str, command: str) -> Output:
        if command != "tap":
            return Output(0)
        answer = answers.pop(0)
        if answer.ok:
            light(lit, machine, "bright")
        return answer

    lit.machines.on_send = lost
    run = lit.order()
    lit.click(lit.asked(run), BO)
    doubt = lit.doubt(run)
    assert lit.sent() == ["tap"]
    lit.click(doubt, CY, Verdict.AGAIN)
    assert lit.outcome(run) is Outcome.FIXED
    assert lit.sent() == ["tap", "tap"]


def test_who_asked_may_stop_a_doubt_but_not_send_again(lit: Room) -> None:
    lit.machines.on_send = lambda machine, command: Output(None)
    run = lit.order(by=BO)
    lit.click(lit.asked(run), CY)
    doubt = lit.doubt(run)
    lit.click(doubt, BO, Verdict.AGAIN)
    until(lambda: "to send a change again" in audited(lit), 5, "the refusal is on record")
    assert lit.sent() == ["tap"]
    lit.click(doubt, BO, Verdict.STOP)
    assert lit.outcome(run) is Outcome.IN_DOUBT
    assert lit.sent() == ["tap"]


def test_doubt_can_be_answered_by_typing(lit: Room) -> None:
    def lost(machine: str, command: str) -> Output:
        light(lit, machine, "bright")
        return Output(None) if command == "tap" else Output(0)

    lit.machines.on_send = lost
    run = lit.order()
    lit.click(lit.asked(run), BO)
    lit.doubt(run)
    lit.desk.file(Request(Ask.DONE, number=run), CY, None, lit.key())
    assert lit.outcome(run) is Outcome.FIXED
    assert lit.sent() == ["tap"]


def test_doubt_stopped_leaves_everything_as_it_is(lit: Room) -> None:
    lit.machines.on_send = lambda machine, command: Output(None)
    run = lit.order()
    lit.click(lit.asked(run), BO)
    doubt = lit.doubt(run)
    lit.click(doubt, CY, Verdict.STOP)
    assert lit.outcome(run) is Outcome.IN_DOUBT
    assert lit.sent() == ["tap"]


def test_doubt_that_the_machine_settles_is_asked_of_nobody(stubborn: Room) -> None:
    def lost(machine: str, command: str) -> Output:
        light(stubborn, machine, "bright")
        return Output(None)

    stubborn.machines.on_send = lost
    run = stubborn.order("screw", "act", targets=("hall",))
    stubborn.click(stubborn.asked(run), BO)
    assert stubborn.outcome(run) is Outcome.DONE
    assert stubborn.sent() == ["sudo -n screw"]


def test_two_runs_that_want_one_machine_wait_and_say_for_whom(lit: Room) -> None:
    first, second = lit.order(), lit.order()
    one, two = lit.asked(first), lit.asked(second)
    answers = [Output(None)]
    lit.machines.on_send = lambda machine, command: answers.pop() if answers else Output(0)
    lit.click(one, BO)
    doubt = lit.doubt(first)
    lit.click(two, BO)
    until(lambda: [e for e in lit.story(second, "waiting") if f"run {first}" in e.data["for"]], 10, "it says for whom")
    assert lit.sent() == ["tap"]
    light(lit, "hall", "bright")
    lit.click(doubt, CY, Verdict.DONE)
    assert lit.outcome(first) is Outcome.FIXED
    assert lit.outcome(second) is Outcome.HEALTHY
    assert lit.sent() == ["tap"]


def test_a_mistake_in_a_handler_is_said_and_hides_nothing(lit: Room) -> None:
    light(lit, "attic", "confusing")
    run = lit.order()
    lit.click(lit.asked(run), BO)
    assert lit.outcome(run) is Outcome.PARTLY_FIXED  # what was healed, and what is not known
    assert lit.sent() == ["tap"]
    assert any("a mistake in a handler" in each for each in lit.story(run, "look")[0].data["unknown"])


def test_an_unexpected_error_ends_failed_after_three_tries(lit: Room) -> None:
    def broken(machine: str, command: str) -> Output:
        raise ZeroDivisionError("a mistake of ours")

    lit.machines.on_send = broken
    run = lit.order()
    lit.click(lit.asked(run), BO)
    doubt = lit.doubt(run)
    lit.click(doubt, BO, Verdict.STOP)
    ended = lit.ended(run, within=40)
    assert ended.outcome in (Outcome.FAILED, Outcome.IN_DOUBT)
    assert "tap" in lit.sent()


def test_no_secret_and_no_raw_answer_in_the_story(lit: Room) -> None:
    light(lit, "hall", "dark")
    lit.machines.answers["attic"] = {"cat /lamp": "bright open sesame"}
    run = lit.order()
    lit.click(lit.asked(run), BO)
    lit.ended(run)
    assert "open sesame" not in str(lit.story(run))


def test_what_followed_from_a_healed_cause_is_given_time(lit: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that RabbitMQ was away from is met between two tries, and heals by itself."""
    monkeypatch.setattr(recovery, "CALM", timedelta(seconds=1))
    smokes = {"hall"}

    def smoke(look: Look, machine: Target) -> Iterator[Finding]:
        look(lamp(machine))
        if machine.name in smokes:
            yield Finding("lamp.smoke", Severity.BROKEN, machine, f"{machine} smokes", person="Find out why.")

    says = "Does it smoke?"
    lit.engine.catalogue.add(Diagnosis("smoke", "darkness", Role.WORKER, says, smoke, unless=("lamp.dark",)), "e")
    light(lit, "hall", "dark")
    light(lit, "attic", "no fuse")  # so that it looks again in any case
    run = lit.order()
    lit.click(lit.asked(run), BO)
    until(lambda: "followed" in str([event.data for event in lit.story(run, "waiting")]), 10, "it gives it time")
    smokes.clear()
    assert lit.ended(run).outcome is Outcome.PARTLY_FIXED
    smoking = [event.data["under"] for event in lit.story(run, "finding") if event.data["cause"] == "lamp.smoke"]
    assert smoking == ["lamp.dark"]


def lights_it(made: Room) -> Callable[[str, str], Output]:
    def lit(machine: str, command: str) -> Output:
        light(made, machine, "bright")
        return Output(0)

    return lit


def audited(made: Room) -> str:
    with made.pool.connection() as connection:
        return str(connection.execute("SELECT what, detail FROM opsbot.audit").fetchall())


def cancel(made: Room, run: int) -> None:
    with made.durable.transaction() as tx:
        assert made.store.cancel(tx, run, ANA)
        made.durable.wake(tx, made.run(run).task)
