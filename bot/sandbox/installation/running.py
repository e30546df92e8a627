"""The simulated installation with its servers up: where it is, how to log in, what was done to it."""

import io
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bot.sandbox.installation import faults
from bot.sandbox.installation.installation import DOMAIN, QUEUE, SHAPES, Installation, Shape, settled
from bot.sandbox.installation.received import Received, ReceivedLog
from bot.sandbox.installation.server import USER, MachineServer, Pair
from bot.sandbox.installation.state import Machine
from bot.sandbox.installation.timeline import RealClock, Timeline
from bot.sandbox.installation.worker import UNIT

VERSION = "2.2"


@dataclass(eq=False)
class Running:
    installation: Installation
    servers: dict[str, MachineServer]
    received: ReceivedLog
    known_hosts: Path
    key_file: Path
    name: str
    _stopped: threading.Event
    _clock: threading.Thread

    def inject(self, text: str) -> faults.Fault:
        """Break something: `worker-2 lost RabbitMQ`. Raises NoSuchFault with what there is."""
        return faults.inject(self.installation, text)

    def machine(self, name: str) -> Machine:
        return self.installation.machine(name)

    def log(self) -> Sequence[Received]:
        return self.received.lines()

    def unknown(self) -> list[str]:
        """What was asked of machines and is not simulated: `worker-1: foo`. A tour fails unless it is empty."""
        return [
            f"{machine.name}: {text}" for machine in self.installation.machines.values() for text in machine.unknown
        ]

    def addresses(self) -> dict[str, str]:
        return {name: f"{server.address}:{server.port}" for name, server in self.servers.items()}

    def configuration(self) -> dict[str, Any]:
        """One entry of `installations:` as the configuration file has it."""
        places = {
            name: {"name": name, "host": server.address, "port": server.port} for name, server in self.servers.items()
        }
        workers = [machine.name for machine in self.installation.workers()]
        return {
            "name": self.name,
            "version": VERSION,
            "domain": DOMAIN,
            "ssh": {"user": USER, "key_file": str(self.key_file), "known_hosts": str(self.known_hosts)},
            "platforms": [place for name, place in places.items() if name not in workers],
            "workers": [places[name] | {"queue": QUEUE} for name in workers],
            "rabbitmq": {"via": "container", "vhost": "travis"},
        }

    def state(self) -> dict[str, Any]:
        """The state as JSON, for the page and for tests in another process."""
        with self.installation.timeline.held():
            broker = self.installation.broker
            return {
                "machines": {name: self._machine_state(m) for name, m in self.installation.machines.items()},
                "queues": {q.name: {"ready": len(q.ready), "consumers": len(q.consumers)} for q in broker.queues},
                "connections": [connection.peer_host for connection in broker.connections],
                "unknown": self.unknown(),
            }

    def _machine_state(self, machine: Machine) -> dict[str, Any]:
        unit = machine.units.get(UNIT)
        processes = [process.line for process in machine.processes.values()]
        said: dict[str, Any] = {"up": machine.up, "boot_id": machine.boot_id, "processes": processes}
        if unit is not None:
            worker = self.installation.worker(machine.name)
            said |= {
                "worker": f"{unit.active} ({unit.sub})",
                "connected": bool(worker.connection and worker.connection.open),
                "consumers": sum(
                    p.consumer is not None and p.consumer in p.consumer.queue.consumers for p in worker.processors
                ),
                "builds": [p.job.number for p in worker.processors if p.job],
            }
        return said

    def stop(self) -> None:
        if self._stopped.is_set():
            return
        for server in self.servers.values():
            server.stop()
        self._stopped.set()
        self._clock.join(5)
        self.received.close()


def start(
    folder: Path,
    speed: float = 20.0,
    name: str = "try",
    shapes: tuple[Shape, ...] = SHAPES,
    dsn: str | None = None,
) -> Running:
    """Start the installation with its SSH servers on loopback; keys, pins and the log of commands go into the folder.

    `speed` is how many seconds pass on the machines for each second outside; `dsn` is the platform's database.
    """
    folder.mkdir(parents=True, exist_ok=True)
    timeline = Timeline(RealClock(speed))
    installation = settled(timeline, shapes, dsn)
    received = ReceivedLog(folder / "commands.jsonl")
    client, text = _new_key()
    key_file = folder / "id_ed25519"
    _write(key_file, text)
    servers = {
        machine.name: MachineServer(installation, machine, Pair(_new_key()[0], client), received.write)
        for machine in installation.machines.values()
    }
    known_hosts = folder / "known_hosts"
    _write(known_hosts, "".join(f"{_pin(server)}\n" for server in servers.values()))
    stopped = threading.Event()
    clock = threading.Thread(target=timeline.run, args=(stopped.is_set,), name="installation clock", daemon=True)
    clock.start()
    return Running(installation, servers, received, known_hosts, key_file, name, stopped, clock)


def _pin(server: MachineServer) -> str:
    key = server.keys.host
    return f"[{server.address}]:{server.port} {key.get_name()} {key.get_base64()}"


def _new_key() -> tuple[paramiko.PKey, str]:
    made = Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    text = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text)), text


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
