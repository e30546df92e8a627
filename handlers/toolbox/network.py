"""Facts about the way from a machine to the platform: names, ports, and whether somebody speaks behind an open port.

Everything is tried from where it matters, by the ordinary login of that machine. Ports, from the vendor's list: 443 for
build scripts, 5672 for RabbitMQ, and 4567 (not 5671) for RabbitMQ with TLS. Source:
https://docs.travis-ci.com/user/enterprise/setting-up-travis-ci-enterprise/
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from bot.core.command import sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.look import CannotLook, Look
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import platform, rabbitmq, settings, worker

AMQP, AMQPS, HTTPS, DASHBOARD = 5672, 4567, 443, 8800
IMPLIED = 5671  # where travis-worker goes by an amqps:// address that names no port
LOOPBACK = "127.0.0.1"
UPTIME = "__build__/uptime"  # of travis-build, through the platform's web server
NO_PROGRAM = 127
OK = 200
RABBITMQ, SCRIPTS = "RabbitMQ", "build scripts"
RUNBOOK = "https://docs.travis-ci.com/user/enterprise/setting-up-travis-ci-enterprise/"

# Seconds. A resolver tries the next name server after five, and TCP sends its first packet again after one, three and
# seven: what is only slow gets through within these.
NAME_WITHIN, PORT_WITHIN, ANSWER_WITHIN = "15", "10", "15"

# The host and the port are words of their own, never part of the script's text.
OPEN = 'exec 3<>"/dev/tcp/$1/$2"'
SPEAK = rf'{OPEN} || exit 1; echo open; printf "AMQP\0\0\t\1" >&3; head -c 1 <&3 | od -An -tx1'
FIRST_BYTES = (["01"], ["41"])  # a broker answers with a frame of type 1, or with the version that it speaks


class Way(Enum):
    """What became of an attempt to connect."""

    OPEN = "open"
    MUTE = "open, but nobody speaks there as they should"
    REFUSED = "refused"
    SILENT = "no answer"
    REJECTED = "turned away by the network"
    NO_NAME = "its name does not resolve"


BLOCKED = (Way.SILENT, Way.REJECTED)

# What bash says, in this order: after a name that does not resolve it calls the address an invalid argument as well.
_SAID = (
    ("Name or service not known", Way.NO_NAME),
    ("Temporary failure in name resolution", Way.NO_NAME),
    ("No address associated with hostname", Way.NO_NAME),
    ("Connection refused", Way.REFUSED),
    ("Connection timed out", Way.SILENT),
    ("No route to host", Way.REJECTED),
    ("Network is unreachable", Way.REJECTED),
    ("Permission denied", Way.REJECTED),
    ("connect: Invalid argument", Way.REJECTED),  # a route that is a black hole
)


_PORTS = {"amqp": AMQP, "amqps": IMPLIED, "https": HTTPS, "http": 80}
_URI = re.compile(r"([A-Za-z]+)://(?:[^/]*@)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(\d{1,5}))?(?:[/?].*)?")


@dataclass(frozen=True)
class Road:
    """One thing that a worker has to reach, what for, and what became of it."""

    host: str
    port: int
    use: str
    way: Way
    implied: bool = False  # the vendor's port for TLS is another one, and the address names none

    def __str__(self) -> str:
        return f"{self.port} ({self.use}): {self.way.value}"


@dataclass(frozen=True)
class Endpoint:
    """Where a worker's configuration sends it."""

    host: str
    port: int
    use: str
    tls: bool = False
    implied: bool = False


# ---------------------------------------------------------------- facts


@fact
def resolves(machine: Target, host: str) -> Fact[tuple[str, ...]]:
    """The addresses of a name as that machine resolves it; none when it does not."""
    question = sh("timeout", NAME_WITHIN, "getent", "hosts", host)
    return Fact(f"Does {machine} resolve {host}?", machine, question, _addresses)


def _addresses(said: Output) -> tuple[str, ...]:
    """Status 2 is a name that is not found; no status, name servers that do not answer."""
    if said.exit not in (0, 2, None):
        raise Unknown(f"getent did not answer: {said.err.strip() or f'exit {said.exit}'}")
    return tuple(line.split()[0] for line in said.out.splitlines() if line.strip())


@fact
def port(machine: Target, host: str, port: int) -> Fact[Way]:
    """What becomes of a connection from that machine."""
    question = sh("timeout", PORT_WITHIN, "bash", "-c", OPEN, "probe", host, str(port))
    return Fact(f"Does {machine} reach {host}:{port}?", machine, question, _way)


@fact
def lets_through(machine: Target, host: str, port: int) -> Fact[bool]:
    """Does no firewall stop a connection from that machine? One that is refused has come through."""
    question = sh("timeout", PORT_WITHIN, "bash", "-c", OPEN, "probe", host, str(port))
    asks = f"{machine} gets through to {host}:{port}"
    return Fact(asks, machine, question, lambda said: _way(said) in (Way.OPEN, Way.REFUSED))


