"""The security group of a platform in AWS: what is read, what is said, and the one call that changes it."""

import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache
from threading import Event as Flag

import pytest
from botocore.exceptions import ClientError

from bot.adapters.aws import Access, Aws, _refused
from bot.adapters.router import Router
from bot.core.aws import AwsCall, aws
from bot.core.finding import Finding
from bot.core.fix import Change, Fix, Risk
from bot.core.plan import Plan, plan_from_json
from bot.core.ports import NotSent
from bot.core.question import Output, Unanswered
from bot.core.target import Role, Site, Target
from bot.engine.discovery import discover
from bot.engine.rounds import Diagnoser
from handlers.toolbox import network, security_group, settings
from tests.engine.machines import Machines, Said
from tests.network.amazon import REGION, Amazon, account, amazon

__all__ = ["account", "amazon"]
CATALOGUE = discover()
PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "10.0.0.10")
WORKER = Target("worker-1", Role.WORKER, "prod", "10.0.0.11")
ELSEWHERE = Target("worker-2", Role.WORKER, "prod", "192.0.2.7")
MINUTE = timedelta(minutes=1)
NAME = "travis.example.com"
SILENT = Output(None)


def rule(port: int, **source: object) -> dict[str, object]:
    return {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, **source}


def network_of(*blocks: str) -> dict[str, object]:
    return {"IpRanges": [{"CidrIp": block} for block in blocks]}


@pytest.fixture(scope="module", autouse=True)
def forgotten() -> Iterator[None]:
    """Clients remember the address of their AWS."""
    made.cache_clear()
    yield
    made.cache_clear()


@cache
def made(write: bool) -> Aws:
    return Aws({"prod": Access(REGION, write), "home": Access(REGION, write)})


class Worker(Machines):
    """Told from others by which it is, as adapters are."""

    __hash__ = object.__hash__


class World:
    """A worker whose packets are dropped unless AWS has a rule, and an opsbot that is set up to look."""

    def __init__(self, amazon: Amazon, worker: Target = WORKER, write: bool = True, calls: Aws | None = None) -> None:
        self.amazon, self.worker = amazon, worker
        options = (("aws.security_group", amazon.group), ("aws.write", "yes" if write else "no"))
        self.site = Site("prod", NAME, "2.2", (PLATFORM, worker), options)
        self.machines = Worker({"platform-1": self.platform(), worker.name: self.answers(SILENT, Output(0))})
        calls = calls or made(write)
        self.router = Router(self.machines, {AwsCall: calls}, None, calls)
        self.diagnoser = Diagnoser(self.site, self.router, lambda target, question, span: None)

    def platform(self) -> dict[str, Said]:
        container = "4f1c2ab9d0e1"
        inside = f"sudo -n docker exec {container} rabbitmqctl -q"
        return {
            "sudo -n docker ps --format '{{.ID}}\t{{.Image}}\t{{.Names}}'": f"{container}\tte-main:2.2\tx\n",
            f"{inside} list_consumers -p travis": "queue_name\tchannel_pid\tconsumer_tag\n",
            f"{inside} list_channels pid name": "pid\tname\n",
        }

    def answers(self, amqp: Output, https: Output) -> dict[str, Said]:
        on = self.worker
        spoken = replace(amqp, out="open\n 01\n") if amqp.ok else amqp
        return {
            str(settings.written(on).question): f'/etc/default/travis-worker:1:AMQP_URI="amqp://x@{NAME}/travis"\n',
            "ps -p 1 -o comm=": "systemd\n",
            "hostname -I": f"{on.address}\n",
            str(network.resolves(on, NAME).question): f"10.0.0.10 {NAME}\n",
            str(network.amqp(on, NAME, 5672).question): spoken,
            str(network.port(on, NAME, 5672).question): amqp,
            str(network.port(on, NAME, 443).question): https,
        }

    def look(self) -> list[Finding]:
        report = self.diagnoser.look([CATALOGUE.diagnoses["network ports"]], self.site, Flag())
        assert report.unknown == ()
        return [found.finding for found in report.findings]

    def fix(self) -> Fix:
        [finding] = self.look()
        [fix] = finding.fixes
        return fix

    def needed(self, change: Change) -> bool:
        assert change.needed is not None
        return self.diagnoser.answer(change.needed, Flag())

    def send(self, change: Change) -> Output:
        assert isinstance(change.command, AwsCall)
        return self.router.execute(self.worker, change.command, change.within, Flag())


@pytest.fixture
def world(amazon: Amazon) -> World:
    return World(amazon)


