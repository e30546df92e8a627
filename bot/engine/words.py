"""How plans and events read, in one place: approval messages, the command line and files use the same sentences."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC
from typing import Any, Final

from bot.core.fix import Change, Fix, Risk, Step, readable
from bot.core.plan import Plan
from bot.core.story import Event, fixes, moment, text, texts


def plan_text(plan: Plan) -> str:
    """The whole plan, line by line, exactly what runs; nothing is left out."""
    identities = dict(plan.identities)
    told = (told_fix(fix, identities.get(fix.target.name, "")) for fix in plan.fixes)
    return "\n\n".join("\n".join(_fix_lines(no, fix)) for no, fix in enumerate(told, 1))


def told_fix(fix: Fix, identity: str) -> dict[str, Any]:
    """A fix as a plan's event tells it: all that its approver sees. `identity`: the address and key of its machine."""
    return {
        "title": fix.title,
        "target": fix.target.name,
        "machine": f"{fix.target.key} {identity}".rstrip(),
        "risk": fix.risk.value,
        "saves": [str(fact) for fact in fix.saves],
        "steps": [step_text(step) for step in fix.steps],
        "ensure": [step_text(step) for step in fix.ensure],
        "undo": fix.undo,
    }


def fixes_lines(plan: Mapping[str, Any]) -> Iterator[str]:
    """The fixes of a plan's event, line by line as `plan_text` has them."""
    for no, fix in enumerate(fixes(plan), 1):
        yield from _fix_lines(no, fix)


def _fix_lines(no: int, fix: Mapping[str, Any]) -> Iterator[str]:
    risk = text(fix.get("risk"))
    yield f"{no}. {text(fix.get('target'))}: {text(fix.get('title'))}"
    if machine := text(fix.get("machine")):
        yield f"   machine: {machine}"
    yield f"   risk: {risk}" + "".join(f" ({each.meaning})" for each in Risk if each.value == risk)
    for fact in texts(fix.get("saves")):
        yield f"   save first: {fact}"
    for step_no, step in enumerate(texts(fix.get("steps"))):
        yield f"   {_letters(step_no)}. {step}"
    for step in texts(fix.get("ensure")):
        yield f"   if it ends early: {step}"
    if undo := text(fix.get("undo")):
        yield f"   undo: {undo}"


def _letters(no: int) -> str:
    """`a` to `z`, then `aa`: however many steps there are, all of them are shown."""
    more, last = divmod(no, 26)
    return (_letters(more - 1) if more else "") + chr(ord("a") + last)


def step_text(step: Step) -> str:
    """One step as a line: what it does and the exact command, or what is waited for."""
    if not isinstance(step, Change):
        return str(step)
    unless = f" (only while: {step.needed})" if step.needed else ""
    return f"{step.does}: {step.command}{unless} [at most {readable(step.within)}]"


def plan_title(plan: Plan) -> str:
    first, *more = plan.fixes
    return f"{first}" + (f" and {len(more)} more" if more else "")


def event_line(event: Event) -> str:
    """One event as a line, the same in answers, on the command line and in files. Whatever is missing in its data is
    left out, and of a kind that a newer version tells nothing is said.
    """
    line = _LINES.get(event.kind)
    return line(event.data) if line else ""


def _look(data: Mapping[str, Any]) -> str:
    unknown = "".join(f"; not known: {each}" for each in texts(data.get("unknown")))
    return f"look {text(data.get('no'))} at {', '.join(texts(data.get('asked'))) or 'nothing'}{unknown}"


def _finding(data: Mapping[str, Any]) -> str:
    under = f", a consequence of {data['under']}" if data.get("under") else ""
    cause = text(data.get("cause"))
    return f"{text(data.get('severity'))} {text(data.get('target'))}: {text(data.get('title'))} [{cause}]{under}"


def _plan(data: Mapping[str, Any]) -> str:
    named = "; ".join(f"{text(fix.get('target'))}: {text(fix.get('title'))}" for fix in fixes(data))
    return f"plan {text(data.get('no'))} ({text(data.get('digest'))[:12]}): {named}"


def _decision(data: Mapping[str, Any]) -> str:
    who = f" by <@{data['by']}>" if data.get("by") else ""
    reason = f": {data['reason']}" if data.get("reason") else ""
    return f"{text(data.get('verdict'))}{who}{reason}"


def _waiting(data: Mapping[str, Any]) -> str:
    until = moment(data.get("until"))
    at_most = f", at most until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until else ""
    return f"waiting for {text(data.get('for'))}{at_most}"


def _step(data: Mapping[str, Any]) -> str:
    """A change has a command, other steps have none."""
    command = f" `{data['command']}`" if data.get("command") else ""
    said = f" ({data['said']})" if data.get("said") else ""
    return f"{text(data.get('target'))}: {text(data.get('does'))}: {text(data.get('result'))}{command}{said}"


def _verified(data: Mapping[str, Any]) -> str:
    return f"{text(data.get('target'))}: {text(data.get('fix'))}: {'healed' if data.get('healed') else 'not healed'}"


def _note(data: Mapping[str, Any]) -> str:
    return text(data.get("text")) + (f" ({data['file']})" if data.get("file") else "")


def _outcome(data: Mapping[str, Any]) -> str:
    return f"{text(data.get('outcome'))}: {text(data.get('text'))}"


_LINES: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "look": _look,
    "finding": _finding,
    "plan": _plan,
    "decision": _decision,
    "waiting": _waiting,
    "change": _step,
    "step": _step,
    "verified": _verified,
    "note": _note,
    "outcome": _outcome,
}


def listed(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else "nothing"


def size(count: float) -> str:
    """A number of bytes as people say it: `312 bytes`, `1.2 GiB`."""
    if count < 1024:
        return f"{int(count)} bytes"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"


def ended(said: str) -> str:
    """What a person typed or a machine said, as a sentence that another one may follow."""
    return said if said.rstrip().endswith((".", "!", "?")) else f"{said.rstrip()}."
