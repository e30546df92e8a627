"""Policy: who must agree before something is done. The first rule that matches decides."""

import difflib
import fnmatch
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bot.core.errors import Permanent
from bot.core.fix import Fix, Risk
from bot.core.handler import Action, Catalogue
from bot.core.plan import Plan
from bot.core.target import Role, Target


@dataclass(frozen=True)
class Rule:
    """One line of the policy. `approvals` None means forbidden. Empty fields match everything.

    `action` is a fix's id, or its last part; `job` is the job that the rule is about, and then it is about no fix.
    """

    name: str
    approvals: int | None
    risk: Risk | None = None
    action: str = ""
    installation: str = ""
    role: Role | None = None
    max_targets: int = 10
    one_at_a_time: bool = False
    job: str = ""

    def matches(self, fix: Fix) -> bool:
        wanted = ((self.risk, fix.risk), (self.role, fix.target.role))
        return (
            not self.job
            and all(want in (None, got) for want, got in wanted)
            and (
                self.installation in ("", fix.target.installation)
                and self.action in ("", fix.id, fix.id.split(".")[-1])
            )
        )

    def __str__(self) -> str:
        needs = (
            "forbidden" if self.approvals is None else f"{self.approvals} approval{'' if self.approvals == 1 else 's'}"
        )
        return f"{self.name}: {needs}"


DEFAULT = (
    Rule("default for risk none", 0, Risk.NONE),
    Rule("default for risk interrupts", 1, Risk.INTERRUPTS),
    Rule("default for risk data", 1, Risk.DATA),
    Rule("default for risk destroys", None, Risk.DESTROYS),
)


@dataclass(frozen=True)
class Policy:
    """The configured rules, then the defaults, so that every fix meets one."""

    rules: Sequence[Rule] = ()

    def rule_for(self, fix: Fix) -> Rule:
        return next(rule for rule in (*self.rules, *DEFAULT) if rule.matches(fix))

    def rule_for_action(self, action: Action, target: Target) -> Rule:
        """The rule that would decide: what it looks at is declared, so no machine has to be asked."""
        return self.rule_for(Fix(action.fix_id, action.name, target, (), action.risk))

    def rule_for_job(self, job: str, site: str) -> Rule:
        """The rule that names this job. A job changes no machine, so no other rule is about it."""
        named = (rule for rule in self.rules if rule.job == job and rule.installation in ("", site))
        return next(named, DEFAULT[0])

    def strictest(self, plan: Plan) -> Rule:
        """The rule that decides for a whole plan: a forbidden one first, else the one that wants most approvals."""
        rules = [self.rule_for(fix) for fix in plan.fixes]
        return max(rules, key=lambda rule: float("inf") if rule.approvals is None else rule.approvals)


def bound(policy: Policy, catalogue: Catalogue, fixes: Callable[[], Collection[str]]) -> Policy:
    """The policy with every name understood: an action's means the fix that it orders, wherever that is offered.

    `fixes` tells the ids that handlers can make, `*` standing for what is known only when one is made; it is asked only
    for names that no action and no job has. Raises Permanent with a sentence for each rule that nothing could ever
    meet: it would protect nothing, silently.
    """
    if wrong := [*_faults(policy, catalogue, cache(fixes))]:
        raise Permanent("; ".join(wrong))
    return replace(policy, rules=tuple(_bound(rule, catalogue) for rule in policy.rules))


def _bound(rule: Rule, catalogue: Catalogue) -> Rule:
    if rule.action in catalogue.jobs:
        return replace(rule, action="", job=rule.action)
    action = catalogue.actions.get(rule.action)
    return rule if action is None else replace(rule, action=action.fix_id)


def _faults(policy: Policy, catalogue: Catalogue, fixes: Callable[[], Collection[str]]) -> Iterator[str]:
    ordered = [action.fix_id for action in catalogue.actions.values()]
    for rule in policy.rules:
        place = f"{rule.name.partition(' ')[0]}.action: `{rule.action}`"
        if rule.action in catalogue.jobs:
            if rule.approvals or rule.role or rule.risk not in (None, Risk.NONE):
                yield (
                    f"{place} is a job: it changes no machine and has no plan to approve, so the rule can only say "
                    "`approvals: forbidden` or 0, for any role and risk"
                )
        elif action := catalogue.actions.get(rule.action):
            yield from (f"{place} {why}, so no such rule is ever met" for why in _elsewhere(rule, action))
        elif not rule.action or _made(rule.action, ordered):
            continue
        elif not _made(rule.action, fixes()):
            known = [*catalogue.actions, *catalogue.jobs, *fixes()]
            near = difflib.get_close_matches(rule.action, known, 1)
            yield f"{place} is no action, job or fix{f'; did you mean `{near[0]}`?' if near else ''}"


def _elsewhere(rule: Rule, action: Action) -> Iterator[str]:
    """What the rule demands and this action never has."""
    if rule.risk and rule.risk is not action.risk:
        yield f"has the risk {action.risk.value}, not {rule.risk.value}"
    if rule.role and rule.role is not action.each:
        yield f"is for a {action.each.value}, not for a {rule.role.value}"


def _made(name: str, fixes: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, each) or name == each.split(".")[-1] for each in fixes)
