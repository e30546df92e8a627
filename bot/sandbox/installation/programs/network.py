"""The network: names, addresses, sockets, probes."""

import re
from dataclasses import dataclass

from bot.sandbox.installation.broker import PORT
from bot.sandbox.installation.programs import Call, Reply, on_host, program, unsupported
from bot.sandbox.installation.worker import UNIT, TravisWorker

WITHOUT_H = ("14.04", "16.04")  # whose iproute2 is older than the option
USAGE = "Usage: ss [ OPTIONS ]\n       ss [ OPTIONS ] [ FILTER ]\n"


@dataclass(frozen=True)
class Socket:
    local: str
    local_port: int
    peer: str
    peer_port: int


def sockets(call: Call) -> list[Socket]:
    """The established TCP connections that are seen from here: a container's own, or the machine's."""
    machine, broker = call.machine, call.context.installation.broker
    unit = machine.units.get(UNIT)
    worker = unit.service if unit and isinstance(unit.service, TravisWorker) else None
    found: list[Socket] = []
    if worker is not None and worker.connection is not None and worker.connection.open:
        inside = worker.container.address if worker.container else machine.address
        if call.context.network is worker.container:
            found.append(Socket(inside, worker.connection.peer_port, broker.host, PORT))
    if call.context.network is None:
        found.append(Socket(machine.address, 22, "127.0.0.1", 50022))
    if call.context.network is not None and "te-main" in call.context.network.image:
        found += [Socket(call.context.network.address, PORT, c.peer_host, c.peer_port) for c in broker.connections]
    return found


@program("ss")
def ss(call: Call) -> Reply:
    letters = "".join(word[1:] for word in call.words if re.fullmatch(r"-[a-zA-Z0-9]+", word))
    words = " ".join(word for word in call.words if not word.startswith("-"))
    if "H" in letters and call.machine.release in WITHOUT_H:
        return Reply(255, err=f"{call.name}: invalid option -- 'H'\n{USAGE}")
    if "t" not in letters:
        return unsupported(call, "sockets other than TCP")
    found = sockets(call)
    listening = "l" in letters
    if listening:
        found = []
    for key, ports in (("dport", _ports("dport", words)), ("sport", _ports("sport", words))):
        if ports:
            found = [s for s in found if (s.peer_port if key == "dport" else s.local_port) in ports]
    state = "" if "state" in words else "ESTAB "
    rows = [(f"{s.local}", f"{s.local_port}", f"{s.peer}", f"{s.peer_port}") for s in found]
    widths = [max((len(row[at]) for row in rows), default=0) for at in range(4)]
    head = "" if "H" in letters else f"{'State ' if state else ''}Recv-Q Send-Q Local Address:Port Peer Address:Port\n"
    return Reply(out=head + "".join(f"{state}0      0      {_ends(row, widths)}\n" for row in rows))


def _ends(row: tuple[str, str, str, str], widths: list[int]) -> str:
    local, local_port, peer, peer_port = (
        text.ljust(width) if at % 2 else text.rjust(width)
        for at, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"{local}:{local_port} {peer}:{peer_port}"


def _ports(key: str, words: str) -> set[int]:
    return {int(port) for port in re.findall(rf"{key} (?:=|eq) :?(\d+)", words)}


@program("hostname")
def hostname(call: Call) -> Reply:
    machine = call.machine
    if call.words in (("-I",), ("--all-ip-addresses",)):
        docker = " 172.17.0.1" if machine.contained else " 10.80.0.1" if machine.snap else ""
        return Reply(out=f"{machine.address}{docker} \n")
    if call.words in ((), ("-s",), ("-f",)):
        return Reply(out=f"{call.context.inside.hostname if call.context.inside else machine.name}\n")
    return unsupported(call, " ".join(call.words))


@program("getent")
def getent(call: Call) -> Reply:
    database, *keys = call.words or ("",)
    if database in ("hosts", "ahosts", "ahostsv4") and len(keys) == 1:
        address = call.context.installation.resolve(call.machine, keys[0])
        return Reply(out=f"{address:<15} {keys[0]}\n") if address else Reply(2)
    if database == "passwd" and len(keys) == 1:
        uid = call.machine.users.get(keys[0])
        return Reply(2) if uid is None else Reply(out=f"{keys[0]}:x:{uid}:{uid}::/home/{keys[0]}:/bin/bash\n")
    return unsupported(call, " ".join(call.words))


@program("nc", where=on_host)
def nc(call: Call) -> Reply:
    """`nc -z -w SECONDS HOST PORT`: whether a port answers."""
    words = [word for word in call.words if word not in ("-z", "-v", "-zv", "-vz")]
    if words[:1] == ["-w"]:
        words = words[2:]
    if len(words) != 2 or not words[1].isdigit():
        return unsupported(call, " ".join(call.words))
    answer = call.context.installation.dial(call.context, words[0], int(words[1]))
    return Reply(1) if isinstance(answer, Reply) else Reply()
