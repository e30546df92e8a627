"""A run's own view of durable work: steps that happen once, waits that hold no thread."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event as Flag
from typing import Any

from bot.core.errors import LeaseLost
from bot.core.ports import Claim, Clock, Store, Suspended, Tx
from bot.core.run import Run
from bot.core.shown import Redactor, Shown

Json = Any


class Cancelled(Exception):
    """Somebody asked the run to stop; raised between steps, never inside one."""


@dataclass
class Journal:
    """Steps of one run under one claim. What is written goes through `write`; what is asked of machines happens
    outside.
    """

    claim: Claim
    store: Store
    redactor: Redactor
    clock: Clock
    run: Run
    wake: Callable[[Tx, str], None]
    heed_cancel: bool = True

    def show(self, text: object) -> Shown:
        return self.redactor.show(text)

    def recorded(self, step: str) -> tuple[Json] | None:
        return self.claim.recorded(step)

    def once(self, step: str, do: Callable[[], Json], keep: Callable[[Tx, Json], None] | None = None) -> Json:
        """The recorded result of a step, or that of `do()`, recorded now together with what `keep` writes."""
        if (done := self.claim.recorded(step)) is not None:
            return done[0]
        result = do()
        with self.claim.commit() as tx:
            if keep is not None:
                keep(tx, result)
            self.claim.record(tx, step, result)
        return result

    def write(self, step: str, keep: Callable[[Tx], Json]) -> Json:
        """A step that only writes rows: all of it and its record in one transaction, exactly once."""
        if (done := self.claim.recorded(step)) is not None:
            return done[0]
        with self.claim.commit() as tx:
            result = keep(tx)
            self.claim.record(tx, step, result)
        return result

    def wait(self, step: str, check: Callable[[Tx], Json], until: datetime) -> Json:
        """What `check` finds, as soon as it finds something; the run sleeps durably meanwhile and looks again when
        woken.

        `check` runs in a transaction and returns None for "not yet"; it has to answer once `until` is past.
        """
        if (done := self.claim.recorded(step)) is not None:
            return done[0]
        with self.claim.commit() as tx:
            if self._cancelled(tx):
                raise Cancelled
            if (found := check(tx)) is None:
                self.claim.sleep(tx, until)
            else:
                self.claim.record(tx, step, found)
        if found is None:
            raise Suspended
        return found

    def pause(self, span: timedelta) -> None:
        """Sleep durably, then be carried again from the start of the run."""
        with self.claim.commit() as tx:
            if self._cancelled(tx):
                raise Cancelled
            self.claim.sleep(tx, self.clock.now() + span)
        raise Suspended

    def tell(self, tx: Tx, kind: str, **data: Json) -> None:
        self.store.tell(tx, self.run.id, kind, self.shown(data))

    def shown(self, data: Mapping[str, Json]) -> dict[str, Json]:
        """The same structure with every text redacted."""
        return {key: self._shown(value) for key, value in data.items()}

    def _shown(self, value: Json) -> Json:
        if isinstance(value, str):
            return self.redactor.show(value)
        if isinstance(value, Mapping):
            return self.shown(value)
        if isinstance(value, list | tuple):
            return [self._shown(each) for each in value]
        return value

    def check_cancel(self) -> None:
        with self.claim.commit() as tx:
            if self._cancelled(tx):
                raise Cancelled

    def _cancelled(self, tx: Tx) -> bool:
        if not self.heed_cancel:
            return False
        current = self.store.run(tx, self.run.id)
        return current is not None and current.cancelled_by is not None

    @property
    def stop(self) -> Flag:
        """A flag for work on machines: set when the lease may be lost, the run is cancelled or the process must end.

        A calm journal (`heed_cancel` off, for what must be done before a run ends) has one that only the lease sets.
        """
        return self.claim.abort if self.heed_cancel else self.claim.lost

    def heed_stop(self) -> None:
        """Raise when the run was told to stop: Cancelled by a person, LeaseLost when another process shall go on.

        What was asked of machines in the meantime may be cut short, so nothing of it may be kept.
        """
        if self.stop.is_set():
            self.check_cancel()
            raise LeaseLost("this process has to stop; another one goes on")
