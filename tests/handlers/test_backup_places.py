"""With several platform machines, what is backed up inside a container is asked of the machine that has it."""

from dataclasses import dataclass, field
from threading import Event

import pytest

from bot.core.backup import Source
from bot.core.target import Role, Site, Target
from bot.engine.rounds import Diagnoser
from handlers.toolbox import backup
from handlers.toolbox.platform import RUNNING
from tests.engine.machines import Machines

ONE, TWO = (Target(f"platform-{no}", Role.PLATFORM, "prod", f"10.0.0.{no}0") for no in (1, 2))
SITE = Site("prod", "travis.example.com", "2.2", (ONE, TWO))
TE_MAIN = "{}\tquay.io/travisci/te-main:2.2.17\tsleepy_dewdney\n"


@dataclass
class Remembering:
    """A `Taking`, and the `BackupSteps` that hands it out."""

    stored: list[Source] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def backup(self, what: str) -> "Remembering":
        return self

    def store(self, kind: str, source: Source) -> None:
        self.stored.append(source)

    def skip(self, kind: str, why: str) -> None:
        self.skipped.append(kind)

    def finish(self) -> str:
        return "done"


@pytest.mark.parametrize("kind", ["databases", "redis", "rabbitmq"])
def test_no_container_of_one_machine_is_looked_for_on_another(kind: str) -> None:
    machines = Machines({TWO.name: {str(RUNNING): TE_MAIN.format("bb20bb20bb20")}}, away={ONE.name})
    assert taken(machines, kind) == Remembering(skipped=[kind])
    machines.away.clear()
    machines.answers[ONE.name] = {str(RUNNING): TE_MAIN.format("aa10aa10aa10")}
    (source,) = taken(machines, kind).stored
    assert source.target == ONE
    assert "aa10aa10aa10" in str(source.origin)


def taken(machines: Machines, kind: str) -> Remembering:
    steps, diagnoser = Remembering(), Diagnoser(SITE, machines, lambda *_: None)
    diagnoser.planned(lambda look: backup.take(steps, look, kind), Event())  # type: ignore[arg-type]
    return steps
