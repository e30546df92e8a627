"""The storm: many incidents at once while a busy process is killed each second, and the database twice."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import psycopg
from psycopg.rows import DictRow

from tests.bench.gates import Figure, at_least, at_most, exactly, info, note
from tests.chaos import letters
from tests.chaos.nursery import kill, lives
from tests.chaos.people import Incident, Shift
from tests.chaos.world import NotInTime, World, percentile, until

BUSY = """
SELECT DISTINCT split_part(r.claimed_by, ':', 2)::int AS pid
  FROM absurd.r_opsbot r JOIN absurd.t_opsbot t USING (task_id)
 WHERE r.state = 'running' AND t.task_name = 'order'
"""
# What a process held when it died, and whether a change of it had an intent and no result.
HELD = """
SELECT r.task_id::text AS task, r.attempt, r.claimed_by, (t.params->>'run')::bigint AS run, EXISTS (
         SELECT FROM (SELECT DISTINCT ON (change_no) result FROM opsbot.changes c
                       WHERE c.run_id = (t.params->>'run')::bigint ORDER BY change_no, ask_no DESC) newest
          WHERE newest.result IS NULL) AS inside
  FROM absurd.r_opsbot r JOIN absurd.t_opsbot t USING (task_id)
 WHERE r.state = 'running' AND t.task_name = 'order' AND (%s = 0 OR split_part(r.claimed_by, ':', 2)::int = %s)
"""
# How far a task is: the newest attempt that somebody has claimed, and who holds it.
PEER = """
SELECT DISTINCT ON (task_id) task_id::text AS task, attempt, state, claimed_by FROM absurd.r_opsbot
 WHERE task_id::text = ANY(%s) AND state <> 'pending' ORDER BY task_id, attempt DESC
"""
Orphan = tuple[str, int, str]  # a task, its attempt, and the claim of the process that was killed


@dataclass
class Storm:
    """Kills until it is calm, and remembers what each kill hit."""

    world: World
    calm: Callable[[], bool]
    every: float = 1.0
    enough: bool = False
    kills: int = 0
    inside: int = 0
    restarts: int = 0
    died: int = 0
    orphaned: dict[Orphan, float] = field(default_factory=dict)
    takeovers: list[float] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)
    troubles: list[str] = field(default_factory=list)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _threads: list[threading.Thread] = field(default_factory=list)

    def begin(self) -> None:
        for work in (self._kill_for_ever, self._watch_for_ever):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            self._threads.append(thread)

    def end(self) -> None:
        self.stopped.set()
        for thread in self._threads:
            thread.join(30)

    def _kill_for_ever(self) -> None:
        due = time.monotonic() + self.every
        while not self.stopped.wait(max(0.02, due - time.monotonic())) and not (self.enough or self.calm()):
            self._raise_the_dead()
            try:
                with self._guard:
                    due = time.monotonic() + self.every if self._kill() else time.monotonic() + 0.05
            except psycopg.Error as error:
                self.troubles.append(f"kill: {error}")

    def _raise_the_dead(self) -> None:
        """What its own service manager would do: start again what ended by itself, such as without a database."""
        for slot, pid in self.world.serves.items():
            if not lives(pid):
                self.died += 1
                self.world.serve(slot)

    def _kill(self) -> bool:
        """Whether a process was busy, and died of it."""
        busy = {row["pid"] for row in self.world.rows(BUSY)}
        slots = [slot for slot, pid in self.world.serves.items() if pid in busy and lives(pid)]
        if not slots:
            return False
        slot = random.choice(slots)
        pid = self.world.serves[slot]
        kill(pid)
        at = time.monotonic()
        until(lambda: not lives(pid), 10, f"{pid} is gone", every=0.005)
        self.kills += 1
        self._remember(pid, at)
        self.world.serve(slot)
        return True

    def _remember(self, pid: int, at: float) -> None:
        time.sleep(0.05)  # a commit may still be on its way through a backend that has not heard of the death
        held = self.world.rows(HELD, pid, pid)
        self.inside += sum(row["inside"] for row in held)
        self.orphaned.update({(row["task"], row["attempt"], row["claimed_by"]): at for row in held})

    def restart_database(self) -> None:
        """As if its machine had lost its power. Nobody is killed meanwhile, so that each doubt has one cause."""
        with self._guard:
            self.world.server.restart(immediate=True)
            self.restarts += 1
            self.inside += sum(row["inside"] for row in self.world.rows(HELD, 0, 0))

    def _watch_for_ever(self) -> None:
        """When does a peer carry on what a killed process held? Looked at 20 times a second."""
        while not self.stopped.wait(0.05):
            waiting = dict(self.orphaned)
            try:
                rows = self.world.rows(PEER, list({each[0] for each in waiting})) if waiting else []
            except psycopg.Error:
                continue
            for row in rows:
                self._seen(waiting, row)

    def _seen(self, waiting: dict[Orphan, float], row: DictRow) -> None:
        """A newer attempt is the takeover. The same attempt in other hands: the last commit had ended the claim."""
        for orphan in [each for each in waiting if each[0] == row["task"]]:
            _, attempt, by = orphan
            if attempt < row["attempt"]:
                self.takeovers.append(time.monotonic() - self.orphaned.pop(orphan))
            elif row["state"] != "failed" and row["claimed_by"] != by:
                self.orphaned.pop(orphan)


@dataclass(frozen=True)
class Sending:
    """What one incident sent to its machine, by the machine's own log."""

    incident: Incident
    sent: Counter[str]

    @property
    def twice(self) -> int:
        return sum(count - 1 for count in self.sent.values() if count > 1)

    @property
    def whole(self) -> bool:
        """A run that says that it has fixed something has restarted the service."""
        return self.incident.outcome != "FIXED" or self.sent["restart"] == 1


