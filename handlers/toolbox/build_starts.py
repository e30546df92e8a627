"""What keeps builds from starting on a worker, as its log says it: each line names another cause, with another remedy.

Source: the messages of https://github.com/travis-ci/worker
"""

from dataclasses import dataclass
from datetime import datetime

from bot.core.errors import Unknown
from bot.core.fact import Fact, fact
from bot.core.question import Output
from bot.core.target import Target
from handlers.toolbox import worker

SCRIPT = "couldn't generate build script"
IMAGE = "couldn't select image"
CPUS = "couldn't checkout CPUSets"
REQUEUE = "couldn't start instance, attempting requeue"
STARTED = "started instance"


@dataclass(frozen=True)
class Trouble:
    """How often the log has one message since a build last started, what it said last, and when."""

    times: int = 0
    said: str = ""
    at: datetime | None = None


@fact
def troubles(machine: Target, init: str) -> Fact[dict[str, Trouble]]:
    """Message -> what the log says of it since the worker was started; messages that it does not have are left out."""
    asks = f"What keeps builds from starting on {machine}?"
    return Fact(asks, machine, worker.log(init), _troubles)


def _troubles(said: Output) -> dict[str, Trouble]:
    if not said.ok:
        raise Unknown(f"the worker's log cannot be read: {said.err.strip()[:200] or 'no answer in time'}")
    found: dict[str, Trouble] = {}
    for line in said.out.rpartition("worker started")[2].splitlines():
        if STARTED in line:
            found = {message: Trouble(0, before.said, before.at) for message, before in found.items()}
        for message in (SCRIPT, IMAGE, CPUS, REQUEUE):
            if message in line:
                times = found.get(message, Trouble()).times + 1
                found[message] = Trouble(times, worker.words_of(line), worker.moment_of(line))
    return found
