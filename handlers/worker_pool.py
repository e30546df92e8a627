"""A worker runs and takes builds, but not all of it is there: some of its places for builds, or its ear for cancelling.

RabbitMQ closes single channels (a queue's node stopped, an acknowledgement that took too long): the process stays up,
says nothing, and never opens them again. Only a restart brings them back.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import pool, rabbitmq, recovery, settings, worker

RUNBOOK = "https://docs.travis-ci.com/user/enterprise/worker-cli-commands/"
NAMELESS = "RabbitMQ does not say yet where all of its consumers come from; look again in a minute"
AGAIN = (
    "if it shrinks again after a restart: since 3.8.15 RabbitMQ ends the channel of a build that lasts longer than its "
    "`consumer_timeout` (30 min unless it is set; its log says `timed out waiting for a consumer acknowledgement`), "
    "which belongs above the worker's HARD_TIMEOUT"
)
EXPLAINED = (*rabbitmq.SPOILS, "net.*", "docker.down", "docker.hung")


@dataclass(frozen=True)
class Part:
    """What RabbitMQ sees of a worker that is set to run `pool` builds at a time, and `then` after its next start;
    `nobodys` is what it does not say from where it comes.
    """

    seen: rabbitmq.Presence
    nobodys: rabbitmq.Presence
    pool: int
    then: int
    service: worker.Service


@diagnosis(
    "worker lost part of its pool",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker take as many builds at a time as it is set to?",
    unless=EXPLAINED,
    runbook=RUNBOOK,
)
def worker_pool_shrunk(look: Look, machine: Target) -> Iterator[Finding]:
    part = _part(look, machine)
    if part is None or part.seen.builds >= part.pool or _draining(look, machine):
        return
    if part.seen.builds + part.nobodys.builds >= part.pool:
        raise Unknown(NAMELESS)
    yield Finding(
        "worker.pool-shrunk",
        Severity.BROKEN,
        machine,
        f"{machine} takes only {_builds(part.seen.builds)} at a time, and is set to {part.pool}",
        evidence=f"RabbitMQ sees {part.seen.builds} consumers from it on build queues; {_up(part.service)}\n{AGAIN}",
        fixes=_fixes(look, machine, part.then),
    )


@diagnosis(
    "worker lost its canceller",
    of="builds not starting",
    each=Role.WORKER,
    says="Does the worker hear when a build is cancelled?",
    unless=EXPLAINED,
    runbook=RUNBOOK,
)
def worker_canceller_lost(look: Look, machine: Target) -> Iterator[Finding]:
    part = _part(look, machine)
    if part is None or part.seen.cancels or _draining(look, machine):
        return
    if part.nobodys.cancels:
        raise Unknown(NAMELESS)
    yield Finding(
        "worker.canceller-lost",
        Severity.WARN,
        machine,
        f"{machine} runs builds but hears no cancel: the cancel button does nothing there",
        evidence=f"RabbitMQ sees {part.seen.builds} consumers from it on build queues, and no cancel queue "
        f"({rabbitmq.CANCELS}*) of its own; {_up(part.service)}",
        fixes=_fixes(look, machine, part.then),
    )


def _part(look: Look, machine: Target) -> Part | None:
    """None for a worker of which nothing can be said here: it does not run, has just started, or RabbitMQ sees nothing
    of it at all, which is another diagnosis's matter.
    """
    look.together(worker.init_system(machine), worker.addresses(machine))
    init = look(worker.init_system(machine))
    look.together(pool.lines(machine), *worker.asked(look, machine))
    now = worker.service(look, machine)
    if not now.running or (now.since is not None and now.since < worker.JUST_STARTED):
        return None
    seen = _seen(look, machine)
    if not seen.builds:
        return None
    set_to = pool.pool(look(pool.lines(machine)), init)
    size = set_to.size
    edited = not set_to.written.contained and now.pid and seen.builds != size
    nobodys = rabbitmq.presences(look, rabbitmq.broker(look)).get("", rabbitmq.Presence())
    return Part(seen, nobodys, (edited and _started_with(look, machine, init, now.pid)) or size, set_to.next_size, now)


def _started_with(look: Look, machine: Target, init: str, pid: int) -> int:
    """Without a container the process alone knows what it was started with, for its files may have been edited since; 0
    when it was not told.
    """
    has = settings.process_has(machine, pid)
    look.together(has, *_next(machine, init))
    inside = look(has) or {}
    said = inside.get(settings.PREFIX + pool.SIZE) or inside.get(pool.SIZE, "")
    return int(said) if said.isdigit() else 0


def _draining(look: Look, machine: Target) -> bool:
    """A worker that gives up its places one after the other does what it was told."""
    init = look(worker.init_system(machine))
    look.together(*_next(machine, init))
    return look(pool.draining(machine, init))


def _next(machine: Target, init: str) -> tuple[Fact[Any], ...]:
    """What is asked where something is missing, with what a fix needs, or that would cost a fourth round."""
    return pool.draining(machine, init), worker.boot_id(machine), worker.not_to_reboot(machine)


def _seen(look: Look, machine: Target) -> rabbitmq.Presence:
    """What comes from any address of the machine, together."""
    seen = rabbitmq.presences(look, rabbitmq.broker(look))
    mine = [seen[address] for address in look(worker.addresses(machine)) if address in seen]
    return rabbitmq.Presence(sum(each.builds for each in mine), sum(each.cancels for each in mine))


def _fixes(look: Look, machine: Target, places: int) -> tuple[Fix, ...]:
    """No reboot: a process that still takes builds shows that its machine works. Proven by every place and the ear for
    cancelling: this diagnosis says nothing of a worker that has just started, and one consumer was there before.
    """
    on = recovery.handle(look, machine, consumers=places + 1)
    return (recovery.drain_and_restart(on), recovery.restart(on))


def _builds(count: int) -> str:
    return "1 build" if count == 1 else f"{count} builds"


def _up(service: worker.Service) -> str:
    return "" if service.since is None else f"its process is up for {readable(service.since)}"
