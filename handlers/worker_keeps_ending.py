"""A worker ends and is started again, over and over: its init system hides that it cannot work.

It ends with status 0 when it cannot connect to RabbitMQ, so no unit ever counts as failed. Between two tries its state
gives it away. One that is met while it tries is told by systemd's count of restarts that nobody ordered, which is kept
for as long as the unit is not stopped by hand, and by what its last tries wrote: how many there were, and how soon one
followed another. A snap is not started again, so it ends once, and with an error as its last words.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import rabbitmq, recovery, settings, worker

SHORT_LIFE = timedelta(minutes=2)  # one that ends sooner after its start was hardly stopped by somebody
ENDS = 3  # so many in a row, none of them ordered, are no accident
RECENTLY = timedelta(minutes=10)  # for all of them: one that waits for RabbitMQ takes half a minute
BOOTING = timedelta(minutes=10)  # until then a machine may have no network yet, and its worker tries

REMEDIES: Final = {  # what the error says -> what a person has to do
    r"^docker: .*permission denied": "Its user may not speak to docker: `sudo usermod -aG docker travis` on the "
    "machine.",
    r"^docker: ": "Docker does not start its container, and says why. A missing image is pulled by `sudo docker pull` "
    f"of what TRAVIS_WORKER_SELF_IMAGE names, in {settings.IMAGE}.",
    r"x509:|tls:": "It does not trust RabbitMQ's certificate: put its authority's into a file under /var/tmp, and "
    f"`export TRAVIS_WORKER_AMQP_TLS_CERT_PATH=` that file into {settings.MAIN}.",
    r"home node '[^']*' of durable queue": "Its queue lies on a node of RabbitMQ's cluster that is down: start that "
    "node again. Nothing has to be done on the worker.",
    r"invalid (?:port|URL escape|userinfo)|invalid character": f"Its AMQP_URI is no address: {settings.ENCODING}. "
    f"Correct it in {settings.MAIN}.",
    "expected config key endpoint": "Its settings name no docker: `export "
    f"TRAVIS_WORKER_DOCKER_ENDPOINT=unix:///var/run/docker.sock` belongs into {settings.MAIN}.",
    "inequivalent arg": "Somebody has declared its queue with other arguments than a worker does (as a quorum queue, "
    "mostly). When nothing waits in it, delete it on the broker; the worker declares it again.",
}


@dataclass(frozen=True)
class Try:
    """What one process of the worker wrote: `number` is the restart that began it, and `first` and `last` are None when
    it wrote no time.
    """

    number: int
    first: datetime | None
    last: datetime | None
    connected: bool
    told: bool  # to end, by a signal


@fact
def tries(machine: Target) -> Fact[tuple[Try, ...]]:
    """Its last processes, as far as restarts that nobody ordered began them; systemd before 235 does not say so."""
    question = worker.log(worker.SYSTEMD)
    return Fact(f"How long did {worker.SERVICE} on {machine} stay up?", machine, question, _tries)


_RESTART: Final = re.compile(r"^\S+: Scheduled restart job, restart counter is at (\d+)\.$", re.M)


def _tries(said: Output) -> tuple[Try, ...]:
    _, *pieces = _RESTART.split(said.out)
    return tuple(_try(int(number), text) for number, text in zip(pieces[::2], pieces[1::2], strict=True))


def _try(number: int, text: str) -> Try:
    moments = [moment for moment in map(worker.moment_of, text.splitlines()) if moment is not None]
    first, last = (moments[0], moments[-1]) if moments else (None, None)
    return Try(number, first, last, "worker started" in text, re.search(r"\bSIG\w+ received", text) is not None)


@diagnosis(
    "worker keeps ending",
    of="builds not starting",
    each=Role.WORKER,
    says="Does travis-worker stay up?",
    unless=(*rabbitmq.SPOILS, "net.*", "tls.*@BROKEN", "docker.hung", *settings.ENDS_BY),
    runbook="https://docs.travis-ci.com/user/enterprise/worker-cli-commands/",
)
def worker_keeps_ending(look: Look, machine: Target) -> Iterator[Finding]:
    look.together(worker.init_system(machine), worker.addresses(machine))
    now = worker.service(look, machine)
    if not now.running and not now.turning:
        yield from _ended(look, machine)
        return
    if not (ends := _ends(look, machine, now)):
        return
    error = look(worker.last_error(machine, look(worker.init_system(machine))))
    yield Finding(
        "worker.crash-loop",
        Severity.BROKEN,
        machine,
        f"travis-worker does not stay up on {machine}: {ends}",
        evidence=f"the last error in its log: {error}" if error else "its log has no error that opsbot knows",
        person=_person(machine, error),
    )


def _ended(look: Look, machine: Target) -> Iterator[Finding]:
    if words := worker.ended(look, machine, *rabbitmq.ahead(look)):
        yield Finding(
            "worker.ended",
            Severity.BROKEN,
            machine,
            f"travis-worker has ended by itself on {machine}, and as a snap it is not started again",
            evidence=f"the last words in its log: {words}",
            fixes=(recovery.start_stopped(look, machine),),
        )


def _ends(look: Look, machine: Target, now: worker.Service) -> str:
    """How it is seen that it ends, empty when it is not."""
    if now.turning:
        _refuse_stopped(now)
        return f"it ends and is started again, and is {now.state} just now"
    if not _doubtful(now) or look(worker.uptime(machine)) < BOOTING:
        return ""
    span = _span(look(tries(machine)), now)
    return f"it has ended by itself {ENDS} times within {readable(span)}" if span <= RECENTLY else ""


def _refuse_stopped(now: worker.Service) -> None:
    if now.state.startswith(("deactivating", "stop/")) and (now.since is None or now.since > SHORT_LIFE):
        raise Unknown("travis-worker is being stopped just now, perhaps to be restarted; look again in a minute")


def _doubtful(now: worker.Service) -> bool:
    """Is it up for so short, and was it started again by itself so often, that its log has to tell?"""
    short = now.running and now.since is not None and now.since < worker.SETTLED
    return short and now.restarts is not None and now.restarts > ENDS


def _span(every: tuple[Try, ...], now: worker.Service) -> timedelta:
    """How long it took to end so often by itself, for ever where it did not; raises Unknown where its log has no times
    of these very tries.
    """
    *ended, present = every[-ENDS - 1 :] or (None,)
    if present is None or present.number != now.restarts:
        raise _untold(now)
    if present.connected or any(each.told for each in ended):
        return timedelta.max
    first, last = (ended[0].first, ended[-1].last) if len(ended) == ENDS else (None, None)
    if first is None or last is None or last < first or now.since is None:
        raise _untold(now)
    return last - first + now.since


def _untold(now: worker.Service) -> Unknown:
    up = "not long" if now.since is None else f"for only {readable(now.since)}"
    again = f"systemd has started it again {now.restarts} times"
    return Unknown(f"travis-worker is up {up}, {again}, and its log does not say when; look again in 2 min")


def _person(machine: Target, error: str) -> str:
    why = f"Find out why it ends: its log on {machine} says so."
    known = next((advice for pattern, advice in REMEDIES.items() if re.search(pattern, error)), why)
    return f"{known} It is started again by itself all the time, so to restart it or to reboot would not help."
