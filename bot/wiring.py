"""The composition root: settings -> adapters -> engine -> Slack and console. Everything is put together here, once."""

import json
import logging
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from bot.adapters import embedded
from bot.adapters.console import Console
from bot.adapters.containers import Containers
from bot.adapters.database import Database, Dumps, DumpsInside, Location, Way
from bot.adapters.durable import Durable, Workers, clean_up
from bot.adapters.encryption_key import Keys
from bot.adapters.http import Exports, Http
from bot.adapters.origins import Origins
from bot.adapters.redis import CONTAINER, Redis, Server
from bot.adapters.rehearsal import Rehearsals
from bot.adapters.rehearsal import Server as Stage
from bot.adapters.router import Router
from bot.adapters.schedule import Schedule, Slot
from bot.adapters.ssh import Host, Ssh
from bot.adapters.store import Audit, Keep, Outbox, Pool, Store, forget, migrate, versions
from bot.adapters.stream import OpenSsh, Programs
from bot.adapters.tcp import Tcp
from bot.core import keeping
from bot.core.approval import Approval, Click
from bot.core.aws import AwsCall
from bot.core.backup import Definitions, Dump, DumpInside, RedisCopy, Streams, Vault
from bot.core.chart import Chart
from bot.core.command import Command, refuse_secrets, sh
from bot.core.errors import NotUnderstood, OpsbotError, Permanent, Temporary
from bot.core.handler import Catalogue
from bot.core.people import Actor, Person, Place
from bot.core.ports import Asker
from bot.core.question import (
    Answer,
    BackupRecords,
    HttpGet,
    KeyFingerprint,
    Output,
    Question,
    RedisRead,
    Response,
    StoredBackup,
    TcpProbe,
    Unanswered,
    answer_from_json,
)
from bot.core.request import Request, Vocabulary
from bot.core.shown import SHORTEST_SECRET, Redactor
from bot.core.sql import Query
from bot.core.story import Event
from bot.core.target import Role, Site, Target
from bot.engine.answers import Answers
from bot.engine.backups import Keeper, Records, Shelter, silent
from bot.engine.changing import Pace
from bot.engine.desk import Desk, vocabulary_of
from bot.engine.discovery import discover, fixes
from bot.engine.people import Gate
from bot.engine.policy import Policy, bound
from bot.engine.recovery import Terms
from bot.engine.rounds import Diagnoser
from bot.engine.sampling import Sampling
from bot.engine.tasks import Engine
from bot.settings import EMBEDDED, DatabaseSettings, HostSettings, Settings
from bot.settings.sections import Backups
from bot.slack import words
from bot.slack.app import SLACK, Connection, client, connect
from bot.slack.directory import SlackDirectory
from bot.slack.intake import Receipt, Tenant, intake
from bot.slack.outbox import Sender
from bot.slack.presence import presence

if TYPE_CHECKING:
    from bot.adapters.aws import Aws

log = logging.getLogger("opsbot")
SENDERS = 4  # threads that say things in Slack, each in another channel
SWITCH = 0.001  # seconds that a busy thread may hold the interpreter: Slack waits for its acknowledgement meanwhile
HOUSEKEEPING = timedelta(hours=6)
DATABASE_MAY_TAKE = timedelta(minutes=5)  # to come up beside us, before serve gives up
DATABASE_SEEN_EVERY = 2.0  # seconds
NAMES_KEPT = 600.0  # seconds
BACKUPS_SEEN_EVERY = 60.0  # seconds
LOST_AFTER = timedelta(days=7)  # what no manifest names stays that long, for a person who needs it
REHEARSALS, STAGE = "rehearsals", Stage(embedded.start, embedded.remove, embedded.programs)  # of throw-away servers
NO_CHANNELS = "slack.channels.commands: no channel is listed, so in Slack opsbot can be asked nowhere"
OVERDUE, OVERDUE_DIAGNOSIS = "backup.overdue", "backup overdue"


