"""Builds do not trust the platform's certificate: curl in them ends with 60, whatever they want to fetch from it.

The worker is installed to trust anything, so builds start all the same and fail later: this belongs to builds that
fail, not to builds that do not start. All workers see one server, so one of them is asked, inside a build image, and
the finding is about the platform.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from bot.core.errors import Unknown
from bot.core.finding import Finding, Severity
from bot.core.fix import Fix, readable
from bot.core.handler import diagnosis
from bot.core.look import Look
from bot.core.target import Role, Target
from handlers.toolbox import platform, tls, worker
from handlers.toolbox.tls import Verdict

LINK = "https://docs.travis-ci.com/user/enterprise/ssl-certificate-management/"


@dataclass(frozen=True)
class Facts:
    """All that was asked: what builds say, what the server sent, its own certificate, and what time it is."""

    domain: str
    builds: tls.Seen
    sent: tls.Handshake
    own: tls.Certificate
    now: datetime
    there: datetime


@diagnosis(
    "certificate wrong",
    of="builds failing",
    each=Role.PLATFORM,
    says="Do builds trust the platform's certificate?",
    unless=("platform.not-ready", "platform.app-stopped"),
    runbook=LINK,
    once=True,
    causes=tls.NAMES,
)
def certificate_wrong(look: Look, machine: Target) -> Iterator[Finding]:
    seen = _asked(look, machine)
    verdict = _verdict(seen)
    if verdict is Verdict.UNTRUSTED and seen.sent.gap and seen.own.public:
        yield _missing_intermediate(look, machine, seen)
    elif verdict in tls.CAUSES:
        yield _wrong(look, machine, seen, verdict)
    elif seen.own.ends < seen.now:
        raise Unknown(
            f"builds trust the certificate, though it ended on {seen.own.ends:%Y-%m-%d} and it is "
            f"{seen.now:%Y-%m-%d %H:%M} on the platform; see which clock is wrong"
        )
    elif seen.own.ends - seen.now < tls.SOON:
        yield _expiring(look, machine, seen)
    for besides in _besides(seen, verdict):
        yield _wrong(look, machine, seen, besides)


def _besides(seen: Facts, verdict: Verdict) -> Iterator[Verdict]:
    """Whoever checks a certificate stops at the first thing that is wrong with it; mended alone, the next one shows."""
    if verdict not in tls.CAUSES:
        return
    if verdict is not Verdict.EXPIRED and seen.own.ends < seen.now:
        yield Verdict.EXPIRED
    if verdict is not Verdict.WRONG_HOST and not seen.own.covers(seen.domain):
        yield Verdict.WRONG_HOST


def _asked(look: Look, machine: Target) -> Facts:
    domain = look.site.domain
    asks = (
        tls.seen_by_builds(domain),
        tls.handshake(domain, tls.HTTPS),
        tls.certificate(domain, tls.HTTPS),
        tls.worker_clock(),
        platform.clock(machine),
    )
    look.together(*asks)
    builds, sent, own, there, now = asks
    return Facts(domain, look(builds), look(sent), look(own), look(now), look(there))


def _verdict(seen: Facts) -> Verdict:
    """Curl's inside the image. Without it only what is so for everybody: the trust store of the host is not theirs."""
    found = seen.builds.verdict
    if found is Verdict.NOT_ASKED:
        found = _without_image(seen)
    if found in (Verdict.EXPIRED, Verdict.NOT_YET) and abs(seen.there - seen.now) > tls.CLOCKS_APART:
        raise Unknown(
            f"the clock of the worker that was asked shows {seen.there:%Y-%m-%d %H:%M} and the platform's "
            f"{seen.now:%Y-%m-%d %H:%M}, so nobody can say whether the certificate is valid; set it right first"
        )
    if found is Verdict.NOT_YET:
        raise Unknown(
            f"builds take the certificate for one that is not valid yet; it begins {seen.own.begins:%Y-%m-%d}"
        )
    return found


def _without_image(seen: Facts) -> Verdict:
    if seen.own.ends < seen.now:
        return Verdict.EXPIRED
    if seen.sent.verdict is Verdict.SELF_SIGNED:
        return Verdict.SELF_SIGNED
    if not seen.own.covers(seen.domain):
        return Verdict.WRONG_HOST
    if seen.sent.verdict is Verdict.GOOD:
        return Verdict.GOOD
    raise Unknown(
        f"OpenSSL on a worker says {seen.sent.code} ({seen.sent.said}), but whether builds see it so is not known: "
        f"{seen.builds.said}"
    )


