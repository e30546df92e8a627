"""Facts about certificates, as a build sees them: the worker itself is told to trust anything, so its word counts for
nothing (BUILD_API_INSECURE_SKIP_VERIFY).

Curl inside a build image decides, and says why in the words that end up in build logs. `openssl` on the worker's host
tells what the server sends and until when it is good; its own trust store is not the one that builds have. Any worker
that answers can be asked, since they all see one server. Source:
https://docs.travis-ci.com/user/enterprise/ssl-certificate-management/
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from bot.core.command import Command, sh
from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.fix import Change, Fix, Risk, Wait, equals
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import replicated, settings

HTTPS, AMQPS = 443, 4567  # RabbitMQ's port for TLS is the vendor's own choice, not 5671
IMAGE = "travis:default"  # every worker has it: the image of builds that name no language
TRUSTED = "/etc/ssl/certs"  # OpenSSL before 1.1 looks nowhere unless told so
PATIENCE = "10"  # seconds; s_client has no time limit of its own
SCRIPT = "/home/ubuntu/renew-certs.sh"  # the vendor's name for what cron runs four times a year
SCRIPT_OWNERS = ("root", "ubuntu")
RENEW_WITHIN = timedelta(minutes=15)
LONGEST = 200  # characters of foreign text that enter a sentence
NO_DOCKER = (125, 126, 127)  # docker itself could not run curl in the image
NOT_REACHED = {6: "its name does not resolve", 7: "nothing takes the connection", 28: "no answer came in time"}


class Verdict(Enum):
    """What a client that checks certificates says."""

    GOOD = "good"
    SELF_SIGNED = "self-signed"
    UNTRUSTED = "untrusted"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"
    WRONG_HOST = "made for another host"
    NOT_ASKED = "not asked"


# OpenSSL 3 writes `self-signed`, older ones `self signed`; curl passes their words on.
_WORDS = (
    (re.compile(r"self.signed certificate in certificate chain"), Verdict.UNTRUSTED),
    (re.compile(r"self.signed certificate"), Verdict.SELF_SIGNED),
    (re.compile(r"certificate has expired"), Verdict.EXPIRED),
    (re.compile(r"certificate is not yet valid"), Verdict.NOT_YET),
    (re.compile(r"(?:matches|match) target ?host ?name|[Hh]ostname mismatch"), Verdict.WRONG_HOST),
)
# OpenSSL's own numbers: https://docs.openssl.org/master/man1/openssl-verification-options/
_CODES = {
    0: Verdict.GOOD,
    9: Verdict.NOT_YET,
    10: Verdict.EXPIRED,
    18: Verdict.SELF_SIGNED,
    62: Verdict.WRONG_HOST,
}


SOON = timedelta(days=21)  # a certificate that ends within these is worth a warning
CLOCKS_APART = timedelta(days=1)  # a clock that is further off cannot tell what has expired
# Verdict -> cause, what is wrong, what the new certificate has to be.
CAUSES = {
    Verdict.SELF_SIGNED: ("tls.self-signed", "signed itself, so nobody trusts it", "signed by an authority"),
    Verdict.UNTRUSTED: ("tls.untrusted", "comes from an authority that is not trusted", "signed by a public authority"),
    Verdict.EXPIRED: ("tls.expired", "has expired", "valid"),
    Verdict.WRONG_HOST: ("tls.wrong-host", "was made for another host", "made for this host"),
}
NAMES = tuple(cause for cause, *_ in CAUSES.values())


@dataclass(frozen=True)
class Seen:
    """The verdict of one client, and its own words."""

    verdict: Verdict
    said: str = ""


@dataclass(frozen=True)
class Handshake:
    """What the server sent: subject and issuer of each certificate, its own first; and OpenSSL's verdict on it."""

    code: int
    said: str
    sent: tuple[tuple[str, str], ...]

    @property
    def verdict(self) -> Verdict:
        return _CODES.get(self.code, Verdict.UNTRUSTED)

    @property
    def gap(self) -> bool:
        """The certificate's issuer is not among what was sent, and it did not sign itself."""
        if not self.sent:
            return False
        subject, issuer = self.sent[0]
        return subject != issuer and issuer not in [each for each, _ in self.sent[1:]]


@dataclass(frozen=True)
class Certificate:
    """The server's own certificate. `public` is one that says where its issuer's can be fetched, as every public
    authority's does and a company's own rarely does.
    """

    subject: str
    issuer: str
    begins: datetime
    ends: datetime
    names: tuple[str, ...]
    public: bool

    def covers(self, host: str) -> bool:
        return any(_covers(name.lower(), host.lower()) for name in self.names)

    @property
    def by_lets_encrypt(self) -> bool:
        return "Let's Encrypt" in self.issuer