class SystemClock:
    """The wall clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class NobodyKnows:
    """The directory of an opsbot without Slack: people cannot be looked up, so only listed ones may decide."""

    def person(self, actor: Actor) -> Person:
        raise Temporary(f"there is no Slack to ask who {actor.user} is")

    def members(self, usergroup: str) -> tuple[str, ...]:
        raise Temporary(f"there is no Slack to ask who is in {usergroup}")


@dataclass(frozen=True)
class Foundation:
    """What every verb that needs the database stands on."""

    pool: Pool
    audit: Audit
    store: Store
    durable: Durable


def lay(settings: Settings) -> Foundation:
    """Start or reach the database, bring its schema up to date. Raises Permanent or Temporary with a sentence."""
    dsn = database(settings)
    migrate(dsn)
    pool = Pool(dsn)
    audit = Audit(pool, audit_key(settings))
    store = Store(audit, settings.slack.channels.approvals, notices(settings))
    return Foundation(pool, audit, store, Durable(pool))


def notices(settings: Settings) -> str | None:
    """The channel for what has no place of its own: the approvals', else the first in which people ask; None without
    Slack.
    """
    channels = settings.slack.channels
    return next(filter(None, (channels.approvals, *channels.commands)), None) if settings.slack.connect else None


def reading(settings: Settings) -> Audit:
    """The audit trail of a database that is there, for verbs that change nothing: neither database, schema nor key is
    made, and a server that had to be started ends with this process. Raises Permanent or Temporary with a sentence.
    """
    dsn = standing(settings)
    if versions(dsn)[0] == 0:
        raise Permanent("there is no audit trail in that database: no `opsbot serve` has used it yet")
    return Audit(Pool(dsn), audit_key(settings, make=False))


def standing(settings: Settings) -> str:
    """The DSN of the database as it is, started but not made."""
    if settings.database_url != EMBEDDED:
        return settings.database_url
    folder = settings.state_dir / "database"
    if not embedded.is_made(folder):
        raise Permanent(f"there is no database in {folder}: `opsbot serve` makes it, or `state_dir` is another")
    return embedded.start(folder)


def patiently(settings: Settings) -> Foundation:
    """The same for `serve`, which a restart of the database must not keep from starting."""
    tries = Retrying(
        retry=retry_if_exception_type(Temporary),
        wait=wait_exponential(max=10),
        stop=stop_after_delay(DATABASE_MAY_TAKE),
        before_sleep=lambda state: log.warning(
            "waiting for the database: %s", state.outcome and state.outcome.exception()
        ),
        reraise=True,
    )
    return tries(lay, settings)


def database(settings: Settings) -> str:
    """The DSN: the configured one, or that of the embedded server, started when it does not run."""
    if settings.database_url == EMBEDDED:
        return embedded.start(settings.state_dir / "database", detach=True)
    return settings.database_url


def keep_database(settings: Settings, stop: threading.Event) -> None:
    """Start the embedded server again whenever it has died: nobody else would."""
    folder = settings.state_dir / "database"
    while not stop.wait(DATABASE_SEEN_EVERY):
        try:
            if embedded.is_down(folder):
                log.warning("the embedded database has ended, and is started again")
                database(settings)
        except (OpsbotError, OSError) as error:
            log.warning("the embedded database cannot be started again: %s", error)


def audit_key(settings: Settings, make: bool = True) -> bytes:
    """The key that chains the audit trail: given, or made once and kept with the other state, readable by us alone."""
    if settings.secrets.audit_key:
        return settings.secrets.audit_key.encode()
    path = settings.state_dir / "audit.key"
    if not make and not path.exists():
        raise Permanent(f"there is no OPSBOT_AUDIT_KEY and no {path}: without its key the trail cannot be checked")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    return path.read_text().strip().encode()


def redactor_of(settings: Settings) -> Redactor:
    return Redactor(secret for secret in settings.secrets.values() if len(secret) >= SHORTEST_SECRET)


class Names:
    """What people are called, for terminals. Remembered for a while, and not asked for while nobody can say."""

    def __init__(self, ask: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._clock = clock
        self._known: dict[str, tuple[float, str]] = {}
        self._silent_until = 0.0

    def __call__(self, user: str) -> str:
        since, name = self._known.get(user, (-NAMES_KEPT, ""))
        now = self._clock()
        if now - since < NAMES_KEPT or now < self._silent_until:
            return name
        try:
            self._known[user] = (now, self._ask(user))
        except OpsbotError:
            self._silent_until = self._clock() + NAMES_KEPT
            return name
        return self._known[user][1]


class SlackDesk:
    """The engine's desk as Slack's intake wants it."""

    def __init__(self, desk: Desk, vocabulary: Vocabulary, base: Foundation, redactor: Redactor) -> None:
        self._desk = desk
        self._vocabulary = vocabulary
        self._base = base
        self._redactor = redactor

    def submit(self, request: Request, _text: str, actor: Actor, place: Place, key: str) -> Receipt:
        filed = self._desk.file(request, actor, place, key)
        return Receipt(filed.run or 0, filed.duplicate, filed.text)

    def click(self, click: Click, key: str) -> None:
        self._desk.click(click, key)

    def reply(self, actor: Actor, place: Place, text: str, key: str) -> None:
        with self._base.durable.transaction() as tx:
            if self._base.store.accept(tx, key, "reply", {}, actor) is not None:
                self._base.store.reply(tx, actor, place, self._redactor.show(text))

    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    def approval(self, approval: int) -> Approval | None:
        return self._desk.approval(approval)

    def refused(self, actor: Actor, place: Place | None, why: str) -> None:
        self._desk.refused(actor, f"{why} ({place.channel if place else 'nowhere'})")


class Serving:
    """One `opsbot serve`: workers, Slack, console and schedules over one database. Several may run on the same one."""

    def __init__(self, settings: Settings, simulator: str | None = None) -> None:
        self.settings = settings
        self.redactor = redactor_of(settings)
        self.catalogue = discover(settings.handlers)
        self.policy = policy_of(settings, self.catalogue)
        self.sites = {site.name: site for site in settings.sites()}
        self.base = patiently(settings)
        self.ssh = Ssh(hosts_of(settings), refuse_secrets)
        self.rehearsals = rehearsals_of(settings, self.ssh)
        self.shelters = shelters_of(settings, self.ssh, self.rehearsals)
        records = Records(self.base.store, self.base.durable, SystemClock(), self.shelters)
        self.router = router_of(settings, self.ssh, records)
        self.client = self._client(simulator)
        self.gate = Gate(self._directory(), settings.approvers())
        self.diagnosers = {name: self._diagnoser(site) for name, site in self.sites.items()}
        self.desk = self._desk()
        self.vocabulary = vocabulary_of(self.catalogue, settings.slack.command, _machines(self.sites))
        check_schedules(settings, self.vocabulary)
        self.workers = self._workers()
        self.simulator = simulator
        self.stopping = threading.Event()
        self.connection: Connection | None = None
        self.outbox: Outbox | None = None
        self.console = self._console()

    # ------------------------------------------------------------ putting together

    def _client(self, simulator: str | None) -> Any:
        token = self.settings.secrets.slack_bot_token
        return client(token, simulator or SLACK) if token else None

    def _directory(self) -> SlackDirectory | NobodyKnows:
        if self.client is None:
            return NobodyKnows()
        return SlackDirectory(self.client, self.settings.slack.team_id)

    def _diagnoser(self, site: Site) -> Diagnoser:
        def earlier(target: Target, question: Question, at_least: timedelta) -> Answer | None:
            with self.base.durable.transaction() as tx:
                before = SystemClock().now() - at_least
                stored = self.base.store.earlier(tx, target.key, str(question), before)
            return None if stored is None else answer_from_json(stored)

        return Diagnoser(site, self.router, earlier)

    def _desk(self) -> Desk:
        base = self.base
        answers = Answers(base.store, base.durable, self.catalogue, self.policy, self.gate, self.diagnosers)
        return Desk(base.store, base.durable, self.catalogue, self.redactor, answers)

    def _workers(self) -> Workers:
        engine = Engine(
            store=self.base.store,
            durable=self.base.durable,
            sender=self.router,
            diagnosers=self.diagnosers,
            catalogue=self.catalogue,
            policy=self.policy,
            gate=self.gate,
            redactor=self.redactor,
            clock=SystemClock(),
            terms=self._terms(),
            shelters=self.shelters,
        )
        settings = self.settings.engine
        return Workers(
            self.base.pool,
            engine.carry,
            engine.failed,
            lease=settings.lease,
            threads=settings.workers,
            woken=engine.woken,
        )

    def _terms(self) -> Terms:
        settings = self.settings.engine
        return Terms(settings.approval_open_for, Pace(settings.poll))

    def _console(self) -> Console:
        people = self.settings.people
        return Console(
            self.settings.socket,
            desk=self.desk,
            read=self._read,
            people=people.uids,
            team=self.settings.slack.team_id,
            impersonate=self.settings.cli.impersonate,
            events=self._events,
            run=self._run,
            may_decide=self._why_not_decide,
            name=Names(self._called_by_others),
        )

    def _why_not_decide(self, actor: Actor) -> str:
        """Why a decision of theirs would not count, said beforehand; the row decides all the same."""
        if barred := self.gate.barred(actor):
            return barred
        if self.gate.may_decide(actor, self.gate.deciders(actor.via)):
            return ""
        return "you are not one of the approvers"

    def _called_by_others(self, user: str) -> str:
        """What the workspace calls a person: foreign text, as everything that people choose."""
        name = self.gate.name(Actor(self.settings.slack.team_id, user, "cli"))
        return " ".join(self.redactor.show(name).split())

    def _read(self, text: str) -> Request:
        return words.read(text, self.vocabulary)

    def _events(self, run: int, after: int) -> Sequence[Event]:
        with self.base.durable.transaction() as tx:
            return self.base.store.story(tx, run, after)

    def _run(self, run: int) -> Any:
        with self.base.durable.transaction() as tx:
            return self.base.store.run(tx, run)

    # ------------------------------------------------------------ running

    def start(self) -> None:
        """Begin to work: with Slack when it answers, without it until it does."""
        self.workers.start()
        self.console.start()
        if self.client is not None:
            self._start_slack()
        self._spawn("schedule", self._schedule().run)
        self._spawn("samples", self._sampling().run)
        self._spawn("housekeeping", self._keep_house)
        if self.shelters:
            self.rehearsals.sweep()
            self._spawn("backups", self._watch_backups)
        if self.settings.database_url == EMBEDDED:
            self._spawn("database", partial(keep_database, self.settings))

    def _start_slack(self) -> None:
        settings = self.settings.slack
        channels = frozenset(settings.channels.commands)
        tenant = Tenant(settings.team_id, settings.app_id, channels, settings.channels.approvals or "")
        desk = SlackDesk(self.desk, self.vocabulary, self.base, self.redactor)
        app = intake(self.client, desk, tenant, settings.command)
        self.connection = connect(app, self.settings.secrets.slack_app_token, self.simulator or SLACK)
        self.outbox = Outbox(self.base.pool)
        sender = Sender(self.outbox, self.client, channels=channels, approvers=self._called(), draw=drawn)
        for no in range(SENDERS):  # one sender, so that they share its pace
            self._spawn(f"say-{no}", sender.run)

    def _called(self) -> tuple[str, ...]:
        """Whom a new question calls: the approvers' group and the people listed."""
        approvers = self.settings.approvers()
        return tuple(filter(None, (approvers.usergroup, *approvers.users)))

    def _spawn(self, name: str, work: Any) -> None:
        threading.Thread(target=work, args=[self.stopping], name=name, daemon=True).start()

    def _sampling(self) -> Sampling:
        diagnoses = tuple(self.catalogue.diagnoses.values())
        every = self.settings.engine.sample_every
        return Sampling(self.base.store, self.base.durable, self.diagnosers, diagnoses, SystemClock(), every)

    def _schedule(self) -> Schedule:
        slots = [Slot(each.cron, each.run, each.on or "") for each in self.settings.schedules]
        return Schedule(slots, self._run_slot, SystemClock())

    def _run_slot(self, slot: Slot, key: str) -> None:
        """A schedule's order; the key holds the slot's time, so that several processes give it once."""
        request = self._read(f"{slot.run} on {slot.on}" if slot.on else slot.run)
        actor = Actor(self.settings.slack.team_id, "schedule", "cli")
        channels = self.settings.slack.channels.commands
        place = Place(channels[0]) if channels and self.client is not None else None
        self.desk.file(request, actor, place, key)

    def _keep_house(self, stop: threading.Event) -> None:
        """Forget what is old, and put the audit trail's head away."""
        while not stop.wait(60):
            try:
                clean_up(self.base.pool)
                forget(self.base.pool, Keep())
                self._keep_backups()
                self._post_head()
            except OpsbotError as error:
                log.warning("housekeeping waits: %s", error)
            stop.wait(HOUSEKEEPING.total_seconds())

    def _post_head(self) -> None:
        """Where no user of the database can change it: in the log, and in Slack once a day, whoever comes first."""
        head = self.base.audit.head()
        log.info("audit head %s", head)
        if (channel := notices(self.settings)) is None:
            return
        text = f"The audit trail goes up to `{head}`. `opsbot audit verify --head …` says whether it still does."
        key = f"audit head {SystemClock().now():%Y-%m-%d}"
        with self.base.durable.transaction() as tx:
            nobody = Actor(self.settings.slack.team_id, "schedule", "cli")
            if self.base.store.accept(tx, key, "notice", {}, nobody) is not None:
                self.base.store.announce(tx, channel, self.redactor.show(text))

    def _keep_backups(self) -> None:
        """Throw away what is no longer kept, and what no manifest names."""
        keeper = Keeper(self.base.store, self.base.durable, self.shelters, self.redactor)
        for said in keeper.clean_up():
            log.info("%s", said)
        for shelter in tuple(self.shelters.values())[:1]:  # one store for all installations
            for key in shelter.vault.sweep(LOST_AFTER):
                log.info("removed %s, which no backup names", key)

    def _watch_backups(self, stop: threading.Event) -> None:
        """Tell the channel once when no backup comes, and once when one has come after all."""
        since = SystemClock().now()
        while not stop.wait(BACKUPS_SEEN_EVERY):
            try:
                for site, shelter in self.shelters.items():
                    self._look_at_backups(site, shelter, since)
            except OpsbotError as error:
                log.warning("whether backups are overdue is not known: %s", error)

    def _look_at_backups(self, site: str, shelter: Shelter, since: datetime) -> None:
        """A diagnosis says it, ordered under a key that is the same for everybody: so it is said once."""
        with self.base.durable.transaction() as tx:
            silence = silent(self.base.store, tx, site, shelter.overdue_after, since, SystemClock().now())
            alarms = self.base.store.raise_alarm if silence.overdue else self.base.store.end_alarm
            if alarms(tx, site, OVERDUE):
                how = "overdue" if silence.overdue else "no longer overdue"
                self._run_slot(Slot("", f"diagnose {OVERDUE_DIAGNOSIS}", site), f"{how}:{site}:{silence.last}")

    def stop(self) -> None:
        """Take nothing new, hand everything over but the changes under way, and finish those."""
        if self.connection is not None:
            self.connection.close()
        self.console.close()
        self.workers.stop(changes=self.settings.engine.finish_within)
        self.stopping.set()
        if self.outbox is not None:
            self.outbox.close()
        self.ssh.close()
        self.base.pool.close()


