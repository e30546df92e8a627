"""The fixes for a worker: drain, restart, reboot and start, and how it is proven to be back.

Source: https://docs.travis-ci.com/user/enterprise/worker-cli-commands/
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from bot.core.command import Command, sh
from bot.core.fact import Fact
from bot.core.fix import Change, Fix, Risk, Step, Wait, at_least, differs, equals
from bot.core.look import Look
from bot.core.target import Target
from handlers.toolbox import rabbitmq, worker
from handlers.toolbox.worker import SERVICE, SYSTEMD, UPSTART

LONGEST_BUILD = timedelta(hours=3)  # the vendor's hard limit is 50 min, and installations raise it up to this
BACK = 2  # consumers: a worker's ear for cancelling comes first, and alone takes no build
BACK_WITHIN = timedelta(minutes=3)
REBOOT_WITHIN = timedelta(minutes=10)
DOWN_AFTER = "travis-worker does not start at boot, and would stay down"


@dataclass(frozen=True)
class Handle:
    """What is needed to treat a worker: read once by the handler, so that the plan names exact processes."""

    machine: Target
    init: str
    pid: int
    boot: str
    stays: str  # why the machine must not be rebooted, empty when it may
    back: Wait
    snap: bool = False

    def fixes(self) -> Iterator[Fix]:
        """Gentlest first; a reboot only when the service comes back by itself."""
        yield drain_and_restart(self)
        yield restart(self)
        if not self.stays:
            yield reboot(self)


def handle(look: Look, machine: Target, consumers: int = BACK) -> Handle:
    """Read what the fixes of a running worker need; it is back when RabbitMQ sees so many consumers of it."""
    init = look(worker.init_system(machine))
    now = worker.service(look, machine)
    look.together(*wanted_by_fixes(machine), worker.addresses(machine))
    stays = look(worker.not_to_reboot(machine)) or ("" if now.at_boot else DOWN_AFTER)
    back = Wait(connected(look, machine), at_least(consumers), BACK_WITHIN)
    return Handle(machine, init, now.pid, look(worker.boot_id(machine)), stays, back, look(worker.is_snap(machine)))


def wanted_by_fixes(machine: Target) -> tuple[Fact[Any], ...]:
    """What is asked only once a worker is found ill, so that a diagnosis can ask it in the round of its last doubt."""
    return worker.boot_id(machine), worker.not_to_reboot(machine)


def connected(look: Look, machine: Target) -> Fact[int]:
    """The fact that proves a worker is back: what the broker sees from its addresses."""
    at = rabbitmq.broker(look)
    mine = look(worker.addresses(machine))
    return rabbitmq.consumers_from(at.place, at.vhost, machine.name, ",".join(mine))


def drain_and_restart(on: Handle) -> Fix:
    """Lets the running builds finish first; un-pauses the worker when it ends early."""
    return Fix(
        id="worker.drain-and-restart",
        title="Drain and restart travis-worker",
        target=on.machine,
        steps=(*_drain(on), _restart(on), on.back),
        risk=Risk.INTERRUPTS,
        ensure=(_unpause(on),),
        undo="nothing to undo: a restart leaves no trace",
    )


def restart(on: Handle) -> Fix:
    """Running builds are put back into the queue and start again."""
    return Fix(
        id="worker.restart",
        title="Restart travis-worker",
        target=on.machine,
        steps=(_restart(on), on.back),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: builds that ran are queued again",
    )


def reboot(on: Handle) -> Fix:
    """The vendor's first advice and our last: everything on the machine stops for minutes."""
    return Fix(
        id="worker.reboot",
        title="Reboot the worker machine",
        target=on.machine,
        steps=(
            Change(
                "Reboot",
                sh("shutdown", "-r", "now").sudo(),
                needed=worker.still_on_boot(on.machine, on.boot),
                breaks_connection=True,
                within=timedelta(minutes=1),
            ),
            Wait(worker.boot_id(on.machine), differs(on.boot), REBOOT_WITHIN),
            Wait(on.back.fact, on.back.until, timedelta(minutes=5)),
        ),
        risk=Risk.INTERRUPTS,
        undo="nothing to undo: builds that ran are queued again",
        one_at_a_time=True,
    )


def drain(on: Handle) -> Fix:
    """Takes no new builds and stays so, for maintenance."""
    return Fix(
        id="worker.drain",
        title="Drain travis-worker and leave it paused",
        target=on.machine,
        steps=_drain(on),
        risk=Risk.INTERRUPTS,
        undo=f"restart {on.machine} because maintenance is over",
    )


def start(machine: Target, init: str, back: Wait) -> Fix:
    """For a service that is stopped."""
    words = ("start", SERVICE) if init == UPSTART else ("systemctl", "start", SERVICE)
    return Fix(
        id="worker.start",
        title="Start travis-worker",
        target=machine,
        steps=(Change("Start the service", sh(*words).sudo(), slow=init == SYSTEMD), back),
        risk=Risk.INTERRUPTS,
        undo=f"stop {SERVICE} by hand",
    )


def start_stopped(look: Look, machine: Target) -> Fix:
    """`start`, with the proof that it is back."""
    look.together(worker.init_system(machine), worker.addresses(machine))
    back = Wait(connected(look, machine), at_least(BACK), BACK_WITHIN)
    return start(machine, look(worker.init_system(machine)), back)


def _drain(on: Handle) -> tuple[Step, ...]:
    pause = Change("Let it take no new builds", _usr2(on), needed=worker.not_paused(on.machine, on.init))
    return (pause, Wait(worker.builds(on.machine, on.snap), equals(0), LONGEST_BUILD))


def _unpause(on: Handle) -> Change:
    """The second signal ends the worker, which its unit starts again; that of a snap does not."""
    again = _restart(on) if on.snap else Change("", _usr2(on))
    return replace(again, does="Let it take builds again", needed=worker.paused(on.machine, on.init))


def _usr2(on: Handle) -> Command:
    """The signal that toggles between working and paused; inside a container docker has to send it."""
    if on.init == UPSTART or on.snap:
        return sh("kill", "-s", "USR2", str(on.pid)).sudo()
    return sh("docker", "kill", "-s", "USR2", SERVICE).sudo()


def _restart(on: Handle) -> Change:
    return restarted(on.machine, on.init, on.pid)


def restarted(machine: Target, init: str, pid: int) -> Change:
    """Restart the process that was seen; sent when it is still that one. None is seen between two of one that ends
    over and over.
    """
    if not pid:
        return restarted_anyhow(init)
    words = ("restart", SERVICE) if init == UPSTART else ("systemctl", "restart", SERVICE)
    return Change(
        "Restart the service",
        sh(*words).sudo(),
        slow=init == SYSTEMD,
        needed=worker.still_process(machine, init, pid),
    )


def restarted_anyhow(init: str) -> Change:
    """Restart one that ends over and over: it has another process each time, and upstart's own `restart` refuses
    between two of them.
    """
    words = ("service", SERVICE, "restart") if init == UPSTART else ("systemctl", "restart", SERVICE)
    return Change("Restart the service", sh(*words).sudo(), slow=init == SYSTEMD)