def _covers(name: str, host: str) -> bool:
    """A wildcard stands for one label."""
    return name == host or (name.startswith("*.") and name[2:] == host.partition(".")[2])


# ---------------------------------------------------------------- facts


@fact
def seen_by_builds(domain: str) -> Fact[Seen]:
    """What curl says of the platform's certificate inside a build image; nothing stays of the container."""
    page = ("-sS", "-o", "/dev/null", "--max-time", PATIENCE, f"https://{domain}/")
    question = sh("docker", "run", "--rm", "--entrypoint", "curl", IMAGE, *page).sudo()
    return Fact(f"Do builds trust the certificate of {domain}?", Role.WORKER, question, _seen)


def _seen(said: Output) -> Seen:
    words = f"{said.err}\n{said.out}"
    if said.ok:
        return Seen(Verdict.GOOD)
    if said.exit is None or said.exit in NO_DOCKER:
        return Seen(Verdict.NOT_ASKED, _line(words) or "docker did not answer in time")
    if said.exit in NOT_REACHED:
        raise Unknown(f"a build does not reach the platform, {NOT_REACHED[said.exit]}: {_line(words)}")
    if said.exit not in (51, 60):
        raise Unknown(f"curl in a build image failed in another way than by the certificate: {_line(words)}")
    return Seen(_verdict(words), _line(words))


def _verdict(words: str) -> Verdict:
    return next((verdict for pattern, verdict in _WORDS if pattern.search(words)), Verdict.UNTRUSTED)


def _line(words: str) -> str:
    """The line that says most: curl's or docker's own, else the first."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    best = (line for line in lines if line.startswith(("curl: (", "docker: ", "sudo: ")))
    return next(best, lines[0] if lines else "")[:LONGEST]


def _client(domain: str, port: int) -> Command:
    place = ("-connect", f"{domain}:{port}", "-servername", domain, "-CApath", TRUSTED)
    return sh("timeout", PATIENCE, "openssl", "s_client", *place)


@fact
def handshake(domain: str, port: int) -> Fact[Handshake]:
    """Which certificates the server sends, and what OpenSSL on a worker makes of them."""
    asks = f"Which certificates does {domain}:{port} send?"
    return Fact(asks, Role.WORKER, _client(domain, port), _handshake)


def _handshake(said: Output) -> Handshake:
    found = re.search(r"Verify return code: (\d+) \(([^)\n]*)\)", said.out)
    sent = tuple(re.findall(r"^ *\d+ s: ?(.*)\n +i: ?(.*)$", said.out, re.M))
    if found is None or not sent:
        raise Unknown(f"no certificate came: {_line(said.err) or 'the server did not answer in time'}")
    return Handshake(int(found[1]), found[2], sent)


@fact
def certificate(domain: str, port: int) -> Fact[Certificate]:
    """The server's own certificate, read by `openssl x509`."""
    question = _client(domain, port) | sh("openssl", "x509", "-noout", "-text")
    return Fact(f"What is the certificate of {domain}:{port}?", Role.WORKER, question, _certificate)


def _certificate(said: Output) -> Certificate:
    begins, ends = (_time(said.out, mark) for mark in ("Not Before", "Not After "))
    if begins is None or ends is None:
        raise Unknown(f"the certificate cannot be read: {_line(said.err) or 'the server did not answer in time'}")
    return Certificate(
        subject=_field("Subject", said.out),
        issuer=_field("Issuer", said.out),
        begins=begins,
        ends=ends,
        names=tuple(re.findall(r"DNS:([^\s,]+)", said.out)),
        public=bool(re.search(r"CA Issuers - URI:http", said.out)),
    )


def _time(text: str, mark: str) -> datetime | None:
    found = re.search(rf"^ *{mark}: *(\w{{3}} +\d+ [\d:]+ \d{{4}}) GMT", text, re.M)
    return datetime.strptime(" ".join(found[1].split()), "%b %d %H:%M:%S %Y").replace(tzinfo=UTC) if found else None


def _field(name: str, text: str) -> str:
    found = re.search(rf"^ *{name}: *(.*)$", text, re.M)
    return found[1].strip()[:LONGEST] if found else ""


@fact
def expired(domain: str, port: int) -> Fact[bool]:
    """Is the server's certificate past its end? For waiting, and for not renewing one that is good already."""
    question = _client(domain, port) | sh("openssl", "x509", "-noout", "-checkend", "0")
    return Fact(f"the certificate of {domain}:{port} has expired", Role.WORKER, question, _expired)


