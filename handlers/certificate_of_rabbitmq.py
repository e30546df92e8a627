"""Workers speak to RabbitMQ with TLS and do not trust its certificate: they cannot connect, and no build starts.

Only asked when workers use amqps://; one of them stands for all, another one where no certificate reaches it. One that
is told to trust anything (AMQP_INSECURE) is left alone, one with a certificate of its own to trust (AMQP_TLS_CERT) can
still meet an expired one. The port is the vendor's, 4567; of a broker elsewhere a worker's settings name host and port.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from bot.core.errors import Unknown
from bot.core.fact import Fact
from bot.core.finding import Finding, Severity
from bot.core.fix import readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import network, platform, rabbitmq, settings, tls
from handlers.toolbox.network import Endpoint
from handlers.toolbox.tls import Verdict

LINK = "https://docs.travis-ci.com/user/enterprise/tcie-3.x-setting-up-travis-ci-enterprise/"


OTHERS = 3  # workers that are asked when the first one sees no certificate
TRUST = (
    "On each worker, put {} into a file under /var/tmp, and `export TRAVIS_WORKER_AMQP_TLS_CERT_PATH=` that file into "
    f"{settings.MAIN}; then restart travis-worker. `export AMQP_INSECURE=true` works too, and trusts anybody."
)
PERSON = {
    "tls.self-signed": TRUST.format("this certificate itself (copied from where RabbitMQ runs, not taken off the net)"),
    "tls.untrusted": TRUST.format("the certificate of its authority"),
    "tls.missing-intermediate": "Where RabbitMQ runs, append that certificate to its own, which comes first.",
}


@diagnosis(
    "certificate of rabbitmq wrong",
    of="builds not starting",
    each=Role.PLATFORM,
    says="Do workers trust RabbitMQ's certificate?",
    unless=("broker.down",),
    runbook=LINK,
    once=True,
    causes=(*tls.NAMES, "tls.missing-intermediate", "tls.expiring"),
)
def certificate_of_rabbitmq(look: Look, machine: Target) -> Iterator[Finding]:
    how = look(tls.amqp_tls())
    if not how.used or how.insecure:
        return
    server = _server(look)
    look.together(*_asked(server), platform.clock(machine))
    sent, own, there = _seen(look, server)
    now = look(platform.clock(machine))
    verdict = _verdict(how, sent, own.covers(server.host))
    if verdict is Verdict.EXPIRED and abs(there - now) > tls.CLOCKS_APART:
        raise Unknown(f"the clock of the worker that was asked shows {there:%Y-%m-%d %H:%M}; set it right first")
    if verdict is Verdict.UNTRUSTED and sent.gap and own.public:
        what = f"does not send the certificate of {own.issuer} that belongs above its own: workers cannot connect"
        yield _finding(machine, server, "tls.missing-intermediate", what, sent, own)
    elif verdict in tls.CAUSES:
        cause, what, _ = tls.CAUSES[verdict]
        yield _finding(machine, server, cause, f"has a certificate that {what}: workers cannot connect", sent, own)
    elif own.ends - now < tls.SOON:
        left = f"has a certificate that expires in {readable(own.ends - now)}: then workers cannot connect"
        yield replace(_finding(machine, server, "tls.expiring", left, sent, own), severity=Severity.WARN)


def _server(look: Look) -> Endpoint:
    if rabbitmq.is_elsewhere(look):
        return network.endpoints(look, look.site.of(Role.WORKER)[0])[0]
    return Endpoint(look.site.domain, tls.AMQPS, network.RABBITMQ, tls=True)


def _asked(
    server: Endpoint, at: Target | Role = Role.WORKER
) -> tuple[Fact[tls.Handshake], Fact[tls.Certificate], Fact[datetime]]:
    shake, own = tls.handshake(server.host, server.port), tls.certificate(server.host, server.port)
    return replace(shake, on=at), replace(own, on=at), replace(tls.worker_clock(), on=at)


def _seen(look: Look, server: Endpoint) -> tuple[tls.Handshake, tls.Certificate, datetime]:
    """As one worker sees it; the way from that one may be bad while the others meet the certificate."""
    shake, own, clock = _asked(server)
    try:
        return look(shake), look(own), look(clock)
    except Unknown:
        others = look.site.of(Role.WORKER)[1 : 1 + OTHERS]
        asked = [_asked(server, worker) for worker in others]
        look.together(*(fact for facts in asked for fact in facts))
        for shake, own, clock in asked:
            with suppress(Unknown):
                return look(shake), look(own), look(clock)
        raise


def _finding(
    machine: Target, server: Endpoint, cause: str, what: str, sent: tls.Handshake, own: tls.Certificate
) -> Finding:
    broken = "Give RabbitMQ a certificate that is valid and made for this host, where it runs."
    return Finding(
        cause,
        Severity.BROKEN,
        machine,
        f"RabbitMQ on {server.host}:{server.port} {what}",
        evidence=f"OpenSSL on a worker: {sent.code} ({sent.said}); valid until {own.ends:%Y-%m-%d %H:%M} UTC, for "
        f"{', '.join(own.names[:5]) or 'none'}, issued by {own.issuer}",
        person=PERSON.get(cause, broken),
        link=LINK,
    )


def _verdict(how: tls.AmqpTls, sent: tls.Handshake, covered: bool) -> Verdict:
    """What Go's TLS would say: it trusts what AMQP_TLS_CERT holds, and never ignores the host's name or the end."""
    trusted = how.own_ca and sent.verdict in (Verdict.SELF_SIGNED, Verdict.UNTRUSTED)
    if sent.verdict is not Verdict.GOOD and not trusted:
        return sent.verdict
    return Verdict.GOOD if covered else Verdict.WRONG_HOST
