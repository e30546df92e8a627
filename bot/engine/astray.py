"""A run whose installation is no longer in the configuration: somebody has given it another name meanwhile."""

from contextlib import suppress
from datetime import timedelta
from typing import Final

from bot.core.outcome import Ending, Outcome
from bot.core.ports import Tx
from bot.core.story import Event
from bot.engine.changing import UNSENT
from bot.engine.journal import Cancelled, Journal
from bot.engine.words import listed

LOOKED_FOR_EVERY: Final = timedelta(seconds=30)
UNKNOWN: Final = ("sent", "in doubt")  # results of changes of which nobody knows whether they happened


def wait(journal: Journal) -> Ending:
    """Sleep until whoever serves then has the installation, and goes on; an ending only when the run is cancelled.

    Ending it by itself would leave half done what the old name, put back, could still finish.
    """
    journal.write("astray", lambda tx: _tell(journal, tx))
    with suppress(Cancelled):
        journal.pause(LOOKED_FOR_EVERY)
    return _left(journal)


def _tell(journal: Journal, tx: Tx) -> bool:
    site, number = journal.run.order.site, journal.run.id
    why = f"installation {site}, which the configuration no longer has: put the name back, or `cancel {number}`"
    journal.tell(tx, "waiting", **{"for": why, "until": ""})
    return True


def _left(journal: Journal) -> Ending:
    """What is true without looking: what was sent stands, and nothing was put back."""
    with journal.claim.commit() as tx:
        story = journal.store.story(tx, journal.run.id)
    done = [each.data["does"] for each in story if each.kind == "step" and each.data["result"] == "done"]
    sent = {_change(each): each.data["result"] for each in story if each.kind == "change"}
    sent = {change: result for change, result in sent.items() if result not in UNSENT}
    if not sent:
        steps = f"The steps that had finished stand: {listed(done)}." if done else "Nothing was changed."
        return Ending(Outcome.CANCELLED, f"Cancelled. {steps}")
    changes = listed([f"{change} ({result})" for change, result in sent.items()])
    return Ending(
        Outcome.IN_DOUBT if set(UNKNOWN) & set(sent.values()) else Outcome.CANCELLED,
        f"Cancelled. The configuration no longer has the installation {journal.run.order.site}, so nothing was looked "
        f"at again or put back; what was sent before: {changes}.",
    )


def _change(event: Event) -> str:
    return f"{event.data['target']}: {event.data['does']}"