def test_the_missing_rule_is_named_and_offered(world: World) -> None:
    [finding] = world.look()
    assert finding.cause == "net.port-blocked"
    assert f"{world.amazon.group} has no such rule for 5672" in finding.person
    [fix] = finding.fixes
    assert (fix.id, fix.target, fix.risk) == ("aws.let-in", WORKER, Risk.DATA)
    [change] = fix.changes()
    assert isinstance(change.command, AwsCall)
    assert change.command.arguments() == {
        "GroupId": world.amazon.group,
        "IpPermissions": [
            rule(5672, IpRanges=[{"CidrIp": "10.0.0.11/32", "Description": "opsbot: worker-1"}]),
        ],
    }
    assert "revoke-security-group-ingress" in fix.undo
    assert world.amazon.rules() == []


def test_the_rule_is_added_once_and_seen(world: World) -> None:
    [change] = world.fix().changes()
    assert world.needed(change)
    assert world.send(change).ok
    assert [(each["FromPort"], each["ToPort"], each["IpRanges"][0]["CidrIp"]) for each in world.amazon.rules()] == [
        (5672, 5672, "10.0.0.11/32")
    ]
    assert not world.needed(change)  # so a doubt is resolved by looking
    assert world.send(change) == Output(0, "the rule was there already")
    assert len(world.amazon.rules()) == 1


def test_a_port_that_is_open_is_not_opened(world: World) -> None:
    world.machines.answers["worker-1"] = world.answers(SILENT, SILENT)
    world.amazon.allow(**rule(443, **network_of("0.0.0.0/0")))
    [finding] = world.look()
    assert "5672 and 443" in finding.title
    assert [change.does for change in finding.fixes[0].changes()] == ["Let 10.0.0.11 in to TCP 5672"]


def test_two_ports_are_two_changes(world: World) -> None:
    world.machines.answers["worker-1"] = world.answers(SILENT, SILENT)
    fix = world.fix()
    assert [change.does for change in fix.changes()] == [f"Let 10.0.0.11 in to TCP {port}" for port in (5672, 443)]
    for change in fix.changes():
        assert world.send(change).ok
    assert sorted(each["FromPort"] for each in world.amazon.rules()) == [443, 5672]


@pytest.mark.parametrize(
    "let_in",
    [
        rule(5672, **network_of("10.0.0.11/32")),
        rule(5672, **network_of("192.168.0.0/16", "10.0.0.0/24")),
        {"IpProtocol": "tcp", "FromPort": 5000, "ToPort": 6000, **network_of("0.0.0.0/0")},
        {"IpProtocol": "-1", **network_of("10.0.0.0/8")},
    ],
)
def test_where_the_group_lets_it_in_somebody_else_drops_it(world: World, let_in: dict[str, object]) -> None:
    world.amazon.allow(**let_in)
    [finding] = world.look()
    assert finding.fixes == ()
    assert "lets it in, so look at network ACLs" in finding.person


def test_a_rule_for_the_group_of_the_workers_lets_them_in(amazon: Amazon) -> None:
    amazon.allow(**rule(5672, UserIdGroupPairs=[{"GroupId": amazon.workers}]))
    assert World(amazon).look()[0].fixes == ()
    [away] = World(amazon, ELSEWHERE).look()
    assert [change.does for change in away.fixes[0].changes()] == ["Let 192.0.2.7 in to TCP 5672"]


@pytest.mark.parametrize(
    "other",
    [
        rule(5671, **network_of("10.0.0.11/32")),
        rule(5672, **network_of("10.0.0.12/32")),
        rule(5672, Ipv6Ranges=[{"CidrIpv6": "::/0"}]),
        {"IpProtocol": "udp", "FromPort": 5672, "ToPort": 5672, **network_of("0.0.0.0/0")},
        {"IpProtocol": "icmp", "FromPort": -1, "ToPort": -1, **network_of("0.0.0.0/0")},
    ],
)
def test_another_rule_is_not_the_rule(world: World, other: dict[str, object]) -> None:
    world.amazon.allow(**other)
    assert world.fix().id == "aws.let-in"


def test_a_prefix_list_is_not_guessed_at() -> None:
    listed = {"SecurityGroups": [{"IpPermissions": [rule(5672, PrefixListIds=[{"PrefixListId": "pl-1"}])]}]}
    [read] = security_group.inbound("sg-01234567").parse(Output(0, json.dumps(listed)))
    assert (read.lists, read.lets_in("10.0.0.11", ())) == (("pl-1",), False)


