"""One `opsbot serve`: everything put together, started and stopped."""

import gc
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from bot.adapters.console import Console
from bot.adapters.durable import Workers, clean_up
from bot.adapters.schedule import Schedule, Slot
from bot.adapters.ssh import Ssh
from bot.adapters.store import Keep, Outbox, forget
from bot.core.chart import Chart
from bot.core.command import refuse_secrets
from bot.core.errors import OpsbotError
from bot.core.people import Actor, Place
from bot.core.question import (
    Answer,
    Question,
    answer_from_json,
)
from bot.core.request import Request
from bot.core.story import Event
from bot.core.target import Site, Target
from bot.engine.answers import Answers
from bot.engine.changing import Pace
from bot.engine.desk import Desk, vocabulary_of
from bot.engine.discovery import discover
from bot.engine.keeper import Keeper
from bot.engine.people import Gate
from bot.engine.records import Records, silent
from bot.engine.rounds import Diagnoser
from bot.engine.sampling import Sampling
from bot.engine.shelter import Shelter
from bot.engine.tasks import Engine, Terms
from bot.settings import EMBEDDED, Settings
from bot.slack import words
from bot.slack.app import SLACK, Connection, client, connect
from bot.slack.directory import SlackDirectory
from bot.slack.intake import Tenant, intake
from bot.slack.outbox import Sender
from bot.wiring.checking import check_schedules, machines_of, policy_of
from bot.wiring.foundation import keep_database, notices, patiently, redactor_of
from bot.wiring.logs import write_logs_as_json
from bot.wiring.reaching import hosts_of, rehearsals_of, router_of, shelters_of
from bot.wiring.slack import Names, NobodyKnows, SlackDesk

log = logging.getLogger("opsbot")
SENDERS = 4  # threads that say things in Slack, each in another channel
SWITCH = 0.001  # seconds that a busy thread may hold the interpreter: Slack waits for its acknowledgement meanwhile
HOUSEKEEPING = timedelta(hours=6)
ANEW_AFTER = 10.0  # seconds until what should never end is begun again after an error that nobody expected
BACKUPS_SEEN_EVERY = 60.0  # seconds
LOST_AFTER = timedelta(days=7)  # what no manifest and no row names stays that long, for a person who needs it
TYPED = "opsbot run"  # what a person types in a terminal where another types the slash command
Work = Callable[[threading.Event], object]  # goes on until it is told to stop
OVERDUE, OVERDUE_DIAGNOSIS = "backup.overdue", "backup overdue"


