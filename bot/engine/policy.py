"""Policy: who must agree before something is done. The first rule that matches decides."""

from collections.abc import Sequence
from dataclasses import dataclass

from bot.core.fix import Fix, Risk
from bot.core.plan import Plan
from bot.core.target import Role


@dataclass(frozen=True)
class Rule:
    """One line of the policy. `approvals` None means forbidden. Empty fields match everything."""

    name: str
    approvals: int | None
    risk: Risk | None = None
    action: str = ""
    installation: str = ""
    role: Role | None = None
    max_targets: int = 10
    one_at_a_time: bool = False

    def matches(self, fix: Fix) -> bool:
        wanted = ((self.risk, fix.risk), (self.role, fix.target.role))
        return all(want in (None, got) for want, got in wanted) and (
            self.installation in ("", fix.target.installation) and self.action in ("", fix.id, fix.id.split(".")[-1])
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

    def strictest(self, plan: Plan) -> Rule:
        """The rule that decides for a whole plan: a forbidden one first, else the one that wants most approvals."""
        rules = [self.rule_for(fix) for fix in plan.fixes]
        return max(rules, key=lambda rule: float("inf") if rule.approvals is None else rule.approvals)
