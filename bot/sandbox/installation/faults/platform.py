"""What can go wrong with the platform itself, its license, its disks and what GitHub sends; and what only looks so."""

import base64
from collections.abc import Callable
from datetime import timedelta

from bot.core.target import Role
from bot.sandbox.installation.faults import SUSPICIOUS, fault
from bot.sandbox.installation.installation import Installation
from bot.sandbox.installation.platform import CERTIFICATE, CONFIGURATION, DATA, ENCRYPTION_KEY, IMAGE, STOPPING
from bot.sandbox.installation.state import Disk, Machine

OLD_HOST = "travis.old.example.com"
LARGE = 10 * 1024**2  # bytes
MOMENT = 2.0  # seconds between the end of a stop and the start of a restart
TOO_MANY = "This SHA and context has reached the maximum number of statuses."


# ---------------------------------------------------------------- the app


@fault("does not get ready", on=Role.PLATFORM, cause="platform.not-ready")
def not_ready(installation: Installation, _machine: Machine) -> None:
    """Its start took longer than ten minutes, so Replicated gave up; another start works."""
    installation.app.fail()


@fault("has its app stopped", on=Role.PLATFORM, cause="platform.not-ready")
def app_stopped(installation: Installation, _machine: Machine) -> None:
    """Somebody stopped the app for a backup, and went home."""
    installation.app.stop()


@fault("lost its container", on=Role.PLATFORM, cause="platform.not-ready")
def container_lost(installation: Installation, machine: Machine) -> None:
    """The kernel killed te-main; Replicated has not noticed, and calls the app started."""
    app = installation.app
    app.lose_power()
    if app.container is not None:
        machine.end(app.container.process)
        app.container.process, app.container.exit = None, 137


@fault("has a web service that ended", on=Role.PLATFORM, cause="platform.uptime-failed")
def web_ended(installation: Installation, _machine: Machine) -> None:
    """travis-api has ended: pages come, answers do not."""
    installation.app.services["travis-api"].stop()


@fault("was restarted", on=Role.PLATFORM, cause=SUSPICIOUS)
def restarted(installation: Installation, _machine: Machine) -> None:
    """Its app was stopped and started again; for a minute it is starting."""
    _restart(installation)


@fault("has an old container", on=Role.PLATFORM, cause=SUSPICIOUS)
def old_container(_installation: Installation, machine: Machine) -> None:
    """A container of the version before is left over; it does not run."""
    old = machine.run_container("trusting_hopper", IMAGE.replace("2.2.19", "2.1.9"), "init", "/sbin/my_init")
    machine.end(old.process)
    old.process = None
    machine.containers.remove(old)
    machine.containers.append(old)


# ---------------------------------------------------------------- what keeps it from starting


@fault("has a directory for a certificate", on=Role.PLATFORM, cause="platform.rabbitmq-cert-directory")
def certificate_folder(installation: Installation, machine: Machine) -> None:
    """Docker has made an empty directory where RabbitMQ's certificate belongs, and cannot start te-main any more."""
    _restart(installation, lambda: machine.folder(CERTIFICATE))


@fault("has its certificate in a directory", on=Role.PLATFORM, cause="platform.rabbitmq-cert-directory")
def certificate_inside(installation: Installation, machine: Machine) -> None:
    """Where RabbitMQ's certificate belongs lies a directory, and in it something that is somebody's."""

    def between() -> None:
        machine.folder(CERTIFICATE)
        machine.write(f"{CERTIFICATE}/rabbitmq.cert", "(simulated)\n")

    _restart(installation, between)


@fault("has the license of another host", on=Role.PLATFORM, cause="platform.license-host")
def license_host(installation: Installation, _machine: Machine) -> None:
    """It was renamed, and its license was not: te-main ends when it starts."""
    installation.app.license.hostname = OLD_HOST
    _restart(installation)


@fault("has an expired license", on=Role.PLATFORM, cause="platform.license-expired")
def license_expired(installation: Installation, machine: Machine) -> None:
    """Its license ended yesterday, and by its policy that stops it."""
    license = installation.app.license
    license.expires, license.policy = machine.timeline.date() - timedelta(days=1), "noupdate-stop"
    _restart(installation)


@fault("has a license that ends soon", on=Role.PLATFORM, cause="platform.license-expiring")
def license_expiring(installation: Installation, machine: Machine) -> None:
    """Its license ends in nine days."""
    installation.app.license.expires = machine.timeline.date() + timedelta(days=9)


