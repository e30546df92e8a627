"""A thousand clicks on one approval, through Bolt, on two opsbots, from several people: exactly one decision."""

import copy
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bot.sandbox.slack import Ack, Message
from bot.sandbox.slack.workspace import ANA, BO, CY, GUEST, OWNER
from tests.bench.gates import Figure, exactly, info
from tests.chaos.people import Desk, Incident, press
from tests.chaos.world import World, percentile, until

CLICKS = 1000
AT_ONCE = 20
PEOPLE = (BO, CY, ANA, GUEST, OWNER)  # two approvers; who asked; a guest; somebody who is no approver


def run(world: World) -> list[Figure]:
    for slot in range(2):
        world.serve(slot)
    world.slack.wait_for_connection(30, at_least=2)
    desk = Desk(world, world.workers[0], world.channels[0])
    now = Incident(desk.machine, desk.channel, len(world.log.lines()))
    world.inject(desk.machine)
    desk.order(now)
    asked = until(lambda: _question(desk, now), 30, "the plan is asked about")
    began = time.monotonic()
    acks = _click_all(world, asked)
    took = time.monotonic() - began
    until(lambda: _outcome(world, now.run), 120, "the run ends")
    decided = world.rows("SELECT count(*) AS n FROM opsbot.decisions d JOIN opsbot.approvals a ON a.id = d.approval_id "
                         "WHERE a.run_id = %s", now.run)[0]["n"]  # fmt: skip
    waiting = world.rows("SELECT count(*) AS n FROM opsbot.outbox WHERE state = 'pending'")[0]["n"]
    sent = [each.what for each in world.log.changes(desk.machine, now.since)]
    by = world.rows("SELECT voters FROM opsbot.approvals WHERE run_id = %s", now.run)
    world.stop_serving()
    return [
        exactly("clicks", len(acks), CLICKS),
        info("... acknowledged", sum(each.acked for each in acks)),
        info("... in seconds", took),
        info("... until the acknowledgement, p50, ms", percentile([each.ms for each in acks if each.ms], 0.5)),
        exactly("decisions", decided, 1),
        exactly("approvals with another number of voters than one", sum(len(row["voters"]) != 1 for row in by), 0),
        exactly("times the plan was applied, by the machine's log", sent.count("restart"), 1),
        info("private answers that still wait for their turn (one a second)", waiting),
    ]


def _question(desk: Desk, now: Incident) -> Message | None:
    desk._thread(now)
    found = [each for each in desk._thread(now) if "approve" in each.actions] if now.root else []
    return found[0] if found else None


def _click_all(world: World, asked: Message) -> list[Ack]:
    """One is pressed; its payload is delivered again as everybody's, since a closed question has no button."""
    first = press(world, "gus", asked, "approve")
    payload = next(
        each["payload"] for each in world.slack.deliveries("interactive") if each["envelope_id"] == first.envelope_id
    )

    def click(no: int) -> Ack:
        return world.slack.deliver("interactive", _as(payload, PEOPLE[no % len(PEOPLE)]))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [first, *pool.map(click, range(CLICKS - 1))]


def _as(payload: dict[str, Any], user: str) -> dict[str, Any]:
    made = copy.deepcopy(payload)
    made["user"] = {**made["user"], "id": user}
    made["trigger_id"] = secrets.token_hex(12)
    return made


def _outcome(world: World, run: int) -> str:
    return world.rows("SELECT outcome FROM opsbot.runs WHERE id = %s", run)[0]["outcome"] or ""
