"""Machines to log in to: Debian's sshd on loopback, each in its own mount and process namespace.

    with sshd(HostSpec("worker-1", path_front=[fakes])) as rig:
        rig.hosts["worker-1"]               # where it is, for `Ssh`
        rig.received("worker-1")            # every command that it got, from its own append-only log
        rig.power_off("worker-1")           # and all that ran on it; `power_on` starts it again

Nothing of the real machine is changed: accounts, shells and sudo rules are files mounted over /etc for that sshd alone.
Root logs in as `root` or as `ops`; an ordinary user is `ops` under its own uid, and has no sudo but a pretended one,
because a namespace with a single uid has nobody to become.
"""

import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from bot.adapters.ssh import Host
from bot.core import wire

ROOT = os.geteuid() == 0
LOGINS = ("root", "ops") if ROOT else ("ops",)
OPS = 64321 if ROOT else os.geteuid()  # as root, an account that exists nowhere but in the namespaces
SECONDS = 20.0
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KEY_TYPES = ("ed25519", "ecdsa", "rsa")
NAMESPACES = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
ORDINARY = () if ROOT else ("--map-current-user", "--keep-caps")
EVERYTHING = "ops ALL=(root) NOPASSWD: ALL"

CONFIG = """\
Port {port}
{listen}
{host_keys}
AuthorizedKeysFile {keys}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel VERBOSE
SetEnv {env}
{more}
"""

# Its standard input is the end of a pipe that the test holds: when the test ends, in whatever way, so does the machine.
MACHINE = """\
mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mkdir -m 0755 /run/sshd || exit 1
for file in passwd shadow group sudoers; do mount --bind "$1/$file" "/etc/$file" || exit 1; done
drop=
test "$(id -u)" = 0 || drop='setpriv --ambient-caps -all --inh-caps -all'
$drop /usr/sbin/sshd -D -f "$1/sshd_config" -E "$1/sshd.log" </dev/null >/dev/null 2>&1 &
read -r _
"""

# Does what sshd would have done, after noting it. What is typed into one of our shells passes through tee.
RECORDER = """\
#!/bin/bash
note={log}/$(date +%s%N)-$$
printf '%s' "$SSH_ORIGINAL_COMMAND" >"$note.part"
mv "$note.part" "$note.command"
case $SSH_ORIGINAL_COMMAND in {shell} | {asking}) exec 0< <(exec tee "$note.stdin") ;; esac
exec "$SHELL" -c "$SSH_ORIGINAL_COMMAND"
"""

PRETENDED_SUDO = '#!/bin/sh\n[ "$1" = -n ] && shift\nexec "$@"\n'


@dataclass(frozen=True)
class HostSpec:
    """One machine: who logs in, with which shell, which programs come first, what sudo allows."""

    name: str
    login: str = "ops"
    address: str = "127.0.0.1"
    more_addresses: tuple[str, ...] = ()
    login_shell: str = "/bin/bash"
    path_front: Sequence[Path | str] = ()
    programs: Mapping[str, str] = field(default_factory=dict)  # texts, put into the machine's own folder of programs
    env: Mapping[str, str] = field(default_factory=dict)
    sudoers: str = EVERYTHING
    config: str = ""
    host_keys: tuple[str, ...] = KEY_TYPES
    recorded: bool = True


@dataclass(frozen=True)
class Received:
    """One exec request as the machine got it: when (ns), the command, and the script on its standard input."""

    at: int
    host: str
    command: str
    stdin: str = ""