def serve(settings: Settings, simulator: str | None = None) -> int:
    """Run until a signal says stop; returns the exit status."""
    write_logs_as_json(redactor_of(settings))
    sys.setswitchinterval(SWITCH)
    serving = Serving(settings, simulator)
    over = threading.Event()

    def told(*_: object) -> None:
        serving.workers.hurry() if over.is_set() else over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    serving.start()
    log.info("opsbot serves %s", ", ".join(serving.sites))
    sys.stdout.write(json.dumps({"event": "serving", "socket": str(settings.socket), "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    over.wait()
    serving.stop()
    return 0


def policy_of(settings: Settings, catalogue: Catalogue) -> Policy:
    """The configured rules; raises Permanent with the path of each that nothing could ever meet."""
    return bound(settings.policy(), catalogue, fixes(settings.handlers))


def check(settings: Settings) -> None:
    """All that can be wrong with the configuration without asking anybody; raises Permanent with every sentence."""
    wrong = [*_faults(settings)]
    if wrong:
        raise Permanent("\n".join(wrong))


def _faults(settings: Settings) -> Iterator[str]:
    yield from (f"{key}: {why}" for key, why in _unreadable(settings))
    try:
        catalogue = discover(settings.handlers)
    except OpsbotError as why:
        yield f"handlers: {why}"
        return
    machines = _machines({each.name: each for each in settings.sites()})
    vocabulary = vocabulary_of(catalogue, settings.slack.command, machines)
    looks = (partial(policy_of, settings, catalogue), partial(check_schedules, settings, vocabulary))
    for look in (*looks, partial(_aws, settings)):
        try:
            look()
        except OpsbotError as why:
            yield str(why)


def _unreadable(settings: Settings) -> Iterator[tuple[str, str]]:
    """Files that logging in needs, each once."""
    for no, each in enumerate(settings.installations):
        for name in ("key_file", "known_hosts"):
            path = getattr(each.ssh, name)
            try:
                path.read_bytes()
            except OSError as error:
                yield f"installations[{no}].ssh.{name}", f"{path} cannot be read: {error.strerror}"


def check_schedules(settings: Settings, vocabulary: Vocabulary) -> None:
    """Refuse to start with a schedule that nobody could say; raises Permanent with its path."""
    for no, each in enumerate(settings.schedules):
        try:
            words.read(f"{each.run} on {each.on}" if each.on else each.run, vocabulary)
        except NotUnderstood as why:
            raise Permanent(f"schedules[{no}].run: {why}") from why


def streams_of(settings: Settings, ssh: Ssh) -> Streams:
    """Everything that can be backed up, wherever it comes from."""
    machines = OpenSsh(hosts_of(settings))
    origins: dict[type, Streams] = {
        Command: machines,
        DumpInside: DumpsInside(machines),
        Dump: Dumps(locations_of(settings), ssh, Programs(), pg_dumps),
        Definitions: Exports(settings.broker_urls()),
    }
    if any(server.via != CONTAINER for server in redis_of(settings).values()):
        from bot.adapters.redis.copies import Copies  # its library is loaded only where redis is asked by it

        origins[RedisCopy] = Copies(redis_of(settings), ssh)
    return Origins(origins)


def pg_dumps() -> list[Path]:
    """Every pg_dump that may be on this host, the system's first: the wheel's speaks no TLS."""
    systems = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_dump"), key=_number_of, reverse=True)
    found = [Path(each) for each in (shutil.which("pg_dump"),) if each]
    with suppress(OpsbotError):  # the wheel is not installed
        return [*found, *systems, embedded.programs() / "pg_dump"]
    return [*found, *systems]


def _number_of(program: Path) -> float:
    try:
        return float(program.parts[-3])
    except ValueError:
        return 0


def rehearsals_of(settings: Settings, ssh: Ssh) -> Rehearsals:
    """The same streams; dumps are restored for a try on their way."""
    full = settings.backups is not None and settings.backups.proof.restore == "full"
    return Rehearsals(streams_of(settings, ssh), settings.state_dir / REHEARSALS, STAGE, full)


def vault_of(given: Backups, streams: Streams) -> Vault:
    """Its libraries are loaded where backups are configured: a `serve` without is smaller by five megabytes."""
    from bot.adapters.vault import ObjectVault, objects

    return ObjectVault(objects(given.store), given.recipients, streams)


def shelters_of(settings: Settings, ssh: Ssh, rehearsals: Rehearsals) -> dict[str, Shelter]:
    """What it takes to back each installation up; none when no backups are configured."""
    if (given := settings.backups) is None:
        return {}
    vault = vault_of(given, rehearsals)
    containers = Containers(ssh)
    databases = locations_of(settings)
    shelter = Shelter(
        vault,
        Keys(containers, Database(databases, ssh, containers), audit_key(settings)),
        rehearsals,
        keeping.Keep(given.keep.daily, given.keep.weekly, given.keep.monthly),
        given.overdue_after,
        given.proof.restore,
        given.proof.max_size,
        metadata.version("opsbot"),
    )
    return {site.name: shelter for site in settings.sites()}


def router_of(settings: Settings, ssh: Ssh, records: Records | None = None) -> Router:
    """Everything that can be asked and changed in the installations."""
    containers = Containers(ssh)
    database = Database(locations_of(settings), ssh, containers)
    others: dict[type, Asker] = {
        Query: database,
        RedisRead: Redis(redis_of(settings), ssh, containers),
        HttpGet: Http(settings.broker_urls(), ssh),
        TcpProbe: Tcp(ssh),
    }
    if records is not None:
        others |= dict.fromkeys((BackupRecords, KeyFingerprint, StoredBackup), records)
    calls = _aws(settings)
    return Router(ssh, others if calls is None else {**others, AwsCall: calls}, database, calls)


def _aws(settings: Settings) -> "Aws | None":
    """Its library is an extra that only those install who need it."""
    if not (given := settings.aws()):
        return None
    try:
        from bot.adapters.aws import Access, Aws
    except ImportError as missing:
        raise Permanent(
            f"`aws` is configured for {', '.join(given)}, but AWS' library is missing; pip install 'opsbot[aws]'"
        ) from missing
    return Aws({name: Access(each.region, each.write) for name, each in given.items()})


def drawn(chart: Chart) -> bytes:
    """Its library is loaded with the first chart: a `serve` that shows none is smaller by it."""
    from bot.adapters.chart import draw

    return draw(chart)


def locations_of(settings: Settings) -> dict[tuple[str, str], Location]:
    return {key: _location(each) for key, each in settings.databases().items()}


def redis_of(settings: Settings) -> dict[str, Server]:
    return {name: Server(each.via, each.url) for name, each in settings.redis_servers().items()}


def _location(given: DatabaseSettings) -> Location:
    return Location(Way(given.via), given.read_dsn, given.write_dsn, given.name, given.user)


def hosts_of(settings: Settings) -> dict[str, Host]:
    return {key: _host(each) for key, each in settings.ssh_hosts().items()}


def _host(each: HostSettings) -> Host:
    jump = _host(each.jump) if each.jump else None
    return Host(each.host, each.port, each.user, each.key_file, each.known_hosts, jump)


def _machines(sites: Mapping[str, Site]) -> dict[str, tuple[tuple[str, str], ...]]:
    return {name: tuple((target.name, target.role.value) for target in site) for name, site in sites.items()}


def doctor(settings: Settings) -> list[tuple[bool, str]]:
    """What works and what does not, one sentence each; changes nothing."""
    return [_checked(what, check, settings) for what, check in CHECKS.items()]


def _checked(what: str, check: Any, settings: Settings) -> tuple[bool, str]:
    try:
        return True, f"{what}: {check(settings)}"
    except OpsbotError as error:
        return False, f"{what}: {error}"


def _check_database(settings: Settings) -> str:
    if settings.database_url == EMBEDDED and not embedded.is_made(settings.state_dir / "database"):
        return f"`opsbot serve` will make one in {settings.state_dir / 'database'}"
    version, newest = versions(standing(settings))
    if version > newest:
        raise Permanent(f"its schema is version {version}, this opsbot knows {newest}: run a newer opsbot")
    return f"schema version {version}" + (f"; `opsbot serve` will bring it to {newest}" if version < newest else "")


def _check_configuration(settings: Settings) -> str:
    check(settings)
    return f"fine, with {len(discover(settings.handlers).files)} handlers"


def _check_machines(settings: Settings) -> str:
    ssh = Ssh(hosts_of(settings), refuse_secrets)
    try:
        silent = [why for site in settings.sites() for target in site if (why := _greet(ssh, target))]
    finally:
        ssh.close()
    if silent:
        raise Permanent("; ".join(silent))
    return f"all {len(settings.ssh_hosts())} answer"


def _greet(ssh: Ssh, target: Target) -> str:
    (answer,) = ssh.ask(target, [sh("true")], threading.Event())
    return answer.why if isinstance(answer, Unanswered) else ""


def _check_services(settings: Settings) -> str:
    """Asks each service of the installations that is set up to be asked, as a diagnosis would."""
    ssh = Ssh(hosts_of(settings), refuse_secrets)
    try:
        router = router_of(settings, ssh)
        answers = [
            (what, _asked(router, site, question)) for site in settings.sites() for what, question in _services(site)
        ]
    finally:
        ssh.close()
    said = [(what, answer) for what, answer in answers if getattr(answer, "cause", "") != "not-configured"]
    if wrong := [why for what, answer in said if (why := _wrong(what, answer))]:
        raise Permanent("; ".join(dict.fromkeys(wrong)))
    return f"all answer: {', '.join(dict.fromkeys(what for what, _ in said)) or 'none is configured'}"


def _asked(router: Router, site: Site, question: Question) -> Answer | Unanswered:
    (answer,) = router.ask(site.of(Role.PLATFORM)[0], [question], threading.Event())
    return answer


def _wrong(what: str, answer: Answer | Unanswered) -> str:
    if isinstance(answer, Unanswered):
        return answer.why.rstrip(".")
    if isinstance(answer, Output):
        return "" if answer.ok else f"{what} says {(answer.err or answer.out).strip()[:200]}"
    if isinstance(answer, Response):
        return "" if answer.status == 200 else f"{what} answers with HTTP status {answer.status}"
    return ""


def _services(site: Site) -> tuple[tuple[str, Question], ...]:
    """The management API tells of nodes and of a vhost's queues only who has a right to each."""
    vhost = quote(site.option("rabbitmq.vhost", "travis"), safe="")
    return (
        ("database", Query("SELECT 1 AS one")),
        ("logs' database", Query("SELECT 1 AS one", database="logs")),
        ("redis", RedisRead(("PING",))),
        ("RabbitMQ's management API", HttpGet("rabbitmq:/api/nodes?columns=name")),
        ("RabbitMQ's management API", HttpGet(f"rabbitmq:/api/queues/{vhost}?columns=name", most=8 << 20)),
    )


def _check_slack(settings: Settings) -> str:
    if not settings.slack.connect:
        return "none, as configured: the command line does it all"
    if not settings.secrets.slack_bot_token:
        raise Permanent("there is no SLACK_BOT_TOKEN, so opsbot works from the command line only")
    if not settings.slack.channels.commands:
        raise Permanent(NO_CHANNELS)
    given = settings.slack.channels
    channels = dict.fromkeys(filter(None, (*given.commands, given.approvals)))
    return presence(client(settings.secrets.slack_bot_token), settings.slack.team_id, channels)


def _check_backups(settings: Settings) -> str:
    """Whether the store can be reached and read."""
    if (given := settings.backups) is None:
        return "none are configured"
    vault = vault_of(given, OpenSsh(hosts_of(settings)))
    count = sum(len(vault.manifests(site.name)) for site in settings.sites())
    return f"{vault.where} can be read, and has {count}"


CHECKS = {
    "configuration": _check_configuration,
    "database": _check_database,
    "machines": _check_machines,
    "their services": _check_services,
    "backups": _check_backups,
    "Slack": _check_slack,
}


def audit_verify(settings: Settings, head: str | None) -> tuple[bool, str]:
    """Whether the whole chain fits, and a sentence: how long it is, or the first record that does not."""
    audit = reading(settings)
    ends = audit.head()
    if misfit := audit.verify(head):
        return False, misfit
    return True, f"Every record of the audit trail fits the one before it; it ends at {ends}."


def audit_export(settings: Settings) -> Iterator[dict[str, Any]]:
    return (asdict(record) for record in reading(settings).export())


def write_logs_as_json(redactor: Redactor) -> None:
    """JSON lines on stderr, every text redacted; libraries only when they warn."""

    def mask(_logger: Any, _method: str, event: Any) -> Any:
        return {key: redactor.show(value) if isinstance(value, str) else value for key, value in event.items()}

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask,
        ],
        processor=structlog.processors.JSONRenderer(),
    )
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("opsbot", "bot"):
        logging.getLogger(ours).setLevel(logging.INFO)