def test_without_the_right_to_write_a_person_gets_the_call(amazon: Amazon) -> None:
    world = World(amazon, write=False)
    [finding] = world.look()
    assert finding.fixes == ()
    call = security_group.allow(amazon.group, WORKER, [5672])
    assert f"`{call}`" in finding.person
    with pytest.raises(NotSent, match=r"aws\.write"):
        world.router.execute(WORKER, call, MINUTE, Flag())
    assert amazon.rules() == []


def test_a_group_that_is_not_there_hides_nothing(amazon: Amazon) -> None:
    [finding] = World(replace(amazon, group="sg-00000000000000000")).look()
    assert finding.fixes == ()
    assert "could not be read: AWS did not tell: InvalidGroup.NotFound" in finding.person


def test_no_credentials_hide_nothing(amazon: Amazon, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    world = World(amazon, calls=made.__wrapped__(True))
    [finding] = world.look()
    assert "could not be read: AWS did not tell: AWS cannot be asked: Unable to locate credentials" in finding.person
    with pytest.raises(NotSent, match="Unable to locate credentials"):
        world.router.execute(WORKER, security_group.allow(world.amazon.group, WORKER, [5672]), MINUTE, Flag())


@pytest.mark.usefixtures("account")
def test_an_aws_that_is_not_there_was_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(NotSent, match="was not reached"):
        made.__wrapped__(True).call(WORKER, security_group.allow("sg-01234567", WORKER, [5672]), MINUTE)


@pytest.mark.usefixtures("account")
def test_an_answer_that_is_lost_leaves_a_doubt_and_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever listens hangs up in the middle: AWS may have done it."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        hung_up = Flag()

        def hang_up() -> None:
            server.settimeout(0.2)
            while not hung_up.is_set():
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    continue
                connections.append(connection)
                connection.recv(65536)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        said = made.__wrapped__(True).call(WORKER, security_group.allow("sg-01234567", WORKER, [5672]), MINUTE)
        hung_up.set()
        thread.join(timeout=5)
    assert said.exit is None
    assert len(connections) == 1


@pytest.mark.parametrize(("status", "exit"), [(403, 1), (400, 1), (500, None), (503, None)])
def test_only_aws_own_no_is_a_no(status: int, exit: int | None) -> None:
    said = {"Error": {"Code": "Some.Code", "Message": "why"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    assert _refused(ClientError(said, "call")) == Output(exit, "", "Some.Code: why")


def test_only_known_calls_are_sent(world: World) -> None:
    for call in (aws("ec2", "terminate_instances", {"InstanceIds": ["i-1"]}), aws("s3", "delete_bucket", {})):
        with pytest.raises(NotSent, match="no call that opsbot makes"):
            world.router.execute(WORKER, call, MINUTE, Flag())
        [answer] = world.router.ask(PLATFORM, [call], Flag())
        assert isinstance(answer, Unanswered)


def test_an_installation_that_is_not_in_aws_is_not_asked(amazon: Amazon) -> None:
    world = World(amazon)
    world.site = replace(world.site, options=())
    world.diagnoser = Diagnoser(world.site, Router(world.machines, {}), lambda target, question, span: None)
    [finding] = world.look()
    assert (finding.fixes, "sg-" in finding.person) == ((), False)
    with pytest.raises(NotSent, match="not set up to call AWS"):
        Router(world.machines, {}).execute(WORKER, aws("ec2", "describe_vpcs", {}), MINUTE, Flag())


def test_a_plan_with_a_call_is_stored_and_made_again(world: World) -> None:
    plan = Plan((world.fix(),))
    again = plan_from_json(json.loads(json.dumps(plan.to_json())), world.site)
    assert again.digest == plan.digest
    assert [str(change.command) for change in again.fixes[0].changes()] == [
        str(change.command) for change in plan.fixes[0].changes()
    ]


def test_no_credentials_are_shown(world: World) -> None:
    [finding] = world.look()
    assert "s3cr3t-0f-aws" not in repr(finding)


def test_a_call_is_the_same_in_any_order() -> None:
    assert aws("ec2", "x", {"a": 1, "b": 2}) == aws("ec2", "x", {"b": 2, "a": 1})
    assert str(aws("ec2", "describe_vpcs", {"a": 1})) == """aws ec2 describe-vpcs --cli-input-json '{"a": 1}'"""
    for words in (("ec2;id", "x", {}), ("ec2", "X y", {}), ("ec2", "x", {"a": "it's"})):
        with pytest.raises(ValueError, match=r"no call|quote"):
            aws(*words)