@fault("has a license for sixty days", on=Role.PLATFORM, cause=SUSPICIOUS)
def license_lasts(installation: Installation, machine: Machine) -> None:
    """Its license ends in two months, which is time enough."""
    installation.app.license.expires = machine.timeline.date() + timedelta(days=60)


@fault("is unknown to GitHub", on=Role.PLATFORM, cause="platform.oauth-mismatch")
def oauth(installation: Installation, _machine: Machine) -> None:
    """GitHub's OAuth app names another address, so that logins are refused and it never gets ready."""
    installation.app.oauth = False
    _restart(installation)


# ---------------------------------------------------------------- disks


@fault("has a full disk", on=Role.PLATFORM, cause="platform.disk-full")
def disk_full(_installation: Installation, machine: Machine) -> None:
    """The disk is 97 % full of old logs."""
    machine.disk(DATA).fill(97)
    machine.sizes[f"{DATA}/log"] = 28_000_000


@fault("has a disk that fills up", on=Role.PLATFORM, cause="platform.disk-full")
def disk_fills(_installation: Installation, machine: Machine) -> None:
    """The disk is 88 % full; everything works."""
    machine.disk(DATA).fill(88)


@fault("has no inodes left", on=Role.PLATFORM, cause="platform.disk-full")
def no_inodes(_installation: Installation, machine: Machine) -> None:
    """There is room on the disk, but no more files fit on it."""
    disk = machine.disk(DATA)
    disk.inodes_used = disk.inodes


@fault("has a busy disk", on=Role.PLATFORM, cause=SUSPICIOUS)
def disk_busy(_installation: Installation, machine: Machine) -> None:
    """Its data lies on a disk of its own, which is 80 % full."""
    machine.disks.append(Disk("/dev/xvdf", DATA, 103_081_248, 82_464_998))


@fault("has a slow disk", on=Role.PLATFORM, cause=SUSPICIOUS)
def disk_slow(_installation: Installation, machine: Machine) -> None:
    """The cloud throttles its disk to 24 KiB a second: all works, and a backup takes its time."""
    machine.reads = 24 * 1024


@fault("has a large archive", on=Role.PLATFORM, cause=SUSPICIOUS)
def large_archive(_installation: Installation, machine: Machine) -> None:
    """Old build logs, 10 MiB of them, lie packed among its data."""
    packed = machine.random.randbytes(LARGE * 3 // 4)  # nothing in it repeats itself, so it cannot be packed again
    machine.write(f"{DATA}/archive/build-logs.base64", base64.b64encode(packed).decode(), mode=0o640)


@fault("runs out of memory", on=Role.PLATFORM, cause="platform.memory-short")
def memory_short(_installation: Installation, machine: Machine) -> None:
    """Its programs take all memory but 300 MiB."""
    machine.available = 300


# ---------------------------------------------------------------- GitHub


@fault("has too many statuses", on=Role.PLATFORM, cause="github.too-many-statuses")
def statuses(installation: Installation, _machine: Machine) -> None:
    """A commit has a thousand statuses of one name at GitHub, which takes no more."""
    said = f'travis-tasks: task=github_status repo=octo-org/rockets status=422 error="{TOO_MANY}"'
    for _ in range(3):
        installation.app.log(said)


@fault("hears nothing from GitHub", on=Role.PLATFORM, cause="github.webhooks-silent")
def webhooks(installation: Installation, _machine: Machine) -> None:
    """GitHub does not reach it any more: no request came in for a week."""
    _hush(installation, 7)


@fault("heard nothing over night", on=Role.PLATFORM, cause=SUSPICIOUS)
def quiet_night(installation: Installation, _machine: Machine) -> None:
    """Nobody pushed for nine hours."""
    _hush(installation, 9 / 24)


def _hush(installation: Installation, days: float) -> None:
    """As if all requests had come so much earlier, and none comes any more."""
    if installation.database is not None:
        installation.database.hears_github = False
        installation.database.rewrite("UPDATE requests SET created_at = created_at - %s * interval '1 day'", days)


def _restart(installation: Installation, between: Callable[[], None] = lambda: None) -> None:
    """Stop it, and start it again as soon as it has ended."""
    app, timeline = installation.app, installation.timeline

    def start() -> None:
        between()
        app.start()

    app.stop()
    timeline.after(STOPPING + MOMENT, start)


@fault("has another encryption key", on=Role.PLATFORM, cause="key.changed")
def another_key(_installation: Installation, machine: Machine) -> None:
    """Somebody typed another key into the settings: it opens nothing of what the database holds."""
    file = machine.files[CONFIGURATION]
    file.text = file.text.replace(ENCRYPTION_KEY, ENCRYPTION_KEY[::-1])
