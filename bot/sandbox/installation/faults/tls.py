"""What can be wrong with the platform's certificates and with what builds fetch, and what only looks so."""

from collections.abc import Callable
from dataclasses import replace

from bot.core.target import Role
from bot.sandbox.installation.broker import TLS_PORT
from bot.sandbox.installation.faults import SUSPICIOUS, fault, no_snap
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.programs.tls import SCRIPT
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.tls import DAY, LETS_ENCRYPT, PUBLIC, Certificate
from bot.sandbox.installation.worker import main_settings

HTTPS = 443
COMPANY = "O = Example Inc, CN = Example Internal CA"
COMMERCIAL = "C = US, O = DigiCert Inc, CN = DigiCert TLS RSA SHA256 2020 CA1"
OLD_ROOT = "O = Digital Signature Trust Co., CN = DST Root CA X3"
RENEW = """\
#!/bin/bash
replicatedctl app stop
sleep 20
certbot renew
replicatedctl app start
"""
Change = Callable[[Certificate], Certificate]


@fault("has a self-signed certificate", on=Role.PLATFORM, cause="tls.self-signed")
def self_signed(installation: Installation, _machine: Machine) -> None:
    """The platform was installed with the certificate that it made for itself."""
    _serve(installation, _self_signed)


@fault("has a certificate of the company", on=Role.PLATFORM, cause="tls.untrusted")
def untrusted(installation: Installation, _machine: Machine) -> None:
    """Its certificate comes from the company's own authority, which machines know and build images do not."""
    installation.tls.on_hosts.add(COMPANY)
    _serve(installation, lambda good: replace(good, issuer=COMPANY, above=(), fetch=False))


@fault("has an expired certificate", on=Role.PLATFORM, cause="tls.expired")
def expired(installation: Installation, _machine: Machine) -> None:
    """A certificate that was bought for a year has ended, and nobody bought the next one."""
    past = installation.timeline.now() - 2 * DAY
    _serve(installation, lambda good: replace(good, begins=past - 365 * DAY, ends=past))
    _serve(installation, lambda good: replace(good, issuer=COMMERCIAL, above=((COMMERCIAL, PUBLIC),)))


@fault("has not renewed its certificate", on=Role.PLATFORM, cause="tls.expired")
def not_renewed(installation: Installation, machine: Machine) -> None:
    """Cron was off when the vendor's script should have renewed the Let's Encrypt certificate, which has ended."""
    _script(machine)
    past = installation.timeline.now() - DAY
    _serve(installation, lambda good: replace(good, begins=past - 90 * DAY, ends=past))


@fault("has a certificate that ends soon", on=Role.PLATFORM, cause="tls.expiring")
def expiring(installation: Installation, _machine: Machine) -> None:
    """Ten days are left, and cron renews it in a month."""
    installation.tls.serve(HTTPS, installation.tls.good(10))


@fault("has a certificate of another host", on=Role.PLATFORM, cause="tls.wrong-host")
def wrong_host(installation: Installation, _machine: Machine) -> None:
    """The platform was given a new name, and kept its certificate."""
    _serve(installation, lambda good: replace(good, subject="CN = ci.example.com", names=("ci.example.com",)))


@fault("sends no intermediate certificate", on=Role.PLATFORM, cause="tls.missing-intermediate")
def no_intermediate(installation: Installation, _machine: Machine) -> None:
    """Somebody uploaded the certificate without the one between it and the root."""
    _serve(installation, lambda good: replace(good, above=()))


@fault("has a certificate for 30 days", on=Role.PLATFORM, cause=SUSPICIOUS)
def thirty_days(installation: Installation, _machine: Machine) -> None:
    """Its certificate ends in thirty days: cron renews it before."""
    installation.tls.serve(HTTPS, installation.tls.good(30))


@fault("has a wildcard certificate", on=Role.PLATFORM, cause=SUSPICIOUS)
def wildcard(installation: Installation, _machine: Machine) -> None:
    """One certificate for all hosts of the domain."""
    _serve(installation, lambda good: replace(good, subject="CN = *.example.com", names=("*.example.com",)))