class SystemClock:
    """The wall clock, in UTC."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class Serving:
    """One `opsbot serve`: workers, Slack, console and schedules over one database. Several may run on the same one.

    An attached one leaves no embedded database behind.
    """

    def __init__(self, settings: Settings, simulator: str | None = None, attached: bool = False) -> None:
        self.settings = settings
        self.attached = attached
        self.redactor = redactor_of(settings)
        self.catalogue = discover(settings.handlers)
        self.policy = policy_of(settings, self.catalogue)
        self.sites = {site.name: site for site in settings.sites()}
        self.base = patiently(settings, stays=not attached)
        self.ssh = Ssh(hosts_of(settings), refuse_secrets)
        self.rehearsals = rehearsals_of(settings, self.ssh)
        self.shelters = shelters_of(settings, self.ssh, self.rehearsals)
        records = Records(self.base.store, self.base.durable, SystemClock(), self.shelters)
        self.router = router_of(settings, self.ssh, records)
        self.client = self._client(simulator)
        self.gate = Gate(self._directory(), settings.approvers())
        self.diagnosers = {name: self._diagnoser(site) for name, site in self.sites.items()}
        self.desk = self._desk()
        self.vocabulary = vocabulary_of(self.catalogue, settings.slack.command, machines_of(self.sites))
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
        slack = self.settings.slack
        return SlackDirectory(self.client, slack.team_id, slack.enterprise_id or "")

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
            read=partial(words.read, vocabulary=replace(self.vocabulary, command=TYPED)),
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
        """Begin to work: with Slack when it answers, without it until it does. Raises Permanent where another opsbot
        serves at this socket, before any work is taken: it would be dropped half done.
        """
        self.console.start()
        self.workers.start()
        if self.client is not None:
            self._start_slack()
        self._spawn("schedule", self._schedule().run)
        self._spawn("samples", self._sampling().run)
        self._spawn("housekeeping", self._keep_house)
        if self.shelters:
            self.rehearsals.sweep()
            self._spawn("backups", self._watch_backups)
        if self.settings.database_url == EMBEDDED:
            self._spawn("database", partial(keep_database, self.settings, stays=not self.attached))

    def _start_slack(self) -> None:
        settings = self.settings.slack
        tenant = tenant_of(self.settings)
        desk = SlackDesk(self.desk, self.vocabulary, self.base, self.redactor)
        app = intake(self.client, desk, tenant, settings.command)
        self.connection = connect(app, self.settings.secrets.slack_app_token, self.simulator or SLACK)
        self.outbox = Outbox(self.base.pool)
        sender = Sender(self.outbox, self.client, channels=tenant.channels, approvers=self._called(), draw=drawn)
        for no in range(SENDERS):  # one sender, so that they share its pace
            self._spawn(f"say-{no}", sender.run)

    def _called(self) -> tuple[str, ...]:
        """Whom a new question calls: the approvers' group and the people listed."""
        approvers = self.settings.approvers()
        return tuple(filter(None, (approvers.usergroup, *approvers.users)))

    def _spawn(self, name: str, work: Work) -> None:
        threading.Thread(target=_always, args=[name, work, self.stopping], name=name, daemon=True).start()

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
            self._tidy_up()
            stop.wait(HOUSEKEEPING.total_seconds())

    def _tidy_up(self) -> None:
        """One thing after the other: a store of backups that is away keeps nothing else from being done."""
        for chore in (self._forget, self._keep_backups, self._sweep_backups, self._post_head):
            try:
                chore()
            except OpsbotError as error:
                log.warning("housekeeping waits: %s", error)

    def _forget(self) -> None:
        clean_up(self.base.pool)
        forget(self.base.pool, Keep())

    def _post_head(self) -> None:
        """Where no user of the database can change it: in the log, and in Slack once a day, whoever comes first."""
        head = self.base.audit.head()
        log.info("audit head %s", head)
        if (channel := notices(self.settings)) is None:
            return
        text = f"The audit trail goes up to `{head}`. `opsbot audit verify --head …` says whether it was changed since."
        key = f"audit head {SystemClock().now():%Y-%m-%d}"
        with self.base.durable.transaction() as tx:
            nobody = Actor(self.settings.slack.team_id, "schedule", "cli")
            if self.base.store.accept(tx, key, "notice", {}, nobody) is not None:
                self.base.store.announce(tx, channel, self.redactor.show(text))

    def _keep_backups(self) -> None:
        """Throw away what is no longer kept."""
        keeper = Keeper(self.base.store, self.base.durable, self.shelters, self.redactor)
        for said in keeper.clean_up():
            log.info("%s", said)

    def _sweep_backups(self) -> None:
        """Throw away what neither a manifest nor a row names."""
        with self.base.durable.transaction() as tx:
            kept = self.base.store.living_keys(tx)
        for shelter in tuple(self.shelters.values())[:1]:  # one store for all installations
            for key in shelter.vault.sweep(LOST_AFTER, kept):
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


def tenant_of(settings: Settings) -> Tenant:
    """Whose payloads are taken in, and from where."""
    slack = settings.slack
    channels = frozenset(slack.channels.commands)
    return Tenant(slack.team_id, slack.app_id, channels, slack.channels.approvals or "", slack.enterprise_id or "")


def serve(settings: Settings, simulator: str | None = None, attached: bool = False) -> int:
    """Run until a signal says stop, or, attached, until standard input ends; returns the exit status."""
    write_logs_as_json(redactor_of(settings))
    sys.setswitchinterval(SWITCH)
    serving = Serving(settings, simulator, attached)
    gc.collect()
    gc.freeze()  # what is here now stays: a full collection that went through it held everything up for 0.2 s
    over = threading.Event()

    def told(*_: object) -> None:
        serving.workers.hurry() if over.is_set() else over.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, told)
    if attached:
        threading.Thread(target=_end_with_input, args=[over], name="attached", daemon=True).start()
    serving.start()
    log.info("opsbot serves %s", ", ".join(serving.sites))
    sys.stdout.write(json.dumps({"event": "serving", "socket": str(settings.socket), "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    over.wait()
    serving.stop()
    return 0


def _end_with_input(over: threading.Event) -> None:
    """Whoever started us holds the other end, which the kernel closes when that process ends, by kill -9 too."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    over.set()


def _always(name: str, work: Work, stop: threading.Event) -> None:
    """Until stopped, whatever happens: nobody would notice that schedules or samples have ended."""
    while not stop.is_set():
        try:
            work(stop)
            return
        except Exception:
            log.exception("`%s` failed, and begins anew", name)
            stop.wait(ANEW_AFTER)


def drawn(chart: Chart) -> bytes:
    """Its library is loaded with the first chart: a `serve` that shows none is smaller by it."""
    from bot.adapters.chart import draw

    return draw(chart)
