"""A throw-away redis-server of Debian's on a free loopback port.

with redis.server() as server:
    server.cli("LPUSH", "queue:sync", "job")
    server.stop(); server.start()       # it forgets everything; the port stays the same
"""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rigs.sshd import free_port

SECONDS = 20.0


class Server:
    """A running redis-server; `url` leads to it, with its password when it has one."""

    def __init__(self, folder: Path, password: str, settings: tuple[str, ...]) -> None:
        self.port = free_port("127.0.0.1")
        self.password = password
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "redis-server does not run"
        return self._process.pid

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "redis-server is missing here; as root: apt-get install redis-server redis-tools"
        words = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        words += ["--requirepass", self.password] if self.password else []
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*words, *self._settings], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_it_answers()

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(SECONDS)

    def cli(self, *words: str) -> str:
        """What redis-cli prints, without a terminal."""
        login = ["-a", self.password, "--no-auth-warning"] if self.password else []
        asked = subprocess.run(
            ["redis-cli", "-p", str(self.port), *login, *words],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return asked.stdout + asked.stderr

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + SECONDS
        while self.cli("PING") != "PONG\n":
            running = self._process is not None and self._process.poll() is None
            assert running, (self._folder / "log").read_text()
            assert time.monotonic() < deadline, "redis-server did not answer in time"
            time.sleep(0.02)


@contextmanager
def server(password: str = "", *settings: str) -> Iterator[Server]:
    """A running, empty server; `settings` are more words for redis-server."""
    with tempfile.TemporaryDirectory(prefix="opsbot-redis-") as folder, contextlib.ExitStack() as until_the_end:
        made = Server(Path(folder), password, settings)
        until_the_end.callback(made.stop)
        made.start()
        yield made
