"""A frozen process must see by itself that its lease may be gone: no other thread may be awake yet."""

import time
from typing import Any

from bot.adapters.durable.claim import Claim

ROW: dict[str, Any] = {"task_id": "t", "name": "order", "params": {}, "attempt": 1, "run_id": "r", "seen": 0}


def test_abort_is_set_by_the_clock_alone() -> None:
    claim = Claim(None, ROW, "worker", lease=9, claimed=time.monotonic() - 5.9)  # type: ignore[arg-type]
    assert not claim.abort.is_set()
    claim.extended -= 0.2
    assert claim.abort.is_set()
    claim.extended = time.monotonic()
    assert claim.abort.is_set(), "what was told to stop stays stopped"


def test_being_told_to_stop_is_not_being_lost() -> None:
    """What must still be done before a run ends goes on after a cancel, and ends with the lease."""
    claim = Claim(None, ROW, "worker", lease=9, claimed=time.monotonic() - 5.9)  # type: ignore[arg-type]
    claim.abort.set()
    assert not claim.lost.is_set()
    claim.extended -= 0.2
    assert claim.lost.is_set()
