"""What can be broken in a try, and how one says it: `/fault worker-2 lost RabbitMQ` in the local Slack, or `--fault`.

It belongs to the sandbox: opsbot hears nothing of it, and has to find out. Pure.
"""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from bot.core.target import Role
from bot.sandbox.installation.faults import FAULTS, SUSPICIOUS, Fault
from bot.sandbox.installation.installation import SHAPES

COMMAND = "/fault"
NOTHING = "nothing"  # `--fault nothing`: everything is healthy at the start
MACHINES: Mapping[Role, tuple[str, ...]] = {
    Role.WORKER: tuple(shape.name for shape in SHAPES if shape.worker),
    Role.PLATFORM: tuple(shape.name for shape in SHAPES if not shape.worker),
}
KINDS = ("breaks", "looks odd, and is healthy", "prepares or undoes another")


def kind(fault: Fault) -> str:
    """What a fault does, in the words of the lists."""
    return KINDS[0] if fault.cause else KINDS[1] if fault.cause == SUSPICIOUS else KINDS[2]


def groups() -> dict[str, list[tuple[str, str]]]:
    """What can be said, `worker-2 lost RabbitMQ`, with what then happens: by kind of machine, and by what it does."""
    found: dict[str, list[tuple[str, str]]] = {}
    for role, machines in MACHINES.items():
        example = machines[len(machines) // 2]
        for each in KINDS:
            of = sorted(
                (f for f in FAULTS.values() if f.role is role and kind(f) == each), key=lambda f: f.name.lower()
            )
            if of:
                found[f"{role.value}: {each}"] = [(f"{example} {f.name}", f.says) for f in of]
    return found


def listing() -> str:
    """All of it as plain text."""
    lines = [f"A fault is a machine ({', '.join(sum(MACHINES.values(), ()))}) and what happens to it:"]
    for title, faults in groups().items():
        lines += ["", title, *(f"  {said}\n      {says}" for said, says in faults)]
    return "\n".join(lines)


def menu() -> list[dict[str, Any]]:
    """The same for the local Slack's page: what to put into the composer."""
    return [
        {"title": title, "items": [f"{COMMAND} {said}" for said, _ in faults]} for title, faults in groups().items()
    ]


def wrong(text: str) -> str:
    """Why this is no fault, as a sentence; empty when it is one."""
    machine, _, what = text.strip().partition(" ")
    everyone = sum(MACHINES.values(), ())
    if machine not in everyone:
        return f"Begin with a machine, one of {', '.join(everyone)}: such as `{COMMAND} worker-2 lost RabbitMQ`."
    found = FAULTS.get(what.strip().lower())
    if found is None:
        return f"There is no fault `{what.strip()}`.{_near(machine, what)} `{COMMAND}` alone lists all."
    if machine not in MACHINES[found.role]:
        return f"`{found.name}` happens to a {found.role.value}: {', '.join(MACHINES[found.role])}."
    return ""


def answer(text: str, inject: Callable[[str], Mapping[str, object]]) -> str:
    """What `/fault …` says to whom typed it; `inject` asks the installation, and answers `says` or `error`."""
    if not text.strip() or text.strip() in ("help", "list"):
        return listing()
    if text.strip() == NOTHING:
        return "What is broken stays so until opsbot mends it; `make try` starts anew with healthy machines."
    if said := wrong(text):
        return said
    made = inject(text.strip())
    if "error" in made:
        return f"That cannot happen now: {made['error']}"
    return f"Done: {text.strip()}. {made['says']} opsbot was not told: it has to find out."


def _near(machine: str, what: str) -> str:
    role = next(role for role, machines in MACHINES.items() if machine in machines)
    names = {name: fault.name for name, fault in FAULTS.items() if fault.role is role}
    near = get_close_matches(what.strip().lower(), names, 3, 0.4)
    near += [name for name in names if what.strip().lower() in name and name not in near][: 3 - len(near)]
    return f" Did you mean {', '.join(f'`{machine} {names[each]}`' for each in near)}?" if near else ""
