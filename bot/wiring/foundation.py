"""What every verb that needs the database stands on: the server, its schema, the store, the audit trail and its key."""

import logging
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from bot.adapters import embedded
from bot.adapters.durable import Durable
from bot.adapters.store import Audit, Pool, Store, migrate, versions
from bot.core.errors import OpsbotError, Permanent, Temporary
from bot.core.shown import SHORTEST_SECRET, Redactor
from bot.settings import EMBEDDED, Settings

log = logging.getLogger("opsbot")
DATABASE_MAY_TAKE = timedelta(minutes=5)  # to come up beside us, before serve gives up
DATABASE_SEEN_EVERY = 2.0  # seconds
READY = 8  # connections open beforehand: the first of many commands at once need not wait until they are made


@dataclass(frozen=True)
class Foundation:
    """What every verb that needs the database stands on."""

    pool: Pool
    audit: Audit
    store: Store
    durable: Durable


def lay(settings: Settings, stays: bool = True) -> Foundation:
    """Start or reach the database, bring its schema up to date. Raises Permanent or Temporary with a sentence."""
    dsn = database(settings, stays)
    migrate(dsn)
    pool = Pool(dsn, ready=READY)
    audit = Audit(pool, audit_key(settings))
    store = Store(audit, settings.slack.channels.approvals, notices(settings))
    return Foundation(pool, audit, store, Durable(pool))


def notices(settings: Settings) -> str | None:
    """The channel for what has no place of its own: the approvals', else the first in which people ask; None without
    Slack.
    """
    channels = settings.slack.channels
    return next(filter(None, (channels.approvals, *channels.commands)), None) if settings.slack.connect else None


@contextmanager
def reading(settings: Settings) -> Iterator[Audit]:
    """The audit trail of a database that is there, for verbs that change nothing: neither database, schema nor key is
    made, and a server that had to be started ends with this process. Raises Permanent or Temporary with a sentence.
    """
    dsn = standing(settings)
    if versions(dsn)[0] == 0:
        raise Permanent("there is no audit trail in that database: no `opsbot serve` has used it yet")
    key = audit_key(settings, make=False)
    with Pool(dsn) as pool:
        yield Audit(pool, key)


def standing(settings: Settings) -> str:
    """The DSN of the database as it is, started but not made."""
    if settings.database_url != EMBEDDED:
        return settings.database_url
    folder = settings.state_dir / "database"
    if not embedded.is_made(folder):
        raise Permanent(f"there is no database in {folder}: `opsbot serve` makes it, or `state_dir` is another")
    return embedded.start(folder)


def patiently(settings: Settings, stays: bool = True) -> Foundation:
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
    return tries(lay, settings, stays)


def database(settings: Settings, stays: bool = True) -> str:
    """The DSN: the configured one, or that of the embedded server, started when it does not run. That one stays when
    this process ends, or ends with the last of its users.
    """
    if settings.database_url == EMBEDDED:
        return embedded.start(settings.state_dir / "database", detach=stays)
    return settings.database_url


def keep_database(settings: Settings, stop: threading.Event, stays: bool = True) -> None:
    """Start the embedded server again whenever it has died: nobody else would."""
    folder = settings.state_dir / "database"
    while not stop.wait(DATABASE_SEEN_EVERY):
        try:
            if embedded.is_down(folder):
                log.warning("the embedded database has ended, and is started again")
                database(settings, stays)
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


def audit_verify(settings: Settings, head: str | None) -> tuple[bool, str]:
    """Whether the whole chain fits, and a sentence: how long it is, or the first record that does not."""
    with reading(settings) as audit:
        ends = audit.head()
        if misfit := audit.verify(head):
            return False, misfit
    return True, f"Every record of the audit trail fits the one before it; it ends at {ends}."


def audit_export(settings: Settings) -> Iterator[dict[str, Any]]:
    """Every record, oldest first; `at` as its `mac` was made of it: `2026-11-29T16:03:58.123456+00:00`."""
    with reading(settings) as audit:
        for record in audit.export():
            yield {**asdict(record), "at": record.written}
