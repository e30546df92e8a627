"""`opsbot serve`, a process as anybody runs it, while its database is away for a minute in the middle of a run.

Nothing is said to be taken that was not, nothing is sent meanwhile, and afterwards everything goes on by itself.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from bot import tryout
from bot.sandbox.slack import LocalSlack, Message
from tests.rigs import postgres

AWAY = 60.0  # seconds
SECONDS = 60.0


@dataclass(frozen=True)
class Stage:
    """A serve of its own, its database, its Slack and the machines."""

    database: postgres.Server
    slack: LocalSlack
    machines: tryout.Child
    serve: tryout.Child

    def plan(self) -> Message:
        return self.slack.driver.wait_for(lambda _: self._open_plan(), SECONDS)

    def _open_plan(self) -> Message | None:
        found = [each for each in self.slack.driver.messages("ops") if "approve" in each.actions]
        return found[-1] if found else None

    def told(self) -> str:
        return "\n".join(message.all_text for message in self.slack.driver.messages("ops"))

    def changes(self) -> list[str]:
        """What any machine was told to do to its worker's service."""
        lines = Path(self.machines.ready["log"]).read_text().splitlines()
        return [line for line in lines if "systemctl restart travis-worker" in line]


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tryout._scratch()))
        database = stack.enter_context(postgres.server("18"))
        slack = stack.enter_context(LocalSlack())
        travis = stack.enter_context(postgres.server("18"))
        own = ("--folder", str(home / "machines"), "--database", travis.dsn, "--fault", tryout.FAULT)
        machines = stack.enter_context(tryout._child("installation", home, "-m", "bot.sandbox.installation", *own))
        written = tryout._configuration(home, machines.ready["installation"])
        at = conninfo_to_dict(database.dsn)
        written["database"] = {"url": f"postgresql://{at['user']}@/{at['dbname']}?host={at['host']}&port={at['port']}"}
        config = home / "opsbot.yaml"
        config.write_text(yaml.safe_dump(written))
        words = ("-m", "bot.cli", "serve", "--config", str(config), "--simulator", slack.api_url)
        serve = stack.enter_context(tryout._child("serve", home, *words))
        slack.driver.wait_for_connection(SECONDS)
        yield Stage(database, slack, machines, serve)


@pytest.mark.timeout(300)  # a minute of it is the point; on its own in this file, so that others run meanwhile
def test_a_database_that_is_away_for_a_minute_costs_a_minute(stage: Stage) -> None:
    ana, bo = stage.slack.driver.person("ana"), stage.slack.driver.person("bo")
    assert ana.slash("/travis", tryout.QUESTION).acked
    plan = stage.plan()
    before = stage.told()

    stage.database.stop(immediate=True)
    gone = time.monotonic()
    bo.click(plan, "approve")
    refused = ana.slash("/travis", "status")
    assert "On it" not in (refused.shown or "")
    time.sleep(max(0.0, AWAY - (time.monotonic() - gone)))
    assert stage.serve.process.poll() is None, "it waits"
    assert stage.told() == before, "nobody was told anything"
    assert stage.changes() == []

    stage.database.start()
    back = time.monotonic()
    stage.slack.driver.wait_for(lambda _: _taken(stage, plan), SECONDS)
    stage.slack.driver.wait_for(lambda _: "Fixed" in stage.told(), 2 * SECONDS)
    print(f"it went on by itself, and the run had ended {time.monotonic() - back:.0f} s after the database was back")
    assert len(stage.changes()) == 1
    assert stage.machines.ask(do="state")["unknown"] == []
    stage.serve.process.terminate()
    assert stage.serve.process.wait(SECONDS) == 0


def _taken(stage: Stage, plan: Message) -> bool:
    """Bo presses again until it is counted, as people do."""
    if stage.changes() or "approved by" in stage.told().lower():
        return True
    stage.slack.driver.person("bo").click(plan, "approve")
    time.sleep(1)
    return False
