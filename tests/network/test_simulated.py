"""The diagnoses of the network, and those that they explain, on the simulated machines."""

from threading import Event as Flag

import pytest

from bot.core.finding import Finding, Severity
from bot.engine.discovery import discover
from bot.engine.rounds import Report
from bot.sandbox.installation import FAULTS
from bot.sandbox.installation.faults import SUSPICIOUS, inject
from bot.sandbox.installation.faults.network import OTHER_NAME, SLOW
from handlers.toolbox import network
from tests.installation.console import pass_time
from tests.installation.tripwires import Tripwires
from tests.network.machines import Simulated

CATALOGUE = discover()
OURS = ("network name", "network ports", "network listeners", "network dashboard")
EXPLAINED = ("worker lost rabbitmq", "worker keeps ending")
BROKER = "rabbitmq down"
BOTH = pytest.mark.parametrize("name", ["worker-1", "worker-3"])  # systemd, upstart
OF_WORKERS = {
    "cannot reach RabbitMQ": "net.port-blocked",
    "cannot fetch build scripts": "net.port-blocked",
    "cannot resolve the platform": "net.dns",
    "is refused by RabbitMQ's port": "net.port-refused",
    "meets a silent proxy": "net.amqp-silent",
}
ODD = (
    "has a slow network",
    "may not see the dashboard",
    "knows RabbitMQ by another name",
    "has a firewall that came later",
)


@pytest.fixture
def simulated() -> Simulated:
    return Simulated()


def look(simulated: Simulated, *more: str) -> Report:
    names = (*OURS, *EXPLAINED, *more)
    return simulated.diagnoser.look([CATALOGUE.diagnoses[name] for name in names], simulated.site, Flag())


def troubles(report: Report) -> list[Finding]:
    return [found.finding for found in report.troubles()]


@pytest.fixture(autouse=True)
def nothing_else_happens(simulated: Simulated, tripwires: Tripwires) -> object:
    with tripwires.across():
        yield
    assert simulated.unknown() == tripwires.tripped == []
    assert simulated.changes() == []


def test_a_healthy_network_is_silent(simulated: Simulated) -> None:
    report = look(simulated)
    assert (report.findings, report.unknown) == ((), ())


@BOTH
@pytest.mark.parametrize("fault", OF_WORKERS)
def test_each_fault_is_found_from_the_worker(simulated: Simulated, name: str, fault: str) -> None:
    inject(simulated.installation, f"{name} {fault}")
    pass_time(simulated.installation, 120)
    [finding] = troubles(look(simulated))
    assert (finding.cause, finding.target.name) == (OF_WORKERS[fault], name) == (FAULTS[fault.lower()].cause, name)
    assert finding.severity is Severity.BROKEN
    assert finding.person
    assert finding.fixes == ()
    assert simulated.installation.password not in repr(finding)


@BOTH
@pytest.mark.parametrize("fault", sorted(set(OF_WORKERS) - {"cannot fetch build scripts"}))
def test_what_follows_is_shown_under_it(simulated: Simulated, name: str, fault: str) -> None:
    inject(simulated.installation, f"{name} {fault}")
    under = set()
    for _ in range(40):  # a worker that keeps ending looks different from second to second
        pass_time(simulated.installation, 3)
        under |= {(found.by, found.under) for found in look(simulated).findings if found.by in EXPLAINED}
    assert ("worker keeps ending", OF_WORKERS[fault]) in under
    assert {cause for _, cause in under} == {OF_WORKERS[fault]}


@BOTH
def test_a_lost_worker_is_shown_under_a_firewall(simulated: Simulated, name: str) -> None:
    """It lives on without a connection, and a restart would not give it one."""
    inject(simulated.installation, f"{name} lost RabbitMQ")
    inject(simulated.installation, f"{name} has a firewall that came later")
    pass_time(simulated.installation, 300)
    lost = [found for found in look(simulated).findings if found.by == "worker lost rabbitmq"]
    assert [(found.under, found.finding.fixes) for found in lost] == [("net.port-blocked", ())]


@BOTH
@pytest.mark.parametrize("fault", ODD)
def test_what_only_looks_odd_raises_no_alarm(simulated: Simulated, name: str, fault: str) -> None:
    assert FAULTS[fault.lower()].cause == SUSPICIOUS
    inject(simulated.installation, f"{name} {fault}")
    pass_time(simulated.installation, 300)
    assert troubles(look(simulated)) == []
    assert simulated.installation.worker(name).connection is not None


def test_a_slow_network_is_slow_and_answers(simulated: Simulated) -> None:
    inject(simulated.installation, "worker-1 has a slow network")
    before = simulated.installation.timeline.now()
    assert troubles(look(simulated)) == []
    assert simulated.installation.timeline.now() - before >= 2 * SLOW


def test_a_network_that_is_too_slow_is_none(simulated: Simulated) -> None:
    simulated.installation.machine("worker-1").latency = 30
    simulated.installation.worker("worker-1").lose_power(simulated.installation.worker("worker-1").unit)
    assert [finding.cause for finding in troubles(look(simulated))] == ["net.port-blocked"]


@BOTH
def test_a_firewall_is_opened_and_all_is_well(simulated: Simulated, name: str) -> None:
    inject(simulated.installation, f"{name} cannot reach RabbitMQ")
    pass_time(simulated.installation, 120)
    assert troubles(look(simulated))
    simulated.installation.machine(name).blocked.clear()
    pass_time(simulated.installation, 120)
    assert troubles(look(simulated)) == []


