"""The certificates that the platform serves, and which authorities are known where; everything else is worked out.

tls = installation.tls
tls.serve(443, replace(tls.served[443], ends=now + 5 * DAY))
tls.in_images.add("Example Internal CA")         what build images trust; `on_hosts` is what the machines do
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime

from bot.sandbox.installation.timeline import Timeline

DAY = 86400.0
PUBLIC = "C = US, O = Internet Security Research Group, CN = ISRG Root X1"
LETS_ENCRYPT = "C = US, O = Let's Encrypt, CN = R10"
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
# OpenSSL's numbers and, before version 3, its words.
WORDS = {
    0: "ok",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self signed certificate",
    19: "self signed certificate in certificate chain",
    20: "unable to get local issuer certificate",
    21: "unable to verify the first certificate",
}
# What Go says of the same.
GO_WORDS = dict.fromkeys((9, 10), "x509: certificate has expired or is not yet valid")


@dataclass(frozen=True)
class Certificate:
    """A server's own, with what it sends above it as pairs of subject and issuer; times are the timeline's seconds."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    begins: float
    ends: float
    above: tuple[tuple[str, str], ...] = ()
    fetch: bool = True  # says where the certificate of its issuer can be fetched, as all public ones do

    @property
    def sent(self) -> tuple[tuple[str, str], ...]:
        return ((self.subject, self.issuer), *self.above)

    def errors(self, known: set[str], now: float) -> Iterator[int]:
        """OpenSSL's, in its order: the chain first, then the dates."""
        yield from self._chain(known)
        if now > self.ends:
            yield 10
        if now < self.begins:
            yield 9

    def _chain(self, known: set[str]) -> Iterator[int]:
        subjects = dict(self.above)
        subject, issuer = self.sent[0]
        if subject == issuer:
            yield from () if subject in known else (18,)
            return
        for depth in range(len(self.sent)):
            if issuer in known:
                return
            if issuer not in subjects:
                yield from (20, 21) if depth == 0 else (20,)
                return
            subject, issuer = issuer, subjects[issuer]
            if subject == issuer:
                yield from () if subject in known else (19,)
                return

    def covers(self, host: str) -> bool:
        """A wildcard stands for the first label."""
        return bool({host, f"*.{host.partition('.')[2]}"} & set(self.names))

    def pem(self) -> str:
        """Not a real one: what only the simulated `openssl x509` reads."""
        text = base64.b64encode(json.dumps(asdict(self)).encode()).decode()
        lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
        return f"{BEGIN}\n{lines}\n{END}\n"


def from_pem(text: str) -> Certificate | None:
    """The first certificate in a text."""
    inside = text.partition(BEGIN)[2].partition(END)[0]
    if not inside.strip():
        return None
    told = json.loads(base64.b64decode("".join(inside.split())))
    told["names"], told["above"] = tuple(told["names"]), tuple((above[0], above[1]) for above in told["above"])
    return Certificate(**told)


@dataclass(eq=False)
class Tls:
    timeline: Timeline
    host: str
    served: dict[int, Certificate] = field(default_factory=dict)
    in_images: set[str] = field(default_factory=lambda: {PUBLIC})
    on_hosts: set[str] = field(default_factory=lambda: {PUBLIC})

    def __post_init__(self) -> None:
        for port in (443, 4567, 8800):
            self.serve(port, self.good())

    def good(self, days: float = 60.0) -> Certificate:
        """By Let's Encrypt, with its intermediate, for so many more days."""
        now = self.timeline.now()
        return Certificate(
            f"CN = {self.host}", LETS_ENCRYPT, (self.host,), now - 30 * DAY, now + days * DAY, ((LETS_ENCRYPT, PUBLIC),)
        )

    def serve(self, port: int, certificate: Certificate) -> None:
        self.served[port] = certificate

    def errors(self, port: int, known: set[str]) -> list[int]:
        certificate = self.served.get(port)
        return list(certificate.errors(known, self.timeline.now())) if certificate else []

    def complaint(self, port: int, host: str, known: set[str]) -> str:
        """Curl's words; empty when it is content."""
        for error in self.errors(port, known):
            return f"SSL certificate problem: {WORDS[error]}"
        certificate = self.served.get(port)
        if certificate is not None and not certificate.covers(host):
            return f"SSL: no alternative certificate subject name matches target host name '{host}'"
        return ""

    def refused_by_go(self, host: str, insecure: bool) -> str:
        """What travis-worker says of RabbitMQ's certificate; empty when it connects."""
        if insecure:
            return ""
        for error in self.errors(4567, self.on_hosts):
            return GO_WORDS.get(error, "x509: certificate signed by unknown authority")
        good = self.served[4567].covers(host)
        return "" if good else f"x509: certificate is valid for {', '.join(self.served[4567].names)}, not {host}"

    def date(self, seconds: float) -> datetime:
        return self.timeline.date(seconds)
