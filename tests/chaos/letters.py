"""Did Slack hear everything? Each run's story, as the rows have it, against the messages that the local Slack holds."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bot.core.outcome import Outcome
from bot.sandbox.slack import Message
from tests.bench.gates import note
from tests.chaos.people import OF_RUN, outcome_of
from tests.chaos.world import World, until

Json = dict[str, Any]
CLIPPED = 20  # characters of a text that stand in a message however it is shortened


@dataclass
class Said:
    """What is missing, as sentences, and how often something was said twice."""

    outcomes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    stuck: int = 0
    twice: int = 0


@dataclass
class Thread:
    """The messages of one run."""

    statuses: list[Message] = field(default_factory=list)
    others: list[Message] = field(default_factory=list)


def wait_until_quiet(world: World, within: float) -> None:
    """Until every letter has left. Only to know when to look: what is looked at is Slack."""
    pending = "SELECT count(*) AS n FROM opsbot.outbox WHERE state = 'pending'"
    until(lambda: world.rows(pending)[0]["n"] == 0, within, "all letters are sent", every=0.5)


def check(world: World) -> Said:
    said = Said(stuck=world.rows("SELECT count(*) AS n FROM opsbot.outbox WHERE state <> 'sent'")[0]["n"])
    threads = _threads(world)
    for run in world.rows("SELECT id, outcome, channel FROM opsbot.runs WHERE outcome IS NOT NULL ORDER BY id"):
        thread = threads.get(run["id"], Thread())
        _outcome(said, run, thread)
        story = world.rows("SELECT no, kind, data FROM opsbot.events WHERE run_id = %s ORDER BY no", run["id"])
        _events(said, run["id"], [dict(event) for event in story], thread)
    for approval in world.rows("SELECT run_id, kind, state, title FROM opsbot.approvals ORDER BY id"):
        _question(said, approval, threads.get(approval["run_id"], Thread()))
    for missing in (*said.outcomes, *said.events, *said.questions):
        note(f"  {missing}")
    return said


def private(world: World) -> Counter[str]:
    """What people were told alone, numbers left out."""
    return Counter(re.sub(r"\d+", "N", each.text) for each in world.slack.ephemerals())


def _threads(world: World) -> dict[int, Thread]:
    """By run; what stands in a thread belongs to the run of its first message."""
    threads: dict[int, Thread] = {}
    for channel in world.channels:
        messages = world.slack.messages(channel)
        owner = {each.ts: int(found[0]) for each in messages if (found := OF_RUN.findall(each.all_text))}
        for each in messages:
            if each.ts in owner:
                threads.setdefault(owner[each.ts], Thread()).statuses.append(each)
            elif each.thread_ts in owner:
                threads.setdefault(owner[str(each.thread_ts)], Thread()).others.append(each)
    return threads


def _outcome(said: Said, run: Json, thread: Thread) -> None:
    said.twice += max(0, len(thread.statuses) - 1)
    shown = [outcome_of(each) for each in thread.statuses]
    if Outcome[run["outcome"]].name not in shown:
        said.outcomes.append(f"run {run['id']} ended {run['outcome']}, Slack shows {shown or 'nothing'}")


def _events(said: Said, run: int, story: list[Json], thread: Thread) -> None:
    status = "\n".join(each.all_text for each in thread.statuses)
    others = [f"{each.all_text}\n{json.dumps(each.files)}" for each in thread.others]
    for event in story:
        wanted = [str(each) for each in _shown_of(event)]
        if event["kind"] == "note":
            copies = sum(all(each in other for each in wanted) for other in others)
            if wanted and not copies:
                said.events.append(f"run {run}: its note {wanted} is not in Slack")
            said.twice += max(0, copies - 1) if "file" in event["data"] else 0
        elif missing := [each for each in wanted if each not in status]:
            said.events.append(f"run {run}: {event['kind']} {event['no']}: {missing} is not in Slack")


def _shown_of(event: Json) -> list[Any]:
    """What of an event must stand in Slack in the end; progress that was overtaken need not."""
    data = event["data"]
    table: dict[str, Callable[[], list[Any]]] = {
        "finding": lambda: [data["target"], data["title"][:CLIPPED]],
        "plan": lambda: [fix["title"] for fix in data["fixes"]],
        "decision": lambda: [data["by"]] if data["verdict"] == "approve" else [],
        "change": lambda: [data["does"][:CLIPPED]] if data["result"] in ("done", "not needed", "failed") else [],
        "step": lambda: [data["does"][:CLIPPED]] if data["result"] in ("done", "failed") else [],
        "verified": lambda: ["healed"],
        "note": lambda: [data["file"]] if data.get("file") else [data["text"][:60].split("`")[0]],
        "outcome": lambda: [data["text"][:CLIPPED]],
    }
    return table[event["kind"]]() if event["kind"] in table else []


def _question(said: Said, approval: Json, thread: Thread) -> None:
    """A message for each question, and a word of its end when it was closed."""
    texts = [each for each in thread.others if approval["title"][:CLIPPED] in each.all_text and _asks(each)]
    kinds = Counter(_asks(each) for each in texts)
    if not kinds[approval["kind"]]:
        said.questions.append(f"run {approval['run_id']}: its {approval['kind']} is not in Slack")
        return
    open_ = [each for each in texts if _asks(each) == approval["kind"] and {"approve", "again"} & set(each.actions)]
    if approval["state"] != "open" and len(open_) == kinds[approval["kind"]]:
        said.questions.append(f"run {approval['run_id']}: its {approval['kind']} still looks open in Slack")


def _asks(message: Message) -> str:
    text = message.all_text
    if "opsbot was interrupted after it may have been sent" in text:
        return "doubt"
    return "plan" if "*Plan:*" in text else ""
