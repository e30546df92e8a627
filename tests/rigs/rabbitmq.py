"""A throw-away RabbitMQ: Debian's broker on loopback, in process namespaces, as root or as an ordinary user.

    with broker() as running:
        running.url                                     # for an AMQP client: user and vhost are called `travis`
        running.api                                     # of its management API, for a user who may only look
        running.ctl("list_queues", "-p", "travis")      # the real rabbitmqctl
        running.stop()                                  # as if the machine had lost its power
        running.start()                                 # the same address, and what was durable

Nothing is shared with another node: it has its own cookie, its own port mapper and its own folder. Debian's wrapper
scripts in /usr/sbin would change to the user `rabbitmq`, so the ones behind them are called.
"""

import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.rigs.sshd import NAMESPACES, ORDINARY

PROGRAMS = Path("/usr/lib/rabbitmq/bin")
USER = VHOST = "travis"
MONITOR = "monitor"  # may look by the management API, and use nothing
PASSWORD = "only-for-tests"
START_SECONDS = 100.0
CTL_SECONDS = 30.0
STARTED = "Starting broker... completed"  # on its standard output
PATH = "/usr/local/bin:/usr/bin:/bin"

CONFIG = """\
default_vhost = {vhost}
default_user = {user}
default_pass = {password}
loopback_users = none
disk_free_limit.absolute = 10MB
log.console = false
"""
API = """\
management.tcp.ip = 127.0.0.1
management.tcp.port = {port}
"""

# Its standard input is the end of a pipe that we hold: when that ends, in whatever way, so does everything in there.
KEPT = """\
mount -t proc proc /proc || exit 1
{program} &
read -r _
"""
NODE = f"{PROGRAMS}/rabbitmq-server </dev/null >said 2>&1"
PORT_MAPPER = '/usr/bin/epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 </dev/null'
QUIET = "+S 1:1 +SDio 1 +sbwt none -kernel inet_dist_use_interface {127,0,0,1}"


class Broker:
    """A RabbitMQ node with one vhost and one user."""

    host = "127.0.0.1"

    def __init__(self, folder: Path, management: bool = False) -> None:
        self.folder = folder
        self.port, dist, ports, self.api_port = free_ports(4)
        self.management = management
        self.node = f"opsbot-{secrets.token_hex(4)}@localhost"
        self.env = {
            "PATH": PATH,
            "LC_ALL": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(ports),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": self.host,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CTL_ERL_ARGS": QUIET,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._furnish()
        # It outlives the node: rabbitmqctl would start one that outlives everything.
        self._port_mapper = self._keep(PORT_MAPPER)

    @property
    def api_url(self) -> str:
        """Of the management API, where the broker was started with it."""
        return f"http://{USER}:{PASSWORD}@{self.host}:{self.api_port}"

    @property
    def url(self) -> str:
        return f"amqp://{USER}:{PASSWORD}@{self.host}:{self.port}/{VHOST}"

    @property
    def api(self) -> str:
        return f"http://{MONITOR}:{PASSWORD}@{self.host}:{self.api_port}"

    def _furnish(self) -> None:
        api = API.format(port=self.api_port) if self.management else ""
        (self.folder / "rabbitmq.conf").write_text(CONFIG.format(vhost=VHOST, user=USER, password=PASSWORD) + api)
        (self.folder / "rabbitmq-env.conf").touch()
        (self.folder / "enabled_plugins").write_text(f"[{'rabbitmq_management' if self.management else ''}].\n")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)

    def start(self) -> None:
        """Returns when rabbitmqctl and AMQP clients are served: the listeners open a little before."""
        assert PROGRAMS.is_dir(), "RabbitMQ is missing here; as root: apt-get install rabbitmq-server"
        (self.folder / "said").unlink(missing_ok=True)
        process = self._process = self._keep(NODE)
        deadline = time.monotonic() + START_SECONDS
        while STARTED not in self._said():
            if time.monotonic() > deadline or process.poll() is not None:
                raise AssertionError(f"RabbitMQ did not start within {START_SECONDS:g} s; it said: {self.said()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it without a word to anybody, as a power cut does."""
        process, self._process = self._process, None
        if process is not None:
            _end(process)

    def close(self) -> None:
        self.stop()
        _end(self._port_mapper)

    def _keep(self, program: str) -> subprocess.Popen[bytes]:
        words = (*NAMESPACES, *ORDINARY, "sh", "-c", KEPT.format(program=program))
        return subprocess.Popen(words, stdin=subprocess.PIPE, cwd=self.folder, env=self.env)

    def ctl(self, *words: str, says: str = "") -> str:
        """What the real `rabbitmqctl` says to these words, with `says` on its standard input."""
        done = subprocess.run(
            [str(PROGRAMS / "rabbitmqctl"), *words],
            input=says, env=self.env, cwd=self.folder, capture_output=True, text=True, timeout=CTL_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"rabbitmqctl {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    def said(self) -> str:
        """The ends of what the node printed and logged."""
        logs = sorted((self.folder / "log").glob("*.log"))
        return "\n".join((self._said()[-2000:], *(log.read_text(errors="replace")[-2000:] for log in logs)))

    def _said(self) -> str:
        said = self.folder / "said"
        return said.read_text(errors="replace") if said.exists() else ""


@contextmanager
def broker(management: bool = False) -> Iterator[Broker]:
    """A running node, with its management API where it is wanted; at the end nothing of it is left."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="opsbot-rabbitmq-")))
        made = Broker(folder, management)
        until_the_end.callback(made.close)
        made.start()
        if management:
            made.ctl("add_user", MONITOR, PASSWORD)
            made.ctl("set_user_tags", MONITOR, "monitoring")
            made.ctl("set_permissions", "-p", VHOST, MONITOR, "^$", "^$", "^$")
        yield made


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.wait(timeout=CTL_SECONDS)


def free_ports(count: int) -> list[int]:
    with ExitStack() as until_chosen:
        probes = [until_chosen.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in probes]
