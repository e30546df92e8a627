"""A policy's rules by the names that people write: of actions, jobs and fixes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.core.errors import Permanent
from bot.core.fix import Fix, Risk
from bot.core.handler import Action
from bot.core.outcome import Outcome
from bot.core.request import Ask, Request
from bot.core.target import Role, Target
from bot.engine.answers import Said
from bot.engine.discovery import discover, fixes
from bot.engine.policy import Policy, Rule, bound
from bot.settings import load_file
from tests.engine.lamps import BO, Room, lamps, room, screw, tap

HALL = Target("hall", Role.WORKER, "home", "10.0.0.1")
MADE = ("lamp.tap", "lamp.screw", "lamp.paint-*")
EXAMPLE = Path(__file__).parents[2] / "config" / "opsbot.example.yaml"


def of(*rules: Rule) -> Policy:
    return bound(Policy(rules), lamps(), lambda: MADE)


@pytest.fixture
def strict(database: str) -> Iterator[Room]:
    """A room in which the action `screw` is forbidden, and the job `count` too."""
    rules = of(
        Rule("policy[0] action=screw", None, action="screw"),
        Rule("policy[1] action=count", None, action="count"),
    ).rules
    with room(database, tuple(rules)) as made:
        made.set_to_work()
        yield made


def can(made: Room, subject: str, kind: str) -> Said:
    targets = ("hall",) if kind == "act" else ()
    return made.desk.now(Request(Ask.CAN, kind, subject, targets=targets, site="home", who="UBO"), BO)


# ---------------------------------------------------------------- what a rule's name binds


def test_a_rule_for_an_action_is_about_its_fix_wherever_that_comes_from() -> None:
    policy = of(Rule("policy[0] action=screw", None, action="screw"))
    assert policy.rule_for(screw(HALL)).approvals is None
    assert policy.rule_for(tap(HALL)).approvals == 1


def test_an_order_by_name_meets_the_rule_of_its_fix() -> None:
    policy = of(Rule("policy[0] action=lamp.screw", 2, action="lamp.screw"), Rule("policy[1]", 0))
    action = lamps().actions["screw"]
    assert policy.rule_for_action(action, HALL).approvals == 2
    assert policy.rule_for_action(action, HALL) == policy.rule_for(screw(HALL))


def test_can_names_the_rule_that_decides_in_the_example() -> None:
    catalogue = discover()
    settings = load_file(EXAMPLE, {})
    policy = bound(settings.policy(), catalogue, fixes)
    (site,) = settings.sites()
    rule = policy.rule_for_action(catalogue.actions["reboot"], site.of(Role.WORKER)[0])
    assert (rule.name.partition(" ")[0], rule.approvals) == ("policy[0]", 2)


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (Rule("policy[3] x", None, Risk.DATA, "screw"), "has the risk interrupts, not data"),
        (Rule("policy[3] x", None, action="screw", role=Role.PLATFORM), "is for a worker, not for a platform"),
    ],
)
def test_a_rule_that_its_action_never_meets_is_refused(rule: Rule, why: str) -> None:
    with pytest.raises(Permanent) as error:
        of(rule)
    assert str(error.value) == f"policy[3].action: `screw` {why}, so no such rule is ever met"
    of(replace(rule, risk=None if rule.risk is None else Risk.INTERRUPTS, role=rule.role and Role.WORKER))


@pytest.mark.parametrize("name", discover().actions)
def test_every_action_can_be_forbidden_by_its_name(name: str) -> None:
    catalogue = discover()
    action = catalogue.actions[name]
    policy = bound(Policy((Rule(f"policy[0] action={name}", None, action=name),)), catalogue, fixes)
    made = Fix(action.fix_id, "as its plan makes it", Target("x", action.each, "prod", ""), (), action.risk)
    assert action.fix_id in fixes(), "a fix that some handler makes"
    assert policy.rule_for(made).approvals is None


def test_an_action_that_makes_another_fix_than_it_declares_is_a_mistake() -> None:
    wrong = Action("screw", Role.WORKER, "Screw it in", Risk.INTERRUPTS, lambda _look, m: tap(m), makes="lamp.screw")
    with pytest.raises(Permanent, match=r"`screw` is declared to make `lamp\.screw`.*`lamp\.tap`"):
        wrong.fix(None, HALL)  # type: ignore[arg-type]
    riskier = replace(wrong, plan=lambda _look, m: replace(screw(m), risk=Risk.DATA))
    with pytest.raises(Permanent, match=r"risk interrupts, but made .* with data"):
        riskier.fix(None, HALL)  # type: ignore[arg-type]


# ---------------------------------------------------------------- names that nothing has


@pytest.mark.parametrize("name", ["screw", "lamp.tap", "tap", "lamp.paint-red", "count", ""])
def test_names_of_actions_fixes_and_jobs_are_understood(name: str) -> None:
    of(Rule("policy[0]", None, action=name))


def test_a_rule_that_nothing_could_meet_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(Permanent) as error:
        of(Rule("policy[0] action=scrw", 2, action="scrw"), Rule("policy[1] action=lamp.tip", 2, action="lamp.tip"))
    assert str(error.value) == (
        "policy[0].action: `scrw` is no action, job or fix; did you mean `screw`?; "
        "policy[1].action: `lamp.tip` is no action, job or fix; did you mean `lamp.tap`?"
    )


def test_no_source_is_read_for_names_that_actions_and_jobs_have() -> None:
    """`serve` would be slower to start and larger by it, at each start."""

    def unwanted() -> tuple[str, ...]:
        raise AssertionError("the source was read")

    names = ("screw", "lamp.screw", "count", "")
    rules = tuple(Rule(f"policy[{no}] x", None, action=name) for no, name in enumerate(names))
    bound(Policy(rules), lamps(), unwanted)


def test_the_fixes_of_a_folder_are_read_from_its_source(tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(
        'a = Fix("ours.plain", "t", m, (), r)\nb = Fix(id=f"ours.{x}-end", title="t")\nc = Fix(id=made(), title="")\n'
    )
    found = fixes([tmp_path])
    assert {"ours.plain", "ours.*-end", "worker.reboot"} <= {*found}
    assert "*" not in found, "a name that could be anything names nothing"


# ---------------------------------------------------------------- jobs


@pytest.mark.parametrize(
    "rule",
    [
        Rule("policy[0]", 1, action="count"),
        Rule("policy[0]", None, action="count", role=Role.WORKER),
        Rule("policy[0]", None, action="count", risk=Risk.DATA),
    ],
)
def test_a_rule_that_could_not_hold_for_a_job_is_refused(rule: Rule) -> None:
    with pytest.raises(Permanent, match=r"policy\[0\]\.action: `count` is a job"):
        of(rule)


def test_only_a_rule_that_names_a_job_is_about_it() -> None:
    assert of(Rule("policy[0]", None)).rule_for_job("count", "home").approvals == 0
    assert of(Rule("policy[0]", None, action="count")).rule_for_job("count", "home").approvals is None
    elsewhere = of(Rule("policy[0]", None, action="count", installation="other"))
    assert elsewhere.rule_for_job("count", "home").approvals == 0
    assert of(Rule("policy[0]", 0, action="count")).rule_for(Fix("x.count", "x", HALL, (), Risk.DATA)).approvals == 1


def test_a_forbidden_job_is_refused_and_none_of_it_is_done(strict: Room) -> None:
    ended = strict.ended(strict.order("count", "job"))
    assert ended.outcome is Outcome.REFUSED
    assert "a rule forbids it (policy[1] action=count: forbidden)" in ended.summary
    assert strict.machines.asked == []


# ---------------------------------------------------------------- what is answered


def test_can_says_no_where_a_rule_forbids(strict: Room) -> None:
    for subject, kind, rule in (("screw", "act", "policy[0]"), ("count", "job", "policy[1]")):
        said = can(strict, subject, kind)
        assert said.text == f"No: the rule that decides is `{rule} action={subject}: forbidden`."
        assert said.data["can"] is False


def test_can_does_not_say_of_a_job_that_it_only_reads(database: str) -> None:
    with room(database) as made:
        said = can(made, "count", "job")
        assert "only reads" not in said.text
        assert said.data["can"] is True
        assert "only reads" in can(made, "darkness", "diagnose").text


def test_what_is_forbidden_is_not_offered(strict: Room) -> None:
    said = strict.desk.now(Request(Ask.HELP), BO).data["help"]
    assert not [line for line in said if line.startswith(("`screw", "`count"))]
