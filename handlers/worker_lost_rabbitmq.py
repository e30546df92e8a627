"""A worker runs, but RabbitMQ has lost it: builds stay queued and nothing in the worker says so.

The broker decides, not the worker: its process may linger for ever after the connection was closed cleanly.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from bot.core.errors import Refused, Unknown
from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, Risk, readable
from bot.core.handler import action, diagnosis
from bot.core.look import CannotLook, Look
from bot.core.number import counted
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq, recovery, settings, worker


@diagnosis(
    "worker lost rabbitmq",
    of="builds not starting",
    each=Role.WORKER,
    says="Does RabbitMQ see the worker?",
    unless=(*rabbitmq.SPOILS, "net.*", "tls.*@BROKEN", "docker.hung", *settings.ENDS_BY),
    runbook="https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#lost-connection-to-rabbitmq",
)
def worker_lost_rabbitmq(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine))
    now = worker.service(look, machine, *worker.before_sockets(machine, look(worker.init_system(machine))))
    if not now.running:
        return
    seen = rabbitmq.presences(look, rabbitmq.broker(look))
    mine = [seen[address] for address in look(worker.addresses(machine)) if address in seen]
    if any(each.builds for each in mine):
        return
    if now.since is not None and now.since < worker.JUST_STARTED:
        raise Unknown(f"travis-worker is up for only {readable(now.since)} and not connected yet; look again in 2 min")
    if _rests(look, machine, mine):
        yield _paused(machine, mine)
        return
    if not _surely_lost(look, machine, seen):
        return
    yield Finding(
        "worker.amqp-lost",
        Severity.BROKEN,
        machine,
        f"{machine} is running, but RabbitMQ sees no consumer from it",
        evidence=_evidence(now, seen),
        fixes=tuple(recovery.handle(look, machine).fixes()),
        link="https://docs.travis-ci.com/user/enterprise/troubleshooting-guide/#lost-connection-to-rabbitmq",
    )


def _rests(look: Look, machine: Target, mine: Sequence[rabbitmq.Presence]) -> bool:
    """Whether it takes no builds because it was told so, and is still connected.

    Its cancel queue shows the connection. Where that is gone too, as from a worker that lost its canceller and was
    paused then, its own socket does; a log that does not go back far enough must not hide a worker that is lost.
    """
    init = look(worker.init_system(machine))
    if any(each.cancels for each in mine):
        return look(worker.paused(machine, init))
    look.together(worker.paused(machine, init), *recovery.wanted_by_fixes(machine), *_sockets(look, machine, init))
    try:
        return look(worker.paused(machine, init)) and look(worker.sockets(look, machine, init)) > 0
    except Unknown:
        return False


def _sockets(look: Look, machine: Target, init: str) -> tuple[Fact[int], ...]:
    """What decides a doubt, asked before there is one: it would cost a round."""
    try:
        return (worker.sockets(look, machine, init),)
    except (Unknown, CannotLook):  # without a container there is no socket either
        return ()


def _paused(machine: Target, mine: Sequence[rabbitmq.Presence]) -> Finding:
    """Connected, but told to take no builds: somebody's maintenance, which is not ours to end."""
    connected = "RabbitMQ sees its cancel queue" if any(each.cancels for each in mine) else "it holds a connection"
    return Finding(
        "worker.paused",
        Severity.WARN,
        machine,
        f"{machine} is connected but takes no builds: it was told to drain and pause",
        evidence=f"{connected}; its log says that SIGUSR2 was received",
        person=f"Ask who paused it; when it may work again, `restart {machine} because maintenance is over`.",
    )


def _surely_lost(look: Look, machine: Target, seen: Mapping[str, rabbitmq.Presence]) -> bool:
    """Whether no consumer can be this worker's.

    An address that belongs to no configured worker may be this one behind a translated address; then the worker's own
    socket decides. When nobody can see that either, it is not known.
    """
    if not _strangers(look, machine, seen):
        return True
    return look(worker.sockets(look, machine, look(worker.init_system(machine)))) == 0


def _strangers(look: Look, machine: Target, seen: Mapping[str, rabbitmq.Presence]) -> set[str]:
    """Addresses with build consumers that are no worker's: the others are known by configuration, since one that
    cannot be reached must not hide what is wrong here.
    """
    own = look(worker.addresses(machine))
    known = {*own, *(each.address for each in look.site.of(Role.WORKER))}
    return {address for address, presence in seen.items() if presence.builds} - known


def _evidence(now: worker.Service, seen: Mapping[str, rabbitmq.Presence]) -> str:
    up = "" if now.since is None else f", its process is up for {readable(now.since)}"
    others = sum(1 for presence in seen.values() if presence.builds)
    cancels = sum(presence.cancels for presence in seen.values())
    sees = f"{counted(others, 'machine')} and {counted(cancels, 'cancel queue')}"
    return f"the service is {now.state}{up}; RabbitMQ sees consumers from {sees}"


@action(
    "restart",
    each=Role.WORKER,
    says="Restart travis-worker",
    risk=Risk.INTERRUPTS,
    makes="worker.restart",
    proof="worker lost rabbitmq",
)
def restart(look: Look, machine: Target) -> Fix:
    """One that is stopped is started: upstart refuses to restart it (`Unknown instance`)."""
    now = worker.service(look, machine)
    if not now.running and not now.turning:
        return replace(recovery.start_stopped(look, machine), id="worker.restart")
    return recovery.restart(recovery.handle(look, machine))


@action(
    "drain",
    each=Role.WORKER,
    says="Take no new builds, finish the running ones, stay so",
    risk=Risk.INTERRUPTS,
    makes="worker.drain",
)
def drain(look: Look, machine: Target) -> Fix:
    return recovery.drain(recovery.handle(look, machine))


@action(
    "reboot",
    each=Role.WORKER,
    says="Reboot the machine",
    risk=Risk.INTERRUPTS,
    makes="worker.reboot",
    proof="worker lost rabbitmq",
)
def reboot(look: Look, machine: Target) -> Fix:
    on = recovery.handle(look, machine)
    if on.stays:
        raise Refused(f"{machine} is not rebooted: {on.stays}")
    return recovery.reboot(on)
