"""A worker is connected, has taken builds from its queue, and runs none of them: nothing else gets these builds either.

RabbitMQ keeps a message back for as long as its build lasts, so a worker that hangs holds what it took for ever. Told
from one that has just taken them by two looks, by its build containers, and by its log.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import docker, rabbitmq, recovery, worker

APART = timedelta(minutes=4)  # samples are taken every five
AGAIN = timedelta(minutes=5)
QUIET = timedelta(minutes=5)  # a container has four minutes to start, and then the log says that it did not


@dataclass(frozen=True)
class Hand:
    """What a worker holds: messages that it has taken, and builds that run."""

    taken: int
    running: int

    @property
    def idle(self) -> int:
        return self.taken - self.running


@diagnosis(
    "worker hangs",
    of="builds not starting",
    each=Role.WORKER,
    says="Do the builds that the worker has taken run?",
    unless=("broker.*@BROKEN", "docker.*", "worker.no-image", "worker.cpu-sets", "worker.requeue-loop"),
    runbook="https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#lost-connection-to-rabbitmq",
    compares=True,
)
def worker_hangs(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    held = rabbitmq.held(at.place, at.vhost)
    if not any(look(held).values()):
        return
    look.together(worker.init_system(machine), worker.addresses(machine))
    init = look(worker.init_system(machine))
    if not (taken := _taken(look, machine, look(held))):
        return
    look.together(worker.is_snap(machine), *worker.asked(look, machine))
    running = worker.builds(machine, look(worker.is_snap(machine)))
    now = worker.service(look, machine)
    look.together(running, *_needed(machine, init))
    hand = Hand(taken, look(running))
    if not now.running or hand.idle <= 0:
        return
    quiet = _quiet(look, machine, init)
    if quiet is not None and quiet < QUIET:
        return
    before = _before(look, machine, held, running)
    if before is None:
        raise Unknown(f"{_said(hand)}; two looks five minutes apart will tell whether it hangs", again_in=AGAIN)
    if before.idle > 0:
        yield _finding(look, machine, hand, quiet)


def _needed(machine: Target, init: str) -> tuple[Fact[Any], ...]:
    """With what a fix needs, or that would cost a fourth round."""
    progress = worker.last_progress(machine, init)
    return progress, docker.now(machine), worker.boot_id(machine)


def _taken(look: Look, machine: Target, held: dict[str, int]) -> int:
    return sum(held.get(address, 0) for address in look(worker.addresses(machine)))


def _quiet(look: Look, machine: Target, init: str) -> timedelta | None:
    """How long its log has said nothing of a build, None when it says nothing of any."""
    last = look(worker.last_progress(machine, init))
    return None if last is None else look(docker.now(machine)) - last


def _before(look: Look, machine: Target, held: Fact[dict[str, int]], running: Fact[int]) -> Hand | None:
    taken, ran = look.earlier(held, APART), look.earlier(running, APART)
    return None if taken is None or ran is None else Hand(_taken(look, machine, taken), ran)


def _finding(look: Look, machine: Target, hand: Hand, quiet: timedelta | None) -> Finding:
    silent = "says nothing of builds" if quiet is None else f"has said nothing of builds for {readable(quiet)}"
    return Finding(
        "worker.zombie",
        Severity.BROKEN,
        machine,
        f"{machine} has taken builds and does nothing with them",
        evidence=f"{_said(hand)}, now and {readable(APART)} ago or earlier; its log {silent}",
        fixes=tuple(recovery.handle(look, machine).fixes()),
        link="https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#lost-connection-to-rabbitmq",
    )


def _said(hand: Hand) -> str:
    return f"RabbitMQ keeps {hand.taken} messages back that it has taken, and {hand.running} of its builds run"
