"""The platform makes no build scripts: builds on every worker end in an error before they begin.

Only workers see it, and each of them says the same: what they say is the evidence for one finding, of the platform. A
worker that alone gets none has its own trouble.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network, scripts
from handlers.toolbox.scripts import Asked

NAMED: Final = 5  # workers in the evidence; the others are counted


@diagnosis(
    "platform makes no scripts",
    of="builds not starting",
    also=("builds failing",),
    each=Role.PLATFORM,
    says="Does the platform make scripts for builds?",
    unless=scripts.ELSEWHERE,
    runbook=network.RUNBOOK,
    once=True,
)
def platform_makes_no_scripts(look: Look, machine: Target) -> Iterator[Finding]:
    witnesses = scripts.witnesses(look)
    in_vain = [each for each in witnesses if each.in_vain]
    if not in_vain or any(each.served for each in witnesses) or _may_be_its_own(in_vain):
        return
    yield Finding(
        "platform.no-script",
        Severity.BROKEN,
        machine,
        f"builds end in an error: {machine} makes no scripts for them",
        evidence=_evidence(in_vain),
        person=scripts.restart(look),
        link=network.RUNBOOK,
        blamed=tuple(each.worker for each in in_vain),
    )


def _may_be_its_own(in_vain: Sequence[Asked]) -> bool:
    """One that gets no answer at all may be cut off; an error is what somebody at the platform says."""
    return len(in_vain) == 1 and not in_vain[0].status


def _evidence(in_vain: Sequence[Asked]) -> str:
    """Who asked in vain, and what one of them says that has tried to run a build."""
    names = ", ".join(each.worker.name for each in in_vain[:NAMED])
    more = f" and {len(in_vain) - NAMED} more" if len(in_vain) > NAMED else ""
    return f"{names}{more} asked in vain: {max(in_vain, key=lambda each: each.trouble.times)}"
