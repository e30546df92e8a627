"""The files that a login needs, read once and again when they change: our private key, the pinned host keys."""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

from bot.adapters.ssh.host import Host, Unreached
from bot.adapters.ssh.hostkeys import HostKeys

T = TypeVar("T")


class Cached(Generic[T]):
    """What a file holds, by path; read anew when the file is another one."""

    def __init__(self, read: Callable[[Path, os.stat_result], T], missing: str, cause: str) -> None:
        self._read = read
        self._missing = missing
        self._cause = cause
        self._kept: dict[Path, tuple[tuple[int, int, int], T]] = {}
        self._lock = Lock()

    def __call__(self, path: Path) -> T:
        try:
            state = path.stat()
            version = (state.st_ino, state.st_mtime_ns, state.st_ctime_ns)
            with self._lock:
                kept = self._kept.get(path)
                if kept is None or kept[0] != version:
                    kept = self._kept[path] = (version, self._read(path, state))
                return kept[1]
        except OSError as error:
            raise Unreached(self._missing.format(path=path, error=error.strerror or error), self._cause) from error


def private_keys() -> Cached[paramiko.PKey]:
    missing = "The private key {path} cannot be read: {error}. Let opsbot read it, or correct `key_file`."
    return Cached(_private_key, missing, "auth")


def known_hosts() -> Cached[HostKeys]:
    return Cached(_host_keys, "The file of pinned host keys, {path}, cannot be read: {error}.", "host-key-unknown")


def _host_keys(path: Path, _: os.stat_result) -> HostKeys:
    return HostKeys(path.read_text(errors="replace").splitlines())


def _private_key(path: Path, state: os.stat_result) -> paramiko.PKey:
    if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        mode = stat.S_IMODE(state.st_mode)
        raise Unreached(f"The private key {path} can be read by others (mode {mode:04o}): `chmod 600` it.", "auth")
    try:
        return paramiko.PKey.from_path(path)
    except OSError:
        raise
    except TypeError as error:
        without = f"`ssh-keygen -p -f {path}` takes it off"
        raise Unreached(
            f"The private key {path} has a passphrase, and nobody is there to type it; {without}.", "auth"
        ) from error
    except (paramiko.SSHException, UnknownKeyType, UnsupportedAlgorithm, ValueError) as error:
        why = str(error).partition(" See http")[0].rstrip(".")
        new = "`ssh-keygen -t ed25519 -N '' -f FILE` makes one"
        raise Unreached(f"{path} does not hold a private key that can be used ({why}); {new}.", "auth") from error


def unusable(hosts: Iterable[Host]) -> Iterator[tuple[str, str]]:
    """What a login to these hosts would not get out of its files, asking nobody: the setting's name and a sentence."""
    every = [each for host in hosts for each in (host, host.jump) if each is not None]
    keys, pins = private_keys(), known_hosts()
    for path in dict.fromkeys(each.key_file for each in every):
        try:
            keys(path)
        except Unreached as why:
            yield "key_file", str(why)
    for path in dict.fromkeys(each.known_hosts for each in every):
        try:
            yield from _unpinned(path, pins(path), [each for each in every if each.known_hosts == path])
        except Unreached as why:
            yield "known_hosts", str(why)


def _unpinned(path: Path, pins: HostKeys, hosts: Iterable[Host]) -> Iterator[tuple[str, str]]:
    if missing := dict.fromkeys(str(host) for host in hosts if not pins.of(host.host, host.port).keys):
        yield (
            "known_hosts",
            (
                f"{path} pins no host key of {', '.join(missing)}: compare each on its machine's console"
                " (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then add it."
            ),
        )