class Machine:
    """One sshd with all that runs under it."""

    def __init__(self, spec: HostSpec, folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.port = free_port(spec.address)
        self._log = folder / "received"
        self._process: subprocess.Popen[bytes] | None = None
        self._furnish()

    def _furnish(self) -> None:
        self.folder.mkdir(mode=0o755)
        self._log.mkdir()
        self._log.chmod(0o1777)
        for home in ("root", "ops"):
            (self.folder / home).mkdir(mode=0o700)
        if ROOT:
            os.chown(self.folder / "ops", OPS, OPS)
        for name, text in {**({} if ROOT else {"sudo": PRETENDED_SUDO}), **self.spec.programs}.items():
            _program(self.folder / "bin" / name, text)
        _program(self.folder / "recorder", self._recorder())
        for name, text in self._files().items():
            (self.folder / name).write_text(text)
        (self.folder / "sudoers").chmod(0o440)

    def _recorder(self) -> str:
        asking = shlex.quote(wire.ASK_SHELL)
        return RECORDER.format(log=shlex.quote(str(self._log)), asking=asking, shell=shlex.quote(wire.SHELL))

    def _files(self) -> dict[str, str]:
        spec, path = self.spec, ":".join((*map(str, self.spec.path_front), str(self.folder / "bin"), SYSTEM_PATH))
        env = {"PATH": path, **spec.env}
        forced = f"ForceCommand {self.folder / 'recorder'}\n" if spec.recorded else ""
        return {
            "passwd": f"root:x:0:0:root:{self.folder}/root:{spec.login_shell}\nops:x:{OPS}:{OPS}:ops:{self.folder}/ops:"
            f"{spec.login_shell}\nsshd:x:103:65534::/run/sshd:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
            "shadow": "root:*:19000::::::\nops:*:19000::::::\n",
            "group": f"root:x:0:\ntty:x:5:\nshadow:x:42:\nops:x:{OPS}:\nnogroup:x:65534:\n",
            "sudoers": f'Defaults env_reset, use_pty, secure_path="{path}"\nroot ALL=(ALL) ALL\n{spec.sudoers}\n',
            "sshd_config": CONFIG.format(
                port=self.port,
                listen="\n".join(f"ListenAddress {address}" for address in (spec.address, *spec.more_addresses)),
                keys=self.folder.parent,
                host_keys="\n".join(f"HostKey {self.folder.parent / kind}" for kind in spec.host_keys),
                env=" ".join(f'"{name}={value}"' for name, value in env.items()),
                more=f"{forced}{spec.config}",
            ),
        }

    def start(self) -> None:
        words = (*NAMESPACES, *ORDINARY, "sh", "-c", MACHINE, "machine", str(self.folder))
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            with suppress(OSError), socket.create_connection((self.spec.address, self.port), timeout=1):
                return
            if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"{self.spec.name}: sshd did not start; it said: {self.said()[-500:]}")
            time.sleep(0.02)

    def said(self) -> str:
        log = self.folder / "sshd.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for pid in self.pids():  # a stopped process would not end
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def pids(self) -> list[int]:
        return descendants(self._process.pid) if self._process else []

    def received(self) -> list[Received]:
        notes = sorted(self._log.glob("*.command"), key=lambda note: int(note.name.partition("-")[0]))
        return [self._received(note) for note in notes]

    def _received(self, note: Path) -> Received:
        stdin = note.with_suffix(".stdin")
        script = stdin.read_text(errors="replace") if stdin.exists() else ""
        return Received(int(note.name.partition("-")[0]), self.spec.name, note.read_text(errors="replace"), script)


