"""A plan: fixes in order, and the digest that an approval binds.

What the approver sees is what runs: the plan is stored as JSON when it is posted and made again from that JSON when it
is applied.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from bot.core.aws import AwsCall
from bot.core.command import Command, command_from_json
from bot.core.errors import Permanent
from bot.core.fact import FACTS, Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import ByHand, Change, Fix, Risk, Step, TakeBackup, Until, Wait
from bot.core.sql import Statement
from bot.core.target import Site, Target

Json = dict[str, Any]
FindTarget = Callable[[str], Target]


@dataclass(frozen=True)
class Plan:
    """Fixes in order; `identities` names for each target the address and host key that were seen when it was made."""

    fixes: tuple[Fix, ...]
    identities: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: everything that will be done, to what, in which order; not the evidence."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_json(self) -> Json:
        return {"fixes": [fix_to_json(fix) for fix in self.fixes], "identities": dict(self.identities)}


def plan_from_json(stored: Mapping[str, Any], site: Site) -> Plan:
    """The plan as it was stored; raises Permanent when this version of opsbot no longer knows a part of it."""

    find = _finder(site)
    return Plan(tuple(_fix(each, find) for each in stored["fixes"]), tuple(sorted(stored["identities"].items())))


def _finder(site: Site) -> FindTarget:
    def find(name: str) -> Target:
        if (target := site.find(name)) is None:
            raise Permanent(f"the plan names `{name}`, which is no longer a machine of {site.name}")
        return target

    return find


def finding_to_json(finding: Finding) -> Json:
    return {
        "cause": finding.cause,
        "severity": finding.severity.name,
        "target": finding.target.name,
        "title": finding.title,
        "evidence": finding.evidence,
        "fixes": [fix_to_json(fix) for fix in finding.fixes],
        "person": finding.person,
        "link": finding.link,
    }


def finding_from_json(stored: Mapping[str, Any], site: Site) -> Finding:
    find = _finder(site)
    return Finding(
        cause=stored["cause"],
        severity=Severity[stored["severity"]],
        target=find(stored["target"]),
        title=stored["title"],
        evidence=stored["evidence"],
        fixes=tuple(_fix(each, find) for each in stored["fixes"]),
        person=stored["person"],
        link=stored["link"],
    )


def fix_to_json(fix: Fix) -> Json:
    return {
        "id": fix.id,
        "title": fix.title,
        "target": fix.target.name,
        "address": fix.target.address,
        "steps": [_step_to_json(step) for step in fix.steps],
        "risk": fix.risk.value,
        "saves": [_fact_to_json(fact) for fact in fix.saves],
        "undo": fix.undo,
        "ensure": [_step_to_json(step) for step in fix.ensure],
        "also_locks": [target.name for target in fix.also_locks],
        "one_at_a_time": fix.one_at_a_time,
        "items": list(fix.items),
    }


def narrows(offered: Fix, agreed: Fix) -> bool:
    """Whether a fix does only a part of what was agreed to: the same steps, about fewer items, and nothing else."""
    kept, gone = frozenset(offered.items), frozenset(agreed.items) - frozenset(offered.items)
    if not kept or not gone or not kept < frozenset(agreed.items):
        return False
    left = replace(agreed, steps=tuple(step for step in agreed.steps if not _only_about(step, gone, kept)))
    return _bones(offered, agreed.items) == _bones(left, agreed.items)


def _only_about(step: Step, gone: frozenset[str], kept: frozenset[str]) -> bool:
    """Whether a whole step is for what is gone, such as one order for each user."""
    bare = _without(_step_to_json(step), frozenset())
    return bool(_without(bare, gone) != bare and _without(bare, kept) == bare)


_WORDS = frozenset({"title", "does", "undo", "asks", "question", "text", "saves", "items"})  # say it, do not do it


def _bones(fix: Fix, items: Sequence[str]) -> Json:
    return dict(_without(fix_to_json(fix), frozenset(items)))


def _without(value: Any, items: frozenset[str]) -> Any:
    """What is done, as JSON in which no item is named: elements of lists, parts of `--logins=a,b`, counts of rows."""
    if isinstance(value, Mapping):
        kept = {key: _without(each, items) for key, each in value.items() if key not in _WORDS}
        return kept | ({"rows": kept["rows"] is not None} if "rows" in kept else {})
    if isinstance(value, list | tuple):
        return [_without(each, items) for each in value if str(each) not in items]
    if isinstance(value, str):
        left = re.sub(r"[^=,\s]+", lambda word: "" if word[0] in items else word[0], value)
        return re.sub(r",+", ",", left).replace("=,", "=").strip(",")
    return value


def _step_to_json(step: Step) -> Json:
    if isinstance(step, Change):
        return _change_to_json(step)
    if isinstance(step, TakeBackup):
        return {"backup": step.what}
    if isinstance(step, ByHand):
        return {"by_hand": step.does, "how": step.how, "within": step.within.total_seconds()}
    return {
        "wait": _fact_to_json(step.fact),
        "relation": step.until.relation,
        "value": step.until.value,
        "within": step.within.total_seconds(),
    }


def _change_to_json(step: Change) -> Json:
    return {
        "does": step.does,
        "command": _command_to_json(step.command),
        "slow": step.slow,
        "needed": _fact_to_json(step.needed) if step.needed else None,
        "breaks_connection": step.breaks_connection,
        "within": step.within.total_seconds(),
    }


def _command_to_json(command: Command | Statement | AwsCall) -> Json:
    if isinstance(command, Command):
        return {"program": command.to_json(), "text": command.text(str)}
    if isinstance(command, AwsCall):
        return {"service": command.service, "operation": command.operation, "parameters": command.parameters}
    return {
        "sql": command.text,
        "parameters": list(command.parameters),
        "database": command.database,
        "rows": command.rows,
        "within": command.within.total_seconds(),
    }


def _fact_to_json(fact: Fact[Any]) -> Json:
    if fact.ref is None:
        raise Permanent(f"`{fact.asks}` cannot be part of a plan: make it with a function under @fact")
    made_with = _stored(fact.ref.arguments)
    asked = {"asks": fact.asks, "question": str(fact.question), "fact": fact.ref.name, "with": made_with}
    return asked | ({"on": fact.on.name} if isinstance(fact.on, Target) else {})


def _stored(arguments: tuple[Any, ...]) -> list[Any]:
    return [{"target": each.name} if isinstance(each, Target) else each for each in arguments]


def _fix(stored: Json, find: FindTarget) -> Fix:
    return Fix(
        id=stored["id"],
        title=stored["title"],
        target=find(stored["target"]),
        steps=tuple(_step(step, find) for step in stored["steps"]),
        risk=Risk(stored["risk"]),
        saves=tuple(_fact(fact, find) for fact in stored["saves"]),
        undo=stored["undo"],
        ensure=tuple(_change(step, find) for step in stored["ensure"]),
        also_locks=tuple(find(name) for name in stored["also_locks"]),
        one_at_a_time=stored["one_at_a_time"],
        items=tuple(stored.get("items", ())),
    )


def fix_from_json(stored: Json, site: Site) -> Fix:
    return _fix(stored, _finder(site))


def _step(stored: Json, find: FindTarget) -> Step:
    if "backup" in stored:
        return TakeBackup(stored["backup"])
    if "by_hand" in stored:
        return ByHand(stored["by_hand"], stored["how"], timedelta(seconds=stored["within"]))
    if "wait" not in stored:
        return _change(stored, find)
    until = Until(stored["relation"], stored["value"])
    return Wait(_fact(stored["wait"], find), until, timedelta(seconds=stored["within"]))


def _change(stored: Json, find: FindTarget) -> Change:
    return Change(
        does=stored["does"],
        command=_command(stored["command"]),
        slow=stored["slow"],
        needed=_fact(stored["needed"], find) if stored["needed"] else None,
        breaks_connection=stored["breaks_connection"],
        within=timedelta(seconds=stored["within"]),
    )


def _command(stored: Json) -> Command | Statement | AwsCall:
    if "program" in stored:
        return command_from_json(stored["program"])
    if "operation" in stored:
        return AwsCall(stored["service"], stored["operation"], stored["parameters"])
    return Statement(
        stored["sql"],
        tuple(tuple(each) if isinstance(each, list) else each for each in stored["parameters"]),
        stored["database"],
        stored["rows"],
        timedelta(seconds=stored["within"]),
    )


def _fact(stored: Json, find: FindTarget) -> Fact[Any]:
    if (make := FACTS.get(stored["fact"])) is None:
        raise Permanent(f"the plan waits for `{stored['asks']}`, which this version of opsbot cannot ask")
    made = make(*(_argument(each, find) for each in stored["with"]))
    return replace(made, on=find(stored["on"])) if "on" in stored else made


def _argument(stored: Any, find: FindTarget) -> Any:
    if isinstance(stored, dict):
        return find(stored["target"])
    return tuple(stored) if isinstance(stored, list) else stored
