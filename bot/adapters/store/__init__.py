"""opsbot's own tables in PostgreSQL.

    migrate(dsn)                                    bring the schema up to date, or refuse
    pool = Pool(dsn, size=32)                       connections; `pool.connection()` is one transaction
    versions(dsn)                                   which schema it has, and which this code knows
    Store(audit=Audit(pool, key), approvals_channel="C…", else_channel="C…")     bot.core.ports.Store
    Outbox(pool)                                    bot.core.outbox.Outbox
    forget(pool, Keep())                            the daily clean-up

SQL lies beside the modules in sql/, the schema in migrations/.
"""

from collections.abc import Mapping
from typing import Any

from bot.adapters.store import letters
from bot.adapters.store.approvals import Approvals
from bot.adapters.store.audit import Audit
from bot.adapters.store.backups import Backups
from bot.adapters.store.changes import Changes
from bot.adapters.store.locks import Locks
from bot.adapters.store.outbox import Outbox
from bot.adapters.store.pool import Pool
from bot.adapters.store.retention import Keep, forget
from bot.adapters.store.runs import Runs
from bot.adapters.store.samples import Samples
from bot.adapters.store.schema import migrate, versions
from bot.adapters.store.story import Story
from bot.adapters.store.values import rows
from bot.core.people import Actor, Place
from bot.core.ports import Tx
from bot.core.shown import Shown

__all__ = ["Audit", "Keep", "Outbox", "Pool", "Store", "forget", "migrate", "versions"]


class Store(Runs, Story, Approvals, Changes, Locks, Samples, Backups):
    """`bot.core.ports.Store` on PostgreSQL; each noun's methods are in its module.

    `approvals_channel` gets a pointer to each question; `else_channel` the questions of runs that have no channel, such
    as those from the command line (None: the approvals channel).
    """

    def __init__(self, audit: Audit, approvals_channel: str | None = None, else_channel: str | None = None) -> None:
        self.approvals_channel = approvals_channel
        self.else_channel = else_channel or approvals_channel
        self._audit = audit

    def reply(self, tx: Tx, actor: Actor, place: Place | None, text: Shown) -> None:
        letters.private(rows(tx), actor, place, text)

    def post(self, tx: Tx, place: Place, body: Mapping[str, Any]) -> None:
        letters.post(rows(tx), place, body)

    def announce(self, tx: Tx, channel: str, text: Shown) -> None:
        """A sentence for everybody in a channel, of no run."""
        letters.announcement(rows(tx), channel, text)

    def audit(self, tx: Tx, what: str, who: Actor | None, detail: Mapping[str, Any]) -> None:
        self._audit.append(tx, what, who, detail)
