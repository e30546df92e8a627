"""A stand-in for travis-worker that is a real AMQP client: the same queues, consumers, signals and log lines.

Its settings have the vendor's names: AMQP_URI, QUEUE_NAME and POOL_SIZE. Of the rig's own, ADDRESS is where its
connections come from, JOBS a folder with a file for each running build, and LOST=yes a worker that never gets a
connection and does not notice.

A message is a build: {"id": 7}. On standard input `lose` closes the connection in good order and lives on, which is how
a real worker gets lost; `finish` ends this build and all that come after; the end of input ends the worker, so that
none outlives its test.
"""

import json
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import amqp  # type: ignore[import-untyped]
from amqp.exceptions import AMQPError  # type: ignore[import-untyped]
from amqp.transport import TCPTransport  # type: ignore[import-untyped]

TICK = 0.05
COMMANDS = "worker.commands"


def log(message: str, level: str = "info", **fields: object) -> None:
    rest = "".join(f" {name}={json.dumps(str(value))}" for name, value in fields.items())
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    print(f'time="{now}" level={level} msg="{message}"{rest} pid=1 self=cli', flush=True)


class FromHere(TCPTransport):  # type: ignore[misc]
    """A connection that comes from the machine's own address."""

    def _connect(self, host: str, port: int, timeout: float) -> None:
        self.sock = socket.create_connection((host, port), timeout, source_address=(os.environ["ADDRESS"], 0))


class Connection(amqp.Connection):  # type: ignore[misc]
    def Transport(self, host: str, connect_timeout: float, *_: object, **__: object) -> FromHere:  # noqa: N802
        return FromHere(host, connect_timeout=connect_timeout)


@dataclass
class Build:
    """A running build and the message that asked for it, which is acknowledged at its end."""

    message: Any
    name: str


class Worker:
    def __init__(self) -> None:
        self.jobs = Path(os.environ["JOBS"])
        self.connection: Any = None
        self.channels: list[Any] = []
        self.builds: list[Build] = []
        self.signals: list[int] = []
        self.toggles = 0
        self.finishing = False
        self.builds_end = False
        self.over = False

    # ------------------------------------------------------------ connected

    def connect(self) -> None:
        where = urlsplit(os.environ["AMQP_URI"])
        self.connection = Connection(
            f"{where.hostname}:{where.port}",
            userid=where.username,
            password=where.password,
            virtual_host=where.path[1:],
            connect_timeout=5,
        )
        self.connection.connect()
        self._listen_to_commands()
        for _ in range(int(os.environ["POOL_SIZE"])):
            self._listen_to_builds()

    def _listen_to_commands(self) -> None:
        channel = self.connection.channel()
        channel.exchange_declare(COMMANDS, "fanout", durable=False, auto_delete=False)
        queue = channel.queue_declare("", exclusive=True, durable=False, auto_delete=False).queue
        channel.queue_bind(queue, COMMANDS)
        channel.basic_consume(queue, "commands", no_ack=True, callback=lambda _: None)

    def _listen_to_builds(self) -> None:
        channel = self.connection.channel()
        channel.queue_declare(os.environ["QUEUE_NAME"], durable=True, auto_delete=False)
        channel.basic_qos(0, 1, False)
        channel.basic_consume(os.environ["QUEUE_NAME"], "build-job-consumer", callback=self._begin)
        self.channels.append(channel)

    def lose(self) -> None:
        """Closed in good order: nothing is logged, and the process lives on without a consumer."""
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    # ------------------------------------------------------------ builds

    def _begin(self, message: Any) -> None:
        asked = json.loads(message.body)
        build = Build(message, f"travis-job-acme-app-{asked['id']}")
        (self.jobs / build.name).touch()
        self.builds.append(build)
        log("starting job", job_id=asked["id"])

    def finish_builds(self) -> None:
        for build in list(self.builds) if self.builds_end else ():
            self._end(build)
            if self.connection is not None:
                build.message.channel.basic_ack(build.message.delivery_tag)
            log("finished job", job=build.name, state="passed")

    def _end(self, build: Build) -> None:
        self.builds.remove(build)
        (self.jobs / build.name).unlink(missing_ok=True)

    # ------------------------------------------------------------ signals

    def heed_signals(self) -> None:
        heed = {signal.SIGUSR2: self._toggle, signal.SIGINT: self._finish, signal.SIGTERM: self._stop}
        while self.signals:
            heed[signal.Signals(self.signals.pop(0))]()

    def _toggle(self) -> None:
        self.toggles += 1
        log("SIGUSR2 received, toggling graceful shutdown and pause")
        if self.toggles == 1:
            self._take_no_more()

    def _finish(self) -> None:
        log("SIGINT received, starting graceful shutdown")
        self.finishing = True
        self._take_no_more()

    def _take_no_more(self) -> None:
        channels, self.channels = self.channels, []
        for channel in channels if self.connection is not None else ():
            channel.basic_cancel("build-job-consumer")

    def _stop(self) -> None:
        log("SIGTERM received, shutting down immediately")
        for build in list(self.builds):
            self._end(build)
            if self.connection is not None:
                build.message.channel.basic_reject(build.message.delivery_tag, requeue=True)
        self.over = True

    # ------------------------------------------------------------ the loop

    def run(self) -> None:
        while not self.over:
            self.heed_signals()
            self.finish_builds()
            drained = not self.builds
            self.over |= drained and (self.finishing or self.toggles == 2)
            if not self.over:
                self._turn()

    def _turn(self) -> None:
        inputs = [sys.stdin, *([self.connection.sock] if self.connection is not None else [])]
        ready, _, _ = select.select(inputs, [], [], TICK)
        if sys.stdin in ready:
            self._obey(os.read(sys.stdin.fileno(), 100))
        elif ready:
            self.connection.drain_events(timeout=1)

    def _obey(self, words: bytes) -> None:
        self.over |= not words
        self.builds_end |= b"finish" in words
        if b"lose" in words:
            self.lose()


def main() -> None:
    worker = Worker()
    for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: worker.signals.append(number))
    if os.environ.get("LOST") != "yes":
        try:
            worker.connect()
        except (OSError, AMQPError) as error:
            log("couldn't connect to AMQP", "error", err=error)
            return  # the vendor's ends with 0, too
    log("worker started")
    try:
        worker.run()
    except (OSError, AMQPError) as error:
        log("amqp connection errored, terminating", "error", err=error)
    log("worker finished")


if __name__ == "__main__":
    main()