def _wrong(look: Look, machine: Target, seen: Facts, verdict: Verdict) -> Finding:
    cause, what, wanted = tls.CAUSES[verdict]
    subject = f"the certificate of {seen.domain}"
    if verdict is Verdict.EXPIRED and seen.own.ends > seen.now:
        subject = f"a certificate above that of {seen.domain}"
    return Finding(
        cause,
        Severity.BROKEN,
        machine,
        f"{subject} {what}: builds fail in curl",
        evidence=_evidence(seen),
        fixes=_fixes(look, machine, seen, verdict),
        person=_old_image(seen) or _install(look, wanted),
        link=LINK,
    )


def _old_image(seen: Facts) -> str:
    """The worker trusts the certificate and the image on it does not: its list of authorities is another one."""
    if seen.builds.verdict is not Verdict.UNTRUSTED or seen.sent.verdict is not Verdict.GOOD:
        return ""
    return (
        f"The worker's own list of authorities holds it and that of {tls.IMAGE} does not. For a company's own "
        "authority, use a certificate of a public one; for a public one, the build images are too old."
    )


def _fixes(look: Look, machine: Target, seen: Facts, verdict: Verdict) -> tuple[Fix, ...]:
    """Only what cron would do anyway, and only for the certificate it is made for."""
    own_is_over = verdict is Verdict.EXPIRED and seen.own.ends < seen.now and seen.own.by_lets_encrypt
    if not own_is_over or look.site.version.startswith("3"):
        return ()
    look.together(tls.renewal(machine), worker.init_system(machine))
    if not look(tls.renewal(machine)):
        return ()
    return (tls.renew(machine, seen.domain, look(worker.init_system(machine)) == worker.SYSTEMD),)


def _missing_intermediate(look: Look, machine: Target, seen: Facts) -> Finding:
    where = (
        "3.x has no place for a chain of its own: upload a file that holds both, or use a certificate that needs none."
        if look.site.version.startswith("3")
        else f"Upload a file that holds both, at https://{seen.domain}:8800, Console Settings, TLS Key & Cert."
    )
    return Finding(
        "tls.missing-intermediate",
        Severity.BROKEN,
        machine,
        f"{seen.domain} does not send the certificate between its own and the root: builds fail in curl",
        evidence=_evidence(seen),
        person=f"Append the certificate of {seen.own.issuer} to the platform's own, which comes first. {where} It is "
        f"right when `openssl s_client -connect {seen.domain}:443 -servername {seen.domain} </dev/null` says "
        "Verify return code: 0 (ok). Browsers fetch what is missing, so a look with a browser proves nothing.",
        link=LINK,
    )


def _expiring(look: Look, machine: Target, seen: Facts) -> Finding:
    left = readable(seen.own.ends - seen.now)
    return Finding(
        "tls.expiring",
        Severity.WARN,
        machine,
        f"the certificate of {seen.domain} expires in {left}: then all builds fail in curl",
        evidence=_evidence(seen),
        person=_renewal(look, seen) if seen.own.by_lets_encrypt else _install(look, "valid for longer"),
        link=LINK,
    )


def _renewal(look: Look, seen: Facts) -> str:
    if look.site.version.startswith("3"):
        return (
            "The certificate is fetched anew only when the nginx pod starts: in a quiet moment, `kubectl -n NAMESPACE "
            f"delete pod` the one of nginx, and look whether https://{seen.domain} has a new one."
        )
    return (
        f"In a quiet moment, on the platform: `sudo {tls.SCRIPT}`, which cron should run; it stops and starts the app. "
        "Without that script: `sudo replicatedctl app stop`, `sudo certbot renew`, `sudo replicatedctl app start`."
    )


def _install(look: Look, wanted: str) -> str:
    """Where the certificate is put, in the vendor's own words for the places."""
    if look.site.version.startswith("3"):
        place = "In the admin console: Config, HTTP Setting, upload key and certificate, Save config, Deploy."
    else:
        place = (
            f"At https://{look.site.domain}:8800: Console Settings, TLS Key & Cert, upload the key (not encrypted) and "
            "the certificate with those between it and the root; then restart the app."
        )
    return f"Get a certificate for {look.site.domain} that is {wanted}. {place}"


def _evidence(seen: Facts) -> str:
    asked = seen.builds.verdict is not Verdict.NOT_ASKED
    said = f"curl in {tls.IMAGE} on a worker: {seen.builds.said or 'no complaint'}"
    host = f"OpenSSL on the worker itself: {seen.sent.code} ({seen.sent.said})"
    names = ", ".join(seen.own.names[:5]) or "none"
    return (
        f"{said if asked else f'no build image could be asked ({seen.builds.said})'}; {host}; it is valid until "
        f"{seen.own.ends:%Y-%m-%d %H:%M} UTC, for {names}, issued by {seen.own.issuer}; {len(seen.sent.sent)} sent"
    )
