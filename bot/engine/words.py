"""How plans and endings read, in one place: approval messages, the command line and files use the same sentences."""

from collections.abc import Iterator

from bot.core.fix import Change, Fix, Step, readable
from bot.core.plan import Plan


def plan_text(plan: Plan) -> str:
    """The whole plan, line by line, exactly what runs; nothing is left out."""
    identities = dict(plan.identities)
    return "\n\n".join(
        "\n".join(_fix_lines(no, fix, identities.get(fix.target.name, ""))) for no, fix in enumerate(plan.fixes, 1)
    )


def _fix_lines(no: int, fix: Fix, identity: str) -> Iterator[str]:
    yield f"{no}. {fix}"
    yield f"   machine: {fix.target.key} {identity}".rstrip()
    yield f"   risk: {fix.risk.value} ({fix.risk.meaning})"
    for fact in fix.saves:
        yield f"   save first: {fact}"
    for step_no, step in enumerate(fix.steps):
        yield f"   {_letters(step_no)}. {step_text(step)}"
    for step in fix.ensure:
        yield f"   if it ends early: {step_text(step)}"
    if fix.undo:
        yield f"   undo: {fix.undo}"


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
