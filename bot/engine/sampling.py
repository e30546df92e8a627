"""Samples: sampled facts are stored every few minutes, so that "is it still the same?" can be answered at once."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.core.errors import OpsbotError
from bot.core.handler import Diagnosis
from bot.core.people import Actor
from bot.core.ports import Clock, Durable, Store
from bot.core.question import answer_to_json
from bot.engine.rounds import Diagnoser

EVERY = timedelta(minutes=5)
NOBODY = Actor("", "sampling", "schedule")
log = logging.getLogger("opsbot.engine")


@dataclass(frozen=True)
class Sampling:
    """Looks at each installation once a slot, whichever process is first, and keeps what sampled facts said.

    Only diagnoses that compare are asked: the others would cost the machines something and keep nothing.
    """

    store: Store
    durable: Durable
    diagnosers: Mapping[str, Diagnoser]
    diagnoses: Sequence[Diagnosis]
    clock: Clock
    every: timedelta = EVERY

    def run(self, stop: threading.Event) -> None:
        """Until stopped. A slot that cannot be sampled is left out: the next one comes soon."""
        while not stop.wait(self.every.total_seconds() / 5):
            for site in self.diagnosers:
                try:
                    self.take(site, stop)
                except OpsbotError as error:
                    log.warning("no samples of %s this time: %s", site, error)

    def take(self, site: str, stop: threading.Event) -> int:
        """How many samples were kept; none when another process has this slot."""
        slot = int(self.clock.now().timestamp() // self.every.total_seconds())
        with self.durable.transaction() as tx:
            if self.store.accept(tx, f"sample:{site}:{slot}", "sample", {}, NOBODY) is None:
                return 0
        comparing = [each for each in self.diagnoses if each.compares]
        report = self.diagnosers[site].look(comparing, self.diagnosers[site].site, stop)
        kept = [(target, asked, said) for target, asked, said in report.answers if asked in report.sampled]
        with self.durable.transaction() as tx:
            for target, asked, said in kept:
                self.store.sample(tx, target.key, str(asked), answer_to_json(said))
        return len(kept)
