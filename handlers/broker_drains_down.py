"""Builds run, and nobody takes their results or logs out of RabbitMQ: the page only looks stuck.

travis-hub-drain consumes what workers report of their builds, travis-logs-drain what builds print. A queue that holds
messages while something takes them is busy, which is no fault.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import broker, platform, rabbitmq

RESTARTING = timedelta(minutes=1)  # a service that is started again takes seconds; sooner than this says nothing
# Queue -> cause, and what people see when nobody empties it.
SEEN = {
    broker.REPORTS: ("platform.hub-drain-down", "builds look queued though they run and end"),
    broker.LOGS: ("broker.logs-drain-down", "the logs of builds stay empty"),
}


@diagnosis(
    "results not recorded",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Does the platform take what workers report?",
    unless=("broker.down", "broker.partition", "platform.not-ready", "platform.app-stopped"),
    runbook="https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/",
    once=True,
    compares=True,
    causes=tuple(cause for cause, _ in SEEN.values()),
)
def broker_drains_down(look: Look, machine: Target) -> Iterator[Finding]:
    at = rabbitmq.broker(look)
    look.together(broker.cluster(at.place), rabbitmq.queues(at.place, at.vhost))
    broker.running(look, at.place)
    forsaken = [each for each in look(rabbitmq.queues(at.place, at.vhost)) if _forsaken(each)]
    before = look.earlier(rabbitmq.queues(at.place, at.vhost), RESTARTING)
    for queue in forsaken:
        if _had_consumers(before, queue.name):
            service = broker.DRAINS[queue.name]
            raise Unknown(f"{service} went away within the last minutes, perhaps to be restarted; look again in 5 min")
        yield _finding(look, machine, at, queue)


def _forsaken(queue: rabbitmq.Queue) -> bool:
    return queue.name in SEEN and queue.ready > 0 and queue.consumers == 0


def _had_consumers(before: Sequence[rabbitmq.Queue] | None, name: str) -> bool:
    return any(each.consumers for each in before or () if each.name == name)


def _finding(look: Look, machine: Target, at: rabbitmq.Broker, queue: rabbitmq.Queue) -> Finding:
    (cause, seen), service = SEEN[queue.name], broker.DRAINS[queue.name]
    alone = bool(at.container) and service in look(broker.services(at.container))
    how = _when_it_does_not_last(look, machine, service) if alone else _by_hand(look, machine, at, service)
    return Finding(
        cause,
        Severity.BROKEN,
        machine,
        f"{service} takes nothing out of RabbitMQ: {seen}",
        evidence=f"{queue.name} holds {queue.ready} messages and has no consumer",
        fixes=(broker.restart_drain(machine, at, queue.name),) if alone else (),
        person=f"{how} restart the app in a quiet moment (`sudo replicatedctl app stop`, then `sudo replicatedctl app "
        f"start`): running builds start again. Nothing is lost, {queue.name} keeps the messages; it is right when they "
        "go down to 0.",
        link="https://docs.travis-ci.com/user/enterprise/operations-manual-tcie-2.x/",
    )


def _by_hand(look: Look, machine: Target, at: rabbitmq.Broker, service: str) -> str:
    inside = f" inside container {at.container}" if at.container else ""
    platforms = " and ".join(map(str, look.site.of(Role.PLATFORM))) if at.elsewhere else str(machine)
    return f"Restart {service}{inside} on {platforms}. When nobody knows how it is started there,"


def _when_it_does_not_last(look: Look, machine: Target, service: str) -> str:
    log = f"{platform.data_dir(look, machine)}/log/travis.log"
    return f"If {service} does not stay up, the end of {log} on {machine} says why; as a last resort"
