"""The probes as they travel: typed over real SSH by the ordinary login, several of them in one round."""

from threading import Event
from typing import Any

from bot.adapters.ssh import Ssh
from bot.adapters.ssh.host import Limits
from bot.core.fact import Fact
from bot.core.question import Output
from bot.core.target import Role, Target
from handlers.toolbox import network
from handlers.toolbox.network import Way
from tests.network.rig import listener
from tests.rigs.sshd import HostSpec, free_port, sshd

WORKER = Target("worker-1", Role.WORKER, "prod", "127.0.0.1")


def test_one_round_tells_all_ways_apart() -> None:
    with sshd(HostSpec("worker-1")) as rig, listener(None) as silent, listener(b"AMQP\x00\x00\x09\x01") as broker:
        closed = free_port("127.0.0.1")
        facts: list[Fact[Any]] = [
            *(network.amqp(WORKER, "127.0.0.1", port) for port in (closed, silent, broker)),
            network.port(WORKER, "127.0.0.1", closed),
            network.port(WORKER, "no-such-name.invalid", 443),
            network.lets_through(WORKER, "127.0.0.1", closed),
        ]
        ssh = Ssh({WORKER.key: rig.hosts["worker-1"]}, limits=Limits(program=3))
        try:
            answers = ssh.ask(WORKER, [fact.question for fact in facts], Event())
        finally:
            ssh.close()
    assert all(isinstance(answer, Output) for answer in answers), answers
    read = [fact.parse(answer) for fact, answer in zip(facts, answers, strict=True)]
    assert read == [Way.REFUSED, Way.MUTE, Way.OPEN, Way.REFUSED, Way.NO_NAME, True]
