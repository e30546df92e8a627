"""The platform's app: what Replicated knows of it, and the services inside te-main, each of which can stop.

Change the state, and everything else follows (`app = installation.app`):

    app.stop(), app.start()                 as `replicatedctl app stop|start`: takes its time, the workers are cut off
    app.oauth = False                       GitHub's OAuth app is for another address: the next start never gets ready
    app.license.hostname = "old.example"    the next start never gets ready; so does a license that has ended and stops
    app.license.expires = date              an aware datetime; `app.license.policy = "noupdate-stop"` makes it matter
    machine.folder(CERTIFICATE)             in place of the file: docker cannot start te-main
    machine.disk("/var/travis").fill(100)   the database cannot start
    app.settings["hostname"] = "…"          what `replicatedctl app-config export` says; `app.hidden` with --hidden
    app.services["travis-hub-drain"].stop() a service ends; `.start()`; `.broken = True`: it cannot start until healed
    app.fail()                              as if a start had waited ten minutes for the ready state, now
    app.log("…")                            a line into /var/travis/log/travis.log

`app.uptime()` is what https://…/api/uptime answers, from the state of te-main, its web services and the database.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from bot.sandbox.installation.state import Container, Machine
from bot.sandbox.installation.timeline import Event

if TYPE_CHECKING:
    from bot.sandbox.installation.installation import Installation

IMAGE = "registry.replicated.com/travisci/te-main:2.2.19"
NAMES = ("sleepy_dewdney", "boring_wright", "elated_hodgkin", "quirky_noether", "zen_lovelace")  # docker picks one
CERTIFICATE = "/etc/travis/ssl/rabbitmq.cert"
CONFIGURATION = "/usr/local/travis/etc/travis/config/travis.yml"
ENCRYPTION_KEY = "simulated-key-of-travis-0123456789abcdef"
CERTIFICATE_TEXT = "-----BEGIN CERTIFICATE-----\n(simulated)\n-----END CERTIFICATE-----\n"
DATA = "/var/travis"
LOG = f"{DATA}/log/travis.log"
STOPPING, STARTING = 8.0, 60.0  # seconds until te-main is gone, and until all in it answers
READY_WITHIN, CHECKING = 600.0, 15.0
NOT_READY = "Ready state command canceled: context deadline exceeded"
SYNCING = 20.0  # seconds that a user's sync takes
FULL = 100  # percent of a disk from which on the database cannot write
NEVER = "0001-01-01T00:00:00Z"  # as Go writes a time that is not set


@dataclass(eq=False)
class License:
    """What Replicated was given; `hostname` lies in a value of its own, YAML in a field."""

    hostname: str
    expires: datetime | None = None
    policy: str = "ignore"  # noupdate-norestart, noupdate-stop
    seats: int = 50
    id: str = "8f4d3c2b1a0987654321fedcba098765"

    def lets_start(self, host: str, now: datetime) -> bool:
        ended = self.expires is not None and self.expires <= now and self.policy != "ignore"
        return self.hostname.lower() == host.lower() and not ended

    def said(self, now: datetime) -> Mapping[str, Any]:
        """As `replicatedctl license inspect -o json`."""
        te_license = f"---\nlicense_id: {self.id[:8]}\nhostname: {self.hostname}\nseats: {self.seats}\n"
        return {
            "ID": self.id,
            "Assignee": "Example Inc",
            "ChannelName": "Stable",
            "LicenseType": "prod",
            "ExpirationTime": self.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if self.expires else NEVER,
            "ExpirationPolicy": self.policy,
            "IsExpired": self.expires is not None and self.expires <= now,
            "Fields": [
                {"Field": "te_license", "Title": "License", "Type": "Text", "Value": te_license},
                {"Field": "seats", "Title": "Seats", "Type": "Integer", "Value": str(self.seats)},
            ],
        }


@dataclass(eq=False)
class Inside:
    """A service in te-main, as runit sees it."""

    name: str
    starts: Callable[[], None]
    stops: Callable[[], None]
    runs: Callable[[], bool]
    now: Callable[[], float]
    broken: bool = False
    since: float = 0.0

    @property
    def running(self) -> bool:
        return self.runs()

    def start(self) -> None:
        if not self.running and not self.broken:
            self.starts()
            self.since = self.now()

    def stop(self) -> None:
        if self.running:
            self.stops()
            self.since = self.now()


@dataclass(eq=False)
class App:
    """The application as Replicated runs it on one machine."""

    installation: "Installation"
    machine: Machine
    license: License
    settings: dict[str, str]
    hidden: dict[str, str]
    state: str = "started"
    desired: str = "started"
    error: str = ""
    since: float = 0.0
    oauth: bool = True
    services: dict[str, Inside] = field(default_factory=dict)
    _plain: dict[str, bool] = field(default_factory=dict)
    _events: list[Event] = field(default_factory=list)
    _started: int = 0

    def __post_init__(self) -> None:
        self.services = {each.name: each for each in _services(self)}
        self.since = self.machine.timeline.now()
        self._plain = dict.fromkeys(PLAIN, True)

    # what Replicated does

    @property
    def container(self) -> Container | None:
        return next((c for c in self.machine.containers if "te-main" in c.image), None)

    @property
    def up(self) -> bool:
        return self.machine.up and self.container is not None and self.container.running

    def stop(self) -> None:
        self.desired = "stopped"
        if self.state != "stopped":
            self._turn("stopping")
            self._later(STOPPING, self._stopped)

    def start(self) -> None:
        self.desired = "started"
        if self.state in ("started", "starting"):
            return
        self._turn("starting")
        self._put_down()
        if not self._run():
            self._turn("stopped", self.container.error if self.container else "")
            return
        self._later(STARTING, self._come_up)
        self._later(READY_WITHIN, self.fail)

    def fail(self) -> None:
        """It was not ready within ten minutes; Replicated gives up and takes it down."""
        self._put_down()
        self._turn("stopped", NOT_READY)
        self.log(f"replicated: {NOT_READY}")

    def _stopped(self) -> None:
        self._put_down()
        self._turn("stopped")

    def _run(self) -> bool:
        """Docker runs the container; a mount of a folder where a file belongs is refused."""
        name = NAMES[self._started % len(NAMES)]
        self._started += 1
        made = self.machine.run_container(name, IMAGE, "init", "/sbin/my_init")
        made.hostname = "te-main"
        file = self.machine.files.get(CERTIFICATE)
        if file is None:
            self.machine.write(CERTIFICATE, CERTIFICATE_TEXT)  # Replicated makes a new one
        if file is None or not file.folder:
            return True
        made.error, made.exit = _not_a_file(CERTIFICATE), 128
        self.machine.end(made.process)
        made.process = None
        return False

    def _come_up(self) -> None:
        now = self.machine.timeline.date()
        if not self.license.lets_start(self.settings["hostname"], now):
            self.log("license: the hostname or the date does not fit this installation")
            self._end(1)
            return
        self._start_services()
        if not self.oauth:
            self.log('travis-web: error=redirect_uri_mismatch description="The redirect_uri MUST match"')
        self._check()

    def _check(self) -> None:
        """The ready state command, until it succeeds."""
        if self.oauth and self.uptime() == 200:
            self._forget_events()
            self._turn("started")
            self.log("replicated: ready state command succeeded")
        else:
            self._later(CHECKING, self._check)

    def _start_services(self) -> None:
        disk = self.machine.disk(DATA)
        full = disk.used * 100 >= disk.size * FULL
        for service in self.services.values():
            if not (full and service.name == "postgresql"):
                service.start()

    def _put_down(self) -> None:
        """The container goes, and everything in it."""
        self._forget_events()
        for service in self.services.values():
            service.stop()
        for container in [c for c in self.machine.containers if "te-main" in c.image]:
            self.machine.remove_container(container)

    def _end(self, status: int) -> None:
        """The container ends by itself, and stays as docker keeps one that has exited."""
        for service in self.services.values():
            service.stop()
        if self.container is not None:
            self.machine.end(self.container.process)
            self.container.process, self.container.exit = None, status

    def lose_power(self) -> None:
        self._forget_events()
        for service in self.services.values():
            service.stop()

    def power_on(self) -> None:
        """Replicated brings back what ran: te-main, and in it all that can start."""
        if self.desired == "started" and self.container is not None:
            self._start_services()

    def _turn(self, state: str, error: str = "") -> None:
        self.state, self.error, self.since = state, error, self.machine.timeline.now()

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        self._events.append(self.machine.timeline.after(seconds, do))

    def _forget_events(self) -> None:
        for event in self._events:
            event.cancelled = True
        self._events.clear()

    def age(self, seconds: float) -> None:
        """As if it and its services had started so long ago."""
        self.since -= seconds
        for service in self.services.values():
            service.since -= seconds

    # what it says

    def status(self) -> Mapping[str, Any]:
        """As `replicatedctl app status -o json`."""
        changed = self.machine.timeline.date(self.since).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
        return {
            "AppID": "b2c3d4e5f60718293a4b5c6d7e8f9012",
            "Sequence": 219,
            "PatchSequence": 0,
            "State": self.state,
            "DesiredState": self.desired,
            "Error": self.error,
            "IsCancellable": self.state == "starting",
            "IsTransitioning": self.state in ("starting", "stopping"),
            "LastModifiedAt": changed,
        }

    def uptime(self) -> int:
        """The status of https://…/api/uptime: 0 when nothing listens. It proves the web service and the database."""
        if not self.up or not self.services["nginx"].running:
            return 0
        if not self.services["travis-api"].running or (self.state == "starting" and not self.oauth):
            return 502
        database = self.installation.database
        return 500 if database is not None and (not database.running or database.refuses) else 200

    def page(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the web service."""
        api = self.uptime()
        if api == 0 or path == "/api/uptime":
            return api, {200: "OK", 500: "Error: could not connect to the database"}.get(api, "")
        if path.startswith("/__build__"):
            return (200, '{"uptime":true}') if self.services["travis-build"].running else (502, "")
        return 200, "<!DOCTYPE html><title>Travis CI Enterprise</title>"

    def log(self, text: str) -> None:
        at = self.machine.timeline.date().strftime("%Y-%m-%dT%H:%M:%SZ")
        file = self.machine.files.get(LOG)
        if file is not None:
            file.text = f"{file.text}{at} {text}\n"[-1_000_000:]

    # what its services do

    def sync_users(self, logins: tuple[str, ...]) -> None:
        """`travis sync_users --logins=…`; without logins it is everybody. Done after a while, if somebody does it."""
        database = self.installation.database
        if database is None:
            return
        database.run("UPDATE users SET is_syncing = true WHERE %s OR login = ANY(%s)", not logins, list(logins))
        if self.services["travis-github-sync"].running:
            self.machine.timeline.after(SYNCING, lambda: self._synced(logins))

    def _synced(self, logins: tuple[str, ...]) -> None:
        database = self.installation.database
        if database is not None:
            done = "UPDATE users SET is_syncing = false, synced_at = now() WHERE %s OR login = ANY(%s)"
            database.run(done, not logins, list(logins))


def _not_a_file(path: str) -> str:
    quote = '\\\\\\"'
    return (
        'oci runtime error: container_linux.go:247: starting container process caused "process_linux.go:359: container '
        f'init caused \\"rootfs_linux.go:54: mounting {quote}{path}{quote} to rootfs '
        f'caused {quote}not a directory{quote}\\""'
    )


PLAIN = (
    "nginx", "travis-api", "travis-build", "travis-web", "travis-listener", "travis-live", "slanger",
)  # fmt: skip
SIDEKIQ = {
    "travis-hub": "hub", "travis-scheduler": "scheduler", "travis-tasks": "tasks", "travis-logs": "logs",
    "travis-github-sync": "github-sync", "travis-gatekeeper": "gatekeeper",
}  # fmt: skip
DRAINS = {"travis-hub-drain": "reporting.jobs.builds", "travis-logs-drain": "reporting.jobs.logs"}


def _services(app: App) -> list[Inside]:
    """In the order in which they start."""
    now = app.machine.timeline.now
    own = [
        Inside("postgresql", lambda: _set_database(app, True), lambda: _set_database(app, False), _database(app), now),
        Inside("redis", lambda: _set_redis(app, True), lambda: _set_redis(app, False), _redis(app), now),
        Inside(
            "rabbitmq", app.installation.broker.start, app.installation.broker.stop,
            lambda: app.installation.broker.serves, now,
        ),
    ]  # fmt: skip
    own += [_plain_service(app, name) for name in PLAIN]
    own += [_sidekiq_service(app, name, tag) for name, tag in SIDEKIQ.items()]
    return own + [_drain_service(app, name, queue) for name, queue in DRAINS.items()]


def _database(app: App) -> Callable[[], bool]:
    return lambda: app.installation.database is None or app.installation.database.running


def _set_database(app: App, running: bool) -> None:
    if app.installation.database is not None:
        app.installation.database.running = running


def _redis(app: App) -> Callable[[], bool]:
    return lambda: app.installation.redis.running


def _set_redis(app: App, running: bool) -> None:
    app.installation.redis.running = running


def _plain_service(app: App, name: str) -> Inside:
    def turn(running: bool) -> Callable[[], None]:
        return lambda: app._plain.__setitem__(name, running)

    return Inside(name, turn(True), turn(False), lambda: app._plain[name], app.machine.timeline.now)


def _sidekiq_service(app: App, name: str, tag: str) -> Inside:
    redis = app.installation.redis
    return Inside(
        name, lambda: redis.start_sidekiq(tag), lambda: redis.stop_sidekiq(tag), lambda: redis.alive(tag),
        app.machine.timeline.now,
    )  # fmt: skip


def _drain_service(app: App, name: str, queue: str) -> Inside:
    broker = app.installation.broker

    def start() -> None:
        broker.drains.add(queue)
        if broker.serves:
            broker.drain()

    return Inside(name, start, lambda: broker.undrain(queue), lambda: queue in broker.drains, app.machine.timeline.now)


CONFIGURATION_TEXT = f"""\
production:
  domain: travis.example.com
  encryption:
    key: {ENCRYPTION_KEY}
"""


def install(installation: "Installation", machine: Machine, domain: str) -> App:
    """The app on a platform machine that has its containers already, running, with its files."""
    machine.write(CERTIFICATE, CERTIFICATE_TEXT)
    machine.write("/etc/travis/ssl/rabbitmq.key", "(simulated)\n", mode=0o600)
    for folder in (DATA, "/var/lib/replicated", "/var/lib/docker"):
        machine.folder(folder)
    machine.write(LOG, "")
    machine.write(CONFIGURATION, CONFIGURATION_TEXT, mode=0o600)
    machine.write(f"{DATA}/postgresql/9.6/main/postmaster.pid", "412\n", mode=0o600)
    machine.sizes |= {
        f"{DATA}/postgresql": 1_204_300, f"{DATA}/log": 310_200, f"{DATA}/redis": 9_204, f"{DATA}/rabbitmq": 20_408,
        "/var/lib/docker/overlay2": 4_803_120, "/var/lib/replicated/snapshots": 204_800, "/var/log/upstart": 20_480,
    }  # fmt: skip
    settings = {"hostname": domain, "github_type": "github_type_public", "enable_ha": "0", "tls_key_name": "server.key"}
    hidden = {"rabbitmq_password": installation.password, "encryption_key": "(simulated)"}
    expires = machine.timeline.date() + timedelta(days=300)
    app = App(installation, machine, License(domain, expires), settings, hidden)
    for service in app.services.values():
        service.start()
    return app


def exported(app: App, hidden: bool) -> str:
    """As `replicatedctl app-config export -o json`."""
    items = app.settings | (app.hidden if hidden else {})
    return json.dumps({name: {"value": value} for name, value in items.items()}, indent=4) + "\n"
