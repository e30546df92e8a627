"""An unchanged opsbot that looks after the test's installation, and the people who speak with it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

import yaml
from psycopg.conninfo import conninfo_to_dict

from bot.core.run import Run
from bot.core.story import Event
from bot.sandbox.slack import Limits, LocalSlack, Message, example
from bot.settings import load
from bot.wiring import Serving
from tests.rigs.worker import ADDRESSES, NAME, QUEUE, Installation

SECONDS = 90.0
ENVIRONMENT = {"SLACK_BOT_TOKEN": "xoxb-local-e2e", "SLACK_APP_TOKEN": "xapp-local-e2e"}


@dataclass(frozen=True)
class Opsbot:
    """A running opsbot and its Slack."""

    slack: LocalSlack
    serving: Serving

    def ask(self, person: str, text: str) -> Message:
        """Type it as a slash command; what opsbot begins its thread with."""
        seen = {message.ts for message in self.slack.driver.messages("ops")}
        ack = self.slack.driver.person(person).slash("/travis", text)
        assert ack.acked, ack
        return self.slack.driver.wait_for(lambda _: self._first_after(seen), SECONDS)

    def _first_after(self, seen: set[str]) -> Message | None:
        new = [each for each in self.slack.driver.messages("ops") if each.ts not in seen and each.thread_ts is None]
        return new[0] if new else None

    def plan(self, thread: Message, number: int = 1) -> Message:
        """The message of the thread's nth plan, as soon as it can be approved."""

        def look(_: object) -> Message | None:
            asked = [event for event in self._story() if event.kind == "plan"]
            open_ = [message for message in self.slack.driver.thread(thread) if "approve" in message.actions]
            return open_[-1] if len(asked) >= number and open_ else None

        return self.slack.driver.wait_for(look, SECONDS)

    def decisions(self) -> list[tuple[str, str]]:
        """What was decided in the newest run, and by whom."""
        made = (event.data for event in self._story() if event.kind == "decision")
        return [(data["verdict"], data["by"]) for data in made]

    def press(self, person: str, message: Message, action: str) -> None:
        self.slack.driver.person(person).click(message, action)

    def told_alone(self, person: str, words: str) -> str:
        """What only this person saw, with these words in it."""
        found = self.slack.driver.wait_for(
            lambda slack: [each.all_text for each in slack.ephemerals(person) if words in each.all_text], SECONDS
        )
        return found[-1]

    def run(self) -> Run:
        """The newest run."""
        with self.serving.base.durable.transaction() as tx:
            return self.serving.base.store.runs(tx, 1)[0]

    def _story(self) -> Sequence[Event]:
        run = self.run().id
        with self.serving.base.durable.transaction() as tx:
            return self.serving.base.store.story(tx, run)

    def ended(self) -> Run:
        """The newest run, when it has an outcome."""
        return self.slack.driver.wait_for(lambda _: self._outcome(), SECONDS)

    def _outcome(self) -> Run | None:
        run = self.run()
        return run if run.outcome is not None else None


@contextmanager
def serving(prod: Installation, dsn: str, folder: Path) -> Iterator[Opsbot]:
    with LocalSlack(limits=Limits(rate_limited=False)) as slack:
        settings = load(_config(prod, folder), {**ENVIRONMENT, "OPSBOT_DATABASE_URL": _url(dsn)})
        opsbot = Serving(settings, slack.api_url)
        opsbot.start()
        try:
            slack.driver.wait_for_connection()
            yield Opsbot(slack, opsbot)
        finally:
            opsbot.stop()


def _config(prod: Installation, folder: Path) -> Path:
    workspace = example()
    ops = next(channel.id for channel in workspace.channels if channel.name == "ops")
    ssh = {"user": "ops", "key_file": str(prod.rig.key_file), "known_hosts": str(prod.rig.known_hosts)}
    hosts = prod.rig.hosts
    machines = {name: {"name": name, "host": address, "port": hosts[name].port} for name, address in ADDRESSES.items()}
    workers = [{**machine, "queue": QUEUE} for name, machine in machines.items() if name.startswith("worker")]
    config = {
        "slack": {"team_id": workspace.team, "app_id": workspace.app, "channels": {"commands": [ops]}},
        "state_dir": str(folder),
        "socket": str(folder / "opsbot.sock"),
        "people": {"approvers": {"usergroup": workspace.groups[0].id}},
        "engine": {"poll": "500ms", "lease": "5s", "sample_every": "1h"},
        "installations": [
            {
                "name": NAME,
                "version": "2.2",
                "domain": "travis.example.com",
                "ssh": ssh,
                "platforms": [machines["platform-1"]],
                "workers": workers,
            }
        ],
    }
    file = folder / "opsbot.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def _url(dsn: str) -> str:
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    return f"postgresql:///{parts.pop('dbname')}?{urlencode(parts)}"
