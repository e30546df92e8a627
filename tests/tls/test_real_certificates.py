"""Each certificate fault, made for real and served for real: what the real curl and the real openssl say of it."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Event

import pytest

from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser, Report
from handlers.toolbox import tls
from handlers.toolbox.tls import Verdict
from tests.rigs.tls import DAY, DOMAIN, Place, sign

SITE = Site(
    "prod",
    DOMAIN,
    "2.2",
    (Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10"), Target("worker-1", Role.WORKER, "prod", "10.0.0.11")),
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as ready:
        yield ready


def look(place: Place) -> Report:
    diagnoser = Diagnoser(SITE, place, lambda target, question, span: None)
    return diagnoser.look(discover().about("certificate wrong"), SITE, Event())


def self_signed(place: Place) -> None:
    place.serve(sign(DOMAIN, names=[DOMAIN]))


def company_root_unsent(place: Place) -> None:
    company = sign("Example Inc/Internal CA", authority=True)
    place.serve(sign(DOMAIN, company, names=[DOMAIN]))


def company_root_sent(place: Place) -> None:
    company = sign("Example Inc/Internal CA", authority=True)
    place.on_hosts = [place.root, company]
    place.serve(sign(DOMAIN, company, names=[DOMAIN]), company)


def expired(place: Place) -> None:
    place.serve(place.signed(DOMAIN, ends=-1 * DAY), place.intermediate)


def expired_above(place: Place) -> None:
    over = sign("Let's Encrypt/R10", place.root, authority=True, ends=-1 * DAY, key=place.intermediate.key)
    place.serve(place.signed(DOMAIN), over)


def wrong_host(place: Place) -> None:
    place.serve(place.signed("ci.example.com", "*.ci.example.com"), place.intermediate)


def no_intermediate(place: Place) -> None:
    place.serve(place.signed(DOMAIN))


def expiring(place: Place) -> None:
    place.serve(place.signed(DOMAIN, ends=10 * DAY), place.intermediate)


BROKEN: dict[str, tuple[Callable[[Place], None], str]] = {
    "self-signed": (self_signed, "tls.self-signed"),
    "company, its root not sent": (company_root_unsent, "tls.untrusted"),
    "company, its root sent": (company_root_sent, "tls.untrusted"),
    "expired": (expired, "tls.expired"),
    "expired above": (expired_above, "tls.expired"),
    "wrong host": (wrong_host, "tls.wrong-host"),
    "no intermediate": (no_intermediate, "tls.missing-intermediate"),
    "expiring": (expiring, "tls.expiring"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_called_by_its_name(place: Place, name: str) -> None:
    make, cause = BROKEN[name]
    if name.startswith("expired"):
        place.serve(place.signed(DOMAIN), place.intermediate)
        assert look(place).findings == ()
    make(place)
    if name == "expired":  # the script of the vendor is asked for, and is not there
        place.script = "stat: cannot statx '/home/ubuntu/renew-certs.sh': No such file or directory\n"
    report = look(place)
    assert report.unknown == ()
    assert [found.finding.cause for found in report.findings] == [cause]
    [finding] = [found.finding for found in report.findings]
    assert finding.target.name == "platform-1"
    assert finding.fixes == ()
    assert finding.person


def good(place: Place) -> None:
    place.serve(place.signed(DOMAIN), place.intermediate)


def thirty_days(place: Place) -> None:
    place.serve(place.signed(DOMAIN, ends=30 * DAY), place.intermediate)


def wildcard(place: Place) -> None:
    place.serve(place.signed("*.example.com"), place.intermediate)


def cross_signed(place: Place) -> None:
    """The root is sent as signed by an older one that nobody knows any more and that has ended."""
    older = sign("Old/Root X3", authority=True, begins=-3650 * DAY, ends=-400 * DAY)
    crossed = sign("Trusted/Root X1", older, authority=True, ends=900 * DAY, key=place.root.key)
    place.serve(place.signed(DOMAIN), place.intermediate, crossed)


def unneeded_root(place: Place) -> None:
    place.serve(place.signed(DOMAIN), place.intermediate, place.root)


def clock_an_hour_off(place: Place) -> None:
    place.clock = timedelta(hours=1)
    good(place)


@pytest.mark.parametrize("make", [good, thirty_days, wildcard, cross_signed, unneeded_root, clock_an_hour_off])
def test_what_only_looks_odd_is_no_finding(place: Place, make: Callable[[Place], None]) -> None:
    make(place)
    report = look(place)
    assert (report.findings, report.unknown) == ((), ())


def test_what_builds_trust_is_not_what_the_worker_trusts(place: Place) -> None:
    company_root_sent(place)
    assert place.know(tls.handshake(DOMAIN, 443)).code == 0
    assert place.know(tls.seen_by_builds(DOMAIN)).verdict is Verdict.UNTRUSTED
    [found] = look(place).findings
    assert "build images are too old" in found.finding.person


CODES = {
    "good": (good, 0),
    "self-signed": (self_signed, 18),
    "no intermediate": (no_intermediate, 21),
    "expired": (expired, 10),
    "wrong host": (wrong_host, 0),  # a host name is curl's to compare
}


@pytest.mark.parametrize("name", CODES)
def test_openssl_names_its_codes_and_what_was_sent(place: Place, name: str) -> None:
    make, code = CODES[name]
    make(place)
    seen = place.know(tls.handshake(DOMAIN, 443))
    assert seen.code == code
    assert seen.gap == (name == "no intermediate")
    own = place.know(tls.certificate(DOMAIN, 443))
    assert own.covers(DOMAIN) == (name != "wrong host")
    assert own.by_lets_encrypt == (name != "self-signed")
    assert own.public == (name != "self-signed")
    assert place.know(tls.expired(DOMAIN, 443)) == (name == "expired")
    assert own.begins < own.ends


@pytest.mark.parametrize("name", ["self-signed", "expired", "wrong host"])
def test_without_the_image_only_what_is_so_for_everybody_is_claimed(place: Place, name: str) -> None:
    place.image = False
    make, cause = BROKEN[name]
    make(place)
    place.script = "stat: cannot statx: No such file or directory\n"
    assert [found.finding.cause for found in look(place).findings] == [cause]


@pytest.mark.parametrize("name", ["company, its root not sent", "no intermediate"])
def test_without_the_image_the_trust_of_the_host_proves_nothing(place: Place, name: str) -> None:
    place.image = False
    BROKEN[name][0](place)
    report = look(place)
    assert report.findings == ()
    assert any("whether builds see it so is not known" in sentence for sentence in report.unknown)


def test_a_clock_that_is_years_off_is_not_the_certificates_fault(place: Place) -> None:
    place.clock = timedelta(days=700)
    expired(place)
    report = look(place)
    assert report.findings == ()
    assert any("the clock of the worker" in sentence for sentence in report.unknown)


def test_a_server_that_is_away_says_nothing_about_its_certificate(place: Place) -> None:
    good(place)
    place.close()
    report = look(place)
    assert report.findings == ()
    assert any("does not reach the platform" in sentence for sentence in report.unknown)