def sendings(world: World, incidents: Sequence[Incident]) -> list[Sending]:
    return [
        Sending(each, Counter(line.what for line in world.log.changes(each.machine, each.since, each.to or None)))
        for each in incidents
    ]


@dataclass(frozen=True)
class Size:
    """`calm` is how many of the last runs are left alone: with one run left, each claim of it would be killed at once,
    and nobody could get anywhere.
    """

    runs: int = 200
    restarts: int = 2
    calm: int = 15
    within: float = 420.0


def play(world: World, size: Size, rest: float) -> tuple[Storm, Shift]:
    """The whole storm, until all incidents are over."""
    for slot in range(3):
        world.serve(slot)
    world.slack.wait_for_connection(30, at_least=3)
    shift = Shift(world, size.runs, rest=rest)
    storm = Storm(world, calm=lambda: shift.over >= size.runs - size.calm)
    shift.begin()
    storm.begin()
    due = [size.runs * (no + 1) // (size.restarts + 1) for no in range(size.restarts)]
    began, told = time.monotonic(), 0.0
    while shift.working and time.monotonic() < began + size.within:
        if due and shift.over >= due[0]:
            due.pop(0)
            storm.restart_database()
        if time.monotonic() > told + 10:
            told = time.monotonic()
            note(f"  {told - began:4.0f} s: {shift.over} of {size.runs} runs over, {storm.kills} kills")
        time.sleep(0.2)
    storm.enough = True
    with suppress(NotInTime):
        until(lambda: not storm.orphaned, 4 * world.lease, "the last takeover")
    storm.end()
    return storm, shift


def figures(world: World, storm: Storm, shift: Shift, took: float) -> list[Figure]:
    return [
        info("incidents, one at a time on each machine", f"{len(shift.incidents)} on {len(world.workers)} machines"),
        info("seconds", took),
        info("processes killed while they carried a run, then started anew", storm.kills),
        info("database restarts (immediate)", storm.restarts),
        info("processes that ended by themselves, and were started again", storm.died),
        *_kept(world, storm, shift),
        *_sent(world, storm, shift),
        *_said(world),
        *_times(world, storm, shift),
        info("deadlocks in the database (each was tried again)", len(deadlocks(world))),
        info("programs that the machines did not know", len(world.unknown())),
    ]


def _kept(world: World, storm: Storm, shift: Shift) -> list[Figure]:
    open_runs = sum(not each.outcome for each in shift.incidents if each.run and each.acknowledged)
    return [
        info("runs that were carried by what was killed", len(storm.takeovers) + len(storm.orphaned)),
        exactly("... and that no peer has taken over", len(storm.orphaned), 0),
        exactly("acknowledged orders and clicks that were not kept", len(_forgotten(world, shift)), 0),
        info("orders and clicks done again, because nobody acknowledged them", sum(d.repeated for d in shift.desks)),
        exactly("acknowledged orders whose run did not end", open_runs, 0),
        exactly("desks that gave up", len(shift.troubles), 0),
    ]


def _sent(world: World, storm: Storm, shift: Shift) -> list[Figure]:
    incidents = shift.incidents
    sent = sendings(world, incidents)
    fixed = sum(each.outcome == "FIXED" for each in incidents)
    questions = sum(len(each.answers) for each in incidents)
    again = sum(answer == "again" for each in incidents for _, answer in each.answers)
    return [
        exactly("changes sent twice, by the machines' log", sum(each.twice for each in sent), 0),
        exactly("fixed runs that sent too little", sum(not each.whole for each in sent), 0),
        at_least("runs that ended FIXED", 100 * fixed / max(1, len(incidents)), 95, " %"),
        info("kills and restarts inside a change: intent written, result not", storm.inside),
        at_most("... of which became a question to a person", questions, storm.inside),
        info("... answered `again`: it had not arrived, so it was sent then", again),
    ]


def _said(world: World) -> list[Figure]:
    said = letters.check(world)
    return [
        exactly("outcomes missing in Slack", len(said.outcomes), 0),
        exactly("events of a story missing in Slack", len(said.events), 0),
        exactly("questions missing in Slack, or still open there", len(said.questions), 0),
        exactly("letters given up, or still waiting", said.stuck, 0),
        info("messages said twice after a kill", said.twice),
    ]


def _times(world: World, storm: Storm, shift: Shift) -> list[Figure]:
    lasted = [each.seconds for each in shift.incidents if each.outcome]
    p50 = percentile(storm.takeovers, 0.5)
    return [
        at_most(f"from a kill to a peer's claim, p50 (lease {world.lease:g} s)", p50, 1.2 * world.lease, " s"),
        info("... p99, s", percentile(storm.takeovers, 0.99)),
        info("from the fault to the outcome in Slack, p50, s", percentile(lasted, 0.5)),
        info("... p95, s", percentile(lasted, 0.95)),
    ]


def _forgotten(world: World, shift: Shift) -> set[str]:
    """By Slack's own ids of what was acknowledged."""
    known = {row["key"] for row in world.rows("SELECT key FROM opsbot.requests")}
    return {key for desk in shift.desks for key in desk.kept} - known


def outcomes(incidents: Sequence[Incident]) -> str:
    return ", ".join(f"{count} {name or 'none'}" for name, count in Counter(i.outcome for i in incidents).most_common())


def run(world: World, size: Size, rest: float) -> list[Figure]:
    """Play it, count, and say what went wrong."""
    began = time.monotonic()
    storm, shift = play(world, size, rest)
    took = time.monotonic() - began
    try:
        letters.wait_until_quiet(world, 90)
    except NotInTime as late:
        note(f"  {late}")
    found = figures(world, storm, shift, took)
    explain(world, storm, shift)
    world.stop_serving()
    return found


def explain(world: World, storm: Storm, shift: Shift) -> None:
    """For who looks for reasons."""
    note(f"  outcomes: {outcomes(shift.incidents)}")
    for trouble in (*shift.troubles, *storm.troubles, *deadlocks(world)):
        note(f"  {trouble}")
    for text, count in letters.private(world).most_common(10):
        note(f"  {count} x privately: {text}")
    for sending in sendings(world, shift.incidents):
        if sending.twice or not sending.whole or sending.incident.outcome != "FIXED":
            run = sending.incident.run
            note(f"  run {run} {sending.incident.outcome}: {dict(sending.sent)} {sending.incident.answers}")
            note(story(world, run))


def deadlocks(world: World) -> list[str]:
    """Statements that waited for each other, by the server's own log."""
    lines = world.server.log.read_text(errors="replace").splitlines()
    found = [no for no, line in enumerate(lines) if "deadlock detected" in line]
    return ["\n    ".join(lines[no : no + 9]) for no in found]


STORY = "SELECT no, at, kind, data FROM opsbot.events WHERE run_id = %s ORDER BY no"
CHANGES = "SELECT change_no, ask_no, shown, result FROM opsbot.changes WHERE run_id = %s ORDER BY change_no, ask_no"
ASKED = "SELECT no, kind, state, voters FROM opsbot.approvals WHERE run_id = %s ORDER BY no"


def story(world: World, run: int) -> str:
    """What a run tells of itself."""
    told = [f"    {row['at']:%T} {row['kind']} {str(row['data'])[:160]}" for row in world.rows(STORY, run)]
    return "\n".join([*told, *(f"    {row}" for sql in (CHANGES, ASKED) for row in world.rows(sql, run))])
