"""The probes against real networks: what bash, getent and openssl say there, and what the facts read in it."""

import subprocess
from pathlib import Path

import pytest

from bot.core.question import Output
from handlers.toolbox import network
from handlers.toolbox.network import Way
from tests.network.rig import CABLE, WORKER, ask, listener, unknown
from tests.rigs.rabbitmq import broker

RESOLVER = """\
printf 'nameserver 10.5.0.9\\noptions timeout:1 attempts:1\\n' >{folder}/resolv.conf
printf '127.0.0.1 localhost\\n10.5.0.2 travis.example.com\\n' >{folder}/hosts
printf 'hosts: files dns\\n' >{folder}/nsswitch.conf
for file in resolv.conf hosts nsswitch.conf; do mount --bind {folder}/$file /etc/$file || exit 1; done
"""


@pytest.fixture
def names(tmp_path: Path) -> str:
    """A network in which one name is known, and the name server does not answer."""
    return CABLE + RESOLVER.format(folder=tmp_path)


@pytest.mark.parametrize(
    ("host", "way"),
    [
        ("127.0.0.1", Way.REFUSED),
        ("10.6.0.1", Way.REJECTED),  # as after iptables' REJECT with host-unreachable
        ("10.6.0.2", Way.REJECTED),
        ("10.6.0.3", Way.REJECTED),
        ("192.0.2.1", Way.REJECTED),  # there is no way to it
    ],
)
@pytest.mark.parametrize("probe", [network.port, network.amqp])
def test_what_the_network_turns_away(probe: object, host: str, way: Way) -> None:
    assert callable(probe)
    assert ask(probe(WORKER, host, 5672), CABLE) is way


@pytest.mark.parametrize("probe", [network.port, network.amqp])
def test_what_is_dropped_is_silence(probe: object) -> None:
    assert callable(probe)
    assert ask(probe(WORKER, "10.5.0.9", 5672), CABLE, seconds=2) is Way.SILENT


def test_an_address_that_nobody_has() -> None:
    assert ask(network.port(WORKER, "10.5.0.7", 443), CABLE) is Way.REJECTED


def test_names(names: str) -> None:
    assert ask(network.resolves(WORKER, "travis.example.com"), names) == ("10.5.0.2",)
    assert ask(network.resolves(WORKER, "tarvis.example.com"), names) == ()
    assert ask(network.port(WORKER, "tarvis.example.com", 443), names) is Way.NO_NAME
    assert ask(network.amqp(WORKER, "tarvis.example.com", 5672), names) is Way.NO_NAME


def test_a_name_server_that_is_silent_is_no_name(names: str) -> None:
    slow = names.replace("timeout:1 attempts:1", "timeout:5 attempts:5")
    assert ask(network.resolves(WORKER, "tarvis.example.com"), slow, seconds=2) == ()


@pytest.mark.parametrize("host", ["$(touch canary)", "`id`", "a;id", '"; id; "', "-V"])
def test_a_hostile_name_is_only_a_name(host: str, tmp_path: Path) -> None:
    ways = [ask(network.port(WORKER, host, 443)), ask(network.amqp(WORKER, host, 5672))]
    assert ways == [Way.NO_NAME, Way.NO_NAME]
    assert not Path("canary").exists()


def test_rabbitmq_answers() -> None:
    with broker() as running:
        assert ask(network.port(WORKER, running.host, running.port)) is Way.OPEN
        assert ask(network.amqp(WORKER, running.host, running.port)) is Way.OPEN
        assert running.ctl("list_connections", "-q").split() in ([], ["user", "peer_host", "peer_port", "state"])
        running.stop()
        assert ask(network.amqp(WORKER, running.host, running.port)) is Way.REFUSED


def test_a_broker_of_another_version_is_a_broker() -> None:
    with listener(b"AMQP\x00\x01\x00\x00", hang_up=True) as port:
        assert ask(network.amqp(WORKER, "127.0.0.1", port)) is Way.OPEN


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x15\x03\x03\x00\x02\x02F", b"\x00"])
def test_who_speaks_something_else_is_no_broker(greeting: bytes) -> None:
    with listener(greeting) as port:
        assert ask(network.port(WORKER, "127.0.0.1", port)) is Way.OPEN
        assert ask(network.amqp(WORKER, "127.0.0.1", port)) is Way.MUTE


def test_a_silent_proxy_and_one_that_hangs_up() -> None:
    with listener(None) as port:
        assert ask(network.amqp(WORKER, "127.0.0.1", port), seconds=2) is Way.MUTE
        assert ask(network.tls(WORKER, "127.0.0.1", port), seconds=2) is Way.MUTE
    with listener(None, hang_up=True) as port:
        assert ask(network.amqp(WORKER, "127.0.0.1", port)) is Way.MUTE
        assert ask(network.tls(WORKER, "127.0.0.1", port)) is Way.MUTE


def test_tls_with_a_certificate_that_nobody_signed(tmp_path: Path) -> None:
    before = tls_server(4567, tmp_path)
    assert ask(network.port(WORKER, "127.0.0.1", 4567), before) is Way.OPEN
    assert ask(network.tls(WORKER, "127.0.0.1", 4567), before, seconds=5) is Way.OPEN


def tls_server(port: int, folder: Path) -> str:
    """A server with TLS on loopback, behind a certificate that nobody signed."""
    key = ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x")
    subprocess.run([*key, "-keyout", "key", "-out", "cert"], cwd=folder, check=True, capture_output=True)
    server = f"openssl s_server -quiet -accept 127.0.0.1:{port} -key {folder}/key -cert {folder}/cert"
    wait = f"until (: </dev/tcp/127.0.0.1/{port}) 2>/dev/null; do sleep 0.05; done"
    return f"{CABLE}{server} </dev/zero >/dev/null 2>&1 &\n{wait}"


@pytest.mark.parametrize(
    ("exit", "err"),
    [
        (127, "sh: 1: bash: not found\n"),
        (1, "probe: line 1: /dev/tcp/127.0.0.1/443: No such file or directory\n"),  # bash without network support
        (1, "probe: line 1: x/443: Servname not supported for ai_socktype\nprobe: line 1: …: Invalid argument\n"),
        (126, ""),
    ],
)
def test_what_says_nothing_of_the_network_is_not_known(exit: int, err: str) -> None:
    said = Output(exit, "", err)
    for fact in (network.port(WORKER, "a", 1), network.amqp(WORKER, "a", 1)):
        assert "unknown way" in unknown(fact, said)
    assert "getent did not answer" in unknown(network.resolves(WORKER, "a"), Output(3, "", err))