def test_the_person_is_told_the_exact_rule(simulated: Simulated) -> None:
    inject(simulated.installation, "worker-2 cannot reach RabbitMQ")
    inject(simulated.installation, "worker-2 cannot fetch build scripts")
    pass_time(simulated.installation, 60)
    [finding] = troubles(look(simulated))
    for words in ("5672", "443", "127.0.0.23/32", "travis.example.com (127.0.0.21)"):
        assert words in finding.person
    assert "5672 (RabbitMQ): no answer, 443 (build scripts): no answer" in finding.evidence


def test_a_broker_that_is_down_explains_the_refused_ports(simulated: Simulated) -> None:
    inject(simulated.installation, "platform-1 has no RabbitMQ")
    pass_time(simulated.installation, 60)
    report = look(simulated, BROKER)
    refused = [found for found in report.findings if found.by == "network listeners"]
    assert [found.under for found in refused] == ["broker.down"] * 3
    assert [finding.cause for finding in troubles(report)] == ["broker.down"]


@pytest.mark.parametrize(
    ("fault", "by", "cause"),
    [
        ("platform-1 has its app stopped", "platform app not ready", "platform.not-ready"),
        ("worker-1 looks for the old host", "worker has the wrong host", "worker.host-mismatch"),
    ],
)
def test_what_others_name_is_no_trouble_of_the_network(simulated: Simulated, fault: str, by: str, cause: str) -> None:
    inject(simulated.installation, fault)
    pass_time(simulated.installation, 900)
    report = look(simulated, by)
    ours = {found.under for found in report.findings if found.finding.cause.startswith("net.")}
    assert ours == {cause}
    assert {finding.cause for finding in troubles(report)} == {cause}


def test_a_broker_with_tls_alone_refuses_everybody(simulated: Simulated) -> None:
    inject(simulated.installation, "platform-1 offers RabbitMQ by TLS alone")
    pass_time(simulated.installation, 60)
    found = troubles(look(simulated, BROKER))
    assert [(finding.cause, finding.target.name) for finding in found] == [
        ("net.port-refused", f"worker-{no}") for no in (1, 2, 3)
    ]
    assert "amqps://" in found[0].person


def test_a_platform_that_is_off_is_no_firewall(simulated: Simulated) -> None:
    inject(simulated.installation, "platform-1 is unreachable")
    pass_time(simulated.installation, 60)
    assert not [finding for finding in troubles(look(simulated)) if finding.cause.startswith("net.")]


def test_the_dashboard(simulated: Simulated) -> None:
    inject(simulated.installation, "platform-1 dashboard is down")
    [finding] = troubles(look(simulated))
    assert (finding.cause, finding.severity) == ("platform.dashboard-unreachable", Severity.WARN)
    assert (finding.target.name, bool(finding.person)) == ("platform-1", True)


def test_a_name_that_a_worker_in_its_container_still_knows(simulated: Simulated) -> None:
    """Its machine does not resolve it, and it is connected: worth a word, but nothing is broken."""
    simulated.installation.machine("worker-1").names.clear()
    [finding] = troubles(look(simulated))
    assert (finding.cause, finding.severity) == ("net.dns", Severity.WARN)


def test_the_other_name_is_asked_for(simulated: Simulated) -> None:
    """What the worker's own configuration names, and not what somebody would guess."""
    inject(simulated.installation, "worker-1 knows RabbitMQ by another name")
    simulated.installation.machine("worker-1").names.pop(OTHER_NAME)
    worker = simulated.installation.worker("worker-1")
    worker.lose_power(worker.unit)
    worker.unit.start()
    pass_time(simulated.installation, 60)
    [finding] = troubles(look(simulated))
    assert finding.cause == "net.dns"
    assert OTHER_NAME in finding.title
    assert "travis.example.com" in finding.person


def test_at_most_three_rounds(simulated: Simulated) -> None:
    inject(simulated.installation, "worker-1 cannot reach RabbitMQ")
    ours = [CATALOGUE.diagnoses[name] for name in OURS]
    assert simulated.diagnoser.look(ours, simulated.site, Flag()).troubles()
    assert (simulated.asked.count("worker-1"), simulated.asked.count("platform-1")) == (2, 2)


@pytest.mark.parametrize(
    ("uri", "host", "port", "tls", "implied"),
    [
        ("amqp://[masked]@travis.example.com/travis", "travis.example.com", 5672, False, False),
        ("amqps://[masked]@travis.example.com/travis", "travis.example.com", 5671, True, True),
        ("amqps://[masked]@travis.example.com:5671/travis", "travis.example.com", 5671, True, False),
        ("AMQP://u:p@10.0.0.10:5673", "10.0.0.10", 5673, False, False),
        ("amqp://u:p@[2001:db8::1]:5672/travis", "2001:db8::1", 5672, False, False),
        ("https://travis.example.com:8443/__build__/script", "travis.example.com", 8443, False, False),
        ("http://[masked]@travis.example.com?x=1", "travis.example.com", 80, False, False),
    ],
)
def test_where_an_address_leads(uri: str, host: str, port: int, tls: bool, implied: bool) -> None:
    assert network.endpoint(uri, "") == network.Endpoint(host, port, "", tls, implied)


def test_an_address_with_tls_and_no_port_is_told_so_and_no_firewall(simulated: Simulated) -> None:
    inject(simulated.installation, "worker-1 uses TLS and names no port")
    pass_time(simulated.installation, 60)
    [finding] = troubles(look(simulated))
    assert (finding.cause, finding.target.name, finding.fixes) == ("net.port-refused", "worker-1", ())
    assert "write travis.example.com:4567 there" in finding.person
    assert "firewall" not in finding.person


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "[masked]",
        "amqp://",
        "amqp://[masked]@/travis",
        "amqp://a;id/travis",
        "amqp://a:99999/",
        "ftp://a/",
        "amqp://$(id)/",
    ],
)
def test_an_address_that_leads_nowhere(uri: str) -> None:
    assert network.endpoint(uri, "") is None