class Rig:
    """The machines that run, and how to reach them."""

    def __init__(self, folder: Path, machines: Mapping[str, Machine]) -> None:
        self.folder = folder
        self.key_file = folder / "id_ed25519"
        self.known_hosts = folder / "known_hosts"
        self._machines = machines
        self.known_hosts.write_text("".join(self.known_hosts_lines()))

    @property
    def hosts(self) -> dict[str, Host]:
        return {name: self.host(name) for name in self._machines}

    def host(self, name: str, address: str = "") -> Host:
        machine = self._machines[name]
        return Host(
            host=address or machine.spec.address,
            port=machine.port,
            user=machine.spec.login,
            key_file=self.key_file,
            known_hosts=self.known_hosts,
        )

    def known_hosts_lines(self) -> Iterator[str]:
        for machine in self._machines.values():
            names = ",".join(f"[{a}]:{machine.port}" for a in (machine.spec.address, *machine.spec.more_addresses))
            for kind in KEY_TYPES:
                yield f"{names} {self.host_key(kind)}\n"

    def host_key(self, kind: str = "ed25519") -> str:
        """The machines' public host key of that kind, as `type base64`."""
        return " ".join((self.folder / f"{kind}.pub").read_text().split()[:2])

    def authorize(self, public_key: str) -> None:
        """Accept that key too, for every account."""
        with (self.folder / "authorized_keys").open("a") as file:
            file.write(public_key)

    def received(self, name: str = "") -> list[Received]:
        """What that machine, or all of them, got so far, oldest first."""
        machines = [self._machines[name]] if name else list(self._machines.values())
        return sorted((note for machine in machines for note in machine.received()), key=lambda note: note.at)

    def power_off(self, name: str) -> None:
        """As if the plug were pulled: nothing that ran there runs on."""
        self._machines[name].stop()

    def power_on(self, name: str) -> None:
        self._machines[name].start()
        self._machines[name].wait_until_up()

    def freeze(self, name: str) -> None:
        """Stop every sshd process of that machine, so that connections stay open and nobody answers."""
        self._signal_sshd(name, signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        self._signal_sshd(name, signal.SIGCONT)

    def drop_connections(self, name: str) -> None:
        """Kill the sshd processes that serve connections; the one that listens stays."""
        for pid in self.pids(name):
            if (
                ": " in cmdline(pid).partition("[")[0]
                and cmdline(pid).startswith("sshd: ")
                and "listener" not in cmdline(pid)
            ):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _signal_sshd(self, name: str, number: signal.Signals) -> None:
        for pid in self.pids(name):
            if cmdline(pid).startswith(("sshd: ", "/usr/sbin/sshd")):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def pids(self, name: str) -> list[int]:
        return self._machines[name].pids()

    def running(self, name: str, marker: str) -> list[str]:
        """The command lines on that machine that hold the marker."""
        return [line for line in map(cmdline, self.pids(name)) if marker in line]

    def said(self, name: str) -> str:
        """The machine's sshd log."""
        return self._machines[name].said()


@contextmanager
def sshd(*specs: HostSpec) -> Iterator[Rig]:
    """Start the machines, all at once; at the end nothing of them is left."""
    with ExitStack() as until_the_end:
        folder = Path(until_the_end.enter_context(tempfile.TemporaryDirectory(prefix="opsbot-sshd-")))
        folder.chmod(0o755)
        _write_keys(folder)
        machines = {spec.name: Machine(spec, folder / spec.name) for spec in specs}
        for machine in machines.values():
            until_the_end.callback(machine.stop)
            machine.start()
        for machine in machines.values():
            machine.wait_until_up()
        yield Rig(folder, machines)


def _write_keys(folder: Path) -> None:
    for name, kind in (*((kind, kind) for kind in KEY_TYPES), ("id_ed25519", "ed25519")):
        private, public = _key(name, kind)
        (folder / name).write_bytes(private)
        (folder / name).chmod(0o600)
        (folder / f"{name}.pub").write_bytes(public)
    (folder / "authorized_keys").write_bytes((folder / "id_ed25519.pub").read_bytes())


@cache
def _key(name: str, kind: str) -> tuple[bytes, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / name
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                kind,
                *(["-b", "2048"] if kind == "rsa" else []),
                "-N",
                "",
                "-C",
                name,
                "-f",
                str(file),
            ],
            check=True,
        )
        return file.read_bytes(), file.with_suffix(".pub").read_bytes()


def _program(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)


def wait_until(true: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Look until it is true; fail when it does not become so in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it did not become true within {seconds:g} s"
        time.sleep(0.02)


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def cmdline(pid: int) -> str:
    """The words of a process with blanks between; nothing for one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(root: int) -> list[int]:
    """The process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError):
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found
