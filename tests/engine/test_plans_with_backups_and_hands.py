"""Steps of a plan that are no change: a backup that is taken within the run, and what a person does by hand."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from bot.core.approval import Approval, Kind, Verdict
from bot.core.backup import BackupFailed, Progress, Source
from bot.core.command import sh
from bot.core.errors import Refused
from bot.core.fix import ByHand, Change, Fix, Risk, Step, TakeBackup
from bot.core.handler import Action, ActionFunction
from bot.core.look import Look
from bot.core.outcome import Outcome
from bot.core.plan import Plan, plan_from_json
from bot.core.ports import NotSent
from bot.core.question import Output
from bot.core.target import Role, Site, Target
from bot.engine.words import plan_text
from tests.engine.lamps import ANA, BO, CY, lamp, until
from tests.engine.test_backups import Sheltered, sheltered
from tests.engine.test_power_cuts import dying_workers

pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)
OFF, ON = Change("Switch off", sh("off")), Change("Switch on", sh("on"))
TAKE = TakeBackup("data")
READ = ByHand("Read the meter", "look at the box beside the door", timedelta(hours=1))


def fix(machine: Target, *between: Step) -> Fix:
    return Fix("lamp.dark-copy", "Copy in the dark", machine, (OFF, *between, ON), Risk.INTERRUPTS, ensure=(ON,))


def add(home: Sheltered, name: str, plan: ActionFunction) -> None:
    action = Action(name, Role.WORKER, "In the dark", Risk.INTERRUPTS, plan, makes="lamp.dark-copy")
    home.engine.catalogue.add(action, name)


@pytest.fixture
def idle(database: str) -> Iterator[Sheltered]:
    with sheltered(database) as made:
        steps = {"copy dark": TakeBackup("data"), "read dark": READ, "copy nothing": TakeBackup("moon")}
        for name, step in steps.items():
            plan = lambda _look, machine, step=step: fix(machine, step)  # noqa: E731  # an action's own function
            made.engine.catalogue.add(
                Action(name, Role.WORKER, "In the dark", Risk.INTERRUPTS, plan, makes="lamp.dark-copy"), name
            )
        yield made


@pytest.fixture
def home(idle: Sheltered) -> Sheltered:
    idle.set_to_work()
    return idle


def begun(home: Sheltered, subject: str) -> int:
    """A run whose plan somebody else has agreed to."""
    run = home.order(subject, "act", targets=("hall",))
    home.click(home.asked(run), BO)
    return run


def by_hand(home: Sheltered, run: int) -> Approval:
    until(lambda: (ask := home.open_ask(run)) and ask.ask.kind is Kind.HAND, 20, f"run {run} hands a step over")
    return home.asked(run)


def test_a_backup_is_taken_between_two_changes(home: Sheltered) -> None:
    ended = home.ended(begun(home, "copy dark"))
    assert ended.outcome is Outcome.DONE, ended.summary
    assert home.sent() == ["off", "on"]
    (backup,) = home.backups()
    assert (backup.what, backup.state, backup.run) == ("data", "complete", ended.id)


def test_a_backup_that_fails_ends_the_fix_and_tidies_up(home: Sheltered) -> None:
    home.vault.content["data-hall"] = BackupFailed("tar ended with 2.")
    assert "tar ended with 2" in gave_up(home)


def test_a_backup_whose_proof_failed_is_as_good_as_none(home: Sheltered) -> None:
    home.vault.objects = Lying()
    assert "Not proven: data-hall: " in gave_up(home)


def gave_up(home: Sheltered) -> str:
    """What was told when the backup was no good; the light is on again, and nothing was switched twice."""
    run = begun(home, "copy dark")
    assert home.outcome(run) is Outcome.UNFIXED
    assert home.sent() == ["off", "on"]
    (failed,) = [event.data["does"] for event in home.story(run, "step") if "`backup data`" in event.data["does"]]
    return str(failed)


class Lying(dict[str, bytes]):
    """A store that forgets what it was given."""

    def get(self, key: str, default: object = b"") -> bytes:
        return b"encrypted something else"


def test_a_job_that_is_not_there_ends_the_fix(home: Sheltered) -> None:
    run = begun(home, "copy nothing")
    assert home.outcome(run) is Outcome.UNFIXED
    assert home.sent() == ["off", "on"]


@pytest.mark.parametrize("no", range(4, 24))
def test_whoever_takes_over_goes_on_with_the_backup(idle: Sheltered, no: int) -> None:
    """The process is killed before one of its commits; nothing is switched twice, and the light is on at the end."""
    dying_workers(idle, [no])
    run = idle.order("copy dark", "act", targets=("hall",))
    idle.click(idle.asked(run), BO)
    asked: set[int] = set()
    until(lambda: answered(idle, run, asked), 40, "it ends")
    assert idle.outcome(run) is Outcome.DONE
    assert sorted(set(idle.sent())) == ["off", "on"]
    assert len(idle.sent()) <= 2 + len(asked), "only what a person ordered again was sent again"
    (backup,) = idle.backups()
    assert (backup.state, len(backup.pieces)) == ("complete", 1)


def answered(home: Sheltered, run: int, asked: set[int]) -> bool:
    """Whether it has ended; a change in doubt is put to a person, who says that it did not happen."""
    ask = home.open_ask(run)
    if ask is not None and ask.ask.kind is Kind.DOUBT and ask.id not in asked:
        asked.add(ask.id)
        home.click(ask, CY, Verdict.AGAIN)
    return home.run(run).outcome is not None


def test_cancelling_during_the_backup_switches_the_light_on(home: Sheltered) -> None:
    going = threading.Event()

    def endless(_source: Source, _progress: Progress, abort: threading.Event) -> None:
        going.set()
        assert abort.wait(20)

    home.vault.on_put = endless
    run = begun(home, "copy dark")
    assert going.wait(20)
    with home.durable.transaction() as tx:
        home.store.cancel(tx, run, ANA)
        home.durable.wake(tx, home.run(run).task or "")
    assert home.outcome(run) is Outcome.CANCELLED
    assert home.sent() == ["off", "on"]
    assert home.vault.objects == {}


def test_after_a_backup_nothing_is_planned_anew(idle: Sheltered) -> None:
    """Hours may lie between two plans of a run, and what the first one took is no safety copy for the second."""
    add(idle, "copy first", lambda _look, machine: Fix("lamp.dark-copy", "Copy", machine, (TAKE, ON), Risk.INTERRUPTS))

    def shut(_machine: str, _command: str) -> Output:
        raise NotSent("its door is shut")

    idle.machines.on_send = shut
    idle.set_to_work()
    run = begun(idle, "copy first")
    assert idle.outcome(run) is Outcome.UNFIXED
    assert len(idle.story(run, "plan")) == 1
    assert len(idle.backups()) == 1


# ---------------------------------------------------------------- by hand


def test_a_person_says_that_it_is_done(home: Sheltered) -> None:
    run = begun(home, "read dark")
    asked = by_hand(home, run)
    assert (asked.ask.title, asked.ask.text) == (READ.does, READ.how)
    assert home.sent() == ["off"]
    home.click(asked, BO, Verdict.DONE)
    assert home.outcome(run) is Outcome.DONE
    assert home.sent() == ["off", "on"]


def test_a_person_says_stop(home: Sheltered) -> None:
    run = begun(home, "read dark")
    home.click(by_hand(home, run), BO, Verdict.STOP)
    assert home.outcome(run) is Outcome.UNFIXED
    assert home.sent() == ["off", "on"], "what was begun is tidied up"


def test_what_a_person_did_is_no_reason_to_look_again(idle: Sheltered) -> None:
    """The first step is by hand, and changes what the plan was made from."""

    def plan(look: Look, machine: Target) -> Fix:
        if look(lamp(machine)) == "bright":
            raise Refused(f"{machine} is bright already")
        return Fix("lamp.dark-copy", "By hand", machine, (READ, ON), Risk.INTERRUPTS)

    add(idle, "hand", plan)
    idle.set_to_work()
    run = begun(idle, "hand")
    asked = by_hand(idle, run)
    idle.machines.answers["hall"]["cat /lamp"] = "bright"
    idle.click(asked, BO, Verdict.DONE)
    assert idle.outcome(run) is Outcome.DONE, idle.run(run).summary
    assert idle.sent() == ["on"]


def test_who_stops_at_the_first_step_by_hand_is_not_asked_for_another_plan(idle: Sheltered) -> None:
    """Nothing was sent, but nobody knows how far the person came: it must not be called untouched, nor begun anew."""
    plan = lambda _look, machine: Fix("lamp.dark-copy", "By hand", machine, (READ, ON), Risk.INTERRUPTS)  # noqa: E731
    add(idle, "hand", plan)
    idle.set_to_work()
    run = begun(idle, "hand")
    idle.click(by_hand(idle, run), BO, Verdict.STOP)
    ended = idle.ended(run)
    assert ended.outcome is Outcome.UNFIXED
    assert "Nothing was changed" not in ended.summary
    assert "Tried without success: hall: By hand" in ended.summary
    assert len(idle.story(run, "plan")) == 1
    assert idle.sent() == []


def test_there_is_nothing_to_send_again(home: Sheltered) -> None:
    run = begun(home, "read dark")
    asked = by_hand(home, run)
    home.click(asked, BO, Verdict.AGAIN)
    home.click(asked, BO, Verdict.APPROVE)
    home.click(asked, CY, Verdict.DONE)
    assert home.outcome(run) is Outcome.DONE
    with home.durable.transaction() as tx:
        closed = home.store.approval(tx, asked.id)
    assert closed is not None
    assert (closed.state, [by.user for by in closed.decided_by]) == ("done", ["UCY"])


def test_silence_ends_it(idle: Sheltered) -> None:
    brief = replace(READ, within=timedelta(seconds=1))
    plan = lambda _look, machine: fix(machine, brief)  # noqa: E731
    add(idle, "brief", plan)
    idle.set_to_work()
    run = begun(idle, "brief")
    assert idle.outcome(run) is Outcome.UNFIXED
    told = [event.data["does"] for event in idle.story(run, "step")]
    assert f"{READ.does}: nobody said that it was done" in told


# ---------------------------------------------------------------- as a plan


def test_what_is_stored_is_what_was_shown(postgres_server: object) -> None:
    machine = Target("hall", Role.WORKER, "home", "10.0.0.1")
    plan = Plan((fix(machine, TakeBackup("databases"), READ),), (("hall", "key"),))
    stored = plan_from_json(plan.to_json(), Site("home", "example.com", "2.2", (machine,)))
    assert stored == plan
    text = plan_text(plan)
    assert "take `backup databases`" in text
    assert READ.how in text
    other = fix(machine, TakeBackup("databases"), replace(READ, how="look elsewhere"))
    assert Plan((other,), plan.identities).digest != plan.digest
