"""A run's own view of durable work: steps that happen once, waits that hold no thread."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event as Flag
from typing import Any

from bot.core.ports import Claim, Clock, Store, Suspended, Tx
from bot.core.run import Run
from bot.core.shown import Redactor

Json = Any
LOOK_FOR_CANCEL = 1.0  # seconds between looks at the cancel flag while a machine is being worked on


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

    def show(self, text: object) -> str:
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

    @contextmanager
    def stoppable(self) -> Iterator[Flag]:
        """A flag for work on machines, set when the lease may be lost or somebody cancels the run."""
        over = Flag()
        stop = Flag()
        watcher = threading.Thread(target=self._watch, args=(stop, over), name=f"watch-{self.run.id}", daemon=True)
        watcher.start()
        try:
            yield stop
        finally:
            over.set()
            watcher.join()

    def _watch(self, stop: Flag, over: Flag) -> None:
        since = 0.0
        while not over.wait(0.1):
            since += 0.1
            if self.claim.abort.is_set():
                stop.set()
                return
            if since >= LOOK_FOR_CANCEL:
                since = 0.0
                self._stop_when_cancelled(stop)

    def _stop_when_cancelled(self, stop: Flag) -> None:
        try:
            with self.claim.commit() as tx:
                if self._cancelled(tx):
                    stop.set()
        except Exception:  # a lost lease or database shows itself through claim.abort; this thread only hurries
            return
