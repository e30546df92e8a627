"""What a run's story comes to: the newest state of every finding, plan and step, read from its events. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bot.core.outcome import Outcome
from bot.core.run import Run
from bot.core.story import Event, text, texts

ENDLESS: Final = ("waiting", "under way")  # as long as nobody tells an end
UNFINISHED: Final = ("sent", "in doubt", *ENDLESS)
SEVERITIES: Final = ("INFO", "WARN", "BROKEN")


@dataclass(frozen=True)
class Trouble:
    """A finding as it stands now."""

    target: str
    cause: str
    severity: str
    title: str
    evidence: str = ""
    fixes: tuple[str, ...] = ()
    under: str = ""
    person: str = ""
    link: str = ""
    healed: bool = False
    stale: bool = False  # a later look did not find it again; whether it could be looked at, only that look knows

    @property
    def open(self) -> bool:
        return not self.healed and not self.stale

    @property
    def weight(self) -> int:
        return SEVERITIES.index(self.severity) if self.open else -1


@dataclass(frozen=True)
class Done:
    """A change, step or proof: what, on which machine, how it ended, what was said."""

    target: str
    does: str
    result: str
    said: str = ""


@dataclass(frozen=True)
class Picture:
    """All of it. `phase` says what the run does now, in a word for the headline."""

    phase: str = "Starting"
    troubles: tuple[Trouble, ...] = ()
    checked: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    plan: Mapping[str, Any] = field(default_factory=dict)
    decisions: tuple[Mapping[str, Any], ...] = ()
    done: tuple[Done, ...] = ()
    waiting: Mapping[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    sentence: str = ""
    people: frozenset[str] = frozenset()

    def roots(self) -> list[tuple[Trouble, list[Trouble]]]:
        """Every cause with its consequences, worst first; a consequence whose cause was not found stands alone."""
        causes = {each.cause for each in self.troubles if not each.under}
        under: dict[str, list[Trouble]] = {}
        roots: list[Trouble] = []
        for each in self.troubles:
            (under.setdefault(each.under, []) if each.under in causes else roots).append(each)
        ranked = sorted(roots, key=lambda each: -each.weight)
        return [(each, under.pop(each.cause, [])) for each in ranked]


def picture(run: Run, story: Sequence[Event]) -> Picture:
    """Read the events in order; a part that a newer version wrote and this one does not know is passed over."""
    seen = Picture()
    for event in story:
        if read := _READERS.get(event.kind):
            seen = read(seen, event.data)
            seen = seen if event.kind == "waiting" else replace(seen, waiting={})
    if run.outcome is not None:
        seen = replace(seen, outcome=run.outcome, sentence=seen.sentence or run.summary)
    return seen


def _look(seen: Picture, data: Mapping[str, Any]) -> Picture:
    first = data.get("no", 1) == 1
    return replace(
        seen,
        phase="Looked" if first else "Looked again",
        troubles=tuple(replace(each, stale=True) for each in seen.troubles),
        checked=texts(data.get("checked")) or seen.checked,
        unknown=texts(data.get("unknown")),
        asked=texts(data.get("asked")) or seen.asked,
    )


def _finding(seen: Picture, data: Mapping[str, Any]) -> Picture:
    new = Trouble(
        target=text(data.get("target")),
        cause=text(data.get("cause")),
        severity=_severity(data.get("severity")),
        title=text(data.get("title")),
        evidence=text(data.get("evidence")),
        fixes=texts(data.get("fixes")),
        under=text(data.get("under")),
        person=text(data.get("person")),
        link=text(data.get("link")),
    )
    older = [each for each in seen.troubles if (each.target, each.cause) != (new.target, new.cause)]
    return replace(seen, troubles=(*older, new))


def _plan(seen: Picture, data: Mapping[str, Any]) -> Picture:
    return replace(seen, plan=data, decisions=(), phase="Waiting for approval" if needs(data) else "Planned")


def _decision(seen: Picture, data: Mapping[str, Any]) -> Picture:
    verdict = text(data.get("verdict"))
    user = text(data.get("by")).removeprefix("<@").removesuffix(">")
    phase = {"approve": "Approved", "decline": "Declined", "expire": "Expired"}.get(verdict, "Decided")
    return replace(seen, decisions=(*seen.decisions, data), phase=phase, people=seen.people | {user})


def _waiting(seen: Picture, data: Mapping[str, Any]) -> Picture:
    return replace(seen, waiting=data)


def _change(seen: Picture, data: Mapping[str, Any]) -> Picture:
    phase = "In doubt" if data.get("result") == "in doubt" else "Repairing"
    return replace(_did(seen, data), phase=phase)


def _step(seen: Picture, data: Mapping[str, Any]) -> Picture:
    return replace(_did(seen, data), phase="Working")


def _did(seen: Picture, data: Mapping[str, Any]) -> Picture:
    """A change or wait is told when it begins and when it ended: one line, the newest result."""
    new = Done(text(data.get("target")), text(data.get("does")), text(data.get("result")), text(data.get("said")))
    last = seen.done[-1] if seen.done else None
    unfinished = last is not None and last.result in UNFINISHED
    same = unfinished and last is not None and (last.target, last.does) == (new.target, new.does)
    return replace(seen, done=(*(seen.done[:-1] if same else seen.done), new))


def _verified(seen: Picture, data: Mapping[str, Any]) -> Picture:
    target, fix, healed = text(data.get("target")), text(data.get("fix")), bool(data.get("healed"))
    proven = "healed" if seen.troubles else "as it should be"
    new = Done(target, "Looked again", proven if healed else "not healed")
    troubles = tuple(
        replace(each, healed=True) if healed and each.target == target and (not fix or fix in each.fixes) else each
        for each in seen.troubles
    )
    return replace(seen, done=(*seen.done, new), troubles=troubles, phase="Verified")


def _outcome(seen: Picture, data: Mapping[str, Any]) -> Picture:
    said = text(data.get("outcome")).lower().replace("_", " ")
    found = next((each for each in Outcome if said in (each.words, each.name.lower().replace("_", " "))), None)
    return replace(seen, outcome=found or Outcome.FAILED, sentence=text(data.get("text")))


_READERS: Final = {
    "look": _look,
    "finding": _finding,
    "plan": _plan,
    "decision": _decision,
    "waiting": _waiting,
    "change": _change,
    "step": _step,
    "verified": _verified,
    "outcome": _outcome,
}


def needs(plan: Mapping[str, Any]) -> int:
    """How many people a plan waits for."""
    wanted = plan.get("needs")
    return wanted if isinstance(wanted, int) and wanted > 0 else 0


def _severity(value: Any) -> str:
    if isinstance(value, int) and 1 <= value <= len(SEVERITIES):
        return SEVERITIES[value - 1]
    name = text(value).upper()
    return name if name in SEVERITIES else "BROKEN"
