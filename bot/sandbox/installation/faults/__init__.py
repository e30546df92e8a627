"""What can go wrong: each fault is a change of the state that everything else follows from, never a switched answer.

A fault is a function with one line that says what happens; its name is what people say after the machine's:
`worker-2 lost RabbitMQ`, or `platform-1 has no RabbitMQ`. The modules of this folder are found by their place: put a
new fault into the one it belongs to, or a new module beside them, and it is there.
"""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from bot.core.target import Role
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.worker import UNIT, TravisWorker

Apply = Callable[[Installation, Machine], None]
SUSPICIOUS = ""  # the cause of what looks odd and is healthy: no diagnosis may raise an alarm


@dataclass(frozen=True)
class Fault:
    """One thing that can go wrong with machines of a role, and the cause that a diagnosis must name.

    `cause` is SUSPICIOUS for a state that only looks wrong, None for what merely prepares another state. `also` are
    causes that are there with it, `harmless_on` the releases where the same state is a healthy one (`snap` is one of
    its own).
    """

    name: str
    says: str
    apply: Apply
    role: Role
    cause: str | None
    also: tuple[str, ...] = ()
    harmless_on: tuple[str, ...] = ()


FAULTS: dict[str, Fault] = {}
DEFAULT = "worker-2 lost RabbitMQ"


class NoSuchFault(ValueError):
    """The text names no machine or no fault that is known; it says which there are."""


class CannotBe(NoSuchFault):
    """Not in this state: what the fault would take away is not there."""


def fault(
    name: str,
    *,
    on: Role = Role.WORKER,
    cause: str | None = None,
    also: tuple[str, ...] = (),
    harmless_on: tuple[str, ...] = (),
) -> Callable[[Apply], Apply]:
    """Register a fault under the words that people say after the machine's name."""

    def put(apply: Apply) -> Apply:
        says = (apply.__doc__ or "").strip().splitlines()[0]
        FAULTS[name.lower()] = Fault(name, says, apply, on, cause, also, harmless_on)
        return apply

    return put


def inject(installation: Installation, text: str) -> Fault:
    """Apply what is said: a machine and a fault, `worker-2 lost RabbitMQ`."""
    name, _, what = text.strip().partition(" ")
    found = FAULTS.get(what.strip().lower())
    if name not in installation.machines or found is None:
        known = ", ".join(f.name for f in FAULTS.values())
        machines = ", ".join(installation.machines)
        raise NoSuchFault(f"`{text}`: say one of {machines}, and then one of: {known}")
    with installation.timeline.held():
        found.apply(installation, installation.machine(name))
    return found


def worker_of(installation: Installation, machine: Machine) -> TravisWorker:
    """The travis-worker of a machine; raises NoSuchFault for a machine that is none."""
    if UNIT not in machine.units:
        raise NoSuchFault(f"{machine.name} is not a worker")
    return installation.worker(machine.name)


def no_snap(machine: Machine) -> None:
    """Raises CannotBe where the worker is a snap: it has neither docker, nor several files of settings, nor a directory
    that they are put together in.
    """
    if machine.snap:
        raise CannotBe(f"travis-worker on {machine.name} is a snap, with one file of settings and its builds in LXD")


for _module in sorted(each.name for each in pkgutil.iter_modules(__path__)):
    pkgutil.resolve_name(f"{__name__}.{_module}")