def _expired(said: Output) -> bool:
    if "Certificate will not expire" in said.out:
        return False
    if "Certificate will expire" in said.out:
        return True
    raise Unknown(f"no certificate came: {_line(said.err) or 'the server did not answer in time'}")


@fact
def worker_clock() -> Fact[datetime]:
    """What time it is on the worker that is asked: a clock that is days off makes good certificates look expired."""
    return Fact("What time is it on a worker?", Role.WORKER, sh("date", "-u", "+%s"), _clock)


def _clock(said: Output) -> datetime:
    if not said.out.strip().isdigit():
        raise Unknown(f"date did not answer: {_line(said.err)}")
    return datetime.fromtimestamp(int(said.out), UTC)


# ---------------------------------------------------------------- AMQP with TLS


@dataclass(frozen=True)
class AmqpTls:
    """How workers speak to RabbitMQ: with TLS at all, trusting anything, or trusting a certificate of their own."""

    used: bool
    insecure: bool
    own_ca: bool


# Only how the address begins is read, so that no password ever leaves the machine.
_WANTED = (
    r"^(export +)?(TRAVIS_WORKER_)?(AMQP_URI=[\"']?amqps?:|AMQP_INSECURE=[\"']?[A-Za-z0-9]+|AMQP_TLS_CERT(_PATH)?=.)"
)


@fact
def amqp_tls() -> Fact[AmqpTls]:
    """What the settings of a worker say about TLS; the last file wins, and names with the prefix win over others."""
    question = sh("grep", "-h", "-o", "-s", "-E", _WANTED, *settings.FILES, settings.SNAP).sudo()
    return Fact("Do workers speak to RabbitMQ with TLS?", Role.WORKER, question, _amqp_tls)


def _amqp_tls(said: Output) -> AmqpTls:
    found = dict(_settings(said.out, "")) | dict(_settings(said.out, "TRAVIS_WORKER_"))
    if "AMQP_URI" not in found:
        why = _line(said.err) or "its settings name no AMQP_URI"
        raise Unknown(f"whether workers speak to RabbitMQ with TLS cannot be read: {why}")
    return AmqpTls(
        used=found["AMQP_URI"] == "amqps:",
        insecure=found.get("AMQP_INSECURE", "").lower() in ("1", "t", "true", "yes"),
        own_ca=bool({"AMQP_TLS_CERT", "AMQP_TLS_CERT_PATH"} & found.keys()),
    )


def _settings(text: str, prefix: str) -> list[tuple[str, str]]:
    return re.findall(rf"^(?:export +)?{prefix}(AMQP_\w+)=[\"']?(.*)$", text, re.M)


# ---------------------------------------------------------------- renewal by Let's Encrypt


@fact
def renewal(platform: Target) -> Fact[bool]:
    """Is there the vendor's renewal script, and can only root and its owner have written it?"""
    question = sh("stat", "-c", "%U %a %F", SCRIPT).sudo()
    return Fact(f"Is there {SCRIPT} on {platform}?", platform, question, _renewal)


def _renewal(said: Output) -> bool:
    if "No such file" in said.err:
        return False
    found = re.match(r"(\S+) ([0-7]+) regular file$", said.out.strip())
    if not said.ok:
        raise Unknown(f"stat does not tell what {SCRIPT} is: {_line(said.err)}")
    if found is None or found[1] not in SCRIPT_OWNERS:
        return False
    mode = int(found[2], 8)
    return not mode & 0o022 and bool(mode & 0o100)


def renew(machine: Target, domain: str, as_unit: bool) -> Fix:
    """What cron does every few months: it stops the app, lets certbot renew the certificate, and starts the app."""
    run = Change(
        f"Run {SCRIPT}",
        sh(SCRIPT).sudo(),
        slow=as_unit,
        needed=expired(domain, HTTPS),
        within=RENEW_WITHIN,
    )
    start = sh("replicatedctl", "app", "start").sudo()
    left_stopped = replicated.app_is_stopped(machine)
    return Fix(
        id="tls.renew",
        title="Renew the Let's Encrypt certificate",
        target=machine,
        steps=(run, Wait(expired(domain, HTTPS), equals(False), RENEW_WITHIN)),
        risk=Risk.INTERRUPTS,
        ensure=(Change("Start the app", start, needed=left_stopped, within=timedelta(minutes=2)),),
        undo="nothing to undo: the old certificate had expired",
        one_at_a_time=True,
    )