def _way(said: Output) -> Way:
    if said.ok:
        return Way.OPEN
    if said.exit is None:
        return Way.SILENT
    found = next((way for words, way in _SAID if words in said.err), None)
    if found is None:
        raise Unknown(f"the attempt to connect ended in an unknown way: {said.err.strip()[:200] or 'no words'}")
    return found


@fact
def amqp(machine: Target, host: str, port: int) -> Fact[Way]:
    """What becomes of an AMQP client's first words. Some proxies take every connection, and say nothing."""
    question = sh("timeout", ANSWER_WITHIN, "bash", "-c", SPEAK, "probe", host, str(port))
    return Fact(f"Does {host}:{port} speak AMQP to {machine}?", machine, question, _amqp)


def _amqp(said: Output) -> Way:
    opened, _, answer = said.out.partition("open")
    if opened or not said.out:
        return _way(said)
    return Way.OPEN if answer.split()[:1] in FIRST_BYTES else Way.MUTE


@fact
def tls(machine: Target, host: str, port: int) -> Fact[Way]:
    """What becomes of a TLS client's first words; how good the certificate is does not matter here."""
    where = ("-connect", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    question = sh("timeout", ANSWER_WITHIN, "openssl", "s_client", *where, "-servername", host)
    return Fact(f"Does {host}:{port} speak TLS to {machine}?", machine, question, _tls)


def _tls(said: Output) -> Way:
    """Only silence is held against it: openssl may be missing, too old or too new."""
    return Way.MUTE if said.exit is None or "has read 0 bytes" in said.out else Way.OPEN


@fact
def status_of(machine: Target, page: str) -> Fact[int]:
    """The HTTP status of that page, travis-build's own; 0 where none came. Its certificate does not matter to the
    worker. Whether the platform passes it on at all is not documented.
    """
    question = sh("timeout", ANSWER_WITHIN, "curl", "-sSk", "-o", "/dev/null", "-w", "%{http_code}", page)
    return Fact(f"Does {machine} get build scripts by {page}?", machine, question, _status)


def _status(said: Output) -> int:
    if said.exit == NO_PROGRAM:
        raise Unknown("whether it gets build scripts cannot be tried: it has no curl")
    return int(said.out) if said.out.strip().isdigit() else 0


# ---------------------------------------------------------------- putting facts together


def endpoints(look: Look, machine: Target) -> tuple[Endpoint, Endpoint]:
    """Where the worker's configuration sends it for RabbitMQ and for build scripts; where that cannot be read, to the
    installation's own name.
    """
    look.together(*_first(look, machine))
    try:
        said = settings.settings(look(settings.written(machine)), look(worker.init_system(machine)))
        uris = (said.value(settings.AMQP), said.value(settings.BUILD_API))
    except Unknown:
        uris = ("", "")
    return (
        endpoint(uris[0], RABBITMQ) or Endpoint(look.site.domain, AMQP, RABBITMQ),
        endpoint(uris[1], SCRIPTS) or Endpoint(look.site.domain, HTTPS, SCRIPTS),
    )


def _first(look: Look, machine: Target) -> list[Fact[Any]]:
    """What the first round asks: also what is wanted only where a way turns out to be bad, so that three rounds do."""
    in_container = look.site.option("rabbitmq.via", "container") == "container"
    there = (platform.main_container(),) if in_container and look.site.of(Role.PLATFORM) else ()
    return [settings.written(machine), worker.init_system(machine), worker.addresses(machine), *there]


def endpoint(uri: str, use: str) -> Endpoint | None:
    """Host and port of an address whose password is masked; None when it names none."""
    found = _URI.fullmatch(uri.strip())
    if found is None or found[1].lower() not in _PORTS or int(found[3] or 1) > 65535:
        return None
    scheme, host = found[1].lower(), found[2].strip("[]").lower()
    tls = scheme == "amqps"
    return Endpoint(host, int(found[3] or _PORTS[scheme]), use, tls, implied=tls and not found[3])


def uptime_page(uri: str) -> str:
    """Where what makes build scripts can be asked whether it is there; empty when the address names no host."""
    if endpoint(uri, SCRIPTS) is None or (found := _URI.fullmatch(uri.strip())) is None:
        return ""
    return f"{found[1].lower()}://{found[2].lower()}{f':{found[3]}' if found[3] else ''}/{UPTIME}"


def dashboard(look: Look, machine: Target) -> Way:
    """What becomes of a connection to the dashboard, from its own machine. Docker opens its port even when nothing is
    behind it, so somebody has to speak there.
    """
    opened, spoken = port(machine, LOOPBACK, DASHBOARD), tls(machine, LOOPBACK, DASHBOARD)
    look.together(opened, spoken)
    return look(spoken) if look(opened) is Way.OPEN else look(opened)


def unresolved(look: Look, machine: Target) -> tuple[str, ...]:
    """The names that the worker needs and its machine does not resolve."""
    look.together(*_facts(look, machine))
    names = tuple(dict.fromkeys(each.host for each in endpoints(look, machine) if not is_address(each.host)))
    return tuple(name for name in names if not look(resolves(machine, name)))


def roads(look: Look, machine: Target) -> tuple[Road, ...]:
    """Every way that the worker needs, tried in one round."""
    look.together(*_facts(look, machine))
    return tuple(
        Road(each.host, each.port, each.use, _tried(look, machine, each), each.implied)
        for each in endpoints(look, machine)
    )


def _tried(look: Look, machine: Target, to: Endpoint) -> Way:
    if to.use != RABBITMQ:
        return look(port(machine, to.host, to.port))
    if not to.tls:
        return look(amqp(machine, to.host, to.port))
    reached = look(port(machine, to.host, to.port))
    return look(tls(machine, to.host, to.port)) if reached is Way.OPEN else reached


def _facts(look: Look, machine: Target) -> list[Fact[Any]]:
    """What `unresolved` and `roads` ask: the same, so that all of them cost one round."""
    wanted: list[Fact[Any]] = []
    for each in endpoints(look, machine):
        if not is_address(each.host):
            wanted.append(resolves(machine, each.host))
        if each.tls or each.use != RABBITMQ:
            wanted.append(port(machine, each.host, each.port))
        if each.use == RABBITMQ:
            wanted.append((tls if each.tls else amqp)(machine, each.host, each.port))
    return wanted


def to_broker(look: Look, workers: Sequence[Target]) -> tuple[tuple[Target, Road], ...]:
    """How each of these workers gets to RabbitMQ, all tried side by side; one that cannot be asked is left out."""
    look.together(*(fact for each in workers for fact in _first(look, each)))
    asked = [each for each in workers if _answers(look, each)]
    look.together(*(fact for each in asked for fact in _facts(look, each)))
    return tuple((each, road) for each in asked for road in roads(look, each) if road.use == RABBITMQ)


def _answers(look: Look, machine: Target) -> bool:
    try:
        endpoints(look, machine)
    except CannotLook:
        return False
    return True


def troubles(look: Look, machine: Target, *ways: Way) -> tuple[Road, ...]:
    """The roads that ended so. A worker whose consumers RabbitMQ sees is connected, whatever a new connection meets: it
    may have come another way.
    """
    bad = tuple(road for road in roads(look, machine) if road.way in ways)
    if any(road.use == RABBITMQ for road in bad) and is_served(look, machine):
        return tuple(road for road in bad if road.use != RABBITMQ)
    return bad


def is_served(look: Look, machine: Target) -> bool:
    """Does RabbitMQ see consumers of this worker? When it cannot be asked, that it is not reached speaks for itself."""
    try:
        seen = rabbitmq.presences(look, rabbitmq.broker(look))
    except Unknown:
        return False
    except CannotLook as silent:
        if silent.cause != rabbitmq.AWAY:
            raise
        return False
    return any(seen[address].builds for address in look(worker.addresses(machine)) if address in seen)


def is_address(host: str) -> bool:
    """An IPv4 or IPv6 address, which needs no name server."""
    return re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*", host) is not None


def listed(found: Iterable[Road]) -> str:
    """The roads as a sentence has them: `5672 (RabbitMQ): no answer, 443 (build scripts): open`."""
    return ", ".join(map(str, found))


def without_port(machine: Target, found: Iterable[Road]) -> str:
    """What is wrong with an address that only lacks its port, empty when none does: no firewall has to be opened."""
    host = next((road.host for road in found if road.implied), "")
    return host and (
        f"AMQP_URI on {machine} begins with amqps:// and names no port, so travis-worker goes to {IMPLIED}; RabbitMQ "
        f"listens with TLS on {AMQPS} here: write {host}:{AMQPS} there, and restart travis-worker."
    )


def ports(roads: Sequence[Road]) -> str:
    """The ports as a title has them: `5672 and 443 of travis.example.com`; of another host apart."""
    hosts = dict.fromkeys(road.host for road in roads)
    each = (f"{' and '.join(str(road.port) for road in roads if road.host == host)} of {host}" for host in hosts)
    return " and ".join(each)


def leads_to_platform(look: Look, road: Road) -> bool:
    """A broker elsewhere is behind other firewalls than the platform."""
    return road.use != RABBITMQ or _is_platform(look, road.host)


def _is_platform(look: Look, host: str) -> bool:
    """Any other name may be an alias of it, but for a broker elsewhere."""
    known = {look.site.domain.lower(), *(each.address for each in look.site.of(Role.PLATFORM))}
    return host in known or not rabbitmq.is_elsewhere(look)


def platform_of(look: Look, host: str) -> str:
    """The platform as a network administrator needs it: its name, and the addresses that are configured. A broker
    elsewhere has its name alone.
    """
    if not _is_platform(look, host):
        return host
    addresses = ", ".join(each.address for each in look.site.of(Role.PLATFORM) if each.address)
    return f"{host} ({addresses})" if addresses and addresses != host else host
