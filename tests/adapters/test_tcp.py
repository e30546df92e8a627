"""Connections on loopback: open, refused, dropped on the way, or to nobody that has a name."""

import socket
import time
from datetime import timedelta
from threading import Event as Flag
from typing import Any

import pytest

from bot.adapters.tcp import Tcp
from bot.core.question import Answer, Reached, TcpProbe, Unanswered
from bot.core.target import Role, Target
from tests.engine.machines import Machines

PLATFORM = Target("platform-1", Role.PLATFORM, "prod", "127.0.0.1")
SHORT = timedelta(seconds=0.3)


def probe(*probes: TcpProbe) -> list[Answer | Unanswered]:
    return Tcp(Machines()).ask(PLATFORM, probes, Flag())


def test_open_and_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert probe(TcpProbe("127.0.0.1", port)) == [Reached("open")]
    assert probe(TcpProbe("127.0.0.1", port)) == [Reached("refused")]


def test_a_listener_that_answers_nobody_is_silent() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        waiting = [socket.socket() for _ in range(3)]
        for each in waiting:  # they fill what the kernel keeps for it, and then it drops
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        started = time.monotonic()
        both = probe(TcpProbe("127.0.0.1", port, SHORT), TcpProbe("127.0.0.1", port, SHORT))
        assert both == [Reached("silent")] * 2
        assert time.monotonic() - started < 2 * SHORT.total_seconds(), "side by side"
        for each in waiting:
            each.close()


@pytest.mark.parametrize("host", ["nosuch.invalid", "a" * 64 + ".example.com", ""])
def test_nobody_has_that_name(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_words: Any, **_more: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if host == "nosuch.invalid":
        monkeypatch.setattr(socket, "getaddrinfo", nobody)
    assert probe(TcpProbe(host, 443)) in ([Reached("no-name")], [Reached("refused")])


@pytest.mark.parametrize("slow", [False, True])
def test_a_name_server_that_does_not_answer_says_nothing_of_the_host(
    monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    over = Flag()

    def again(*_words: Any, **_more: Any) -> None:
        if slow:
            over.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", again)
    (said,) = probe(TcpProbe("travis.example.com", 443, SHORT))
    over.set()
    assert isinstance(said, Unanswered)
    assert (said.cause, "travis.example.com" in said.why) == ("name-server", True)


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: found)
        assert probe(TcpProbe("two.example.com", port)) == [Reached("open")]
    assert probe(TcpProbe("two.example.com", port)) == [Reached("refused")]
