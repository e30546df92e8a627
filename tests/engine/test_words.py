"""An event as a line, and a plan as lines: the same words wherever people read them."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from bot.core.command import sh
from bot.core.fix import Change, Fix, Risk
from bot.core.plan import Plan
from bot.core.story import KINDS, Event
from bot.core.target import Role, Target
from bot.engine.words import event_line, fixes_lines, plan_text, told_fix

HALL = Target("hall", Role.WORKER, "home", "10.0.0.1")
FIX = Fix(
    "a.b", "Heat the hall", HALL, (Change("Light it", sh("light")), Change("Poke it", sh("poke"))), Risk.INTERRUPTS
)


def line(kind: str, **data: object) -> str:
    return event_line(Event(1, 1, kind, data, datetime.now(UTC)))


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("look", {"no": 1, "asked": ["hall", "attic"], "unknown": []}, "look 1 at hall, attic"),
        ("look", {"no": 2, "asked": [], "unknown": ["hall: away"]}, "look 2 at nothing; not known: hall: away"),
        (
            "finding",
            {"severity": "WARN", "target": "hall", "title": "cold", "cause": "a.cold", "under": "a.power"},
            "WARN hall: cold [a.cold], a consequence of a.power",
        ),
        ("decision", {"verdict": "approve", "by": "U0BO", "reason": ""}, "approve by <@U0BO>"),
        ("decision", {"verdict": "decline", "by": "U0BO", "reason": "late"}, "decline by <@U0BO>: late"),
        ("waiting", {"for": "warmth"}, "waiting for warmth"),
        (
            "waiting",
            {"for": "warmth", "until": "2026-11-22T14:30:00+00:00"},
            "waiting for warmth, at most until 2026-11-22 14:30 UTC",
        ),
        (
            "change",
            {"target": "hall", "does": "Light it", "result": "failed", "command": "light", "said": "no match"},
            "hall: Light it: failed `light` (no match)",
        ),
        ("step", {"target": "hall", "does": "until warm", "result": "done"}, "hall: until warm: done"),
        ("verified", {"target": "hall", "fix": "Heat it", "healed": False}, "hall: Heat it: not healed"),
        ("note", {"text": "Evidence", "file": "look.txt", "content": "…"}, "Evidence (look.txt)"),
        ("outcome", {"outcome": "FIXED", "text": "It is warm."}, "FIXED: It is warm."),
    ],
)
def test_each_event_is_one_line(kind: str, data: Mapping[str, Any], said: str) -> None:
    assert line(kind, **data) == said


@pytest.mark.parametrize("kind", [*KINDS, "unheard-of"])
def test_what_an_older_or_newer_version_wrote_stops_nobody(kind: str) -> None:
    assert "None" not in line(kind)
    assert line("unheard-of", text="boo") == ""


def test_a_plan_reads_the_same_when_it_is_told() -> None:
    """What an approver sees in Slack, and what the command line and files print of the plan's event."""
    told = told_fix(FIX, "10.0.0.1 SHA256:abc")
    assert "\n".join(fixes_lines({"fixes": [told]})) == plan_text(Plan((FIX,), (("hall", "10.0.0.1 SHA256:abc"),)))
    assert list(fixes_lines({"fixes": [told]})) == [
        "1. hall: Heat the hall",
        "   machine: home/hall 10.0.0.1 SHA256:abc",
        "   risk: interrupts (running builds start again, or seconds of downtime)",
        "   a. Light it: light [at most 5 min]",
        "   b. Poke it: poke [at most 5 min]",
    ]
