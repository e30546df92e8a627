"""A whole run in AWS: a port is shut, somebody approves, one rule is added, and the worker gets through."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from threading import Event as Flag

import pytest

from bot.adapters.aws import Aws
from bot.adapters.router import Router
from bot.core.aws import AwsCall
from bot.core.handler import Catalogue
from bot.core.outcome import Outcome
from bot.core.question import Answer, Output, Question, Unanswered
from bot.core.target import Target
from bot.engine.answers import Answers
from bot.engine.desk import Desk
from bot.engine.policy import Policy
from bot.engine.rounds import Diagnoser
from tests.engine.lamps import BO, Room, room
from tests.network.amazon import Amazon, account, amazon
from tests.network.test_aws import CATALOGUE, SILENT, Worker, World, made

__all__ = ["account", "amazon"]
pytestmark = pytest.mark.parametrize("postgres_server", ["18"], indirect=True)


class Behind(Worker):
    """The worker of a world, whose packets AWS drops as long as there is no rule."""

    world: World

    def ask(self, target: Target, questions: Sequence[Question], abort: Flag) -> Sequence[Answer | Unanswered]:
        is_open = any(rule["FromPort"] == 5672 for rule in self.world.amazon.rules())
        self.answers["worker-1"] = self.world.answers(Output(0) if is_open else SILENT, Output(0))
        return super().ask(target, questions, abort)


@dataclass
class Line:
    """The way to AWS; `loses` that many answers after AWS has done what it was told."""

    aws: Aws
    loses: int = 0
    calls: int = 0

    def call(self, target: Target, call: AwsCall, within: timedelta) -> Output:
        self.calls += 1
        said = self.aws.call(target, call, within)
        self.loses -= 1
        return said if self.loses < 0 else Output(None)


@contextmanager
def at_work(database: str, amazon: Amazon, line: Line) -> Iterator[Room]:
    """An opsbot for an installation called `home`, of which one worker is shut out."""
    world = World(amazon)
    world.site = replace(
        world.site, name="home", targets=tuple(replace(each, installation="home") for each in world.site)
    )
    machines = Behind(world.machines.answers)
    machines.world = world
    router = Router(machines, {AwsCall: line.aws}, None, line)
    catalogue = Catalogue()
    catalogue.add(CATALOGUE.diagnoses["network ports"], "network_ports")
    diagnosers = {"home": Diagnoser(world.site, router, lambda target, question, span: None)}
    with room(database) as made_room:
        engine = replace(made_room.engine, sender=router, diagnosers=diagnosers, catalogue=catalogue)
        answers = Answers(engine.store, engine.durable, catalogue, Policy(()), engine.gate, diagnosers)
        made_room.desk = Desk(engine.store, engine.durable, catalogue, engine.redactor, answers)
        made_room.set_to_work(engine, lease=10)
        yield made_room


@pytest.fixture
def line(amazon: Amazon) -> Iterator[Line]:
    made.cache_clear()
    yield Line(made(True))
    made.cache_clear()


@pytest.mark.parametrize("loses", [0, 1])
def test_one_rule_is_added_after_an_approval_and_proven(database: str, amazon: Amazon, line: Line, loses: int) -> None:
    """Also when AWS' answer is lost on the way: the group itself says that it was done, and nothing is sent again."""
    line.loses = loses
    with at_work(database, amazon, line) as home:
        run = home.order("builds not starting")
        ask = home.asked(run, 30)
        assert "authorize-security-group-ingress" in ask.ask.text
        assert "10.0.0.11/32" in ask.ask.text
        assert (amazon.rules(), line.calls) == ([], 0)
        home.click(ask, BO)
        assert home.outcome(run, 60) is Outcome.FIXED
    assert line.calls == 1
    assert [rule["IpRanges"][0]["CidrIp"] for rule in amazon.rules()] == ["10.0.0.11/32"]


def test_a_rule_that_somebody_added_meanwhile_is_not_added_again(database: str, amazon: Amazon, line: Line) -> None:
    with at_work(database, amazon, line) as home:
        run = home.order("builds not starting")
        ask = home.asked(run, 30)
        amazon.allow(IpProtocol="tcp", FromPort=5672, ToPort=5672, IpRanges=[{"CidrIp": "10.0.0.0/24"}])
        home.click(ask, BO)
        home.ended(run, 60)
    assert line.calls == 0