@fault("sends a cross-signed root", on=Role.PLATFORM, cause=SUSPICIOUS)
def cross_signed(installation: Installation, _machine: Machine) -> None:
    """It sends its root as signed by an older one that has ended, which nobody needs."""
    _serve(installation, lambda good: replace(good, above=((LETS_ENCRYPT, PUBLIC), (PUBLIC, OLD_ROOT))))


@fault("has a clock that is an hour off", cause=SUSPICIOUS)
def clock_off(_installation: Installation, machine: Machine) -> None:
    """Nobody keeps the worker's clock right; an hour matters to no certificate."""
    machine.clock = 3600.0


@fault("has no default build image", cause=SUSPICIOUS)
def no_image(_installation: Installation, machine: Machine) -> None:
    """Only images of single languages are installed, so that the certificate cannot be tried in the usual one."""
    no_snap(machine)
    machine.docker.images = {"travis:ruby"}


@fault("offers RabbitMQ with a self-signed certificate", on=Role.PLATFORM, cause="tls.self-signed")
def self_signed_broker(installation: Installation, _machine: Machine) -> None:
    """Workers were told to use AMQP with TLS, and trust the certificate of RabbitMQ as little as anybody does."""
    installation.tls.serve(TLS_PORT, _self_signed(installation.tls.served[TLS_PORT]))
    _use_tls(installation, "")


@fault("offers RabbitMQ with a certificate that workers ignore", on=Role.PLATFORM, cause=SUSPICIOUS)
def ignored_broker(installation: Installation, _machine: Machine) -> None:
    """The same, and workers were told to trust anybody."""
    installation.tls.serve(TLS_PORT, _self_signed(installation.tls.served[TLS_PORT]))
    _use_tls(installation, "export AMQP_INSECURE=true\n")


@fault("has builds that resolve no names", on=Role.PLATFORM, cause="build.download-failed")
def no_names(installation: Installation, _machine: Machine) -> None:
    """Builds of several repositories fail at their first download, since their containers find no name server."""
    _fail(installation, (1, 2, 3, 1), "curl: (6) Could not resolve host: raw.githubusercontent.com")


@fault("has one repository with a dead address", on=Role.PLATFORM, cause=SUSPICIOUS)
def dead_address(installation: Installation, _machine: Machine) -> None:
    """Every build of one repository fetches from a host that is gone, which is its own affair."""
    _fail(installation, (2, 2, 2, 2), "curl: (6) Could not resolve host: files.gone.example")


def _serve(installation: Installation, change: Change) -> None:
    installation.tls.serve(HTTPS, change(installation.tls.served[HTTPS]))


def _self_signed(good: Certificate) -> Certificate:
    return replace(good, issuer=good.subject, above=(), fetch=False)


def _script(machine: Machine) -> None:
    machine.folder("/home/ubuntu", "ubuntu")
    machine.write(SCRIPT, RENEW, "ubuntu", 0o755)


def _use_tls(installation: Installation, more: str) -> None:
    for machine in installation.workers():
        text = machine.read(main_settings(machine)) or ""
        address = text.replace("amqp://", "amqps://").replace("example.com/travis", f"example.com:{TLS_PORT}/travis")
        machine.write(main_settings(machine), address + more, mode=0o640)
        worker = installation.worker(machine.name)
        worker.lose_power(worker.unit)
        worker.unit.start()


def _fail(installation: Installation, repositories: tuple[int, ...], said: str) -> None:
    database = installation.database
    if database is None:
        return
    for minutes, repository in enumerate(repositories, 3):
        job = database.add_job("errored", ago=60.0 * minutes, repository_id=repository)
        text = f"travis_fold:start:nvm.install\r\n{said}\r\nThe command failed and exited with 6.\r\n"
        database.run(
            "INSERT INTO logs (job_id, content, created_at, updated_at, aggregated_at) "
            "VALUES (%s, %s, now(), now(), now())",
            job,
            text,
        )
